// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {TestToken} from "../../script/dev/TestToken.sol";
import {Market} from "../../src/Market.sol";
import {IMarket} from "../../src/interfaces/IMarket.sol";
import {OrderView, Outcome, Profile, State, Terms} from "../../src/types/MarketTypes.sol";
import {Test} from "./Vm.sol";

/// @notice A market, a token, a tenant, two providers, and the way to each state of one order.
abstract contract MarketTest is Test {
    uint40 internal constant NOW = 1_800_000_000;
    uint128 internal constant WEALTH = 1_000_000_000;
    bytes32 internal constant SALT = keccak256("salt");
    bytes32 internal constant RESULT = keccak256("result");
    uint128 internal constant MAX_PRICE = 20_000_000;
    uint128 internal constant BOND = 2_000_000;
    uint128 internal constant PENALTY = 400_000;
    /// @dev 10 tokens an hour: 20 tokens last two hours.
    uint128 internal constant RATE = uint128(10_000_000) * 1e12 / 3600;
    uint40 internal constant BID_BY = NOW + 60;
    uint32 internal constant VALID_UNTIL = uint32(NOW) + 50;

    Market internal market;
    TestToken internal token;
    address internal tenant = named("tenant");
    address internal provider = named("provider");
    address internal loser = named("loser");
    address internal anyone = named("anyone");
    bytes internal spec = '{"kind":"TrainingTask"}';
    Terms internal t;
    bytes32 internal id;

    function setUp() public virtual {
        vm.warp(NOW);
        market = new Market(Profile({bidPeriod: 10, startWindow: 300, window: 600}), new address[](0));
        token = new TestToken();
        t = Terms({
            token: address(token),
            maxPrice: MAX_PRICE,
            auditReserve: 0,
            bond: BOND,
            noShowPenalty: PENALTY,
            bidBy: BID_BY,
            startWindow: 300,
            duration: 3 hours,
            window: 600,
            holdbackBps: 2000,
            class: 0,
            specHash: keccak256(spec),
            rulesHash: 0,
            origin: "tests"
        });
        id = market.orderId(tenant, SALT);
        address[3] memory accounts = [tenant, provider, loser];
        for (uint256 i = 0; i < accounts.length; ++i) {
            token.mint(accounts[i], WEALTH);
            vm.prank(accounts[i]);
            token.approve(address(market), type(uint256).max);
        }
    }

    // ------------------------------------------------------------------------------------- the way to a state

    function goOpen() internal {
        vm.prank(tenant);
        market.order(SALT, t, spec);
    }

    function goBid(address bidder) internal {
        vm.prank(bidder);
        market.bid(id, t, RATE, VALID_UNTIL);
    }

    function goAwaiting() internal {
        goOpen();
        goBid(provider);
        vm.prank(tenant);
        market.accept(id, t, provider, RATE, VALID_UNTIL);
    }

    function goRunning() internal {
        goAwaiting();
        vm.prank(provider);
        market.start(id, t);
    }

    /// @dev Delivered after half an hour: 5 tokens accrued.
    function goDelivered() internal {
        goRunning();
        vm.warp(NOW + 30 minutes);
        vm.prank(provider);
        market.deliver(id, t, RESULT);
    }

    function go(State state) internal {
        if (state == State.Open) return goOpen();
        if (state == State.Awaiting) return goAwaiting();
        if (state == State.Running) return goRunning();
        if (state == State.Delivered) return goDelivered();
        if (state == State.Cancelled) return goCancelled();
        if (state == State.Declined) return goDeclined();
        if (state == State.NoShow) return goNoShow();
        if (state == State.Closed) return goClosed();
        if (state == State.Accepted) return goAccepted();
        if (state == State.Rejected) return goRejected();
    }

    function goCancelled() internal {
        goAwaiting();
        vm.prank(tenant);
        market.cancel(id, t);
    }

    function goDeclined() internal {
        goAwaiting();
        vm.prank(provider);
        market.decline(id, t);
    }

    function goNoShow() internal {
        goAwaiting();
        vm.warp(NOW + 301);
        market.noShow(id, t);
    }

    function goClosed() internal {
        goRunning();
        vm.prank(tenant);
        market.close(id, t);
    }

    function goAccepted() internal {
        goDelivered();
        vm.prank(tenant);
        market.acceptResult(id, t, RESULT);
    }

    function goRejected() internal {
        goDelivered();
        vm.prank(tenant);
        market.rejectResult(id, t, RESULT);
    }

    // ------------------------------------------------------------------------------------------------- checks

    function resultAt(State state) internal pure returns (bytes32) {
        return state == State.Delivered || state == State.Accepted || state == State.Rejected ? RESULT : bytes32(0);
    }

    function free(address account) internal view returns (uint128) {
        return market.free(address(token), account);
    }

    function expectWrongState(State state) internal {
        vm.expectRevert(abi.encodeWithSelector(IMarket.Market_WrongState.selector, id, state));
    }

    function expectNotTenant(address caller) internal {
        vm.expectRevert(abi.encodeWithSelector(IMarket.Market_NotTenant.selector, id, caller));
    }

    function expectNotProvider(address caller) internal {
        vm.expectRevert(abi.encodeWithSelector(IMarket.Market_NotProvider.selector, id, caller));
    }

    function expectTooLate(uint40 deadline) internal {
        vm.expectRevert(abi.encodeWithSelector(IMarket.Market_TooLate.selector, id, deadline));
    }

    function expectTooEarly(uint40 deadline) internal {
        vm.expectRevert(abi.encodeWithSelector(IMarket.Market_TooEarly.selector, id, deadline));
    }

    function expectTermsMismatch() internal {
        bytes32 stored = market.orderOf(id).termsHash;
        vm.expectRevert(abi.encodeWithSelector(IMarket.Market_TermsMismatch.selector, id, stored));
    }

    function assertState(State state, Outcome outcome) internal view {
        OrderView memory o = market.orderOf(id);
        vm.assertEq(uint256(o.state), uint256(state), "state");
        vm.assertEq(uint256(o.outcome), uint256(outcome), "outcome");
    }

    /// @dev The order is settled, holds nothing, and the ledger is as given; nothing was minted or lost.
    function assertSettled(State state, Outcome outcome, uint128 toProvider, uint128 toTenant, uint128 burned)
        internal
        view
    {
        assertState(state, outcome);
        OrderView memory o = market.orderOf(id);
        vm.assertEq(o.funds, 0, "funds");
        vm.assertEq(o.bond, 0, "bond");
        vm.assertEq(o.deadline, 0, "deadline");
        vm.assertEq(o.games, 0, "games");
        assertLedger(toProvider, toTenant, burned);
        vm.assertEq(token.balanceOf(address(market)), uint256(toProvider) + toTenant + burned, "sum");
    }

    function assertLedger(uint128 ofProvider, uint128 ofTenant, uint128 burned) internal view {
        vm.assertEq(free(provider), ofProvider, "free of the provider");
        vm.assertEq(free(tenant), ofTenant, "free of the tenant");
        vm.assertEq(free(market.BURN()), burned, "burned");
    }
}

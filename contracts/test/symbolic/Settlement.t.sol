// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Market} from "../../src/Market.sol";
import {OrderView, Profile, Terms} from "../../src/types/MarketTypes.sol";
import {NoReturnToken} from "../utils/Tokens.sol";
import {Test} from "../utils/Vm.sol";

/// @notice Every exit of a lease, for all amounts, rates and times at once: what is paid out is exactly what was held,
/// nothing stays, and settling on the way changes no sum.
contract SettlementSymbolicTest is Test {
    uint40 private constant NOW = 1_800_000_000;
    uint40 private constant DURATION = 2 hours;
    bytes32 private constant RESULT = keccak256("result");
    address private constant TENANT = address(0x1001);
    address private constant PROVIDER = address(0x1002);
    address private constant STRANGER = address(0x1003);

    Market private market;
    NoReturnToken private token;
    bytes32 private id;

    struct Amounts {
        uint128 maxPrice;
        uint96 bond;
        uint96 penalty;
        uint16 holdbackBps;
        uint128 rate;
    }

    function setUp() external {
        vm.warp(NOW);
        market = new Market(Profile(10, 300, 600), new address[](0));
        token = new NoReturnToken();
        id = market.orderId(TENANT, 0);
        address[2] memory accounts = [TENANT, PROVIDER];
        for (uint256 i = 0; i < accounts.length; ++i) {
            token.mint(accounts[i], type(uint128).max);
            vm.prank(accounts[i]);
            token.approve(address(market), type(uint256).max);
        }
    }

    // --------------------------------------------------------------------------------------------- before a start

    function check_CancelOpen(Amounts memory a) external {
        Terms memory t = _open(a);
        vm.prank(TENANT);
        market.cancel(id, t);
        assert(market.free(address(token), TENANT) == a.maxPrice);
        _assertPaidOut(a.maxPrice);
    }

    function check_CancelAwaiting(Amounts memory a) external {
        Terms memory t = _awaiting(a);
        vm.prank(TENANT);
        market.cancel(id, t);
        uint256 fee = a.penalty < a.maxPrice ? a.penalty : a.maxPrice;
        assert(market.free(address(token), PROVIDER) == fee + a.bond);
        _assertPaidOut(uint256(a.maxPrice) + a.bond);
    }

    function check_Decline(Amounts memory a) external {
        Terms memory t = _awaiting(a);
        vm.prank(PROVIDER);
        market.decline(id, t);
        assert(market.free(address(token), TENANT) == a.maxPrice);
        assert(market.free(address(token), market.BURN()) == a.penalty / 10);
        _assertPaidOut(uint256(a.maxPrice) + a.bond);
    }

    function check_NoShow(Amounts memory a) external {
        Terms memory t = _awaiting(a);
        vm.warp(NOW + 301);
        vm.prank(STRANGER);
        market.noShow(id, t);
        assert(market.free(address(token), PROVIDER) == a.bond - a.penalty);
        _assertPaidOut(uint256(a.maxPrice) + a.bond);
    }

    // --------------------------------------------------------------------------------------------- after a start

    function check_CloseByTenant(Amounts memory a, uint40 elapsed, uint40 settledAt) external {
        Terms memory t = _running(a, elapsed, settledAt);
        (uint128 x,) = market.accrued(id, t);
        vm.prank(TENANT);
        market.close(id, t);
        _assertSplit(a, x, x);
    }

    function check_CloseByProvider(Amounts memory a, uint40 elapsed, uint40 settledAt) external {
        Terms memory t = _running(a, elapsed, settledAt);
        (uint128 x, uint128 releasable) = market.accrued(id, t);
        uint128 released = releasable + market.orderOf(id).paid;
        vm.prank(PROVIDER);
        market.close(id, t);
        _assertSplit(a, released, x);
    }

    function check_AcceptResult(Amounts memory a, uint40 elapsed, uint40 settledAt) external {
        Terms memory t = _running(a, elapsed, settledAt);
        vm.assume(elapsed <= market.orderOf(id).endAt - NOW);
        (uint128 x,) = market.accrued(id, t);
        vm.prank(PROVIDER);
        market.deliver(id, t, RESULT);
        vm.prank(TENANT);
        market.acceptResult(id, t, RESULT);
        _assertSplit(a, x, x);
    }

    function check_RejectResult(Amounts memory a, uint40 elapsed, uint40 settledAt) external {
        Terms memory t = _running(a, elapsed, settledAt);
        vm.assume(elapsed <= market.orderOf(id).endAt - NOW);
        (uint128 x, uint128 releasable) = market.accrued(id, t);
        uint128 released = releasable + market.orderOf(id).paid;
        vm.prank(PROVIDER);
        market.deliver(id, t, RESULT);
        vm.prank(TENANT);
        market.rejectResult(id, t, RESULT);
        assert(market.free(address(token), market.BURN()) == x - released);
        assert(market.free(address(token), TENANT) == a.maxPrice - x);
        _assertSplit(a, released, x);
    }

    // -------------------------------------------------------------------------------------------------- the way

    function _open(Amounts memory a) private returns (Terms memory t) {
        vm.assume(a.maxPrice != 0 && a.penalty <= a.bond && a.holdbackBps <= 5000);
        t.token = address(token);
        t.maxPrice = a.maxPrice;
        t.bond = a.bond;
        t.noShowPenalty = a.penalty;
        t.bidBy = NOW + 60;
        t.startWindow = 300;
        t.duration = DURATION;
        t.window = 600;
        t.holdbackBps = a.holdbackBps;
        t.specHash = keccak256("");
        vm.prank(TENANT);
        market.order(0, t, "");
    }

    function _awaiting(Amounts memory a) private returns (Terms memory t) {
        t = _open(a);
        uint32 validUntil = uint32(NOW) + 60;
        vm.prank(PROVIDER);
        market.bid(id, t, a.rate, validUntil);
        vm.prank(TENANT);
        market.accept(id, t, PROVIDER, a.rate, validUntil);
    }

    /// @dev Running for `elapsed`, settled once on the way.
    function _running(Amounts memory a, uint40 elapsed, uint40 settledAt) private returns (Terms memory t) {
        vm.assume(settledAt <= elapsed && elapsed <= DURATION);
        t = _awaiting(a);
        vm.prank(PROVIDER);
        market.start(id, t);
        vm.warp(NOW + settledAt);
        market.settle(id, t, 0);
        vm.warp(NOW + elapsed);
    }

    // --------------------------------------------------------------------------------------------------- checks

    /// @dev The provider ends with `earned` and its bond however often it was paid before, and nothing is lost.
    function _assertSplit(Amounts memory a, uint128 earned, uint128 x) private view {
        assert(x <= a.maxPrice && earned <= x);
        assert(market.free(address(token), PROVIDER) == uint256(earned) + a.bond);
        _assertPaidOut(uint256(a.maxPrice) + a.bond);
    }

    function _assertPaidOut(uint256 whole) private view {
        OrderView memory o = market.orderOf(id);
        assert(o.funds == 0 && o.bond == 0);
        uint256 sum = uint256(market.free(address(token), PROVIDER)) + market.free(address(token), TENANT);
        assert(sum + market.free(address(token), market.BURN()) == whole);
        assert(token.balanceOf(address(market)) == whole);
    }
}

// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IMarket} from "../../src/interfaces/IMarket.sol";
import {OrderView, Outcome, State} from "../../src/types/MarketTypes.sol";
import {MarketTest} from "../utils/MarketTest.sol";

contract AcceptTest is MarketTest {
    function goBidden() internal {
        goOpen();
        goBid(provider);
    }

    function accept(address from) internal {
        vm.prank(from);
        market.accept(id, t, provider, RATE, VALID_UNTIL);
    }

    // ------------------------------------------------------------------------------------------------- accept

    function test_RevertWhen_AcceptByStranger() external {
        goBidden();
        expectNotTenant(provider);
        accept(provider);
    }

    function test_RevertWhen_AcceptTermsDiffer() external {
        goBidden();
        t.startWindow += 1;
        expectTermsMismatch();
        accept(tenant);
    }

    function test_RevertGiven_BidsClosed() external {
        goOpen();
        uint32 late = uint32(NOW) + 1000;
        vm.prank(provider);
        market.bid(id, t, RATE, late);
        vm.warp(BID_BY + 1);
        expectTooLate(BID_BY);
        vm.prank(tenant);
        market.accept(id, t, provider, RATE, late);
    }

    function test_RevertGiven_NoBid() external {
        goOpen();
        vm.expectRevert(abi.encodeWithSelector(IMarket.Market_BidUnknown.selector, id, provider));
        vm.prank(tenant);
        market.accept(id, t, provider, 0, 0);
    }

    function test_RevertGiven_BidTakenBack() external {
        goBidden();
        vm.prank(provider);
        market.unbid(id, t);
        vm.expectRevert(abi.encodeWithSelector(IMarket.Market_BidUnknown.selector, id, provider));
        accept(tenant);
    }

    function test_RevertGiven_BidExpired() external {
        goBidden();
        vm.warp(VALID_UNTIL + 1);
        vm.expectRevert(abi.encodeWithSelector(IMarket.Market_BidExpired.selector, id, VALID_UNTIL));
        accept(tenant);
    }

    function expectBidChanged(uint128 price, uint32 validUntil) internal {
        vm.prank(provider);
        market.bid(id, t, price, validUntil);
        vm.expectRevert(abi.encodeWithSelector(IMarket.Market_BidChanged.selector, id, provider, price, validUntil));
        accept(tenant);
    }

    /// @dev The provider replaces its bid just before `accept`.
    function test_RevertWhen_PriceDiffers() external {
        goBidden();
        expectBidChanged(RATE + 1, VALID_UNTIL);
    }

    function test_RevertWhen_ValidityDiffers() external {
        goBidden();
        expectBidChanged(RATE, VALID_UNTIL + 1);
    }

    function test_Accept() external {
        goBidden();
        vm.warp(NOW + 20);
        vm.expectEmit();
        emit IMarket.Leased(id, provider, 1, RATE, 0);
        accept(tenant);
        assertState(State.Awaiting, Outcome.None);
        OrderView memory o = market.orderOf(id);
        vm.assertEq(o.provider, provider, "provider");
        vm.assertEq(o.deadline, NOW + 20 + 300, "startBy");
        vm.assertEq(o.price, RATE, "price");
        vm.assertEq(o.bond, BOND, "bond");
        vm.assertEq(o.funds, MAX_PRICE, "funds");
        vm.assertEq(uint256(o.startedAt) + o.endAt, 0, "not started");
        vm.assertEq(market.leases(provider), 1, "leases");
    }

    function test_Accept_LastSecond() external {
        goBidden();
        vm.warp(VALID_UNTIL);
        accept(tenant);
        assertState(State.Awaiting, Outcome.None);
    }

    function test_Accept_SecondLease() external {
        goAwaiting();
        bytes32 first = id;
        id = market.orderId(tenant, "second");
        vm.prank(tenant);
        market.order("second", t, spec);
        goBid(provider);
        vm.expectEmit();
        emit IMarket.Leased(id, provider, 2, RATE, 0);
        accept(tenant);
        vm.assertEq(market.leases(provider), 2, "leases");
        vm.assertEq(market.orderOf(first).bond, BOND, "bond of the first lease");
    }

    function test_Accept_GasIgnoresBids() external {
        goBidden();
        uint256 one = vm.snapshotState();
        uint256 alone = gasOfAccept();
        vm.revertToState(one);
        for (uint256 i = 0; i < 100; ++i) {
            address bidder = named(vm.toString(i));
            token.mint(bidder, BOND);
            vm.startPrank(bidder);
            token.approve(address(market), BOND);
            market.bid(id, t, RATE, VALID_UNTIL);
            vm.stopPrank();
        }
        uint256 crowded = gasOfAccept();
        vm.assertLe(crowded, alone, "gas among 101 bids");
    }

    function gasOfAccept() internal returns (uint256) {
        vm.prank(tenant);
        uint256 before = gasleft();
        market.accept(id, t, provider, RATE, VALID_UNTIL);
        return before - gasleft();
    }

    // ------------------------------------------------------------------------------------------------- cancel

    function test_RevertWhen_CancelTermsDiffer() external {
        goAwaiting();
        t.noShowPenalty = 0;
        expectTermsMismatch();
        vm.prank(tenant);
        market.cancel(id, t);
    }

    function test_RevertWhen_CancelTooEarly() external {
        goBidden();
        vm.warp(BID_BY);
        expectTooEarly(BID_BY);
        vm.prank(provider);
        market.cancel(id, t);
    }

    function test_Cancel_Open() external {
        goOpen();
        vm.expectEmit();
        emit IMarket.Cancelled(id, tenant, 0, 0, MAX_PRICE, 0);
        vm.prank(tenant);
        market.cancel(id, t);
        assertSettled(State.Cancelled, Outcome.ByTenant, 0, MAX_PRICE, 0);
    }

    function test_Cancel_OpenWithBids() external {
        goBidden();
        vm.prank(tenant);
        market.cancel(id, t);
        assertState(State.Cancelled, Outcome.ByTenant);
        assertLedger(0, MAX_PRICE, 0);
        vm.assertEq(market.bidOf(id, provider).bond, BOND, "bond waits for reclaim");
        market.reclaim(id, t, provider, 0);
        assertSettled(State.Cancelled, Outcome.ByTenant, BOND, MAX_PRICE, 0);
    }

    function test_Cancel_Timeout() external {
        goOpen();
        vm.warp(BID_BY + 1);
        vm.expectEmit();
        emit IMarket.Cancelled(id, anyone, 0, 0, MAX_PRICE, 0);
        vm.prank(anyone);
        market.cancel(id, t);
        assertSettled(State.Cancelled, Outcome.ByTimeout, 0, MAX_PRICE, 0);
    }

    function test_RevertWhen_CancelAwaitingByStranger() external {
        goAwaiting();
        vm.warp(NOW + 10 days);
        expectNotTenant(provider);
        vm.prank(provider);
        market.cancel(id, t);
    }

    function test_Cancel_Awaiting() external {
        goAwaiting();
        vm.expectEmit();
        emit IMarket.Cancelled(id, tenant, 0, PENALTY + BOND, MAX_PRICE - PENALTY, 0);
        vm.prank(tenant);
        market.cancel(id, t);
        assertSettled(State.Cancelled, Outcome.ByTenant, PENALTY + BOND, MAX_PRICE - PENALTY, 0);
        vm.assertEq(market.orderOf(id).paid, PENALTY, "paid");
    }

    function test_Cancel_AwaitingPoor() external {
        t.maxPrice = PENALTY - 1;
        goCancelled();
        assertSettled(State.Cancelled, Outcome.ByTenant, PENALTY - 1 + BOND, 0, 0);
    }
}

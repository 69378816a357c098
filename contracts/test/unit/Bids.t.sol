// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {TestToken} from "../../script/dev/TestToken.sol";
import {IMarket} from "../../src/interfaces/IMarket.sol";
import {Bid, State} from "../../src/types/MarketTypes.sol";
import {MarketTest} from "../utils/MarketTest.sol";

contract BidsTest is MarketTest {
    function assertBid(address bidder, uint128 price, uint96 bond, uint32 validUntil) internal view {
        Bid memory b = market.bidOf(id, bidder);
        vm.assertEq(b.price, price, "price");
        vm.assertEq(b.bond, bond, "bond");
        vm.assertEq(b.validUntil, validUntil, "validUntil");
    }

    function expectBidUnknown(address bidder) internal {
        vm.expectRevert(abi.encodeWithSelector(IMarket.Market_BidUnknown.selector, id, bidder));
    }

    // ---------------------------------------------------------------------------------------------------- bid

    function test_RevertGiven_NoOrder() external {
        expectWrongState(State.None);
        goBid(provider);
    }

    function test_RevertGiven_BidsClosed() external {
        goOpen();
        vm.warp(BID_BY + 1);
        expectTooLate(BID_BY);
        vm.prank(provider);
        market.bid(id, t, RATE, uint32(NOW) + 1000);
    }

    function test_RevertWhen_BidTermsDiffer() external {
        goOpen();
        t.bond -= 1;
        expectTermsMismatch();
        goBid(provider);
    }

    function test_RevertWhen_BidExpired() external {
        goOpen();
        vm.expectRevert(abi.encodeWithSelector(IMarket.Market_BidExpired.selector, id, uint32(NOW) - 1));
        vm.prank(provider);
        market.bid(id, t, RATE, uint32(NOW) - 1);
        // 0 marks "no bid" in storage; as a validity it is long past.
        vm.expectRevert(abi.encodeWithSelector(IMarket.Market_BidExpired.selector, id, 0));
        vm.prank(provider);
        market.bid(id, t, RATE, 0);
    }

    function test_RevertWhen_BondUnpaid() external {
        goOpen();
        vm.prank(provider);
        token.approve(address(market), BOND - 1);
        vm.expectRevert(IMarket.TransferFromFailed.selector);
        goBid(provider);
    }

    function test_Bid() external {
        goOpen();
        vm.expectEmit();
        emit IMarket.Deposited(address(token), provider, BOND);
        vm.expectEmit();
        emit IMarket.BidPlaced(id, provider, RATE, VALID_UNTIL, uint96(BOND));
        goBid(provider);
        assertBid(provider, RATE, uint96(BOND), VALID_UNTIL);
        assertLedger(0, 0, 0);
        vm.assertEq(token.balanceOf(provider), WEALTH - BOND, "wallet");
    }

    function test_Bid_FreeFirst() external {
        goOpen();
        vm.prank(provider);
        market.deposit(address(token), BOND + 7);
        goBid(provider);
        vm.assertEq(free(provider), 7, "free");
    }

    function test_Bid_LastSecond() external {
        goOpen();
        vm.warp(BID_BY);
        vm.prank(provider);
        market.bid(id, t, RATE, uint32(BID_BY));
        assertBid(provider, RATE, uint96(BOND), uint32(BID_BY));
    }

    function test_Bid_Replaced() external {
        goOpen();
        goBid(provider);
        vm.expectEmit();
        emit IMarket.BidPlaced(id, provider, RATE / 2, VALID_UNTIL + 1, uint96(BOND));
        vm.prank(provider);
        market.bid(id, t, RATE / 2, VALID_UNTIL + 1);
        assertBid(provider, RATE / 2, uint96(BOND), VALID_UNTIL + 1);
        vm.assertEq(token.balanceOf(provider), WEALTH - BOND, "wallet");
        vm.assertEq(token.balanceOf(address(market)), MAX_PRICE + BOND, "held");
    }

    function test_Bid_Many() external {
        goOpen();
        goBid(provider);
        goBid(loser);
        assertBid(provider, RATE, uint96(BOND), VALID_UNTIL);
        assertBid(loser, RATE, uint96(BOND), VALID_UNTIL);
        vm.assertEq(token.balanceOf(address(market)), MAX_PRICE + 2 * BOND, "held");
    }

    function test_Bid_ExtremeRates() external {
        goOpen();
        vm.prank(provider);
        market.bid(id, t, 0, VALID_UNTIL);
        vm.prank(loser);
        market.bid(id, t, type(uint128).max, VALID_UNTIL);
        assertBid(provider, 0, uint96(BOND), VALID_UNTIL);
        assertBid(loser, type(uint128).max, uint96(BOND), VALID_UNTIL);
    }

    function test_Bid_WithoutBond() external {
        (t.bond, t.noShowPenalty) = (0, 0);
        goOpen();
        vm.prank(anyone);
        market.bid(id, t, RATE, VALID_UNTIL);
        assertBid(anyone, RATE, 0, VALID_UNTIL);
    }

    // -------------------------------------------------------------------------------------------------- unbid

    function test_RevertGiven_NothingToUnbid() external {
        goOpen();
        goBid(loser);
        expectBidUnknown(provider);
        vm.prank(provider);
        market.unbid(id, t);
    }

    function test_RevertWhen_UnbidTermsDiffer() external {
        goOpen();
        goBid(provider);
        t.token = address(new TestToken());
        expectTermsMismatch();
        vm.prank(provider);
        market.unbid(id, t);
    }

    function test_Unbid() external {
        goOpen();
        goBid(provider);
        vm.expectEmit();
        emit IMarket.Unbid(id, provider, uint96(BOND));
        vm.prank(provider);
        market.unbid(id, t);
        assertBid(provider, 0, 0, 0);
        assertLedger(BOND, 0, 0);
    }

    function test_Unbid_Again() external {
        goOpen();
        goBid(provider);
        vm.prank(provider);
        market.unbid(id, t);
        goBid(provider);
        assertBid(provider, RATE, uint96(BOND), VALID_UNTIL);
        assertLedger(0, 0, 0);
    }

    // ------------------------------------------------------------------------------------------------ reclaim

    function test_RevertGiven_NoOrderToReclaim() external {
        expectWrongState(State.None);
        market.reclaim(id, t, provider, 0);
    }

    function test_RevertGiven_NothingToReclaim() external {
        goAwaiting();
        expectBidUnknown(loser);
        market.reclaim(id, t, loser, 0);
    }

    function test_RevertGiven_BidLive() external {
        goOpen();
        goBid(loser);
        vm.warp(VALID_UNTIL);
        vm.expectRevert(abi.encodeWithSelector(IMarket.Market_BidLive.selector, id, loser, VALID_UNTIL));
        market.reclaim(id, t, loser, 0);
        // A validity beyond the order's own end counts until that end.
        vm.prank(loser);
        market.bid(id, t, RATE, uint32(NOW) + 1000);
        vm.warp(BID_BY);
        vm.expectRevert(abi.encodeWithSelector(IMarket.Market_BidLive.selector, id, loser, BID_BY));
        market.reclaim(id, t, loser, 0);
    }

    function test_RevertGiven_BidWon() external {
        State[4] memory states = [State.Awaiting, State.Running, State.Delivered, State.Accepted];
        uint256 fresh = vm.snapshotState();
        for (uint256 i = 0; i < states.length; ++i) {
            vm.revertToState(fresh);
            go(states[i]);
            vm.expectRevert(abi.encodeWithSelector(IMarket.Market_BidWon.selector, id, provider));
            market.reclaim(id, t, provider, resultAt(states[i]));
        }
    }

    function test_RevertWhen_TokenForged() external {
        goOpen();
        goBid(loser);
        vm.prank(tenant);
        market.cancel(id, t);
        t.token = address(new TestToken());
        expectTermsMismatch();
        market.reclaim(id, t, loser, 0);
    }

    function test_RevertWhen_ReclaimResultDiffers() external {
        goOpen();
        goBid(loser);
        expectTermsMismatch();
        market.reclaim(id, t, loser, RESULT);
        goBid(provider);
        vm.prank(tenant);
        market.accept(id, t, provider, RATE, VALID_UNTIL);
        vm.startPrank(provider);
        market.start(id, t);
        market.deliver(id, t, RESULT);
        expectTermsMismatch();
        market.reclaim(id, t, loser, 0);
        expectTermsMismatch();
        market.reclaim(id, t, loser, "another");
    }

    function test_RevertWhen_ReclaimedTwice() external {
        goOpen();
        goBid(loser);
        vm.warp(VALID_UNTIL + 1);
        market.reclaim(id, t, loser, 0);
        expectBidUnknown(loser);
        market.reclaim(id, t, loser, 0);
    }

    function expectAndReclaim(bytes32 resultHash) internal {
        vm.expectEmit();
        emit IMarket.Reclaimed(id, loser, uint96(BOND));
        vm.prank(anyone);
        market.reclaim(id, t, loser, resultHash);
        vm.assertEq(free(loser), BOND, "free");
        assertBid(loser, 0, 0, 0);
    }

    function test_Reclaim_Expired() external {
        goOpen();
        goBid(loser);
        vm.warp(VALID_UNTIL + 1);
        expectAndReclaim(0);
    }

    function test_Reclaim_Closed() external {
        goOpen();
        vm.prank(loser);
        market.bid(id, t, RATE, uint32(NOW) + 1000);
        vm.warp(BID_BY + 1);
        expectAndReclaim(0);
    }

    function test_Reclaim_AnyState() external {
        for (uint256 i = uint256(State.Awaiting); i <= uint256(State.Rejected); ++i) {
            uint256 fresh = vm.snapshotState();
            // The loser bids first: hold its bid while the order moves on.
            vm.prank(tenant);
            market.order(SALT, t, spec);
            goBid(loser);
            moveOn(State(i));
            expectAndReclaim(resultAt(State(i)));
            vm.revertToState(fresh);
        }
    }

    /// @dev From Open with the loser's bid to `state`.
    function moveOn(State state) internal {
        goBid(provider);
        vm.prank(tenant);
        market.accept(id, t, provider, RATE, VALID_UNTIL);
        if (state == State.Awaiting) return;
        if (state == State.NoShow) {
            vm.warp(NOW + 301);
            return market.noShow(id, t);
        }
        if (state == State.Cancelled) {
            vm.prank(tenant);
            return market.cancel(id, t);
        }
        vm.prank(provider);
        if (state == State.Declined) return market.decline(id, t);
        market.start(id, t);
        if (state == State.Running) return;
        vm.prank(provider);
        if (state == State.Closed) return market.close(id, t);
        market.deliver(id, t, RESULT);
        if (state == State.Delivered) return;
        vm.prank(tenant);
        if (state == State.Accepted) return market.acceptResult(id, t, RESULT);
        market.rejectResult(id, t, RESULT);
    }
}

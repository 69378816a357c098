// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Market} from "../../src/Market.sol";
import {IMarket} from "../../src/interfaces/IMarket.sol";
import {OrderView, Outcome, Profile, State} from "../../src/types/MarketTypes.sol";
import {LogAuditor} from "../utils/LogAuditor.sol";
import {MarketTest} from "../utils/MarketTest.sol";
import {Vm} from "../utils/Vm.sol";

/// @notice Stories with several steps, most of them with somebody who means harm.
contract ScenariosTest is MarketTest {
    uint128 internal constant HALF_HOUR = 4_999_999;

    function test_HappyPath() external {
        goAccepted();
        vm.prank(provider);
        market.withdraw(address(token), type(uint128).max, provider);
        vm.prank(tenant);
        market.withdraw(address(token), type(uint128).max, tenant);
        vm.assertEq(token.balanceOf(provider), WEALTH + HALF_HOUR, "provider");
        vm.assertEq(token.balanceOf(tenant), WEALTH - HALF_HOUR, "tenant");
        vm.assertEq(token.balanceOf(address(market)), 0, "market");
    }

    function test_FakeStart() external {
        goRunning();
        vm.warp(NOW + 60);
        uint128 minute = uint128(uint256(RATE) * 60 / 1e12);
        vm.prank(tenant);
        market.close(id, t);
        assertSettled(State.Closed, Outcome.ByTenant, minute + BOND, MAX_PRICE - minute, 0);
    }

    function test_CloseBeforeDeliver() external {
        goRunning();
        vm.warp(NOW + 30 minutes);
        vm.prank(tenant);
        market.close(id, t);
        expectWrongState(State.Closed);
        vm.prank(provider);
        market.deliver(id, t, RESULT);
        assertSettled(State.Closed, Outcome.ByTenant, HALF_HOUR + BOND, MAX_PRICE - HALF_HOUR, 0);
    }

    function test_InputsWithheld() external {
        goDeclined();
        vm.assertEq(free(tenant), MAX_PRICE, "the tenant wins nothing");
        vm.assertEq(free(provider), BOND - PENALTY / 10, "the provider loses a tenth of the penalty");
    }

    function test_DatasetDead() external {
        goAwaiting();
        uint256 fresh = vm.snapshotState();
        vm.prank(tenant);
        market.cancel(id, t);
        assertSettled(State.Cancelled, Outcome.ByTenant, BOND + PENALTY, MAX_PRICE - PENALTY, 0);
        vm.revertToState(fresh);
        vm.prank(provider);
        market.decline(id, t);
        assertSettled(State.Declined, Outcome.ByProvider, BOND - PENALTY / 10, MAX_PRICE, PENALTY / 10);
    }

    function test_RejectionIsNoBargain() external {
        goDelivered();
        uint256 fresh = vm.snapshotState();
        vm.prank(tenant);
        market.acceptResult(id, t, RESULT);
        uint128 accepted = free(tenant);
        vm.revertToState(fresh);
        vm.prank(tenant);
        market.rejectResult(id, t, RESULT);
        vm.assertEq(free(tenant), accepted, "the tenant gets the same either way");
    }

    function test_BidRaisedUnderAccept() external {
        goOpen();
        goBid(provider);
        vm.prank(provider);
        market.bid(id, t, RATE * 100, VALID_UNTIL);
        vm.expectRevert(
            abi.encodeWithSelector(IMarket.Market_BidChanged.selector, id, provider, RATE * 100, VALID_UNTIL)
        );
        vm.prank(tenant);
        market.accept(id, t, provider, RATE, VALID_UNTIL);
    }

    function test_SameSaltNewTerms() external {
        goOpen();
        bytes32 first = keccak256(abi.encode(t));
        t.maxPrice *= 2;
        vm.expectRevert(abi.encodeWithSelector(IMarket.Market_OrderExists.selector, id));
        goOpen();
        vm.assertEq(market.orderOf(id).termsHash, first, "which terms");
        vm.assertEq(token.balanceOf(tenant), WEALTH - MAX_PRICE, "funded once");
    }

    function test_ReorganisedDelivery() external {
        goRunning();
        uint256 fork = vm.snapshotState();
        vm.prank(provider);
        market.deliver(id, t, RESULT);
        vm.revertToState(fork);
        vm.prank(provider);
        market.deliver(id, t, "poisoned");
        expectTermsMismatch();
        vm.prank(tenant);
        market.acceptResult(id, t, RESULT);
    }

    function test_ReorganisedAccept() external {
        goOpen();
        goBid(provider);
        goBid(loser);
        uint256 fork = vm.snapshotState();
        vm.prank(tenant);
        market.accept(id, t, provider, RATE, VALID_UNTIL);
        vm.revertToState(fork);
        vm.prank(tenant);
        market.accept(id, t, loser, RATE, VALID_UNTIL);
        // The provider of the branch that is gone cannot start, and gets its bond back.
        expectNotProvider(provider);
        vm.prank(provider);
        market.start(id, t);
        market.reclaim(id, t, provider, 0);
        vm.assertEq(free(provider), BOND, "free");
        vm.assertEq(market.leases(provider), 0, "leases");
    }

    function test_FiftyLosers() external {
        goOpen();
        address[50] memory losers;
        for (uint256 i = 0; i < losers.length; ++i) {
            losers[i] = named(vm.toString(i));
            token.mint(losers[i], BOND);
            vm.startPrank(losers[i]);
            token.approve(address(market), BOND);
            market.bid(id, t, RATE - uint128(i), VALID_UNTIL);
            vm.stopPrank();
        }
        goBid(provider);
        vm.prank(tenant);
        market.accept(id, t, provider, RATE, VALID_UNTIL);
        for (uint256 i = 0; i < losers.length; ++i) {
            vm.prank(anyone);
            market.reclaim(id, t, losers[i], 0);
            vm.assertEq(free(losers[i]), BOND, "free");
        }
        vm.assertEq(token.balanceOf(address(market)), MAX_PRICE + 51 * BOND, "held");
        vm.assertEq(market.orderOf(id).bond, BOND, "bond of the winner");
    }

    function test_SelfDealing() external {
        provider = tenant;
        goDelivered();
        market.settle(id, t, RESULT);
        vm.prank(tenant);
        market.rejectResult(id, t, RESULT);
        uint128 burned = HALF_HOUR - HALF_HOUR * 8 / 10;
        vm.assertEq(free(tenant), MAX_PRICE + BOND - burned, "free");
        vm.assertEq(token.balanceOf(address(market)), MAX_PRICE + BOND, "held");
    }

    function test_StrangersSettleAll() external {
        State[4] memory states = [State.Open, State.Awaiting, State.Running, State.Delivered];
        for (uint256 i = 0; i < states.length; ++i) {
            uint256 fresh = vm.snapshotState();
            go(states[i]);
            vm.warp(NOW + 3650 days);
            vm.startPrank(anyone);
            if (states[i] == State.Open) market.cancel(id, t);
            if (states[i] == State.Awaiting) market.noShow(id, t);
            if (states[i] == State.Running) market.close(id, t);
            if (states[i] == State.Delivered) market.acceptResult(id, t, RESULT);
            vm.stopPrank();
            OrderView memory o = market.orderOf(id);
            vm.assertEq(uint256(o.funds) + o.bond, 0, "held for the order");
            address[2] memory parties = [tenant, provider];
            for (uint256 j = 0; j < parties.length; ++j) {
                if (free(parties[j]) == 0) continue;
                vm.prank(parties[j]);
                market.withdraw(address(token), type(uint128).max, parties[j]);
            }
            vm.assertEq(token.balanceOf(address(market)), 0, "market");
            vm.revertToState(fresh);
        }
    }

    function test_IdsOfOthers() external {
        Market other = new Market(Profile(10, 300, 600), new address[](0));
        vm.assertTrue(other.orderId(tenant, SALT) != id, "market");
        vm.assertTrue(market.orderId(provider, SALT) != id, "tenant");
        vm.assertTrue(market.orderId(tenant, "other") != id, "salt");
    }

    // -------------------------------------------------------------------------------------------------- audit

    /// @dev Every order has two bids; the auditor reads all logs of all endings and must come to the same sums.
    function test_LogsAlone() external {
        LogAuditor auditor = new LogAuditor();
        vm.recordLogs();
        address[4] memory accounts = [tenant, provider, loser, market.BURN()];
        for (uint256 s = uint256(State.Open); s <= uint256(State.Rejected); ++s) {
            vm.warp(block.timestamp + 1 days);
            t.bidBy = uint40(block.timestamp) + 60;
            end(bytes32(s), State(s));
            auditor.read(onlyMarket(vm.getRecordedLogs()));
            OrderView memory o = market.orderOf(id);
            vm.assertEq(uint256(o.state), s, "state");
            vm.assertEq(auditor.funds(id), o.funds, "funds");
            vm.assertEq(auditor.bonds(id, provider), market.bidOf(id, provider).bond, "bond");
            vm.assertEq(auditor.bonds(id, loser), market.bidOf(id, loser).bond, "bond of the loser");
            for (uint256 i = 0; i < accounts.length; ++i) {
                vm.assertEq(auditor.free(accounts[i]), free(accounts[i]), "free");
            }
            vm.assertEq(auditor.held(), token.balanceOf(address(market)), "held");
        }
    }

    /// @dev An order with all that can happen on the way to `state`: top-up, settlements, reclaim, withdrawals.
    function end(bytes32 salt, State state) internal {
        uint40 began = uint40(block.timestamp);
        uint32 validUntil = uint32(began) + 50;
        id = market.orderId(tenant, salt);
        vm.prank(tenant);
        market.order(salt, t, spec);
        address[2] memory bidders = [provider, loser];
        for (uint256 i = 0; i < bidders.length; ++i) {
            vm.startPrank(bidders[i]);
            market.bid(id, t, RATE * 2, validUntil);
            market.unbid(id, t);
            market.bid(id, t, RATE, validUntil);
            market.bid(id, t, RATE, validUntil);
            vm.stopPrank();
        }
        if (state == State.Open) return;
        vm.prank(tenant);
        market.accept(id, t, provider, RATE, validUntil);
        market.reclaim(id, t, loser, 0);
        if (state == State.Awaiting) return;
        if (state == State.NoShow) vm.warp(began + 301);
        if (state == State.NoShow) return market.noShow(id, t);
        vm.prank(state == State.Cancelled ? tenant : provider);
        if (state == State.Cancelled) return market.cancel(id, t);
        if (state == State.Declined) return market.decline(id, t);
        market.start(id, t);
        vm.warp(began + 20 minutes);
        market.settle(id, t, 0);
        vm.prank(tenant);
        market.topUp(id, t, 1_000_000);
        vm.warp(began + 40 minutes);
        if (state == State.Running) return;
        vm.prank(provider);
        if (state == State.Closed) return market.close(id, t);
        market.deliver(id, t, RESULT);
        market.settle(id, t, RESULT);
        vm.prank(provider);
        market.withdraw(address(token), type(uint128).max, provider);
        if (state == State.Delivered) return;
        vm.prank(tenant);
        if (state == State.Accepted) return market.acceptResult(id, t, RESULT);
        market.rejectResult(id, t, RESULT);
    }

    function onlyMarket(Vm.Log[] memory logs) internal view returns (Vm.Log[] memory own) {
        uint256 count = 0;
        own = new Vm.Log[](logs.length);
        for (uint256 i = 0; i < logs.length; ++i) {
            if (logs[i].emitter == address(market)) own[count++] = logs[i];
        }
        assembly ("memory-safe") {
            mstore(own, count)
        }
    }
}

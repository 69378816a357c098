// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IMarket} from "../../src/interfaces/IMarket.sol";
import {OrderView, Outcome, State} from "../../src/types/MarketTypes.sol";
import {MarketTest} from "../utils/MarketTest.sol";

contract StartTest is MarketTest {
    uint40 internal constant START_BY = NOW + 300;

    function startAs(address from) internal {
        vm.prank(from);
        market.start(id, t);
    }

    function awaitingAt(uint128 rate) internal {
        goOpen();
        vm.prank(provider);
        market.bid(id, t, rate, VALID_UNTIL);
        vm.prank(tenant);
        market.accept(id, t, provider, rate, VALID_UNTIL);
    }

    // -------------------------------------------------------------------------------------------------- start

    function test_RevertWhen_StartByStranger() external {
        goAwaiting();
        expectNotProvider(tenant);
        startAs(tenant);
    }

    function test_RevertWhen_StartTermsDiffer() external {
        goAwaiting();
        t.duration += 1;
        expectTermsMismatch();
        startAs(provider);
    }

    function test_RevertGiven_StartTooLate() external {
        goAwaiting();
        vm.warp(START_BY + 1);
        expectTooLate(START_BY);
        startAs(provider);
    }

    function expectEnd(uint40 endAt) internal {
        vm.expectEmit();
        emit IMarket.Started(id, provider, endAt);
        startAs(provider);
        assertState(State.Running, Outcome.None);
        OrderView memory o = market.orderOf(id);
        vm.assertEq(o.startedAt, block.timestamp, "startedAt");
        vm.assertEq(o.endAt, endAt, "endAt");
        vm.assertEq(o.deadline, endAt, "deadline");
        assertLedger(0, 0, 0);
    }

    function test_Start_EndByDuration() external {
        t.duration = 2 hours;
        awaitingAt(RATE);
        vm.warp(NOW + 5);
        expectEnd(NOW + 5 + 2 hours);
    }

    function test_Start_EndByFunds() external {
        awaitingAt(RATE);
        // 20 tokens at 10 an hour last two hours; the rate is rounded down, so the last unit takes a second more.
        expectEnd(NOW + 2 hours + 1);
    }

    function test_Start_RateZero() external {
        awaitingAt(0);
        expectEnd(NOW + 3 hours);
    }

    function test_Start_RateExtreme() external {
        awaitingAt(type(uint128).max);
        expectEnd(NOW + 1);
    }

    function test_Start_LastSecond() external {
        goAwaiting();
        vm.warp(START_BY);
        startAs(provider);
        assertState(State.Running, Outcome.None);
    }

    // ------------------------------------------------------------------------------------------------ decline

    function declineAs(address from) internal {
        vm.prank(from);
        market.decline(id, t);
    }

    function test_RevertWhen_DeclineByStranger() external {
        goAwaiting();
        expectNotProvider(tenant);
        declineAs(tenant);
    }

    function test_RevertWhen_DeclineTermsDiffer() external {
        goAwaiting();
        t.noShowPenalty = 0;
        expectTermsMismatch();
        declineAs(provider);
    }

    function test_RevertGiven_DeclineTooLate() external {
        goAwaiting();
        vm.warp(START_BY + 1);
        expectTooLate(START_BY);
        declineAs(provider);
    }

    function test_Decline() external {
        goAwaiting();
        uint128 fee = PENALTY / 10;
        vm.expectEmit();
        emit IMarket.Declined(id, provider, 0, BOND - fee, MAX_PRICE, fee);
        declineAs(provider);
        assertSettled(State.Declined, Outcome.ByProvider, BOND - fee, MAX_PRICE, fee);
        vm.assertEq(market.orderOf(id).paid, 0, "paid");
    }

    function test_Decline_WithoutPenalty() external {
        t.noShowPenalty = 9;
        goDeclined();
        assertSettled(State.Declined, Outcome.ByProvider, BOND, MAX_PRICE, 0);
    }

    // ------------------------------------------------------------------------------------------------- noShow

    function noShowAs(address from) internal {
        vm.prank(from);
        market.noShow(id, t);
    }

    function test_RevertWhen_NoShowTooEarly() external {
        goAwaiting();
        vm.warp(START_BY);
        expectTooEarly(START_BY);
        noShowAs(tenant);
    }

    function test_RevertWhen_NoShowTermsDiffer() external {
        goAwaiting();
        vm.warp(START_BY + 1);
        t.noShowPenalty = BOND;
        expectTermsMismatch();
        noShowAs(tenant);
    }

    function test_NoShow() external {
        goAwaiting();
        vm.warp(START_BY + 1);
        vm.expectEmit();
        emit IMarket.NoShow(id, anyone, 0, BOND - PENALTY, MAX_PRICE + PENALTY, 0);
        noShowAs(anyone);
        assertSettled(State.NoShow, Outcome.ByTimeout, BOND - PENALTY, MAX_PRICE + PENALTY, 0);
        vm.assertEq(market.orderOf(id).paid, 0, "paid");
    }

    function test_NoShow_WholeBond() external {
        t.noShowPenalty = BOND;
        goNoShow();
        assertSettled(State.NoShow, Outcome.ByTimeout, 0, MAX_PRICE + BOND, 0);
    }
}

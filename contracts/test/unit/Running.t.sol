// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IMarket} from "../../src/interfaces/IMarket.sol";
import {OrderView, Outcome, State} from "../../src/types/MarketTypes.sol";
import {MarketTest} from "../utils/MarketTest.sol";

contract RunningTest is MarketTest {
    uint40 internal constant END = NOW + 2 hours + 1;
    /// @dev After half an hour at a rate rounded down, of 20 tokens: X, and X less the holdback of 20 %.
    uint128 internal constant ACCRUED = 4_999_999;
    uint128 internal constant RELEASED = 3_999_999;

    function goHalfHour() internal {
        goRunning();
        vm.warp(NOW + 30 minutes);
    }

    // -------------------------------------------------------------------------------------------------- topUp

    function topUp(address from, uint128 amount) internal {
        vm.prank(from);
        market.topUp(id, t, amount);
    }

    function test_RevertWhen_TopUpByStranger() external {
        goRunning();
        expectNotTenant(provider);
        topUp(provider, 1);
    }

    function test_RevertWhen_TopUpTermsDiffer() external {
        goRunning();
        t.duration += 1;
        expectTermsMismatch();
        topUp(tenant, 1);
    }

    function test_RevertGiven_TopUpTooLate() external {
        goRunning();
        vm.warp(END + 1);
        expectTooLate(END);
        topUp(tenant, 1);
    }

    function test_RevertWhen_TopUpZero() external {
        goRunning();
        vm.expectRevert(IMarket.Market_AmountZero.selector);
        topUp(tenant, 0);
    }

    function test_RevertWhen_TopUpOverflows() external {
        goRunning();
        vm.expectRevert(abi.encodeWithSignature("Panic(uint256)", 0x11));
        topUp(tenant, type(uint128).max);
    }

    function test_TopUp() external {
        goRunning();
        vm.warp(END);
        vm.expectEmit();
        emit IMarket.Deposited(address(token), tenant, 5_000_000);
        vm.expectEmit();
        emit IMarket.ToppedUp(id, 5_000_000, NOW + 2 hours + 30 minutes + 1);
        topUp(tenant, 5_000_000);
        OrderView memory o = market.orderOf(id);
        vm.assertEq(o.funds, MAX_PRICE + 5_000_000, "funds");
        vm.assertEq(o.endAt, NOW + 2 hours + 30 minutes + 1, "endAt");
        vm.assertEq(o.deadline, o.endAt, "deadline");
        vm.assertEq(o.termsHash, keccak256(abi.encode(t)), "termsHash");
        vm.warp(o.endAt);
        vm.prank(tenant);
        market.close(id, t);
        assertSettled(State.Closed, Outcome.ByTenant, MAX_PRICE + 5_000_000 + BOND, 0, 0);
    }

    function test_TopUp_Duration() external {
        goRunning();
        topUp(tenant, 100_000_000);
        vm.assertEq(market.orderOf(id).endAt, NOW + 3 hours, "endAt");
    }

    function test_TopUp_AfterSettle() external {
        goHalfHour();
        market.settle(id, t, 0);
        topUp(tenant, 5_000_000);
        vm.assertEq(market.orderOf(id).endAt, NOW + 2 hours + 30 minutes + 1, "endAt");
    }

    function test_TopUp_KeepsAccrual() external {
        goHalfHour();
        (uint128 before,) = market.accrued(id, t);
        topUp(tenant, 5_000_000);
        (uint128 afterwards,) = market.accrued(id, t);
        vm.assertEq(afterwards, before, "accrued");
    }

    // ------------------------------------------------------------------------------------------------- settle

    function test_RevertWhen_SettleTermsDiffer() external {
        goHalfHour();
        t.holdbackBps = 0;
        expectTermsMismatch();
        market.settle(id, t, 0);
    }

    function test_RevertWhen_SettleResultEarly() external {
        goHalfHour();
        expectTermsMismatch();
        market.settle(id, t, RESULT);
    }

    function test_RevertWhen_SettleResultMissing() external {
        goDelivered();
        expectTermsMismatch();
        market.settle(id, t, 0);
    }

    function test_Settle_Nothing() external {
        goRunning();
        vm.recordLogs();
        vm.assertEq(market.settle(id, t, 0), 0, "amount");
        vm.assertEq(vm.getRecordedLogs().length, 0, "events");
        assertLedger(0, 0, 0);
    }

    function test_Settle() external {
        goHalfHour();
        (uint128 total, uint128 releasable) = market.accrued(id, t);
        vm.assertEq(total, ACCRUED, "accrued");
        vm.assertEq(releasable, RELEASED, "releasable");
        vm.expectEmit();
        emit IMarket.Settled(id, anyone, ACCRUED, RELEASED, 0, 0);
        vm.prank(anyone);
        vm.assertEq(market.settle(id, t, 0), RELEASED, "amount");
        assertState(State.Running, Outcome.None);
        assertLedger(RELEASED, 0, 0);
        OrderView memory o = market.orderOf(id);
        vm.assertEq(o.funds, MAX_PRICE - RELEASED, "funds");
        vm.assertEq(o.paid, RELEASED, "paid");
        vm.assertEq(o.bond, BOND, "bond");
    }

    function test_Settle_Twice() external {
        goHalfHour();
        market.settle(id, t, 0);
        vm.assertEq(market.settle(id, t, 0), 0, "amount");
        assertLedger(RELEASED, 0, 0);
    }

    function test_Settle_AfterEnd() external {
        goRunning();
        vm.warp(END + 30 days);
        vm.assertEq(market.settle(id, t, 0), MAX_PRICE * 8 / 10, "amount");
    }

    function test_Settle_Delivered() external {
        goDelivered();
        vm.warp(NOW + 1 days);
        vm.assertEq(market.settle(id, t, RESULT), RELEASED, "amount");
        assertState(State.Delivered, Outcome.None);
        vm.prank(tenant);
        market.acceptResult(id, t, RESULT);
    }

    // -------------------------------------------------------------------------------------------------- close

    function closeAs(address from) internal {
        vm.prank(from);
        market.close(id, t);
    }

    function test_RevertWhen_CloseTermsDiffer() external {
        goHalfHour();
        t.holdbackBps = 5000;
        expectTermsMismatch();
        closeAs(tenant);
    }

    function test_RevertWhen_CloseTooEarly() external {
        goRunning();
        vm.warp(END);
        expectTooEarly(END);
        closeAs(anyone);
    }

    function test_Close_Tenant() external {
        goHalfHour();
        vm.expectEmit();
        emit IMarket.Closed(id, tenant, ACCRUED, ACCRUED + BOND, MAX_PRICE - ACCRUED, 0);
        closeAs(tenant);
        assertSettled(State.Closed, Outcome.ByTenant, ACCRUED + BOND, MAX_PRICE - ACCRUED, 0);
        vm.assertEq(market.orderOf(id).paid, ACCRUED, "paid");
    }

    function test_Close_Tenant_AtOnce() external {
        goClosed();
        assertSettled(State.Closed, Outcome.ByTenant, BOND, MAX_PRICE, 0);
    }

    function test_Close_Tenant_AfterEnd() external {
        goRunning();
        vm.warp(END + 30 days);
        closeAs(tenant);
        assertSettled(State.Closed, Outcome.ByTenant, MAX_PRICE + BOND, 0, 0);
    }

    function test_Close_Provider() external {
        goHalfHour();
        vm.expectEmit();
        emit IMarket.Closed(id, provider, ACCRUED, RELEASED + BOND, MAX_PRICE - RELEASED, 0);
        closeAs(provider);
        assertSettled(State.Closed, Outcome.ByProvider, RELEASED + BOND, MAX_PRICE - RELEASED, 0);
    }

    function test_Close_Anyone() external {
        goRunning();
        vm.warp(END + 1);
        closeAs(anyone);
        uint128 released = MAX_PRICE * 8 / 10;
        assertSettled(State.Closed, Outcome.ByTimeout, released + BOND, MAX_PRICE - released, 0);
    }

    function test_Close_AfterSettle() external {
        goHalfHour();
        market.settle(id, t, 0);
        vm.expectEmit();
        emit IMarket.Closed(id, tenant, ACCRUED, ACCRUED - RELEASED + BOND, MAX_PRICE - ACCRUED, 0);
        closeAs(tenant);
        assertSettled(State.Closed, Outcome.ByTenant, ACCRUED + BOND, MAX_PRICE - ACCRUED, 0);
    }
}

// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IMarket} from "../../src/interfaces/IMarket.sol";
import {OrderView, Outcome, State} from "../../src/types/MarketTypes.sol";
import {MarketTest} from "../utils/MarketTest.sol";

contract ResultTest is MarketTest {
    uint40 internal constant END = NOW + 2 hours + 1;
    uint40 internal constant REVIEW_BY = NOW + 30 minutes + 600;
    uint128 internal constant ACCRUED = 4_999_999;
    uint128 internal constant RELEASED = 3_999_999;

    // ------------------------------------------------------------------------------------------------ deliver

    function deliver(address from, bytes32 resultHash) internal {
        vm.prank(from);
        market.deliver(id, t, resultHash);
    }

    function test_RevertWhen_DeliverByStranger() external {
        goRunning();
        expectNotProvider(tenant);
        deliver(tenant, RESULT);
    }

    function test_RevertWhen_DeliverTermsDiffer() external {
        goRunning();
        t.window += 1;
        expectTermsMismatch();
        deliver(provider, RESULT);
    }

    function test_RevertGiven_DeliverTooLate() external {
        goRunning();
        vm.warp(END + 1);
        expectTooLate(END);
        deliver(provider, RESULT);
    }

    function test_RevertWhen_ResultZero() external {
        goRunning();
        vm.expectRevert(abi.encodeWithSelector(IMarket.Market_ResultHashZero.selector, id));
        deliver(provider, 0);
    }

    function test_Deliver() external {
        goRunning();
        vm.warp(NOW + 30 minutes);
        vm.expectEmit();
        emit IMarket.Delivered(id, RESULT, ACCRUED, REVIEW_BY);
        deliver(provider, RESULT);
        assertState(State.Delivered, Outcome.None);
        OrderView memory o = market.orderOf(id);
        vm.assertEq(o.deadline, REVIEW_BY, "reviewBy");
        vm.assertEq(o.endAt, NOW + 30 minutes, "endAt");
        vm.assertEq(o.funds, MAX_PRICE, "funds");
        vm.assertEq(o.termsHash, keccak256(abi.encode(keccak256(abi.encode(t)), RESULT)), "termsHash");
        vm.warp(NOW + 30 days);
        (uint128 total,) = market.accrued(id, t);
        vm.assertEq(total, ACCRUED, "accrued later");
    }

    function test_Deliver_LastSecond() external {
        goRunning();
        vm.warp(END);
        deliver(provider, RESULT);
        (uint128 total,) = market.accrued(id, t);
        vm.assertEq(total, MAX_PRICE, "accrued");
    }

    // ------------------------------------------------------------------------------------------- acceptResult

    function acceptAs(address from, bytes32 resultHash) internal {
        vm.prank(from);
        market.acceptResult(id, t, resultHash);
    }

    function test_RevertWhen_AcceptTermsDiffer() external {
        goDelivered();
        t.token = anyone;
        expectTermsMismatch();
        acceptAs(tenant, RESULT);
    }

    /// @dev The tenant looked at a delivery that a reorganisation replaced: its answer must not fit the new one.
    function test_RevertWhen_AcceptResultDiffers() external {
        goDelivered();
        expectTermsMismatch();
        acceptAs(tenant, "another");
        expectTermsMismatch();
        acceptAs(tenant, 0);
    }

    function test_RevertWhen_AcceptTooEarly() external {
        goDelivered();
        vm.warp(REVIEW_BY);
        expectTooEarly(REVIEW_BY);
        acceptAs(provider, RESULT);
    }

    function expectAccepted(address from, Outcome outcome) internal {
        vm.expectEmit();
        emit IMarket.Accepted(id, from, ACCRUED, ACCRUED + BOND, MAX_PRICE - ACCRUED, 0);
        acceptAs(from, RESULT);
        assertSettled(State.Accepted, outcome, ACCRUED + BOND, MAX_PRICE - ACCRUED, 0);
        vm.assertEq(market.orderOf(id).paid, ACCRUED, "paid");
    }

    function test_AcceptResult() external {
        goDelivered();
        expectAccepted(tenant, Outcome.ByTenant);
    }

    function test_AcceptResult_Late() external {
        goDelivered();
        vm.warp(REVIEW_BY + 1);
        expectAccepted(tenant, Outcome.ByTenant);
    }

    function test_AcceptResult_Timeout() external {
        goDelivered();
        vm.warp(REVIEW_BY + 1);
        expectAccepted(anyone, Outcome.ByTimeout);
    }

    function test_AcceptResult_AfterSettle() external {
        goDelivered();
        market.settle(id, t, RESULT);
        vm.expectEmit();
        emit IMarket.Accepted(id, tenant, ACCRUED, ACCRUED - RELEASED + BOND, MAX_PRICE - ACCRUED, 0);
        acceptAs(tenant, RESULT);
        assertSettled(State.Accepted, Outcome.ByTenant, ACCRUED + BOND, MAX_PRICE - ACCRUED, 0);
    }

    // ------------------------------------------------------------------------------------------- rejectResult

    function rejectAs(address from, bytes32 resultHash) internal {
        vm.prank(from);
        market.rejectResult(id, t, resultHash);
    }

    function test_RevertWhen_RejectTermsDiffer() external {
        goDelivered();
        t.holdbackBps = 0;
        expectTermsMismatch();
        rejectAs(tenant, RESULT);
    }

    function test_RevertWhen_RejectResultDiffers() external {
        goDelivered();
        expectTermsMismatch();
        rejectAs(tenant, "another");
    }

    function test_RevertWhen_RejectByStranger() external {
        goDelivered();
        expectNotTenant(anyone);
        rejectAs(anyone, RESULT);
    }

    function test_RevertGiven_RejectTooLate() external {
        goDelivered();
        vm.warp(REVIEW_BY + 1);
        expectTooLate(REVIEW_BY);
        rejectAs(tenant, RESULT);
    }

    function test_RejectResult() external {
        goDelivered();
        uint128 burned = ACCRUED - RELEASED;
        vm.warp(REVIEW_BY);
        vm.expectEmit();
        emit IMarket.Rejected(id, tenant, ACCRUED, RELEASED + BOND, MAX_PRICE - ACCRUED, burned);
        rejectAs(tenant, RESULT);
        assertSettled(State.Rejected, Outcome.ByTenant, RELEASED + BOND, MAX_PRICE - ACCRUED, burned);
        vm.assertEq(market.orderOf(id).paid, RELEASED, "paid");
    }

    function test_RejectResult_WithoutHoldback() external {
        t.holdbackBps = 0;
        goRejected();
        assertSettled(State.Rejected, Outcome.ByTenant, ACCRUED + BOND, MAX_PRICE - ACCRUED, 0);
    }

    function test_RejectResult_AfterSettle() external {
        goDelivered();
        market.settle(id, t, RESULT);
        rejectAs(tenant, RESULT);
        assertSettled(State.Rejected, Outcome.ByTenant, RELEASED + BOND, MAX_PRICE - ACCRUED, ACCRUED - RELEASED);
    }
}

// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IMarket} from "../../src/interfaces/IMarket.sol";
import {OrderView, State, Terms} from "../../src/types/MarketTypes.sol";
import {MarketTest} from "../utils/MarketTest.sol";

contract OrderTest is MarketTest {
    function expectAndOrder(bytes memory revertData) internal {
        vm.expectRevert(revertData);
        goOpen();
    }

    function test_RevertGiven_SaltUsed() external {
        goOpen();
        expectAndOrder(abi.encodeWithSelector(IMarket.Market_OrderExists.selector, id));
        // Not even once it is settled, and not with other terms.
        vm.prank(tenant);
        market.cancel(id, t);
        t.maxPrice += 1;
        expectAndOrder(abi.encodeWithSelector(IMarket.Market_OrderExists.selector, id));
    }

    function test_RevertWhen_ClassUnsupported() external {
        for (uint8 class = 1; class < 5; ++class) {
            t.class = class;
            expectAndOrder(abi.encodeWithSelector(IMarket.Market_ClassUnsupported.selector, class));
        }
    }

    function test_RevertWhen_AuditReserve() external {
        t.auditReserve = 1;
        expectAndOrder(abi.encodeWithSelector(IMarket.Market_AuditReserveNotZero.selector, 1));
    }

    function test_RevertWhen_RulesHash() external {
        t.rulesHash = "rules";
        expectAndOrder(abi.encodeWithSelector(IMarket.Market_RulesHashNotZero.selector, bytes32("rules")));
    }

    function test_RevertWhen_MaxPriceZero() external {
        t.maxPrice = 0;
        expectAndOrder(abi.encodeWithSelector(IMarket.Market_MaxPriceZero.selector));
    }

    function expectBondOutOfRange() internal {
        expectAndOrder(
            abi.encodeWithSelector(
                IMarket.Market_BondOutOfRange.selector, t.bond, t.noShowPenalty, uint128(type(uint96).max)
            )
        );
    }

    function test_RevertWhen_BondBelowPenalty() external {
        t.bond = t.noShowPenalty - 1;
        expectBondOutOfRange();
    }

    function test_RevertWhen_BondTooLarge() external {
        t.bond = uint128(type(uint96).max) + 1;
        expectBondOutOfRange();
    }

    function test_RevertWhen_HoldbackTooHigh() external {
        t.holdbackBps = 5001;
        expectAndOrder(abi.encodeWithSelector(IMarket.Market_HoldbackTooHigh.selector, 5001, 5000));
    }

    function expectBidByOutOfRange() internal {
        expectAndOrder(
            abi.encodeWithSelector(
                IMarket.Market_BidByOutOfRange.selector, t.bidBy, uint256(NOW) + 10, uint256(NOW) + 3650 days
            )
        );
    }

    function test_RevertWhen_BidByTooSoon() external {
        t.bidBy = NOW + 9;
        expectBidByOutOfRange();
    }

    function test_RevertWhen_BidByTooLate() external {
        t.bidBy = NOW + 3650 days + 1;
        expectBidByOutOfRange();
    }

    function test_RevertWhen_StartWindowTooShort() external {
        t.startWindow = 299;
        expectAndOrder(abi.encodeWithSelector(IMarket.Market_StartWindowOutOfRange.selector, 299, 300, 3650 days));
    }

    function test_RevertWhen_StartWindowTooLong() external {
        t.startWindow = 3650 days + 1;
        expectAndOrder(
            abi.encodeWithSelector(IMarket.Market_StartWindowOutOfRange.selector, 3650 days + 1, 300, 3650 days)
        );
    }

    function test_RevertWhen_DurationZero() external {
        t.duration = 0;
        expectAndOrder(abi.encodeWithSelector(IMarket.Market_DurationOutOfRange.selector, 0, 1, 3650 days));
    }

    function test_RevertWhen_DurationTooLong() external {
        t.duration = 3650 days + 1;
        expectAndOrder(abi.encodeWithSelector(IMarket.Market_DurationOutOfRange.selector, 3650 days + 1, 1, 3650 days));
    }

    function test_RevertWhen_WindowTooShort() external {
        t.window = 599;
        expectAndOrder(abi.encodeWithSelector(IMarket.Market_WindowOutOfRange.selector, 599, 600, 3650 days));
    }

    function test_RevertWhen_WindowTooLong() external {
        t.window = 3650 days + 1;
        expectAndOrder(abi.encodeWithSelector(IMarket.Market_WindowOutOfRange.selector, 3650 days + 1, 600, 3650 days));
    }

    function test_RevertWhen_SpecTooLong() external {
        spec = new bytes(1025);
        t.specHash = keccak256(spec);
        expectAndOrder(abi.encodeWithSelector(IMarket.Market_SpecTooLong.selector, 1025, 1024));
    }

    function test_RevertWhen_SpecHashMismatch() external {
        bytes32 promised = t.specHash;
        spec = "{}";
        expectAndOrder(
            abi.encodeWithSelector(IMarket.Market_SpecHashMismatch.selector, promised, keccak256(bytes("{}")))
        );
    }

    /// @dev Terms are hashed as they lie in calldata; a word that is not its field's canonical form must not get in.
    function test_RevertWhen_TermsDirty() external {
        bytes memory call = abi.encodeCall(IMarket.order, (SALT, t, spec));
        // The word of each field narrower than 32 bytes: every one before specHash.
        for (uint256 field = 0; field < 11; ++field) {
            bytes memory dirty = bytes.concat(call);
            dirty[4 + 32 + 32 * field] = 0x01;
            vm.prank(tenant);
            (bool success,) = address(market).call(dirty);
            vm.assertTrue(!success, vm.toString(field));
        }
        vm.prank(tenant);
        (bool clean,) = address(market).call(call);
        vm.assertTrue(clean, "the untouched call");
    }

    function test_RevertWhen_TokenHasNoCode() external {
        t.token = anyone;
        expectAndOrder(abi.encodeWithSelector(IMarket.Market_TokenHasNoCode.selector, anyone));
    }

    function test_RevertWhen_WalletTooPoor() external {
        t.maxPrice = WEALTH + 1;
        expectAndOrder(abi.encodeWithSelector(IMarket.TransferFromFailed.selector));
    }

    function test_Order() external {
        vm.expectEmit();
        emit IMarket.Deposited(address(token), tenant, MAX_PRICE);
        vm.expectEmit();
        emit IMarket.Ordered(id, tenant, SALT, t, spec);
        vm.prank(tenant);
        bytes32 returned = market.order(SALT, t, spec);

        OrderView memory o = market.orderOf(id);
        vm.assertEq(returned, id, "id");
        vm.assertEq(o.tenant, tenant, "tenant");
        vm.assertEq(uint256(o.state), uint256(State.Open), "state");
        vm.assertEq(o.deadline, BID_BY, "deadline");
        vm.assertEq(o.provider, address(0), "provider");
        vm.assertEq(o.funds, MAX_PRICE, "funds");
        vm.assertEq(o.paid, 0, "paid");
        vm.assertEq(o.termsHash, keccak256(abi.encode(t)), "termsHash");
        vm.assertEq(token.balanceOf(tenant), WEALTH - MAX_PRICE, "wallet");
        assertLedger(0, 0, 0);
    }

    function test_Order_LongestSpec() external {
        spec = new bytes(1024);
        t.specHash = keccak256(spec);
        goOpen();
        spec = "";
        t.specHash = keccak256("");
        vm.prank(tenant);
        market.order("empty", t, spec);
    }

    function test_Order_FreeFirst() external {
        vm.startPrank(tenant);
        market.deposit(address(token), 3_000_000);
        vm.expectEmit();
        emit IMarket.Deposited(address(token), tenant, MAX_PRICE - 3_000_000);
        market.order(SALT, t, spec);
        vm.assertEq(free(tenant), 0, "free");
        vm.assertEq(token.balanceOf(tenant), WEALTH - MAX_PRICE, "wallet");
    }

    function test_Order_FreeAlone() external {
        vm.startPrank(tenant);
        market.deposit(address(token), MAX_PRICE + 1);
        token.approve(address(market), 0);
        market.order(SALT, t, spec);
        vm.assertEq(free(tenant), 1, "free");
    }

    function test_Order_Limits() external {
        t.bond = type(uint96).max;
        t.noShowPenalty = type(uint96).max;
        t.holdbackBps = 5000;
        t.bidBy = NOW + 3650 days;
        (t.startWindow, t.duration, t.window) = (3650 days, 3650 days, 3650 days);
        goOpen();
        (t.bond, t.noShowPenalty, t.holdbackBps, t.maxPrice) = (0, 0, 0, 1);
        (t.bidBy, t.startWindow, t.duration, t.window) = (NOW + 10, 300, 1, 600);
        vm.prank(tenant);
        market.order("least", t, spec);
    }

    function test_OrderId() external view {
        bytes32 expected = keccak256(abi.encode(uint256(block.chainid), address(market), tenant, SALT));
        vm.assertEq(market.orderId(tenant, SALT), expected, "id");
    }

    function test_Order_SaltOfAnother() external {
        goOpen();
        vm.prank(loser);
        bytes32 other = market.order(SALT, t, spec);
        vm.assertTrue(other != id, "ids differ");
        vm.assertEq(market.orderOf(other).tenant, loser, "tenant");
    }
}

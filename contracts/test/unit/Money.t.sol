// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {AccrualLib} from "../../src/libraries/AccrualLib.sol";
import {OrderView, State} from "../../src/types/MarketTypes.sol";
import {MarketTest} from "../utils/MarketTest.sol";

/// @notice Sums, for any numbers.
contract MoneyTest is MarketTest {
    // ------------------------------------------------------------------------------------------------ accrual

    function testFuzz_Accrued(uint128 cap, uint128 rate, uint40 elapsed) external pure {
        uint256 exact = uint256(rate) * elapsed;
        uint256 x = AccrualLib.accrued(cap, rate, elapsed);
        vm.assertLe(x, cap, "cap");
        vm.assertLe(x * 1e12, exact, "never above the exact sum");
        if (x < cap) vm.assertTrue(exact - x * 1e12 < 1e12, "less than one unit below");
    }

    function testFuzz_Accrued_Monotone(uint128 cap, uint128 rate, uint40 a, uint40 b) external pure {
        if (a > b) (a, b) = (b, a);
        vm.assertLe(AccrualLib.accrued(cap, rate, a), AccrualLib.accrued(cap, rate, b), "monotone");
    }

    function testFuzz_End(uint128 cap, uint128 rate, uint40 duration) external pure {
        cap = uint128(bound(cap, 1, type(uint128).max));
        duration = uint40(bound(duration, 1, 3650 days));
        // Slower rates than this never use the cap up within the duration.
        uint256 slowest = uint256(cap) * 1e12 / 3650 days / 2;
        rate = uint128(bound(rate, slowest < type(uint128).max ? slowest + 1 : 1, type(uint128).max));
        uint40 length = AccrualLib.end(NOW, duration, cap, rate) - NOW;
        vm.assertLe(length, duration, "duration");
        vm.assertTrue(length > 0, "at least a second");
        if (length < duration) {
            vm.assertEq(AccrualLib.accrued(cap, rate, length), cap, "cap reached at the end");
            vm.assertTrue(uint256(rate) * (length - 1) < uint256(cap) * 1e12, "and not a second before");
        }
    }

    function testFuzz_Released(uint128 x, uint128 y, uint16 bps) external pure {
        bps = uint16(bound(bps, 0, 5000));
        if (x > y) (x, y) = (y, x);
        uint128 released = AccrualLib.released(x, bps);
        vm.assertLe(released, x, "at most what accrued");
        vm.assertLe(released, AccrualLib.released(y, bps), "monotone");
        vm.assertLe(uint256(x) / 2, uint256(released) + 1, "at least half");
    }

    function test_KnownFigures() external pure {
        // 0.01 tokens of 6 decimals an hour: unscaled, 2.777… units a second would round to 2.
        uint256 rate = uint256(10_000) * 1e12 / 3600;
        vm.assertEq(AccrualLib.accrued(type(uint128).max, rate, 3600), 9_999, "an hour");
        vm.assertEq(AccrualLib.accrued(5_000, rate, 3600), 5_000, "the cap");
        vm.assertEq(AccrualLib.accrued(type(uint128).max, type(uint128).max, 0), 0, "no time");
        vm.assertEq(AccrualLib.released(10, 2000), 8, "a fifth held back");
        vm.assertEq(AccrualLib.released(9, 5000), 4, "half held back, rounded down");
        vm.assertEq(AccrualLib.end(100, 50, 10, 0), 150, "rate zero");
        vm.assertEq(AccrualLib.end(100, 50, 10, 1e12), 110, "a unit a second");
        vm.assertEq(AccrualLib.end(100, 50, 10, 3e12), 104, "rounded up");
    }

    // ------------------------------------------------------------------------------------------------- leases

    struct Numbers {
        uint128 maxPrice;
        uint128 bond;
        uint128 penalty;
        uint128 rate;
        uint16 holdbackBps;
        uint40 elapsed;
    }

    /// @dev A running lease with any numbers that terms allow and wallets can pay.
    function runWith(Numbers memory n) internal {
        t.maxPrice = uint128(bound(n.maxPrice, 1, WEALTH));
        t.bond = uint128(bound(n.bond, 0, WEALTH));
        t.noShowPenalty = uint128(bound(n.penalty, 0, t.bond));
        t.holdbackBps = uint16(bound(n.holdbackBps, 0, 5000));
        n.rate = uint128(bound(n.rate, 0, 1e9 * 1e12));
        goOpen();
        vm.prank(provider);
        market.bid(id, t, n.rate, VALID_UNTIL);
        vm.prank(tenant);
        market.accept(id, t, provider, n.rate, VALID_UNTIL);
        vm.prank(provider);
        market.start(id, t);
        n.elapsed = uint40(bound(n.elapsed, 0, 4 hours));
    }

    function testFuzz_PathIndependent(Numbers memory n, uint256[6] memory steps, bool byTenant) external {
        runWith(n);
        uint256 fresh = vm.snapshotState();
        vm.warp(NOW + n.elapsed);
        address closer = byTenant || n.elapsed <= market.orderOf(id).endAt - NOW ? tenant : anyone;
        vm.prank(closer);
        market.close(id, t);
        (uint128 providerOnce, uint128 tenantOnce) = (free(provider), free(tenant));
        vm.revertToState(fresh);

        uint40 elapsed = 0;
        for (uint256 i = 0; i < steps.length; ++i) {
            elapsed += uint40(bound(steps[i], 0, n.elapsed - elapsed));
            vm.warp(NOW + elapsed);
            market.settle(id, t, 0);
        }
        vm.warp(NOW + n.elapsed);
        vm.prank(closer);
        market.close(id, t);
        assertLedger(providerOnce, tenantOnce, 0);
    }

    /// @dev The total is that of the final cap, whenever it was raised and whatever was settled in between.
    function testFuzz_PathIndependent_TopUps(Numbers memory n, uint256[4] memory steps, uint128[4] memory amounts)
        external
    {
        runWith(n);
        uint128 cap = t.maxPrice;
        uint40 elapsed = 0;
        for (uint256 i = 0; i < steps.length; ++i) {
            OrderView memory o = market.orderOf(id);
            elapsed = uint40(bound(steps[i], elapsed, o.endAt - NOW));
            vm.warp(NOW + elapsed);
            market.settle(id, t, 0);
            (uint128 before,) = market.accrued(id, t);
            uint256 wealth = token.balanceOf(tenant);
            if (wealth != 0) {
                uint128 amount = uint128(bound(amounts[i], 1, wealth));
                vm.prank(tenant);
                market.topUp(id, t, amount);
                cap += amount;
            }
            (uint128 afterwards,) = market.accrued(id, t);
            vm.assertLe(before, afterwards, "a top-up never takes");
        }
        uint128 total = AccrualLib.accrued(cap, n.rate, elapsed);
        vm.prank(tenant);
        market.close(id, t);
        assertLedger(total + t.bond, cap - total, 0);
    }

    function testFuzz_Splits(Numbers memory n, uint8 exit, bool settled) external {
        runWith(n);
        vm.warp(NOW + n.elapsed);
        uint40 endAt = market.orderOf(id).endAt;
        uint40 paidTime = (n.elapsed < endAt - NOW ? n.elapsed : endAt - NOW);
        uint128 x = AccrualLib.accrued(t.maxPrice, n.rate, paidTime);
        uint128 held = uint128(uint256(x) - uint256(x) * (10_000 - t.holdbackBps) / 10_000);
        if (settled) market.settle(id, t, 0);
        exit = uint8(bound(exit, 0, 4));
        bool late = NOW + n.elapsed > endAt;
        if (exit == 0) {
            vm.prank(tenant);
            market.close(id, t);
            return assertLedger(x + t.bond, t.maxPrice - x, 0);
        }
        if (exit == 1 || late) {
            vm.prank(late ? anyone : provider);
            market.close(id, t);
            return assertLedger(x - held + t.bond, t.maxPrice - x + held, 0);
        }
        vm.prank(provider);
        market.deliver(id, t, RESULT);
        if (exit == 2) {
            vm.prank(tenant);
            market.rejectResult(id, t, RESULT);
            return assertLedger(x - held + t.bond, t.maxPrice - x, held);
        }
        if (exit == 3) vm.warp(NOW + 365 days);
        vm.prank(exit == 3 ? anyone : tenant);
        market.acceptResult(id, t, RESULT);
        assertLedger(x + t.bond, t.maxPrice - x, 0);
    }

    function testFuzz_Extremes(uint128 maxPrice, uint96 bond, uint128 rate, uint40 elapsed, uint8 exit) external {
        t.maxPrice = uint128(bound(maxPrice, 1, type(uint128).max - type(uint96).max));
        (t.bond, t.noShowPenalty) = (bond, bond);
        token.mint(tenant, t.maxPrice);
        token.mint(provider, bond);
        goOpen();
        vm.prank(provider);
        market.bid(id, t, rate, VALID_UNTIL);
        vm.prank(tenant);
        market.accept(id, t, provider, rate, VALID_UNTIL);
        exit = uint8(bound(exit, 0, 3));
        if (exit == 0) {
            vm.prank(tenant);
            market.cancel(id, t);
        } else if (exit == 1) {
            vm.warp(NOW + 301);
            market.noShow(id, t);
        } else if (exit == 2) {
            vm.prank(provider);
            market.decline(id, t);
        } else {
            vm.prank(provider);
            market.start(id, t);
            vm.warp(NOW + bound(elapsed, 4 hours, 3650 days));
            market.settle(id, t, 0);
            market.close(id, t);
        }
        uint256 sum = uint256(free(provider)) + free(tenant) + free(market.BURN());
        vm.assertEq(sum, uint256(t.maxPrice) + bond, "sum");
        vm.assertEq(market.orderOf(id).funds, 0, "funds");
        vm.assertTrue(market.orderOf(id).state >= State.Cancelled, "settled");
    }
}

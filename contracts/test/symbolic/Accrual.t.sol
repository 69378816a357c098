// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {AccrualLib} from "../../src/libraries/AccrualLib.sol";
import {TermsLib} from "../../src/libraries/TermsLib.sol";
import {Test} from "../utils/Vm.sol";

/// @notice The arithmetic of settlement, for every value at once: halmos proves these or shows values that break them.
contract AccrualSymbolicTest is Test {
    function check_Accrued_AtMostCap(uint128 cap, uint128 rate, uint40 elapsed) external pure {
        assert(AccrualLib.accrued(cap, rate, elapsed) <= cap);
    }

    function check_Accrued_ZeroAtStart(uint128 cap, uint128 rate) external pure {
        assert(AccrualLib.accrued(cap, rate, 0) == 0);
    }

    function check_Accrued_Floor(uint128 cap, uint128 rate, uint40 elapsed) external pure {
        uint256 exact = uint256(rate) * elapsed;
        uint256 x = AccrualLib.accrued(cap, rate, elapsed);
        assert(x * AccrualLib.SCALE <= exact);
        assert(x == cap || exact < (x + 1) * AccrualLib.SCALE);
    }

    /// @dev In the product of rate and time, of any value that their types allow; that a product grows with a factor is
    /// left to the reader, since solvers do not finish on it.
    function check_Accrued_Monotone(uint128 cap, uint168 product, uint168 later) external pure {
        vm.assume(product <= later);
        assert(AccrualLib.accrued(cap, product, 1) <= AccrualLib.accrued(cap, later, 1));
    }

    /// @dev A top-up never lowers what is accrued.
    function check_Accrued_GrowsWithCap(uint128 cap, uint128 more, uint128 rate, uint40 elapsed) external pure {
        vm.assume(cap <= more);
        assert(AccrualLib.accrued(cap, rate, elapsed) <= AccrualLib.accrued(more, rate, elapsed));
    }

    function check_Released_Floor(uint128 amount, uint16 holdbackBps) external pure {
        vm.assume(holdbackBps <= TermsLib.MAX_HOLDBACK_BPS);
        uint256 exact = uint256(amount) * (AccrualLib.BPS - holdbackBps);
        uint256 released = AccrualLib.released(amount, holdbackBps);
        assert(released * AccrualLib.BPS <= exact && exact < (released + 1) * AccrualLib.BPS);
    }

    /// @dev At most what accrued, and at least half of it: the tenant's threat has a bound.
    function check_Released_Bounds(uint128 amount, uint16 holdbackBps) external pure {
        vm.assume(holdbackBps <= TermsLib.MAX_HOLDBACK_BPS);
        uint128 released = AccrualLib.released(amount, holdbackBps);
        assert(released <= amount && released >= amount / 2);
        assert(holdbackBps != 0 || released == amount);
    }

    /// @dev With `check_Accrued_Monotone`: what is releasable never falls below what was paid, so that every way of
    /// settling in between ends at the same sum. For some holdbacks: solvers do not finish on all at once.
    function check_Released_Monotone(uint128 amount, uint128 later) external pure {
        vm.assume(amount <= later);
        uint16[5] memory holdbacks = [0, 1, 2000, 3333, TermsLib.MAX_HOLDBACK_BPS];
        for (uint256 i = 0; i < holdbacks.length; ++i) {
            assert(AccrualLib.released(amount, holdbacks[i]) <= AccrualLib.released(later, holdbacks[i]));
        }
    }

    /// @dev A lease ends after its start and within its duration, without an overflow, at any rate.
    function check_End_WithinDuration(uint40 startedAt, uint40 duration, uint128 cap, uint128 rate) external pure {
        vm.assume(startedAt <= type(uint40).max - TermsLib.MAX_PERIOD);
        vm.assume(duration != 0 && duration <= TermsLib.MAX_PERIOD && cap != 0);
        uint40 end = AccrualLib.end(startedAt, duration, cap, rate);
        assert(end > startedAt && end <= startedAt + duration);
    }

    /// @dev An end before the whole duration is the first second in which the cap is reached. For some rates, from the
    /// lowest to one that uses up any cap in a second: solvers do not finish on a division by an unknown.
    function check_End_ReachesCap(uint40 duration, uint128 cap) external pure {
        vm.assume(duration != 0 && duration <= TermsLib.MAX_PERIOD && cap != 0);
        uint128[4] memory rates = [1, uint128(AccrualLib.SCALE), 2_777_777_777_777_777, type(uint128).max];
        for (uint256 i = 0; i < rates.length; ++i) {
            uint40 end = AccrualLib.end(0, duration, cap, rates[i]);
            if (end == duration) continue;
            assert(AccrualLib.accrued(cap, rates[i], end) == cap);
            assert(AccrualLib.accrued(cap, rates[i], end - 1) < cap);
        }
    }
}

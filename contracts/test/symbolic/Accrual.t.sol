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

    /// @dev For every product of rate and time that types allow: the multiplication itself is the compiler's.
    function check_Accrued_Floor(uint128 cap, uint168 product) external pure {
        uint256 x = AccrualLib.accrued(cap, product, 1);
        assert(x * AccrualLib.SCALE <= product);
        assert(x == cap || product < (x + 1) * AccrualLib.SCALE);
    }

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
    /// settling in between ends at the same sum.
    function check_Released_Monotone(uint128 amount, uint128 later, uint16 holdbackBps) external pure {
        vm.assume(amount <= later && holdbackBps <= TermsLib.MAX_HOLDBACK_BPS);
        assert(AccrualLib.released(amount, holdbackBps) <= AccrualLib.released(later, holdbackBps));
    }

    /// @dev A lease ends after its start and within its duration, without an overflow, at any rate.
    function check_End_WithinDuration(uint40 startedAt, uint40 duration, uint128 cap, uint128 rate) external pure {
        vm.assume(startedAt <= type(uint40).max - TermsLib.MAX_PERIOD);
        vm.assume(duration != 0 && duration <= TermsLib.MAX_PERIOD && cap != 0);
        uint40 end = AccrualLib.end(startedAt, duration, cap, rate);
        assert(end > startedAt && end <= startedAt + duration);
    }

    /// @dev An end before the whole duration is the first second in which the cap is reached.
    function check_End_ReachesCap(uint40 duration, uint128 cap, uint128 rate) external pure {
        vm.assume(duration != 0 && duration <= TermsLib.MAX_PERIOD && cap != 0);
        uint40 end = AccrualLib.end(0, duration, cap, rate);
        if (end == duration) return;
        assert(AccrualLib.accrued(cap, rate, end) == cap);
        assert(AccrualLib.accrued(cap, rate, end - 1) < cap);
    }
}

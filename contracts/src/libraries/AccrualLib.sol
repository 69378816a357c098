// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

/// @title AccrualLib
/// @notice Time into tokens. Everything is a function of the start, never of the last payment, so the number of
/// payments in between cannot change a sum.
library AccrualLib {
    /// @dev Rates are tokens a second times this: a 6-decimal token at 0.01 an hour would round by 28 % otherwise.
    uint256 internal constant SCALE = 1e12;
    uint256 internal constant BPS = 10_000;

    /// @notice Accrued after `elapsed` seconds: rounded down, never above `cap`.
    function accrued(uint256 cap, uint256 rate, uint256 elapsed) internal pure returns (uint128) {
        // rate < 2^128 and elapsed < 2^40: the product fits. The minimum is at most cap < 2^128.
        uint256 sum = rate * elapsed / SCALE;
        return uint128(sum < cap ? sum : cap);
    }

    /// @notice When a lease ends: after `duration`, or in the second in which the accrual reaches `cap`.
    function end(uint40 startedAt, uint40 duration, uint256 cap, uint256 rate) internal pure returns (uint40) {
        if (rate == 0) return startedAt + duration;
        uint256 exhausted = (cap * SCALE + rate - 1) / rate;
        return startedAt + (exhausted < duration ? uint40(exhausted) : duration);
    }

    /// @notice The part of an accrual that is paid without the tenant's word.
    function released(uint128 amount, uint16 holdbackBps) internal pure returns (uint128) {
        return uint128(uint256(amount) * (BPS - holdbackBps) / BPS);
    }
}

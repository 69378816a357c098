// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {SafeTransferLib} from "solady/utils/SafeTransferLib.sol";

import {IMarket} from "../interfaces/IMarket.sol";

/// @title TokenLib
/// @notice Transfers that move exactly what was asked, or revert. One token that moved more or less would let its
/// holders draw on each other's share.
library TokenLib {
    using SafeTransferLib for address;

    function requireCode(address token) internal view {
        if (token.code.length == 0) revert IMarket.Market_TokenHasNoCode(token);
    }

    function pull(address token, address from, uint128 amount) internal {
        requireCode(token);
        uint256 before = token.balanceOf(address(this));
        token.safeTransferFrom(from, address(this), amount);
        _requireMoved(token, amount, before, token.balanceOf(address(this)));
    }

    function push(address token, address to, uint128 amount) internal {
        uint256 before = token.balanceOf(address(this));
        token.safeTransfer(to, amount);
        _requireMoved(token, amount, token.balanceOf(address(this)), before);
    }

    function _requireMoved(address token, uint256 asked, uint256 low, uint256 high) private pure {
        uint256 moved = high > low ? high - low : 0;
        if (moved != asked) revert IMarket.Market_TokenMoved(token, asked, moved);
    }
}

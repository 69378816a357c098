// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {ILeafCourt} from "../interfaces/ILeafCourt.sol";

/// @title ExactOps
/// @notice Arithmetic of operator/exact/src/element.rs and draws of draw.rs, a function an operator. Operands have 64 bits,
/// so nothing before `fit` can leave 256.
library ExactOps {
    int256 private constant LIMIT = 1 << 52;
    int256 private constant MAX_SHIFT = 62;
    /// @dev Bits of a magnitude that a quantised element keeps.
    uint256 private constant KEPT = 7;

    uint256 private constant WORD = 0xffffffff;

    /// @notice The value, if it is below 2^52 in magnitude.
    function fit(int256 value) internal pure returns (int256) {
        if (value >= LIMIT || value <= -LIMIT) revert ILeafCourt.LeafCourt_Overflow(value);
        return value;
    }

    /// @notice floor(x * 2^-by + 1/2): halves go up. Exact for by <= 0.
    function shift(int256 x, int256 by) internal pure returns (int256) {
        if (by > MAX_SHIFT || by < -MAX_SHIFT) revert ILeafCourt.LeafCourt_Shift(by);
        // >> of a negative number rounds down, as it must.
        if (by > 0) return fit((x + (int256(1) << uint256(by - 1))) >> uint256(by));
        return fit(x << uint256(-by));
    }

    /// @notice floor(x / y + 1/2) = floor((2x + y) / 2y), y > 0. 2x + y has to fit, too.
    function div(int256 x, int256 y) internal pure returns (int256) {
        if (y <= 0) revert ILeafCourt.LeafCourt_Divisor(y);
        int256 doubled = fit(2 * x + y);
        int256 quotient = doubled / (2 * y);
        // Division rounds toward zero: below zero, that is up.
        return doubled % (2 * y) < 0 ? quotient - 1 : quotient;
    }

    /// @notice floor of the square root, by Newton's method from above.
    function isqrt(int256 x) internal pure returns (int256) {
        if (x < 0) revert ILeafCourt.LeafCourt_Root(x);
        if (x == 0) return 0;
        // x < 2^63, so its root is below this, and above 0.
        int256 root = 1 << 32;
        while (true) {
            int256 next = (root + x / root) / 2;
            if (next >= root) return root;
            root = next;
        }
        return root;
    }

    function clamp(int256 x, int256 low, int256 high) internal pure returns (int256) {
        if (x < low) return low;
        return x > high ? high : x;
    }

    function sign(int256 x) internal pure returns (int256) {
        if (x == 0) return x;
        return x > 0 ? int256(1) : -1;
    }

    /// @notice Bits of the magnitude beyond the seven that are kept.
    function exponent(uint256 magnitude) internal pure returns (int256) {
        uint256 bits = 0;
        while (magnitude >> bits != 0) ++bits;
        return bits > KEPT ? int256(bits - KEPT) : int256(0);
    }

    /// @notice An index that has to be below `length`.
    function within(int256 index, uint256 length) internal pure returns (uint256) {
        if (index < 0 || uint256(index) >= length) revert ILeafCourt.LeafCourt_Index(index, length);
        return uint256(index);
    }

    /// @notice Which of `rows` rows is the `j`-th of a step.
    function sample(bytes32 seed, uint32 step, uint256 j, uint256 rows) internal pure returns (int256) {
        return int256(uint256(keccak256(abi.encode(seed, uint256(step), j))) % rows);
    }

    /// @notice The highest `bits` of the `index`-th word of a stream: Philox 4x32-10 (Salmon et al., SC 2011). The key is
    /// the seed's first eight bytes, the counter holds the block of four words, the step and the stream.
    function random(bytes32 seed, uint32 stream, uint32 step, uint256 index, uint256 bits)
        internal
        pure
        returns (int256)
    {
        uint256 block_ = index / 4;
        uint256[4] memory words = philox(
            [block_ & WORD, block_ >> 32 & WORD, step, stream], uint32(bytes4(seed)), uint32(bytes4(seed << 32))
        );
        return int256(words[index % 4] >> (32 - bits));
    }

    function philox(uint256[4] memory x, uint256 key0, uint256 key1) internal pure returns (uint256[4] memory) {
        for (uint256 i = 0; i < 10; ++i) {
            uint256 first = 0xD2511F53 * x[0];
            uint256 second = 0xCD9E8D57 * x[2];
            x = [second >> 32 ^ x[1] ^ key0, second & WORD, first >> 32 ^ x[3] ^ key1, first & WORD];
            key0 = key0 + 0x9E3779B9 & WORD;
            key1 = key1 + 0xBB67AE85 & WORD;
        }
        return x;
    }
}

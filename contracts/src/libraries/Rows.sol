// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

/// @notice A row in memory, its elements big-endian so that one load and one sign extension read any of them, with a
/// word of zeros behind it.
struct Row {
    /// @dev Address of the word that ends with the first element.
    uint256 first;
    /// @dev Bytes of an element.
    uint256 size;
    uint256 length;
}

/// @title Rows
/// @notice What operators make of a whole row of at most 1,024 elements of at most 64 bits: no sum here can leave 256
/// bits, hence unchecked arithmetic. Memory is read by address because an array of words would take 32 bytes an element.
library Rows {
    uint256 private constant EVERY_BYTE = 0x00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff;
    uint256 private constant EVERY_PAIR = 0x0000ffff0000ffff0000ffff0000ffff0000ffff0000ffff0000ffff0000ffff;
    uint256 private constant EVERY_FOUR = 0x00000000ffffffff00000000ffffffff00000000ffffffff00000000ffffffff;
    uint256 private constant EVERY_EIGHT = 0x0000000000000000ffffffffffffffff0000000000000000ffffffffffffffff;
    /// @dev The sign of each byte of a word.
    uint256 private constant SIGNS = 0x8080808080808080808080808080808080808080808080808080808080808080;
    /// @dev The lowest byte of each lane of 32 bits, and 1 in each lane.
    uint256 private constant LANES = 0x000000ff000000ff000000ff000000ff000000ff000000ff000000ff000000ff;
    uint256 private constant ONES = 0x0000000100000001000000010000000100000001000000010000000100000001;
    int256 private constant BIAS = 128;

    /// @notice The elements of a chunk, `size` bytes each.
    function load(bytes calldata chunk, uint256 size) internal pure returns (Row memory row) {
        bytes memory copy = bytes.concat(chunk, bytes32(0));
        uint256 start;
        // The address of the copy's bytes: Solidity has no name for it.
        assembly ("memory-safe") {
            start := add(copy, 32)
        }
        row = Row({first: start + size - 32, size: size, length: chunk.length / size});
        if (size == 1) return row;
        unchecked {
            for (uint256 cursor = start; cursor < start + chunk.length; cursor += 32) {
                uint256 word;
                // A word of the copy; through an index of bytes this would take 32 times as much.
                assembly ("memory-safe") {
                    word := mload(cursor)
                }
                word = reversed(word, size);
                // Within the copy: its last word is the one that was put behind the chunk.
                assembly ("memory-safe") {
                    mstore(cursor, word)
                }
            }
        }
    }

    /// @notice A word with the bytes of each element of `size` bytes in the other order.
    function reversed(uint256 word, uint256 size) internal pure returns (uint256) {
        word = (word & EVERY_BYTE) << 8 | word >> 8 & EVERY_BYTE;
        if (size >= 4) word = (word & EVERY_PAIR) << 16 | word >> 16 & EVERY_PAIR;
        if (size == 8) word = (word & EVERY_FOUR) << 32 | word >> 32 & EVERY_FOUR;
        return word;
    }

    /// @notice The element at `index`, which is below the length.
    function item(Row memory row, uint256 index) internal pure returns (int256 value) {
        (uint256 first, uint256 size) = (row.first, row.size);
        // A load at a byte's address.
        assembly ("memory-safe") {
            value := signextend(sub(size, 1), mload(add(first, mul(index, size))))
        }
    }

    /// @notice The sum of products of two rows of one length.
    function dot(Row memory left, Row memory right) internal pure returns (int256 total) {
        if (left.size == 1 && right.size == 1) return dotOfBytes(left, right);
        (uint256 l, uint256 leftSize) = (left.first, left.size);
        (uint256 r, uint256 rightSize) = (right.first, right.size);
        uint256 end = l + left.length * leftSize;
        // Four terms a turn take a third of what a loop over `item` takes. Behind the rows are
        // zeros, so terms that are too many at the end add nothing.
        assembly ("memory-safe") {
            let a := sub(leftSize, 1)
            let b := sub(rightSize, 1)
            for {} lt(l, end) {} {
                total := add(total, mul(signextend(a, mload(l)), signextend(b, mload(r))))
                total := add(
                    total,
                    mul(signextend(a, mload(add(l, leftSize))), signextend(b, mload(add(r, rightSize))))
                )
                l := add(l, shl(1, leftSize))
                r := add(r, shl(1, rightSize))
                total := add(total, mul(signextend(a, mload(l)), signextend(b, mload(r))))
                total := add(
                    total,
                    mul(signextend(a, mload(add(l, leftSize))), signextend(b, mload(add(r, rightSize))))
                )
                l := add(l, shl(1, leftSize))
                r := add(r, shl(1, rightSize))
            }
        }
    }

    /// @dev The same of two rows of bytes, which decide what a dispute costs: eight products in one multiplication take a
    /// fraction of what one after another takes. Bytes are biased by 128, so that they are from 0 to 255; a quarter of a word's
    /// bytes lies in eight lanes of 32 bits, and those of the right row in the other order. Then the highest lane of
    /// their product is the sum of eight products, and no lane reaches into the next: 8 * 255^2 < 2^32. From
    /// (x + 128)(y + 128) = xy + 128 (x + 128) + 128 (y + 128) - 128^2 follows the sum of all xy.
    function dotOfBytes(Row memory left, Row memory right) private pure returns (int256) {
        unchecked {
            (uint256 l, uint256 r) = (left.first + 31, right.first + 31);
            uint256 end = l + left.length;
            uint256 products = 0;
            uint256 biased = 0;
            int256 count = 0;
            for (; l < end; l += 32) {
                uint256 x;
                uint256 y;
                // Words of the copies; what is behind a row is 0 on both sides.
                assembly ("memory-safe") {
                    x := mload(l)
                    y := mload(r)
                }
                x ^= SIGNS;
                y = mirrored(y ^ SIGNS);
                for (uint256 quarter = 0; quarter < 4; ++quarter) {
                    uint256 a = x & LANES;
                    uint256 b = y >> 24 & LANES;
                    products += a * b >> 224;
                    biased += a + b;
                    x >>= 8;
                    y <<= 8;
                }
                r += 32;
                count += 32;
            }
            // The highest lane of the product with ones is the sum of all lanes.
            return int256(products) - BIAS * int256(biased * ONES >> 224) + BIAS * BIAS * count;
        }
    }

    /// @dev A word with its 32 bytes in the other order.
    function mirrored(uint256 word) private pure returns (uint256) {
        word = reversed(word, 8);
        word = (word & EVERY_EIGHT) << 64 | word >> 64 & EVERY_EIGHT;
        return word << 128 | word >> 128;
    }

    function sum(Row memory row) internal pure returns (int256 total) {
        unchecked {
            for (uint256 i = 0; i < row.length; ++i) {
                total += item(row, i);
            }
        }
    }

    /// @notice The largest element and the first place that has it.
    function largest(Row memory row) internal pure returns (int256 value, uint256 index) {
        unchecked {
            value = item(row, 0);
            for (uint256 i = 1; i < row.length; ++i) {
                int256 other = item(row, i);
                if (other > value) (value, index) = (other, i);
            }
        }
    }

    /// @notice The largest magnitude.
    function magnitude(Row memory row) internal pure returns (uint256 most) {
        unchecked {
            for (uint256 i = 0; i < row.length; ++i) {
                int256 value = item(row, i);
                uint256 size = uint256(value < 0 ? -value : value);
                if (size > most) most = size;
            }
        }
    }
}

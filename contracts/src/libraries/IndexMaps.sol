// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

/// @notice What a convolution looks through.
struct Window {
    uint256 high;
    uint256 wide;
    uint256 stride;
    uint256 padding;
}

/// @notice Windows that cover a pixel along one side of an image: `count` from the one with number `first`.
struct Cover {
    uint256 first;
    uint256 count;
    /// @dev The pixel with the padding before it.
    uint256 pixel;
    /// @dev Windows along the side.
    uint256 places;
}

/// @title IndexMaps
/// @notice Where an element comes from: the index maps of operator/exact/src/element.rs. Places are row-major.
library IndexMaps {
    /// @dev No place: what is there is 0.
    uint256 internal constant NOWHERE = type(uint256).max;

    /// @notice Place in `from` of the element at `place` of its transpose. Dimension i of the transpose is `order[i]`.
    function transposed(uint64[] memory from, uint64[] memory to, int256[] memory order, uint256 place)
        internal
        pure
        returns (uint256 found)
    {
        uint256[] memory strides = new uint256[](from.length);
        uint256 stride = 1;
        for (uint256 i = from.length; i > 0; --i) {
            strides[i - 1] = stride;
            stride *= from[i - 1];
        }
        for (uint256 i = to.length; i > 0; --i) {
            found += place % to[i - 1] * strides[uint256(order[i - 1])];
            place /= to[i - 1];
        }
    }

    /// @notice Dimensions of 1, or missing in front, repeat.
    function broadcast(uint64[] memory from, uint64[] memory to, uint256 place) internal pure returns (uint256 found) {
        uint256 missing = to.length - from.length;
        uint256 stride = 1;
        for (uint256 i = to.length; i > missing; --i) {
            uint256 side = from[i - 1 - missing];
            found += place % to[i - 1] % side * stride;
            stride *= side;
            place /= to[i - 1];
        }
    }

    /// @notice `part` begins at `start` of `whole` along a dimension.
    function sliced(uint64[] memory whole, uint64[] memory part, uint256 dimension, uint256 start, uint256 place)
        internal
        pure
        returns (uint256)
    {
        (uint256 outer, uint256 along, uint256 inner, uint256 within) = around(part, dimension, place);
        return (outer * whole[dimension] + along + start) * inner + within;
    }

    /// @notice `part` lies behind `before` zeros of `whole` along a dimension.
    function padded(uint64[] memory part, uint64[] memory whole, uint256 dimension, uint256 before, uint256 place)
        internal
        pure
        returns (uint256)
    {
        (uint256 outer, uint256 along, uint256 inner, uint256 within) = around(whole, dimension, place);
        uint256 side = part[dimension];
        if (along < before || along - before >= side) return NOWHERE;
        return (outer * side + along - before) * inner + within;
    }

    /// @dev What lies before a dimension, along it, and behind it: how many, and which.
    function around(uint64[] memory shape, uint256 dimension, uint256 place)
        private
        pure
        returns (uint256 outer, uint256 along, uint256 inner, uint256 within)
    {
        inner = 1;
        for (uint256 i = dimension + 1; i < shape.length; ++i) {
            inner *= shape[i];
        }
        uint256 side = shape[dimension];
        return (place / (inner * side), place / inner % side, inner, place % inner);
    }

    /// @notice Where im2col takes the element at `place` of its result from.
    function pixel(Window memory w, uint64[] memory image, uint256 place) internal pure returns (uint256) {
        (uint256 channels, uint256 height, uint256 width) = (image[1], image[2], image[3]);
        uint256 across = places(w, width, w.wide);
        uint256 windows = places(w, height, w.high) * across;
        uint256 term = place % (channels * w.high * w.wide);
        place /= channels * w.high * w.wide;
        uint256 y = place % windows / across * w.stride + term / w.wide % w.high;
        uint256 x = place % windows % across * w.stride + term % w.wide;
        if (y < w.padding || y - w.padding >= height || x < w.padding || x - w.padding >= width) return NOWHERE;
        uint256 channel = place / windows * channels + term / (w.high * w.wide);
        return (channel * height + y - w.padding) * width + x - w.padding;
    }

    /// @notice Places of im2col's result that are taken from the pixel at `place`, window after window.
    function takers(Window memory w, uint64[] memory image, uint256 place)
        internal
        pure
        returns (uint256[] memory found)
    {
        Cover memory rows = covering(w, place / image[3] % image[2], image[2], w.high);
        Cover memory columns = covering(w, place % image[3], image[3], w.wide);
        found = new uint256[](rows.count * columns.count);
        place /= image[2] * image[3]; // number of the plane: channels of a batch, batch after batch
        for (uint256 i = 0; i < found.length; ++i) {
            uint256 row = rows.first + i / columns.count;
            uint256 column = columns.first + i % columns.count;
            uint256 window = (place / image[1] * rows.places + row) * columns.places + column;
            uint256 term = (place % image[1] * w.high + rows.pixel - row * w.stride) * w.wide;
            found[i] = window * image[1] * w.high * w.wide + term + columns.pixel - column * w.stride;
        }
    }

    /// @dev The windows that cover the pixel with number `index` of a side of this length.
    function covering(Window memory w, uint256 index, uint256 side, uint256 kernel)
        private
        pure
        returns (Cover memory c)
    {
        c.pixel = index + w.padding;
        c.places = places(w, side, kernel);
        c.first = c.pixel < kernel ? 0 : (c.pixel - kernel) / w.stride + 1;
        uint256 end = c.pixel / w.stride + 1;
        if (end > c.places) end = c.places;
        if (end > c.first) c.count = end - c.first;
    }

    /// @notice Windows along a side of an image.
    function places(Window memory w, uint256 side, uint256 kernel) private pure returns (uint256) {
        return (side + 2 * w.padding - kernel) / w.stride + 1;
    }
}

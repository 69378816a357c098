// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {ILeafCourt} from "../interfaces/ILeafCourt.sol";
import {Case, Form, Node, NodeOpening, Opening} from "../types/CourtTypes.sol";
import {Row, Rows} from "./Rows.sol";

/// @notice Where an element is in the tree of its tensor.
struct Position {
    uint256 leaf;
    /// @dev Leaves that the tree has, without those it is filled up with.
    uint256 leaves;
    /// @dev Bytes of the leaf's chunk.
    uint256 size;
    /// @dev Which element of the chunk it is.
    uint256 item;
}

/// @title Openings
/// @notice Parts of what was committed to: operators of programs and chunks of tensors. SHA-256, each use under a tag of
/// its own, as in operator/exact/src/commit.rs and descriptor.rs. Trees are filled up with zeros to a power of two.
library Openings {
    uint256 internal constant CHUNK = 4096;
    uint256 internal constant MAX_TERMS = 1024;

    bytes1 private constant LEAF = 0x00;
    bytes1 private constant BRANCH = 0x01;
    bytes1 private constant TENSOR = 0x02;
    bytes1 private constant OPERATOR = 0x04;
    bytes1 private constant PROGRAM = 0x06;

    /// @notice The operator that the case is about. Its descriptor is decoded once it is known to be the program's.
    function node(Case calldata c) internal view returns (Node memory found) {
        NodeOpening calldata o = c.node;
        if (c.list >= o.counts.length || c.number >= o.counts[c.list]) {
            revert ILeafCourt.LeafCourt_NodeOutside(c.list, c.number);
        }
        (uint256 first, uint256 second, uint256 third) = (o.counts[0], o.counts[1], o.counts[2]);
        uint256 index = c.number + (c.list > 0 ? first : 0) + (c.list > 1 ? second : 0);
        bytes32 top = climb(sha256(bytes.concat(OPERATOR, o.descriptor)), index, first + second + third, o.path);
        bytes32 computed = sha256(bytes.concat(PROGRAM, o.header, abi.encode(first, second, third), top));
        if (computed != c.programId) revert ILeafCourt.LeafCourt_ProgramMismatch(c.programId, computed);
        found = abi.decode(o.descriptor, (Node));
        if (found.list != c.list || found.number != c.number) {
            revert ILeafCourt.LeafCourt_NodeMismatch(c.list, c.number);
        }
    }

    /// @notice The element at `place` of the tensor with this root.
    function value(bytes32 root, Form memory form, uint256 place, Opening calldata o)
        internal
        view
        returns (int256 found)
    {
        uint256 item = chunk(root, form, place, o);
        uint256 size = form.bits / 8;
        uint256 bits = 0;
        for (uint256 i = size; i > 0; --i) {
            bits = bits << 8 | uint8(o.chunk[item * size + i - 1]);
        }
        // The sign bit goes to the top and comes down again with its copies behind it.
        uint256 unused = 256 - form.bits;
        return int256(bits << unused) >> unused;
    }

    /// @notice A row that is one chunk: the one with number `index`.
    function row(bytes32 root, Form memory form, uint256 index, Opening calldata o) internal view returns (Row memory) {
        uint256 length = rowLength(form.shape);
        uint256 size = form.bits / 8;
        if (length > MAX_TERMS || length * size > CHUNK) {
            revert ILeafCourt.LeafCourt_RowTooLong(length, form.bits);
        }
        // The first element is at the chunk's beginning: a row has no other chunk.
        chunk(root, form, index * length, o);
        return Rows.load(o.chunk, size);
    }

    /// @notice Checks that the opening is of the chunk that holds the element at `place`.
    /// @return Where in the chunk it is, in elements.
    function chunk(bytes32 root, Form memory form, uint256 place, Opening calldata o) internal view returns (uint256) {
        Position memory p = position(form, place);
        if (o.chunk.length != p.size) revert ILeafCourt.LeafCourt_ChunkLength(o.chunk.length, p.size);
        bytes32 computed = bind(form, climb(sha256(bytes.concat(LEAF, o.chunk)), p.leaf, p.leaves, o.path));
        if (computed != root) revert ILeafCourt.LeafCourt_RootMismatch(root, computed);
        return p.item;
    }

    /// @notice Where the element at `place` is.
    function position(Form memory form, uint256 place) internal pure returns (Position memory p) {
        uint256 count = elements(form.shape);
        if (place >= count) revert ILeafCourt.LeafCourt_PlaceOutside(place, count);
        uint256 length = rowLength(form.shape);
        uint256 size = form.bits / 8;
        uint256 part = length < CHUNK / size ? length : CHUNK / size;
        // Nothing here exceeds `count` or the bytes of a chunk.
        unchecked {
            uint256 parts = (length + part - 1) / part;
            uint256 inRow = place % length;
            // The last chunk of a row has what is left.
            uint256 left = length - inRow / part * part;
            p.size = (left < part ? left : part) * size;
            p.item = inRow % part;
            p.leaf = place / length * parts + inRow / part;
            p.leaves = count / length * parts;
        }
    }

    /// @notice The top of the tree of `count` leaves that has `leaf` at `index`.
    function climb(bytes32 leaf, uint256 index, uint256 count, bytes32[] calldata path)
        internal
        view
        returns (bytes32 top)
    {
        uint256 depth = 0;
        while (1 << depth < count) ++depth;
        if (path.length != depth) revert ILeafCourt.LeafCourt_PathLength(path.length, depth);
        top = leaf;
        for (uint256 level = 0; level < depth; ++level) {
            bytes32 sibling = path[level];
            top = index >> level & 1 == 1 ? branch(sibling, top) : branch(top, sibling);
        }
    }

    /// @dev sha256(bytes.concat(BRANCH, left, right)).
    function branch(bytes32 left, bytes32 right) private view returns (bytes32 above) {
        // A case has some fifty branches. Through `sha256` each takes 900 gas, like this 350. The input lies behind what
        // memory holds, and a call that fails must not leave a hash.
        assembly ("memory-safe") {
            let input := mload(0x40)
            mstore8(input, 1)
            mstore(add(input, 1), left)
            mstore(add(input, 33), right)
            if iszero(staticcall(gas(), 2, input, 65, 0, 32)) { revert(0, 0) }
            above := mload(0)
        }
    }

    /// @notice The root of a tensor: its tree, and how it is laid out.
    function bind(Form memory form, bytes32 top) internal pure returns (bytes32) {
        bytes memory sides = "";
        for (uint256 i = 0; i < form.shape.length; ++i) {
            sides = bytes.concat(sides, bytes8(form.shape[i]));
        }
        return sha256(bytes.concat(TENSOR, bytes1(form.bits), sides, top));
    }

    function elements(uint64[] memory shape) internal pure returns (uint256 count) {
        count = 1;
        for (uint256 i = 0; i < shape.length; ++i) {
            count *= shape[i];
        }
    }

    /// @notice Elements of a row: a scalar is a row of one.
    function rowLength(uint64[] memory shape) internal pure returns (uint256) {
        return shape.length == 0 ? 1 : shape[shape.length - 1];
    }
}

// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {LeafCourt} from "../../src/LeafCourt.sol";
import {Case, Form, Node, NodeOpening, Op, Opening} from "../../src/types/CourtTypes.sol";
import {Test} from "./Vm.sol";

/// @notice A court, and what it is shown: tensors with their roots and openings, programs of one operator. Trees are
/// written here a second time, apart from the libraries under test.
abstract contract CourtTest is Test {
    bytes32 internal constant SEED = keccak256("seed");
    uint32 internal constant STEP = 3;

    struct Tensor {
        Form form;
        int256[] values;
    }

    LeafCourt internal court;

    function setUp() public virtual {
        court = new LeafCourt();
    }

    // ---------------------------------------------------------------------------------------------- numbers

    function ints() internal pure returns (int256[] memory) {
        return new int256[](0);
    }

    function ints(int256 a) internal pure returns (int256[] memory made) {
        made = new int256[](1);
        made[0] = a;
    }

    function ints(int256 a, int256 b) internal pure returns (int256[] memory made) {
        made = new int256[](2);
        (made[0], made[1]) = (a, b);
    }

    function ints(int256 a, int256 b, int256 c) internal pure returns (int256[] memory made) {
        made = new int256[](3);
        (made[0], made[1], made[2]) = (a, b, c);
    }

    function ints(int256 a, int256 b, int256 c, int256 d) internal pure returns (int256[] memory made) {
        made = new int256[](4);
        (made[0], made[1], made[2], made[3]) = (a, b, c, d);
    }

    /// @notice `first`, `first + 1`, …
    function counting(uint256 length, int256 first) internal pure returns (int256[] memory made) {
        made = new int256[](length);
        for (uint256 i = 0; i < length; ++i) {
            made[i] = first + int256(i);
        }
    }

    function form(uint8 bits, int256[] memory sides) internal pure returns (Form memory made) {
        made = Form({bits: bits, shape: new uint64[](sides.length)});
        for (uint256 i = 0; i < sides.length; ++i) {
            made.shape[i] = uint64(uint256(sides[i]));
        }
    }

    function tensor(uint8 bits, int256[] memory sides, int256[] memory values) internal pure returns (Tensor memory) {
        return Tensor(form(bits, sides), values);
    }

    /// @notice One row.
    function tensor(uint8 bits, int256[] memory values) internal pure returns (Tensor memory) {
        return tensor(bits, ints(int256(values.length)), values);
    }

    function all() internal pure returns (Tensor[] memory) {
        return new Tensor[](0);
    }

    function all(Tensor memory a) internal pure returns (Tensor[] memory made) {
        made = new Tensor[](1);
        made[0] = a;
    }

    function all(Tensor memory a, Tensor memory b) internal pure returns (Tensor[] memory made) {
        made = new Tensor[](2);
        (made[0], made[1]) = (a, b);
    }

    function all(Tensor memory a, Tensor memory b, Tensor memory c) internal pure returns (Tensor[] memory made) {
        made = new Tensor[](3);
        (made[0], made[1], made[2]) = (a, b, c);
    }

    // ------------------------------------------------------------------------------------------------ trees

    function written(uint8 bits, int256[] memory values, uint256 from, uint256 count)
        internal
        pure
        returns (bytes memory chunk)
    {
        uint256 size = bits / 8;
        chunk = new bytes(count * size);
        for (uint256 i = 0; i < chunk.length; ++i) {
            chunk[i] = bytes1(uint8(uint256(values[from + i / size]) >> 8 * (i % size)));
        }
    }

    function leafOf(bytes memory chunk) internal pure returns (bytes32) {
        return sha256(abi.encodePacked(uint8(0), chunk));
    }

    function chunksOf(Tensor memory t) internal pure returns (bytes[] memory chunks) {
        uint256 row = rowOf(t.form);
        uint256 part = partOf(t.form);
        uint256 parts = (row + part - 1) / part;
        chunks = new bytes[](t.values.length / row * parts);
        for (uint256 i = 0; i < chunks.length; ++i) {
            uint256 from = i % parts * part;
            uint256 count = row - from < part ? row - from : part;
            chunks[i] = written(t.form.bits, t.values, i / parts * row + from, count);
        }
    }

    function rowOf(Form memory f) internal pure returns (uint256) {
        return f.shape.length == 0 ? 1 : f.shape[f.shape.length - 1];
    }

    function partOf(Form memory f) internal pure returns (uint256) {
        uint256 fits = 4096 / (f.bits / 8);
        return rowOf(f) < fits ? rowOf(f) : fits;
    }

    function leavesOf(Tensor memory t) internal pure returns (bytes32[] memory leaves) {
        bytes[] memory chunks = chunksOf(t);
        leaves = new bytes32[](chunks.length);
        for (uint256 i = 0; i < leaves.length; ++i) {
            leaves[i] = leafOf(chunks[i]);
        }
    }

    function leafAt(Form memory f, uint256 place) internal pure returns (uint256) {
        (uint256 row, uint256 part) = (rowOf(f), partOf(f));
        return place / row * ((row + part - 1) / part) + place % row / part;
    }

    function depthOf(uint256 leaves) internal pure returns (uint256 depth) {
        while (2 ** depth < leaves) ++depth;
    }

    /// @notice Top of the tree of these leaves, and the siblings of one of them.
    function treeOf(bytes32[] memory leaves, uint256 index) internal pure returns (bytes32 top, bytes32[] memory path) {
        path = new bytes32[](depthOf(leaves.length));
        bytes32[] memory layer = new bytes32[](2 ** path.length);
        for (uint256 i = 0; i < leaves.length; ++i) {
            layer[i] = leaves[i];
        }
        for (uint256 level = 0; level < path.length; ++level) {
            path[level] = layer[(index >> level) ^ 1];
            bytes32[] memory above = new bytes32[](layer.length / 2);
            for (uint256 i = 0; i < above.length; ++i) {
                above[i] = sha256(abi.encodePacked(uint8(1), layer[2 * i], layer[2 * i + 1]));
            }
            layer = above;
        }
        top = layer[0];
    }

    /// @notice Top of a tree too large to be written, of which one leaf and the siblings of its path are known.
    function topOf(bytes32 leaf, uint256 index, bytes32[] memory path) internal pure returns (bytes32 top) {
        top = leaf;
        for (uint256 level = 0; level < path.length; ++level) {
            bool right = (index >> level) & 1 == 1;
            top = sha256(abi.encodePacked(uint8(1), right ? path[level] : top, right ? top : path[level]));
        }
    }

    function siblings(uint256 leaves) internal pure returns (bytes32[] memory path) {
        path = new bytes32[](depthOf(leaves));
        for (uint256 level = 0; level < path.length; ++level) {
            path[level] = keccak256(abi.encode("sibling", level));
        }
    }

    function boundTo(Form memory f, bytes32 top) internal pure returns (bytes32) {
        bytes memory sides;
        for (uint256 i = 0; i < f.shape.length; ++i) {
            sides = abi.encodePacked(sides, f.shape[i]);
        }
        return sha256(abi.encodePacked(uint8(2), f.bits, sides, top));
    }

    function rootOf(Tensor memory t) internal pure returns (bytes32) {
        (bytes32 top,) = treeOf(leavesOf(t), 0);
        return boundTo(t.form, top);
    }

    function open(Tensor memory t, uint256 place) internal pure returns (Opening memory o) {
        uint256 leaf = leafAt(t.form, place);
        (, o.path) = treeOf(leavesOf(t), leaf);
        o.chunk = chunksOf(t)[leaf];
    }

    // --------------------------------------------------------------------------------------------- programs

    function node(Op op, int256[] memory attributes, Tensor[] memory operands, Form memory result)
        internal
        pure
        returns (Node memory made)
    {
        Form[] memory forms = new Form[](operands.length);
        uint32[] memory numbers = new uint32[](op > Op.Constant ? operands.length : 0);
        for (uint256 i = 0; i < operands.length; ++i) {
            forms[i] = operands[i].form;
            if (i < numbers.length) numbers[i] = uint32(i);
        }
        bytes32 root = op == Op.Constant ? rootOf(operands[0]) : bytes32(0);
        return Node(1, 4, uint8(op), attributes, root, numbers, forms, result);
    }

    /// @notice A program with this operator, in which everything else is made up.
    function enrol(Case memory c, Node memory n) internal pure {
        c.list = n.list;
        c.number = n.number;
        c.node.counts = [uint32(3), 9, 5];
        c.node.header = keccak256("header");
        c.node.descriptor = abi.encode(n);
        c.node.path = siblings(17);
        uint256 index = n.number + (n.list > 0 ? 3 : 0) + (n.list > 1 ? 9 : 0);
        bytes32 leaf = sha256(abi.encodePacked(uint8(4), c.node.descriptor));
        c.programId = idOf(c.node, topOf(leaf, index, c.node.path));
    }

    function idOf(NodeOpening memory n, bytes32 top) internal pure returns (bytes32) {
        return sha256(abi.encodePacked(uint8(6), n.header, abi.encode(n.counts), top));
    }

    /// @notice The case of an operator that has no openings yet.
    function caseOf(Op op, int256[] memory attributes, Tensor[] memory operands, Form memory result, uint256 place)
        internal
        pure
        returns (Case memory c)
    {
        enrol(c, node(op, attributes, operands, result));
        (c.seed, c.step, c.place) = (SEED, STEP, place);
        c.roots = new bytes32[](operands.length);
        for (uint256 i = 0; i < operands.length; ++i) {
            c.roots[i] = rootOf(operands[i]);
        }
        c.openings = new Opening[](0);
    }

    function show(Case memory c, Opening memory o) internal pure {
        Opening[] memory more = new Opening[](c.openings.length + 1);
        for (uint256 i = 0; i < c.openings.length; ++i) {
            more[i] = c.openings[i];
        }
        more[c.openings.length] = o;
        c.openings = more;
    }
}

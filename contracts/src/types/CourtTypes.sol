// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

/// @notice How a tensor is laid out: row-major, its last dimension a row, elements little-endian two's complement.
struct Form {
    /// @dev Of an element: 8, 16, 32 or 64.
    uint8 bits;
    uint64[] shape;
}

/// @notice An operator of a program: what a leaf of the program's tree says of it (operator/exact/src/descriptor.rs).
struct Node {
    /// @dev 0: first state, 1: step, 2: evaluation.
    uint8 list;
    /// @dev Its number in the list, from 0.
    uint32 number;
    /// @dev One of `Op`.
    uint8 op;
    /// @dev What the operator was given, in the order of its definition.
    int256[] attributes;
    /// @dev Of a constant: the root of its values; else 0.
    bytes32 root;
    /// @dev Numbers of the nodes whose results it takes.
    uint32[] operands;
    /// @dev Of the operands; a source (state, data, constant) has one, that of what it stands for.
    Form[] forms;
    Form result;
}

/// @notice The operators, by the codes that descriptors have. Each is defined in operator/exact/src/element.rs.
enum Op {
    State,
    Data,
    Constant,
    Step,
    Matmul,
    Transpose,
    Reshape,
    Broadcast,
    Slice,
    Pad,
    Im2col,
    Col2im,
    Gather,
    Add,
    Sub,
    Mul,
    Clamp,
    Less,
    Equal,
    Select,
    Relu,
    Sign,
    Shift,
    ShiftBy,
    Div,
    Isqrt,
    Max,
    Sum,
    Argmax,
    Rowexp,
    Quant,
    Table,
    Sample,
    Random
}

/// @notice A chunk of a tensor, and what leads from it to the root.
struct Opening {
    bytes chunk;
    /// @dev Siblings, the leaf's first.
    bytes32[] path;
}

/// @notice A leaf of a program's tree, and what leads from it to the program's id.
struct NodeOpening {
    /// @dev Hash of what the program declares.
    bytes32 header;
    /// @dev Nodes of the three lists.
    uint32[3] counts;
    /// @dev abi.encode(Node).
    bytes descriptor;
    /// @dev Siblings, the leaf's first.
    bytes32[] path;
}

/// @notice One element of one operator's result. All but the openings is what both parties agree on.
struct Case {
    bytes32 programId;
    /// @dev Which node: list and number in it.
    uint8 list;
    uint32 number;
    /// @dev What draws depend on besides their place.
    bytes32 seed;
    uint32 step;
    /// @dev Which element of the result, in row-major order.
    uint256 place;
    /// @dev Of the operands' tensors, in the node's order; of a source, that of what it stands for.
    bytes32[] roots;
    NodeOpening node;
    /// @dev The chunks that the rule reads, in the order in which it reads them; no others.
    Opening[] openings;
}

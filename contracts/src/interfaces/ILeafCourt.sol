// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Case, Opening} from "../types/CourtTypes.sol";

/// @title ILeafCourt
/// @notice Computes one element of one operator of an integer program from committed operands. Stateless: what it says
/// depends on its arguments alone.
///
/// Conventions
/// - What each operator means is operator/exact/src/element.rs; roots and chunks are commit.rs, program ids
///   descriptor.rs of the same crate. A tensor is cut into rows, a row into chunks of at most 4 KiB; a chunk is a leaf.
/// - Every value is below 2^52 in magnitude. Elements are integers without a unit, places and counts are elements.
/// - The rule reads an element with the chunk that holds it, a row (matmul, max, sum, argmax, rowexp) with its only chunk.
///   Openings come in the order in which element.rs reads: operand 0 before operand 1; an index or exponent (gather,
///   table, quant: operand 1) before what it is for; the condition of select before the chosen side; windows of col2im
///   row by row. A chunk that two operands share is opened for each.
/// - Whoever agreed on a program has checked it (`Program::check`): that shapes fit together is not asked again. A
///   descriptor that no checked program has reverts or computes something; it reads nothing that was not opened.
interface ILeafCourt {
    // ------------------------------------------------------------------------------------------ what is opened

    /// @dev The descriptor with its path, counts and header does not lead to the program's id.
    error LeafCourt_ProgramMismatch(bytes32 programId, bytes32 computed);
    /// @dev The program has no such node.
    error LeafCourt_NodeOutside(uint8 list, uint32 number);
    /// @dev The leaf of this node describes another one.
    error LeafCourt_NodeMismatch(uint8 list, uint32 number);
    error LeafCourt_OperatorUnknown(uint8 op);
    /// @dev As many roots as the operator has operands, one for a source.
    error LeafCourt_RootsCount(uint256 given, uint256 expected);
    /// @dev The program says which values a constant has.
    error LeafCourt_ConstantRoot(bytes32 given, bytes32 expected);
    /// @dev Fewer openings than the rule reads (`expected` is then how many it asked for so far), or more.
    error LeafCourt_OpeningsCount(uint256 given, uint256 expected);
    /// @dev The tensor has no such element.
    error LeafCourt_PlaceOutside(uint256 place, uint256 count);
    /// @dev In bytes.
    error LeafCourt_ChunkLength(uint256 given, uint256 expected);
    error LeafCourt_PathLength(uint256 given, uint256 expected);
    /// @dev The chunk with its path does not lead to the agreed root.
    error LeafCourt_RootMismatch(bytes32 root, bytes32 computed);
    /// @dev The operator reads rows whole, and this one has more than 4 KiB or more than 1,024 elements.
    error LeafCourt_RowTooLong(uint256 length, uint256 bits);

    // ----------------------------------------------------------------------------- what has no value (element.rs)

    /// @dev Not below 2^52 in magnitude.
    error LeafCourt_Overflow(int256 value);
    /// @dev Divisors are above 0.
    error LeafCourt_Divisor(int256 divisor);
    /// @dev Negative numbers have no root.
    error LeafCourt_Root(int256 value);
    error LeafCourt_Index(int256 index, uint256 length);
    /// @dev At most 62 places either way.
    error LeafCourt_Shift(int256 by);

    // -------------------------------------------------------------------------------------------------- calls

    /// @notice The element at `c.place` of the result of node `c.number` of list `c.list`.
    function element(Case calldata c) external view returns (int256 value);

    /// @notice Whether the result with root `root` has that element. `claim` opens its chunk.
    /// @dev A result that was computed rightly is found right, whatever the width it is written in.
    function judge(Case calldata c, bytes32 root, Opening calldata claim) external view returns (bool right);
}

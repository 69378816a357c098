// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {ILeafCourt} from "../../src/interfaces/ILeafCourt.sol";
import {Case, Form, Node, Op, Opening} from "../../src/types/CourtTypes.sol";
import {CourtTest} from "../utils/CourtTest.sol";

/// @notice What the court is shown, and what it refuses: on one element of a product of matrices unless a test says
/// otherwise.
contract LeafCourtTest is CourtTest {
    Tensor internal left;
    Tensor internal right;
    Tensor internal result;
    /// @dev Row 3 of the left operand, row 2 of the right one.
    uint256 internal constant PLACE = 3 * 4 + 2;
    int256 internal value;

    function setUp() public override {
        super.setUp();
        left = tensor(16, ints(5, 3), counting(15, -7));
        right = tensor(8, ints(4, 3), counting(12, -5));
        for (uint256 k = 0; k < 3; ++k) {
            value += left.values[9 + k] * right.values[6 + k];
        }
        result = tensor(16, ints(5, 4), counting(20, 100));
        result.values[PLACE] = value;
    }

    function product() internal view returns (Case memory c) {
        c = caseOf(Op.Matmul, ints(), all(left, right), result.form, PLACE);
        show(c, open(left, 9));
        show(c, open(right, 6));
    }

    function claim() internal view returns (bytes32, Opening memory) {
        return (rootOf(result), open(result, PLACE));
    }

    /// @dev Changes the node of a case, as a program would have it.
    function amend(Case memory c, Node memory n) internal pure {
        enrol(c, n);
    }

    function refuses(Case memory c, bytes memory expected) internal {
        vm.expectRevert(expected);
        court.element(c);
    }

    function refuses(Case memory c, bytes4 expected) internal {
        vm.expectPartialRevert(expected);
        court.element(c);
    }

    function refuses(Case memory c, bytes32 root, Opening memory opening, bytes4 expected) internal {
        vm.expectPartialRevert(expected);
        court.judge(c, root, opening);
    }

    // ------------------------------------------------------------------------------------------------ verdicts

    function test_Element() external view {
        vm.assertEq(court.element(product()), value, "the product");
    }

    function test_Judge_Right() external view {
        (bytes32 root, Opening memory opening) = claim();
        vm.assertEq(court.judge(product(), root, opening), true, "right");
    }

    function test_Judge_Wrong() external {
        for (int256 by = -1; by < 2; by += 2) {
            result.values[PLACE] = value + by;
            (bytes32 root, Opening memory opening) = claim();
            vm.assertEq(court.judge(product(), root, opening), false, "wrong by one");
        }
    }

    /// @dev 300 and 44 have the same low byte.
    function test_Judge_TooNarrow() external view {
        Tensor memory x = tensor(16, ints(200, 1));
        Tensor memory y = tensor(16, ints(100, 1));
        Tensor memory narrow = tensor(8, ints(44, 2));
        Case memory c = caseOf(Op.Add, ints(), all(x, y), narrow.form, 0);
        show(c, open(x, 0));
        show(c, open(y, 0));
        vm.assertEq(court.judge(c, rootOf(narrow), open(narrow, 0)), false, "300 is not 44");
    }

    function test_RevertWhen_ClaimOfAnotherRoot() external {
        (, Opening memory opening) = claim();
        refuses(product(), rootOf(left), opening, ILeafCourt.LeafCourt_RootMismatch.selector);
    }

    function test_RevertWhen_ClaimOfAnotherPlace() external {
        (bytes32 root,) = claim();
        refuses(product(), root, open(result, 0), ILeafCourt.LeafCourt_RootMismatch.selector);
    }

    function test_RevertWhen_ClaimTooLong() external {
        (bytes32 root, Opening memory opening) = claim();
        opening.chunk = bytes.concat(opening.chunk, hex"00");
        refuses(product(), root, opening, ILeafCourt.LeafCourt_ChunkLength.selector);
    }

    // ----------------------------------------------------------------------------------------------- operators

    function test_RevertWhen_NodeOutside() external {
        Case memory c = product();
        c.number = 9;
        refuses(c, abi.encodeWithSelector(ILeafCourt.LeafCourt_NodeOutside.selector, 1, 9));
        c = product();
        c.list = 3;
        refuses(c, abi.encodeWithSelector(ILeafCourt.LeafCourt_NodeOutside.selector, 3, 4));
    }

    function test_RevertWhen_AnotherNode() external {
        Case memory c = product();
        c.number = 5;
        refuses(c, ILeafCourt.LeafCourt_ProgramMismatch.selector);
        c = product();
        c.list = 2;
        refuses(c, ILeafCourt.LeafCourt_ProgramMismatch.selector);
    }

    function test_RevertWhen_AnotherProgram() external {
        Case memory c = product();
        c.programId = keccak256("another");
        refuses(c, ILeafCourt.LeafCourt_ProgramMismatch.selector);
    }

    function test_RevertWhen_HeaderForged() external {
        Case memory c = product();
        c.node.header = keccak256("another");
        refuses(c, ILeafCourt.LeafCourt_ProgramMismatch.selector);
    }

    function test_RevertWhen_CountsForged() external {
        Case memory c = product();
        c.node.counts[2] = 6;
        refuses(c, ILeafCourt.LeafCourt_ProgramMismatch.selector);
        c.node.counts[2] = 500;
        refuses(c, abi.encodeWithSelector(ILeafCourt.LeafCourt_PathLength.selector, 5, 9));
    }

    function test_RevertWhen_DescriptorForged() external {
        Case memory c = product();
        Node memory n = node(Op.Sub, ints(), all(left, right), result.form);
        c.node.descriptor = abi.encode(n);
        refuses(c, ILeafCourt.LeafCourt_ProgramMismatch.selector);
    }

    function test_RevertWhen_NodePathLength() external {
        Case memory c = product();
        c.node.path = new bytes32[](4);
        refuses(c, abi.encodeWithSelector(ILeafCourt.LeafCourt_PathLength.selector, 4, 5));
        c.node.path = new bytes32[](6);
        refuses(c, abi.encodeWithSelector(ILeafCourt.LeafCourt_PathLength.selector, 6, 5));
    }

    function test_RevertWhen_LeafDescribesAnotherNode() external {
        Case memory c = product();
        Node memory n = node(Op.Matmul, ints(), all(left, right), result.form);
        amend(c, n);
        n.number = 5;
        c.node.descriptor = abi.encode(n);
        bytes32 leaf = sha256(abi.encodePacked(uint8(4), c.node.descriptor));
        c.programId = idOf(c.node, topOf(leaf, 7, c.node.path));
        refuses(c, abi.encodeWithSelector(ILeafCourt.LeafCourt_NodeMismatch.selector, 1, 4));
    }

    function test_RevertWhen_OperatorUnknown() external {
        Case memory c = product();
        Node memory n = node(Op.Matmul, ints(), all(left, right), result.form);
        n.op = 34;
        amend(c, n);
        refuses(c, abi.encodeWithSelector(ILeafCourt.LeafCourt_OperatorUnknown.selector, 34));
    }

    function test_Nodes() external view {
        for (uint8 list = 0; list < 3; ++list) {
            Case memory c = product();
            Node memory n = node(Op.Matmul, ints(), all(left, right), result.form);
            (n.list, n.number) = (list, 2);
            amend(c, n);
            vm.assertEq(court.element(c), value, "of each list");
        }
    }

    // ------------------------------------------------------------------------------------------------ operands

    function test_RevertWhen_RootsCount() external {
        Case memory c = product();
        c.roots = new bytes32[](1);
        refuses(c, abi.encodeWithSelector(ILeafCourt.LeafCourt_RootsCount.selector, 1, 2));
        c.roots = new bytes32[](3);
        refuses(c, abi.encodeWithSelector(ILeafCourt.LeafCourt_RootsCount.selector, 3, 2));
    }

    function test_RevertWhen_ConstantHasAnotherRoot() external {
        Case memory c = caseOf(Op.Constant, ints(0), all(left), left.form, 0);
        Tensor memory other = tensor(16, ints(5, 3), counting(15, 0));
        c.roots[0] = rootOf(other);
        show(c, open(other, 0));
        refuses(c, abi.encodeWithSelector(ILeafCourt.LeafCourt_ConstantRoot.selector, rootOf(other), rootOf(left)));
    }

    function test_RevertWhen_TooFewOpenings() external {
        Case memory c = product();
        c.openings = new Opening[](0);
        refuses(c, abi.encodeWithSelector(ILeafCourt.LeafCourt_OpeningsCount.selector, 0, 1));
        show(c, open(left, 9));
        refuses(c, abi.encodeWithSelector(ILeafCourt.LeafCourt_OpeningsCount.selector, 1, 2));
    }

    function test_RevertWhen_TooManyOpenings() external {
        Case memory c = product();
        show(c, open(right, 0));
        refuses(c, abi.encodeWithSelector(ILeafCourt.LeafCourt_OpeningsCount.selector, 3, 2));
        c = caseOf(Op.Step, ints(), all(), form(8, ints()), 0);
        show(c, open(right, 0));
        refuses(c, abi.encodeWithSelector(ILeafCourt.LeafCourt_OpeningsCount.selector, 1, 0));
    }

    function test_RevertWhen_OpeningsSwapped() external {
        Case memory c = product();
        (c.openings[0], c.openings[1]) = (c.openings[1], c.openings[0]);
        refuses(c, abi.encodeWithSelector(ILeafCourt.LeafCourt_ChunkLength.selector, 3, 6));
    }

    function test_RevertWhen_PlaceOutside() external {
        Case memory c = product();
        c.place = 20;
        refuses(c, abi.encodeWithSelector(ILeafCourt.LeafCourt_PlaceOutside.selector, 20, 20));
        c.place = type(uint256).max;
        refuses(c, abi.encodeWithSelector(ILeafCourt.LeafCourt_PlaceOutside.selector, type(uint256).max, 20));
    }

    /// @dev Of a program that has not passed its check.
    function test_RevertWhen_OperandTooSmall() external {
        Case memory c = caseOf(Op.Relu, ints(), all(left), result.form, 17);
        show(c, open(left, 14));
        refuses(c, abi.encodeWithSelector(ILeafCourt.LeafCourt_PlaceOutside.selector, 17, 15));
    }

    function test_RevertWhen_ChunkLength() external {
        Case memory c = product();
        c.openings[0].chunk = hex"0102030405";
        refuses(c, abi.encodeWithSelector(ILeafCourt.LeafCourt_ChunkLength.selector, 5, 6));
        c.openings[0].chunk = hex"01020304050607";
        refuses(c, abi.encodeWithSelector(ILeafCourt.LeafCourt_ChunkLength.selector, 7, 6));
    }

    function test_RevertWhen_PathLength() external {
        Case memory c = product();
        c.openings[1].path = new bytes32[](1);
        refuses(c, abi.encodeWithSelector(ILeafCourt.LeafCourt_PathLength.selector, 1, 2));
        c.openings[1].path = new bytes32[](3);
        refuses(c, abi.encodeWithSelector(ILeafCourt.LeafCourt_PathLength.selector, 3, 2));
    }

    function test_RevertWhen_ChunkForged() external {
        Case memory c = product();
        c.openings[0].chunk[0] ^= 0x01;
        refuses(c, ILeafCourt.LeafCourt_RootMismatch.selector);
    }

    function test_RevertWhen_AnotherRow() external {
        Case memory c = product();
        c.openings[0] = open(left, 6);
        refuses(c, ILeafCourt.LeafCourt_RootMismatch.selector);
        c = product();
        c.openings[1] = open(right, 9);
        refuses(c, ILeafCourt.LeafCourt_RootMismatch.selector);
    }

    function test_RevertWhen_AnotherRoot() external {
        Case memory c = product();
        c.roots[1] = c.roots[0];
        refuses(c, ILeafCourt.LeafCourt_RootMismatch.selector);
    }

    /// @dev A branch of the tree shown as a chunk: 64 bytes that hash to what lies above, but for the tag.
    function test_RevertWhen_BranchIsShownAsChunk() external {
        Tensor memory t = tensor(64, ints(2, 8), counting(16, 1));
        bytes32[] memory leaves = leavesOf(t);
        bytes memory branch = bytes.concat(leaves[0], leaves[1]);
        Form memory one = form(64, ints(1, 8));
        Case memory c = caseOf(Op.Relu, ints(), all(Tensor(one, new int256[](8))), one, 0);
        (bytes32 top,) = treeOf(leaves, 0);
        c.roots[0] = boundTo(one, top);
        show(c, Opening(branch, new bytes32[](0)));
        refuses(c, ILeafCourt.LeafCourt_RootMismatch.selector);
    }

    function test_RevertWhen_RowTooLong() external {
        Tensor memory t = tensor(8, ints(1, 1025), new int256[](1025));
        Case memory c = caseOf(Op.Sum, ints(), all(t), form(64, ints(1, 1)), 0);
        show(c, open(t, 0));
        refuses(c, abi.encodeWithSelector(ILeafCourt.LeafCourt_RowTooLong.selector, 1025, 8));
        t = tensor(64, ints(1, 513), new int256[](513));
        c = caseOf(Op.Max, ints(), all(t), form(64, ints(1, 1)), 0);
        show(c, open(t, 0));
        refuses(c, abi.encodeWithSelector(ILeafCourt.LeafCourt_RowTooLong.selector, 513, 64));
    }

    /// @dev 2 rows of 1,030 elements of 4 bytes: chunks of 4,096 and 24 bytes.
    function test_RowsOfSeveralChunks() external view {
        Tensor memory t = tensor(32, ints(2, 1030), counting(2060, -1000));
        uint256[4] memory places = [uint256(0), 1023, 1024, 2059];
        for (uint256 i = 0; i < 4; ++i) {
            Case memory c = caseOf(Op.Relu, ints(), all(t), t.form, places[i]);
            show(c, open(t, places[i]));
            vm.assertEq(c.openings[0].chunk.length, i < 2 ? 4096 : 24, "chunk");
            int256 x = t.values[places[i]];
            vm.assertEq(court.element(c), x > 0 ? x : int256(0), "element");
        }
    }

    function test_Widths() external view {
        for (uint8 bits = 8; bits != 128; bits *= 2) {
            int256 low = bits == 64 ? -int256((1 << 52) - 1) : -(int256(1) << (bits - 1));
            Tensor memory t = tensor(bits, ints(low, -1, 0, -low - 1));
            for (uint256 place = 0; place < 4; ++place) {
                Case memory c = caseOf(Op.Reshape, ints(), all(t), t.form, place);
                show(c, open(t, place));
                vm.assertEq(court.element(c), t.values[place], "ends of the width");
            }
        }
    }

    // --------------------------------------------------------------------------------------------------- fuzz

    /// @dev Whatever is opened, agreed on or claimed: with one bit of it changed the case is refused, and by name.
    function testFuzz_RevertWhen_AnyBitIsForged(uint256 which, uint256 index, uint8 bit) external {
        Case memory c = product();
        (bytes32 root, Opening memory opening) = claim();
        which = bound(which, 0, 10);
        index = bound(index, 0, type(uint128).max);
        bit = uint8(bound(bit, 0, 7));
        if (which < 2) flip(c.openings[which].chunk, index, bit);
        else if (which < 4) flip(c.openings[which - 2].path, index, bit);
        else if (which == 4) flip(c.node.descriptor, index, bit);
        else if (which == 5) flip(c.node.path, index, bit);
        else if (which == 6) flip(c.roots, index, bit);
        else if (which == 7) flip(opening.chunk, index, bit);
        else if (which == 8) flip(opening.path, index, bit);
        else if (which == 9) root ^= bytes32(uint256(1) << index % 256);
        else c.programId ^= bytes32(uint256(1) << index % 256);
        bool program = which == 4 || which == 5 || which == 10;
        vm.expectPartialRevert(
            program ? ILeafCourt.LeafCourt_ProgramMismatch.selector : ILeafCourt.LeafCourt_RootMismatch.selector
        );
        court.judge(c, root, opening);
    }

    /// @dev Any byte of the call: offsets, lengths and padding too. A verdict that is given stays what it was.
    function testFuzz_AnyByteOfTheCall(uint256 index, uint8 by, bool wrong) external {
        if (wrong) result.values[PLACE] += 1;
        (bytes32 root, Opening memory opening) = claim();
        bytes memory call = abi.encodeCall(ILeafCourt.judge, (product(), root, opening));
        index = bound(index, 0, call.length - 1);
        call[index] ^= bytes1(uint8(bound(by, 1, 255)));
        (bool done, bytes memory verdict) = address(court).staticcall(call);
        if (done) vm.assertEq(abi.decode(verdict, (bool)), !wrong, "the same verdict, or none");
    }

    function flip(bytes memory data, uint256 index, uint8 bit) internal pure {
        data[index % data.length] ^= bytes1(uint8(1) << bit);
    }

    function flip(bytes32[] memory data, uint256 index, uint8 bit) internal pure {
        data[index % data.length] ^= bytes32(uint256(1) << (index / 7 * 8 + bit) % 256);
    }
}

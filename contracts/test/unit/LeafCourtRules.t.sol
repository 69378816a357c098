// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {ILeafCourt} from "../../src/interfaces/ILeafCourt.sol";
import {ExactOps} from "../../src/libraries/ExactOps.sol";
import {Case, Form, Op} from "../../src/types/CourtTypes.sol";
import {CourtTest} from "../utils/CourtTest.sol";

/// @notice What each operator means, on numbers that can be checked by hand, and what has no value. The same numbers as
/// in the interpreter's tests where those have them.
contract LeafCourtRulesTest is CourtTest {
    int256 private constant TOP = (1 << 52) - 1;

    /// @dev One element of an operator on rows of one length.
    function byPlace(Op op, int256[] memory given, int256 x) private view returns (int256) {
        Tensor memory t = tensor(64, ints(7, x));
        Case memory c = caseOf(op, given, all(t), t.form, 1);
        show(c, open(t, 1));
        return court.element(c);
    }

    function byPlace(Op op, int256 x, int256 y) private view returns (int256) {
        Tensor memory t = tensor(64, ints(7, x));
        Tensor memory u = tensor(64, ints(9, y));
        Case memory c = caseOf(op, ints(), all(t, u), t.form, 1);
        show(c, open(t, 1));
        show(c, open(u, 1));
        return court.element(c);
    }

    function ofRow(Op op, int256[] memory values) private view returns (int256) {
        Tensor memory t = tensor(32, ints(2, int256(values.length)), pair(values));
        Case memory c = caseOf(op, ints(), all(t), form(64, ints(2, 1)), 1);
        show(c, open(t, values.length));
        return court.element(c);
    }

    /// @dev A row of sevens before the row.
    function pair(int256[] memory values) private pure returns (int256[] memory two) {
        two = new int256[](2 * values.length);
        for (uint256 i = 0; i < values.length; ++i) {
            (two[i], two[values.length + i]) = (7, values[i]);
        }
    }

    function mapped(Op op, int256[] memory given, Tensor memory t, Form memory to, uint256 place, uint256 from)
        private
        view
        returns (int256)
    {
        Case memory c = caseOf(op, given, all(t), to, place);
        if (from < t.values.length) show(c, open(t, from));
        return court.element(c);
    }

    // ------------------------------------------------------------------------------------------ of two, of one

    function test_OfTwo() external view {
        vm.assertEq(byPlace(Op.Add, 3, -4), int256(-1), "add");
        vm.assertEq(byPlace(Op.Sub, -4, 9), int256(-13), "sub");
        vm.assertEq(byPlace(Op.Mul, -4, 9), int256(-36), "mul");
        vm.assertEq(byPlace(Op.Less, 1, 2), int256(1), "less");
        vm.assertEq(byPlace(Op.Less, 2, 2), int256(0), "not less");
        vm.assertEq(byPlace(Op.Equal, 2, 2), int256(1), "equal");
        vm.assertEq(byPlace(Op.Equal, 2, -2), int256(0), "not equal");
    }

    function test_Select() external view {
        for (int256 condition = -1; condition < 2; ++condition) {
            Tensor memory t = tensor(8, ints(0, condition));
            Tensor memory x = tensor(16, ints(5, 10));
            Tensor memory y = tensor(32, ints(6, 20));
            Case memory c = caseOf(Op.Select, ints(), all(t, x, y), y.form, 1);
            show(c, open(t, 1));
            show(c, open(condition == 0 ? y : x, 1));
            vm.assertEq(court.element(c), condition == 0 ? int256(20) : int256(10), "select");
        }
    }

    function test_OfOne() external view {
        vm.assertEq(byPlace(Op.Clamp, ints(-2, 4), -3), int256(-2), "clamped from below");
        vm.assertEq(byPlace(Op.Clamp, ints(-2, 4), 9), int256(4), "clamped from above");
        vm.assertEq(byPlace(Op.Clamp, ints(-2, 4), 0), int256(0), "not clamped");
        vm.assertEq(byPlace(Op.Relu, ints(), -3), int256(0), "relu");
        vm.assertEq(byPlace(Op.Relu, ints(), 9), int256(9), "relu");
        vm.assertEq(byPlace(Op.Sign, ints(), -3), int256(-1), "sign");
        vm.assertEq(byPlace(Op.Sign, ints(), 0), int256(0), "sign");
        vm.assertEq(byPlace(Op.Sign, ints(), 3), int256(1), "sign");
    }

    function test_Shift() external view {
        vm.assertEq(byPlace(Op.Shift, ints(1), 3), int256(2), "halves go up");
        vm.assertEq(byPlace(Op.Shift, ints(1), -3), int256(-1), "halves go up below zero");
        vm.assertEq(byPlace(Op.Shift, ints(1), -4), int256(-2), "an even one");
        vm.assertEq(byPlace(Op.Shift, ints(2), -7), int256(-2), "to the nearest");
        vm.assertEq(byPlace(Op.Shift, ints(60), -TOP), int256(0), "by more than there is");
        vm.assertEq(byPlace(Op.Shift, ints(-3), -3), int256(-24), "to the left");
        vm.assertEq(byPlace(Op.Shift, ints(0), -3), int256(-3), "not at all");
        vm.assertEq(byPlace(Op.ShiftBy, 5, 1), int256(3), "by a tensor");
        vm.assertEq(byPlace(Op.ShiftBy, 5, -2), int256(20), "by a tensor, to the left");
    }

    function test_Div() external view {
        vm.assertEq(byPlace(Op.Div, 7, 2), int256(4), "halves go up");
        vm.assertEq(byPlace(Op.Div, -7, 2), int256(-3), "halves go up below zero");
        vm.assertEq(byPlace(Op.Div, -4, 3), int256(-1), "to the nearest");
        vm.assertEq(byPlace(Op.Div, -5, 3), int256(-2), "to the nearest");
        vm.assertEq(byPlace(Op.Div, -6, 3), int256(-2), "exactly");
    }

    function test_Isqrt() external view {
        vm.assertEq(byPlace(Op.Isqrt, ints(), 0), int256(0), "0");
        vm.assertEq(byPlace(Op.Isqrt, ints(), 3), int256(1), "3");
        vm.assertEq(byPlace(Op.Isqrt, ints(), 4), int256(2), "4");
        vm.assertEq(byPlace(Op.Isqrt, ints(), TOP), int256(67_108_863), "the largest");
    }

    function testFuzz_Isqrt(uint256 x) external pure {
        int256 value = int256(bound(x, 0, uint256(TOP)));
        int256 root = ExactOps.isqrt(value);
        vm.assertTrue(root * root <= value && value < (root + 1) * (root + 1), "floor");
    }

    /// @dev Against floor(x / 2^by + 1/2) as the inequality that defines it.
    function testFuzz_Shift(uint256 x, uint256 by) external pure {
        int256 value = int256(bound(x, 0, 2 * uint256(TOP))) - TOP;
        by = bound(by, 1, 62);
        int256 shifted = ExactOps.shift(value, int256(by));
        int256 whole = int256(1) << by;
        vm.assertTrue((2 * shifted - 1) * whole <= 2 * value && 2 * value < (2 * shifted + 1) * whole, "floor");
    }

    function testFuzz_Div(uint256 x, uint256 by) external pure {
        int256 value = int256(bound(x, 0, 1 << 50)) - (1 << 49);
        int256 y = int256(bound(by, 1, 1 << 50));
        int256 quotient = ExactOps.div(value, y);
        vm.assertTrue((2 * quotient - 1) * y <= 2 * value && 2 * value < (2 * quotient + 1) * y, "floor");
    }

    // ------------------------------------------------------------------------------------------------ of a row

    function test_OfRow() external view {
        vm.assertEq(ofRow(Op.Max, ints(7, -6, 9, 9)), int256(9), "max");
        vm.assertEq(ofRow(Op.Max, ints(-7, -6, -9)), int256(-6), "max of negative ones");
        vm.assertEq(ofRow(Op.Sum, ints(7, -6, 7)), int256(8), "sum");
        vm.assertEq(ofRow(Op.Argmax, ints(7, -6, 9, 9)), int256(2), "the first of the largest");
        vm.assertEq(ofRow(Op.Rowexp, ints(0, 127)), int256(0), "seven bits");
        vm.assertEq(ofRow(Op.Rowexp, ints(1, 128)), int256(1), "eight bits");
        vm.assertEq(ofRow(Op.Rowexp, ints(1, -(1 << 20))), int256(14), "a negative one");
    }

    function test_Quant() external view {
        Tensor memory x = tensor(16, ints(2, 2), ints(1, 2, 255, -255));
        Tensor memory e = tensor(8, ints(2, 1), ints(0, 1));
        for (uint256 place = 2; place < 4; ++place) {
            Case memory c = caseOf(Op.Quant, ints(), all(x, e), form(8, ints(2, 2)), place);
            show(c, open(e, 1));
            show(c, open(x, place));
            vm.assertEq(court.element(c), place == 2 ? int256(127) : int256(-127), "rounded up, and clamped");
        }
    }

    function test_Matmul() external view {
        Tensor memory left = tensor(8, ints(2, 1, 2), ints(1, 2, 3, 4));
        int256[] memory values = new int256[](12);
        int256[12] memory right = [int256(1), 0, 0, 1, 1, 1, 2, 0, 0, 2, -1, -1];
        for (uint256 i = 0; i < 12; ++i) {
            values[i] = right[i];
        }
        Tensor memory t = tensor(32, ints(2, 3, 2), values);
        int256[6] memory expected = [int256(1), 2, 3, 6, 8, -7];
        for (uint256 place = 0; place < 6; ++place) {
            Case memory c = caseOf(Op.Matmul, ints(), all(left, t), form(16, ints(2, 1, 3)), place);
            show(c, open(left, place / 3 * 2));
            show(c, open(t, place * 2));
            vm.assertEq(court.element(c), expected[place], "batch by batch");
        }
    }

    /// @dev The ends of a byte in every term: nothing reaches from one sum into another.
    function test_Matmul_EndsOfBytes() external view {
        int256[2] memory ends = [int256(-128), 127];
        for (uint256 i = 0; i < 4; ++i) {
            Tensor memory x = tensor(8, ints(1, 1024), new int256[](1024));
            Tensor memory y = tensor(8, ints(1, 1024), new int256[](1024));
            for (uint256 k = 0; k < 1024; ++k) {
                (x.values[k], y.values[k]) = (ends[i / 2], ends[i % 2]);
            }
            Case memory c = caseOf(Op.Matmul, ints(), all(x, y), form(32, ints(1, 1)), 0);
            show(c, open(x, 0));
            show(c, open(y, 0));
            vm.assertEq(court.element(c), 1024 * ends[i / 2] * ends[i % 2], "dot product");
        }
    }

    /// @dev Every width with every other, lengths that fill no word, values of either sign.
    function testFuzz_Matmul(uint256 seed, uint8 left, uint8 right, uint256 length) external view {
        length = bound(length, 1, 70);
        uint8 a = uint8(8 << bound(left, 0, 3));
        uint8 b = uint8(8 << bound(right, 0, 3));
        Tensor memory x = tensor(a, ints(1, int256(length)), new int256[](length));
        Tensor memory y = tensor(b, ints(1, int256(length)), new int256[](length));
        int256 sum = 0;
        for (uint256 i = 0; i < length; ++i) {
            // Of 7 to 25 bits: the sum has fewer than 52.
            x.values[i] = int256(uint256(keccak256(abi.encode(seed, i)))) >> (256 - (a < 24 ? a : 22));
            y.values[i] = int256(uint256(keccak256(abi.encode(seed, i, "y")))) >> (256 - (b < 24 ? b : 22));
            sum += x.values[i] * y.values[i];
        }
        Case memory c = caseOf(Op.Matmul, ints(), all(x, y), form(64, ints(1, 1)), 0);
        show(c, open(x, 0));
        show(c, open(y, 0));
        vm.assertEq(court.element(c), sum, "dot product");
    }

    // ---------------------------------------------------------------------------------------------- index maps

    function test_Maps() external view {
        Tensor memory t = tensor(8, ints(2, 3), counting(6, 1));
        vm.assertEq(mapped(Op.Reshape, ints(), t, form(8, ints(6)), 4, 4), int256(5), "reshape");
        vm.assertEq(mapped(Op.Transpose, ints(1, 0), t, form(8, ints(3, 2)), 1, 3), int256(4), "transpose");
        vm.assertEq(mapped(Op.Broadcast, ints(), t, form(8, ints(2, 2, 3)), 10, 4), int256(5), "broadcast in front");
        Tensor memory column = tensor(8, ints(2, 1), ints(8, 9));
        vm.assertEq(mapped(Op.Broadcast, ints(), column, form(8, ints(2, 3)), 4, 1), int256(9), "broadcast of ones");
        vm.assertEq(mapped(Op.Slice, ints(1, 1), t, form(8, ints(2, 2)), 2, 4), int256(5), "slice");
    }

    function test_Pad() external view {
        Tensor memory t = tensor(8, ints(2, 2), counting(4, 1));
        Form memory to = form(8, ints(2, 4));
        vm.assertEq(mapped(Op.Pad, ints(1, 1), t, to, 6, 3), int256(4), "inside");
        vm.assertEq(mapped(Op.Pad, ints(1, 1), t, to, 4, 99), int256(0), "before");
        vm.assertEq(mapped(Op.Pad, ints(1, 1), t, to, 7, 99), int256(0), "behind");
    }

    /// @dev A kernel of 2 × 2 over 3 × 3 pixels in steps of 2 with a border of 1: 2 × 2 windows.
    function test_Im2col() external view {
        Tensor memory image = tensor(8, ints(1, 1, 3, 3), counting(9, 1));
        Form memory to = form(8, ints(1, 4, 4));
        int256[] memory window = ints(2, 2, 2, 1);
        vm.assertEq(mapped(Op.Im2col, window, image, to, 0, 99), int256(0), "above and left of the image");
        vm.assertEq(mapped(Op.Im2col, window, image, to, 3, 0), int256(1), "its first pixel");
        vm.assertEq(mapped(Op.Im2col, window, image, to, 15, 8), int256(9), "its last pixel");
        vm.assertEq(mapped(Op.Im2col, window, image, to, 12, 4), int256(5), "its middle");
    }

    function test_Col2im() external view {
        // Over 3 × 3 pixels a kernel of 2 × 2 in steps of 1 takes the middle four times, a corner once.
        Tensor memory columns = tensor(8, ints(1, 4, 4), counting(16, 1));
        Case memory c = caseOf(Op.Col2im, ints(2, 2, 1, 0), all(columns), form(16, ints(1, 1, 3, 3)), 4);
        show(c, open(columns, 3));
        show(c, open(columns, 6));
        show(c, open(columns, 9));
        show(c, open(columns, 12));
        vm.assertEq(court.element(c), int256(4 + 7 + 10 + 13), "all windows that cover it");
        c = caseOf(Op.Col2im, ints(2, 2, 1, 0), all(columns), form(16, ints(1, 1, 3, 3)), 8);
        show(c, open(columns, 15));
        vm.assertEq(court.element(c), int256(16), "a corner");
        // In steps of 3 a kernel of 1 leaves pixels out.
        Tensor memory few = tensor(8, ints(1, 1, 1), ints(5));
        c = caseOf(Op.Col2im, ints(1, 1, 3, 0), all(few), form(8, ints(1, 1, 3, 3)), 1);
        vm.assertEq(court.element(c), int256(0), "a pixel of no window");
    }

    function test_ByIndex() external view {
        Tensor memory index = tensor(8, ints(2, 0, 1, 2));
        Tensor memory table = tensor(8, ints(10, 20, 30));
        Case memory c = caseOf(Op.Table, ints(), all(table, index), index.form, 3);
        show(c, open(index, 3));
        show(c, open(table, 2));
        vm.assertEq(court.element(c), int256(30), "table");
        Tensor memory rows = tensor(8, ints(3, 2), counting(6, 1));
        c = caseOf(Op.Gather, ints(), all(rows, index), form(8, ints(4, 2)), 5);
        show(c, open(index, 2));
        show(c, open(rows, 3));
        vm.assertEq(court.element(c), int256(4), "gather");
    }

    // ----------------------------------------------------------------------------------------------- sources

    function test_Sources() external view {
        Tensor memory t = tensor(64, ints(-1, TOP));
        for (uint8 op = 0; op < 3; ++op) {
            Case memory c = caseOf(Op(op), ints(0), all(t), t.form, 1);
            show(c, open(t, 1));
            vm.assertEq(court.element(c), TOP, "what it stands for");
        }
        vm.assertEq(court.element(caseOf(Op.Step, ints(), all(), form(8, ints()), 0)), int256(3), "step");
    }

    /// @dev The interpreter's numbers for this seed are in its own tests; here is what the draws are made of.
    function test_Draws() external view {
        Case memory c = caseOf(Op.Sample, ints(100), all(), form(8, ints(5)), 4);
        uint256 drawn = uint256(keccak256(abi.encode(SEED, uint256(STEP), uint256(4)))) % 100;
        vm.assertEq(court.element(c), int256(drawn), "sample");
        c = caseOf(Op.Random, ints(2, 9), all(), form(16, ints(6)), 5);
        uint256 first = uint256(SEED) >> 224;
        uint256 second = uint256(SEED) >> 192 & 0xffffffff;
        uint256[4] memory words = ExactOps.philox([uint256(1), 0, STEP, 2], first, second);
        vm.assertEq(court.element(c), int256(words[1] >> 23), "random");
    }

    /// @dev Of the authors' Random123.
    function test_Philox() external pure {
        uint256 m = 0xffffffff;
        uint256[4] memory words = ExactOps.philox([uint256(0), 0, 0, 0], 0, 0);
        vm.assertEq(
            words[0] << 96 | words[1] << 64 | words[2] << 32 | words[3], 0x6627e8d5e169c58dbc57ac4c9b00dbd8, "0"
        );
        words = ExactOps.philox([m, m, m, m], m, m);
        vm.assertEq(
            words[0] << 96 | words[1] << 64 | words[2] << 32 | words[3], 0x408f276d41c83b0ea20bc7c66d5451fd, "1"
        );
        words = ExactOps.philox([uint256(0x243f6a88), 0x85a308d3, 0x13198a2e, 0x03707344], 0xa4093822, 0x299f31d0);
        vm.assertEq(
            words[0] << 96 | words[1] << 64 | words[2] << 32 | words[3], 0xd16cfe0994fdcceb5001e42024126ea1, "pi"
        );
    }

    // ------------------------------------------------------------------------------------------ without a value

    function test_RevertWhen_Overflow() external {
        vm.expectRevert(abi.encodeWithSelector(ILeafCourt.LeafCourt_Overflow.selector, TOP + 1));
        this.pairOf(Op.Add, TOP, 1);
        vm.expectRevert(abi.encodeWithSelector(ILeafCourt.LeafCourt_Overflow.selector, -TOP - 1));
        this.pairOf(Op.Sub, -TOP, 1);
        vm.expectRevert(abi.encodeWithSelector(ILeafCourt.LeafCourt_Overflow.selector, int256(1) << 52));
        this.pairOf(Op.Mul, 1 << 26, 1 << 26);
        vm.expectRevert(abi.encodeWithSelector(ILeafCourt.LeafCourt_Overflow.selector, int256(1) << 52));
        this.pairOf(Op.ShiftBy, 1, -52);
        vm.expectRevert(abi.encodeWithSelector(ILeafCourt.LeafCourt_Overflow.selector, 2 * TOP + 1));
        this.pairOf(Op.Div, TOP, 1);
    }

    function pairOf(Op op, int256 x, int256 y) external view {
        byPlace(op, x, y);
    }

    function test_RevertWhen_Divisor() external {
        vm.expectRevert(abi.encodeWithSelector(ILeafCourt.LeafCourt_Divisor.selector, int256(0)));
        this.pairOf(Op.Div, 1, 0);
        vm.expectRevert(abi.encodeWithSelector(ILeafCourt.LeafCourt_Divisor.selector, int256(-1)));
        this.pairOf(Op.Div, 1, -1);
    }

    function test_RevertWhen_Shift() external {
        vm.expectRevert(abi.encodeWithSelector(ILeafCourt.LeafCourt_Shift.selector, int256(63)));
        this.pairOf(Op.ShiftBy, 1, 63);
        vm.expectRevert(abi.encodeWithSelector(ILeafCourt.LeafCourt_Shift.selector, int256(-63)));
        this.pairOf(Op.ShiftBy, 0, -63);
    }

    function rootOfOne(int256 x) external view {
        byPlace(Op.Isqrt, ints(), x);
    }

    function test_RevertWhen_Root() external {
        vm.expectRevert(abi.encodeWithSelector(ILeafCourt.LeafCourt_Root.selector, int256(-1)));
        this.rootOfOne(-1);
    }

    function test_RevertWhen_Index() external {
        Tensor memory table = tensor(8, ints(10, 20, 30));
        for (uint256 i = 0; i < 4; ++i) {
            int256 wrong = i % 2 == 0 ? int256(-1) : int256(3);
            Tensor memory index = tensor(8, ints(wrong));
            Case memory c = caseOf(i < 2 ? Op.Table : Op.Gather, ints(), all(table, index), index.form, 0);
            show(c, open(index, 0));
            show(c, open(table, 2));
            vm.expectRevert(abi.encodeWithSelector(ILeafCourt.LeafCourt_Index.selector, wrong, 3));
            court.element(c);
        }
    }
}

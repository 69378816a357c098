// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {ILeafCourt} from "../../src/interfaces/ILeafCourt.sol";
import {Case, Form, Node, Op, Opening} from "../../src/types/CourtTypes.sol";
import {CourtTest} from "../utils/CourtTest.sol";

/// @notice What one element costs at the limits of a program: tensors of 2^28 elements, chunks of 4 KiB without a byte
/// that is zero, 16,384 operators in each list. Whole transactions, calldata and its floor included, in
/// snapshots/LeafCourt.json.
contract LeafCourtGasTest is CourtTest {
    uint256 private constant LIMIT = 500_000;
    uint256 private constant PLACE = 123_456_789;

    /// @dev Of `call` as a transaction after Prague: 21,000, calldata and execution, or the floor of calldata.
    function spent(bytes memory call) private view returns (uint256) {
        uint256 tokens = 0;
        for (uint256 i = 0; i < call.length; ++i) {
            tokens += call[i] == 0 ? 1 : 4;
        }
        address to = address(court);
        // Once before, so that the address is warm as a transaction's recipient is.
        (bool done,) = to.staticcall(call);
        vm.assertTrue(done, "a verdict");
        uint256 left = gasleft();
        (done,) = to.staticcall(call);
        uint256 execution = left - gasleft();
        uint256 standard = 4 * tokens + execution;
        return 21_000 + (standard > 10 * tokens ? standard : 10 * tokens);
    }

    function measure(string memory name, Case memory c) private returns (uint256 gas) {
        gas = spent(abi.encodeCall(ILeafCourt.element, (c)));
        vm.snapshotValue("LeafCourt", name, gas);
    }

    /// @dev Measures an operator that is within the limit.
    function within(string memory name, Case memory c) private {
        vm.assertLe(measure(name, c), LIMIT, name);
    }

    /// @dev A case at the limits without openings.
    function caseAt(Op op, int256[] memory given, Form[] memory forms, Form memory result, uint256 place)
        private
        pure
        returns (Case memory c)
    {
        c.node.counts = [uint32(16_384), 16_384, 16_384];
        c.node.header = keccak256("header");
        c.node.path = siblings(3 * 16_384);
        Node memory n = Node(1, 9_999, uint8(op), given, 0, new uint32[](forms.length), forms, result);
        for (uint32 i = 0; i < forms.length; ++i) {
            n.operands[i] = 9_990 + i;
        }
        c.roots = new bytes32[](forms.length);
        c.openings = new Opening[](0);
        (c.list, c.number, c.seed, c.step, c.place) = (n.list, n.number, SEED, 60_000, place);
        settle(c, n);
    }

    function settle(Case memory c, Node memory n) private pure {
        c.node.descriptor = abi.encode(n);
        bytes32 leaf = sha256(abi.encodePacked(uint8(4), c.node.descriptor));
        c.programId = idOf(c.node, topOf(leaf, 16_384 + n.number, c.node.path));
    }

    /// @dev Opens a chunk of -1 with `value` at the place.
    function showAt(Case memory c, uint256 operand, Form memory f, uint256 place, int256 value) private pure {
        int256[] memory values = new int256[](partOf(f));
        for (uint256 i = 0; i < values.length; ++i) {
            values[i] = -1;
        }
        values[place % rowOf(f) % values.length] = value;
        uint256 count = 1;
        for (uint256 i = 0; i < f.shape.length; ++i) {
            count *= f.shape[i];
        }
        Opening memory o = Opening(written(f.bits, values, 0, values.length), siblings(count / values.length));
        c.roots[operand] = boundTo(f, topOf(leafOf(o.chunk), leafAt(f, place), o.path));
        show(c, o);
    }

    function like(Form memory f, uint256 count) private pure returns (Form[] memory forms) {
        forms = new Form[](count);
        for (uint256 i = 0; i < count; ++i) {
            forms[i] = f;
        }
    }

    /// @dev 2^28 elements of 8 bytes in rows of 4 KiB.
    function wide() private pure returns (Form memory) {
        return form(64, ints(1 << 19, 512));
    }

    // -------------------------------------------------------------------------------------------------- limits

    function test_Sources() external {
        string[3] memory names = ["state", "data", "constant"];
        for (uint8 op = 0; op < 3; ++op) {
            Case memory c = caseAt(Op(op), ints(1_000), like(wide(), 1), wide(), PLACE);
            showAt(c, 0, wide(), PLACE, -1);
            if (op == uint8(Op.Constant)) {
                Node memory n = abi.decode(c.node.descriptor, (Node));
                n.root = c.roots[0];
                settle(c, n);
            }
            within(names[op], c);
        }
        within("step", caseAt(Op.Step, ints(), like(wide(), 0), form(16, ints()), 0));
        within("sample", caseAt(Op.Sample, ints(1 << 51), like(wide(), 0), wide(), PLACE));
        within("random", caseAt(Op.Random, ints(1 << 31, 32), like(wide(), 0), wide(), PLACE));
    }

    function ofOne(string memory name, Op op, int256[] memory given, int256 value) private {
        Case memory c = caseAt(op, given, like(wide(), 1), wide(), PLACE);
        showAt(c, 0, wide(), PLACE, value);
        within(name, c);
    }

    function test_OfOne() external {
        ofOne("reshape", Op.Reshape, ints(), -1);
        ofOne("clamp", Op.Clamp, ints(-(1 << 51), 1 << 51), -1);
        ofOne("relu", Op.Relu, ints(), -1);
        ofOne("sign", Op.Sign, ints(), -1);
        ofOne("shift", Op.Shift, ints(62), -1);
        ofOne("isqrt", Op.Isqrt, ints(), (1 << 52) - 1);
    }

    function ofTwo(string memory name, Op op) private {
        Case memory c = caseAt(op, ints(), like(wide(), 2), wide(), PLACE);
        showAt(c, 0, wide(), PLACE, -3);
        showAt(c, 1, wide(), PLACE, 2);
        within(name, c);
    }

    function test_OfTwo() external {
        ofTwo("add", Op.Add);
        ofTwo("sub", Op.Sub);
        ofTwo("mul", Op.Mul);
        ofTwo("less", Op.Less);
        ofTwo("equal", Op.Equal);
        ofTwo("shiftBy", Op.ShiftBy);
        ofTwo("div", Op.Div);
        Case memory c = caseAt(Op.Select, ints(), like(wide(), 3), wide(), PLACE);
        showAt(c, 0, wide(), PLACE, 0);
        showAt(c, 2, wide(), PLACE, -1);
        within("select", c);
    }

    function mapped(string memory name, Op op, int256[] memory given, Form memory from, Form memory to, uint256 place)
        private
    {
        Case memory c = caseAt(op, given, like(from, 1), to, PLACE);
        showAt(c, 0, from, place, -1);
        within(name, c);
    }

    function test_Maps() external {
        Form memory deep = form(64, ints(1 << 10, 1 << 9, 1 << 9));
        Form memory turned = form(64, ints(1 << 9, 1 << 9, 1 << 10));
        uint256 place = PLACE % 1024 << 18 | (PLACE >> 19) << 9 | PLACE >> 10 & 511;
        // The last dimension comes from the first, the first from the second.
        mapped("transpose", Op.Transpose, ints(1, 2, 0), deep, turned, place);
        Form memory few = form(64, ints(1 << 10, 1, 1 << 9));
        mapped("broadcast", Op.Broadcast, ints(), few, deep, (PLACE >> 18) << 9 | PLACE & 511);
        mapped("slice", Op.Slice, ints(0, 0), deep, deep, PLACE);
        mapped("pad", Op.Pad, ints(0, 0), deep, deep, PLACE);
        // A kernel of one pixel takes the channels of each.
        Form memory image = form(64, ints(1 << 6, 1 << 4, 1 << 9, 1 << 9));
        Form memory columns = form(64, ints(1 << 6, 1 << 18, 1 << 4));
        place = (PLACE >> 22) << 22 | (PLACE & 15) << 18 | PLACE >> 4 & 0x3ffff;
        mapped("im2col", Op.Im2col, ints(1, 1, 1, 0), image, columns, place);
    }

    function test_ByAnother() external {
        Case memory c = caseAt(Op.Gather, ints(), like(wide(), 2), form(64, ints(1 << 19, 512, 512)), PLACE);
        showAt(c, 1, wide(), PLACE / 512, 54_321);
        showAt(c, 0, wide(), 54_321 * 512 + PLACE % 512, -1);
        within("gather", c);
        Form memory values = form(64, ints(1 << 28));
        c = caseAt(Op.Table, ints(), like(values, 2), values, PLACE);
        showAt(c, 1, values, PLACE, 87_654_321);
        showAt(c, 0, values, 87_654_321, -1);
        within("table", c);
        Form[] memory forms = like(form(64, ints(1 << 9, 1 << 10, 1 << 9)), 2);
        forms[1] = form(64, ints(1 << 9, 1 << 10, 1));
        c = caseAt(Op.Quant, ints(), forms, form(8, ints(1 << 9, 1 << 10, 1 << 9)), PLACE);
        showAt(c, 1, forms[1], PLACE / 512, 3);
        showAt(c, 0, forms[0], PLACE, -1);
        within("quant", c);
    }

    function ofRow(string memory name, Op op) private {
        Form memory rows = form(32, ints(1 << 18, 1024));
        Case memory c = caseAt(op, ints(), like(rows, 1), form(64, ints(1 << 18, 1)), 234_567);
        showAt(c, 0, rows, 234_567 * 1024, -2);
        within(name, c);
    }

    function test_OfRow() external {
        ofRow("max", Op.Max);
        ofRow("sum", Op.Sum);
        ofRow("argmax", Op.Argmax);
        ofRow("rowexp", Op.Rowexp);
    }

    // ------------------------------------------------------------------------------------------------ products

    function product(uint8 bits) private pure returns (Case memory c, Form memory result) {
        Form memory rows = form(bits, ints(1 << 18, 1024));
        result = form(32, ints(1 << 18, 1 << 10));
        Form[] memory forms = like(rows, 2);
        forms[1] = form(bits, ints(1 << 10, 1024));
        c = caseAt(Op.Matmul, ints(), forms, result, PLACE);
        showAt(c, 0, rows, PLACE / 1024 * 1024, -1);
        showAt(c, 1, forms[1], PLACE % 1024 * 1024, -1);
    }

    function test_Matmul() external {
        (Case memory c,) = product(32);
        within("matmul", c);
        (c,) = product(8);
        vm.assertLe(measure("matmul of 8 bits", c), 200_000, "two rows of 1,024 bytes");
    }

    /// @dev With the claim in a chunk of 4 KiB, as the element's row has it.
    function test_Judge() external {
        (Case memory c, Form memory result) = product(8);
        Opening[] memory openings = c.openings;
        bytes32[] memory roots = c.roots;
        c.roots = new bytes32[](1);
        showAt(c, 0, result, PLACE, 1024);
        bytes32 root = c.roots[0];
        Opening memory claim = c.openings[2];
        (c.roots, c.openings) = (roots, openings);
        vm.assertTrue(court.judge(c, root, claim), "right");
        uint256 gas = spent(abi.encodeCall(ILeafCourt.judge, (c, root, claim)));
        vm.snapshotValue("LeafCourt", "matmul of 8 bits, judged", gas);
        vm.assertLe(gas, LIMIT, "judged");
    }

    // -------------------------------------------------------------------------------------------------- col2im

    /// @dev As much as a program may ask for: nine windows over a pixel, rows of 27 elements of eight bytes (32 are the limit,
    /// no multiple of nine), 2^23 of them. All elements are -1, so that at each height of the tree all nodes are one.
    function test_Col2im() external {
        Form memory columns = form(64, ints(1 << 19, 16, 27));
        Form memory image = form(64, ints(1 << 19, 3, 1, 24));
        Case memory c = caseAt(Op.Col2im, ints(1, 9, 1, 0), like(columns, 1), image, 12);
        bytes memory chunk = new bytes(27 * 8);
        for (uint256 i = 0; i < chunk.length; ++i) {
            chunk[i] = 0xff;
        }
        bytes32[] memory path = new bytes32[](23);
        bytes32 above = leafOf(chunk);
        for (uint256 level = 0; level < path.length; ++level) {
            path[level] = above;
            above = sha256(abi.encodePacked(uint8(1), above, above));
        }
        c.roots[0] = boundTo(columns, above);
        for (uint256 i = 0; i < 9; ++i) {
            show(c, Opening(chunk, path));
        }
        vm.assertEq(court.element(c), -9, "one of each window");
        within("col2im of 9 rows of 27 elements", c);
    }

    function test_Code() external {
        vm.snapshotValue("LeafCourt", "bytes of code", address(court).code.length);
        vm.assertLe(address(court).code.length, 24_576, "what a chain takes");
    }
}

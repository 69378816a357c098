// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ILeafCourt} from "./interfaces/ILeafCourt.sol";
import {ExactOps} from "./libraries/ExactOps.sol";
import {IndexMaps, Window} from "./libraries/IndexMaps.sol";
import {Openings} from "./libraries/Openings.sol";
import {Row, Rows} from "./libraries/Rows.sol";
import {Case, Node, Op, Opening} from "./types/CourtTypes.sol";

/// @title LeafCourt
/// @notice See {ILeafCourt}.
contract LeafCourt is ILeafCourt {
    /// @dev What is known while an element is computed.
    struct Desk {
        Node node;
        /// @dev The opening that is read next.
        uint256 next;
    }

    /// @inheritdoc ILeafCourt
    function element(Case calldata c) external view returns (int256 value) {
        (value,) = _computed(c);
    }

    /// @inheritdoc ILeafCourt
    function judge(Case calldata c, bytes32 root, Opening calldata claim) external view returns (bool right) {
        (int256 value, Desk memory desk) = _computed(c);
        return value == Openings.value(root, desk.node.result, c.place, claim);
    }

    function _computed(Case calldata c) private view returns (int256 value, Desk memory desk) {
        desk.node = Openings.node(c);
        if (desk.node.op > uint8(type(Op).max)) revert LeafCourt_OperatorUnknown(desk.node.op);
        uint256 count = Openings.elements(desk.node.result.shape);
        if (c.place >= count) revert LeafCourt_PlaceOutside(c.place, count);
        if (c.roots.length != desk.node.forms.length) {
            revert LeafCourt_RootsCount(c.roots.length, desk.node.forms.length);
        }
        value = ExactOps.fit(_element(c, desk, Op(desk.node.op)));
        if (desk.next != c.openings.length) revert LeafCourt_OpeningsCount(c.openings.length, desk.next);
    }

    // ------------------------------------------------------------------------------------------------- rules

    function _element(Case calldata c, Desk memory desk, Op op) private view returns (int256) {
        if (op <= Op.Step || op >= Op.Sample) return _source(c, desk, op);
        if (op == Op.Matmul) return _matmul(c, desk);
        if (op <= Op.Im2col) return _mapped(c, desk, op);
        if (op == Op.Col2im) return _col2im(c, desk);
        if (op >= Op.Max && op <= Op.Rowexp) return _ofRow(c, desk, op);
        if (op == Op.Gather || op == Op.Table || op == Op.Quant || op == Op.Select) return _byAnother(c, desk, op);
        return _byPlace(c, desk, op);
    }

    /// @dev Operators without operands.
    function _source(Case calldata c, Desk memory desk, Op op) private view returns (int256) {
        Node memory node = desk.node;
        if (op == Op.Step) return int256(uint256(c.step));
        if (op == Op.Sample) return ExactOps.sample(c.seed, c.step, c.place, uint256(node.attributes[0]));
        if (op == Op.Random) {
            uint32 stream = uint32(uint256(node.attributes[0]));
            return ExactOps.random(c.seed, stream, c.step, c.place, uint256(node.attributes[1]));
        }
        if (op == Op.Constant && c.roots[0] != node.root) revert LeafCourt_ConstantRoot(c.roots[0], node.root);
        return _read(c, desk, 0, c.place);
    }

    /// @dev A row of the left operand, and one of the right operand of the same batch.
    function _matmul(Case calldata c, Desk memory desk) private view returns (int256) {
        uint64[] memory shape = desk.node.result.shape;
        (uint256 rows, uint256 columns) = (shape[shape.length - 2], shape[shape.length - 1]);
        Row memory left = _row(c, desk, 0, c.place / columns);
        Row memory right = _row(c, desk, 1, c.place / (rows * columns) * columns + c.place % columns);
        return Rows.dot(left, right);
    }

    /// @dev The element of the operand that an index map names, or 0.
    function _mapped(Case calldata c, Desk memory desk, Op op) private view returns (int256) {
        Node memory node = desk.node;
        (uint64[] memory from, uint64[] memory to) = (node.forms[0].shape, node.result.shape);
        int256[] memory given = node.attributes;
        uint256 place = c.place; // of reshape
        if (op == Op.Transpose) place = IndexMaps.transposed(from, to, given, place);
        else if (op == Op.Broadcast) place = IndexMaps.broadcast(from, to, place);
        else if (op == Op.Slice) place = IndexMaps.sliced(from, to, uint256(given[0]), uint256(given[1]), place);
        else if (op == Op.Pad) place = IndexMaps.padded(from, to, uint256(given[0]), uint256(given[1]), place);
        else if (op == Op.Im2col) place = IndexMaps.pixel(_window(given), from, place);
        return place == IndexMaps.NOWHERE ? int256(0) : _read(c, desk, 0, place);
    }

    /// @dev The sum of all elements that im2col takes from this pixel.
    function _col2im(Case calldata c, Desk memory desk) private view returns (int256 sum) {
        Window memory window = _window(desk.node.attributes);
        uint256[] memory places = IndexMaps.takers(window, desk.node.result.shape, c.place);
        for (uint256 i = 0; i < places.length; ++i) {
            sum += _read(c, desk, 0, places[i]);
        }
    }

    function _ofRow(Case calldata c, Desk memory desk, Op op) private view returns (int256) {
        Row memory row = _row(c, desk, 0, c.place);
        if (op == Op.Sum) return Rows.sum(row);
        if (op == Op.Rowexp) return ExactOps.exponent(Rows.magnitude(row));
        (int256 value, uint256 index) = Rows.largest(row);
        return op == Op.Max ? value : int256(index);
    }

    /// @dev What is read, or how, depends on another element.
    function _byAnother(Case calldata c, Desk memory desk, Op op) private view returns (int256) {
        uint64[] memory shape = desk.node.forms[0].shape;
        if (op == Op.Select) return _read(c, desk, _read(c, desk, 0, c.place) != 0 ? 1 : 2, c.place);
        if (op == Op.Quant) {
            int256 by = _read(c, desk, 1, c.place / Openings.rowLength(shape));
            return ExactOps.clamp(ExactOps.shift(_read(c, desk, 0, c.place), by), -127, 127);
        }
        // Elements of what one index names: a table's have one.
        uint256 row = op == Op.Table ? 1 : Openings.elements(shape) / shape[0];
        uint256 index = ExactOps.within(_read(c, desk, 1, c.place / row), shape[0]);
        return _read(c, desk, 0, index * row + c.place % row);
    }

    /// @dev Of the elements at the same place of one operand or two.
    function _byPlace(Case calldata c, Desk memory desk, Op op) private view returns (int256) {
        int256[] memory given = desk.node.attributes;
        int256 x = _read(c, desk, 0, c.place);
        if (op == Op.Clamp) return ExactOps.clamp(x, given[0], given[1]);
        if (op == Op.Relu) return x > 0 ? x : int256(0);
        if (op == Op.Sign) return ExactOps.sign(x);
        if (op == Op.Shift) return ExactOps.shift(x, given[0]);
        if (op == Op.Isqrt) return ExactOps.isqrt(x);
        int256 y = _read(c, desk, 1, c.place);
        if (op == Op.Add) return x + y;
        if (op == Op.Sub) return x - y;
        if (op == Op.Mul) return x * y;
        if (op == Op.Less) return x < y ? int256(1) : int256(0);
        if (op == Op.Equal) return x == y ? int256(1) : int256(0);
        if (op == Op.ShiftBy) return ExactOps.shift(x, y);
        return ExactOps.div(x, y);
    }

    // ------------------------------------------------------------------------------------------------ reading

    /// @dev The element at `place` of an operand, by the next opening.
    function _read(Case calldata c, Desk memory desk, uint256 operand, uint256 place) private view returns (int256) {
        return Openings.value(c.roots[operand], desk.node.forms[operand], place, _opening(c, desk));
    }

    /// @dev The row with number `index` of an operand, by the next opening.
    function _row(Case calldata c, Desk memory desk, uint256 operand, uint256 index) private view returns (Row memory) {
        return Openings.row(c.roots[operand], desk.node.forms[operand], index, _opening(c, desk));
    }

    function _opening(Case calldata c, Desk memory desk) private pure returns (Opening calldata) {
        uint256 next = desk.next++;
        if (next >= c.openings.length) revert LeafCourt_OpeningsCount(c.openings.length, next + 1);
        return c.openings[next];
    }

    function _window(int256[] memory given) private pure returns (Window memory) {
        return Window(uint256(given[0]), uint256(given[1]), uint256(given[2]), uint256(given[3]));
    }
}

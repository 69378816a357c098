// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Test} from "../../utils/Vm.sol";

/// @notice How often what was done, by name. Counted where it is known to have happened, never where it is tried.
abstract contract Tally is Test {
    mapping(bytes32 name => uint256) private counts;
    bytes32[] private names;

    function _count(bytes32 name) internal {
        if (counts[name]++ == 0) names.push(name);
    }

    /// @notice `name=count;…`, as invariants.sh adds them up.
    function tally() external view returns (string memory line) {
        for (uint256 i = 0; i < names.length; ++i) {
            line = string.concat(line, _text(names[i]), "=", vm.toString(counts[names[i]]), ";");
        }
    }

    function _text(bytes32 name) private pure returns (string memory text) {
        uint256 length = 0;
        while (length < 32 && name[length] != 0) ++length;
        bytes memory letters = new bytes(length);
        for (uint256 i = 0; i < length; ++i) {
            letters[i] = name[i];
        }
        return string(letters);
    }
}

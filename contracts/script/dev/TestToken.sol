// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ERC20} from "solady/tokens/ERC20.sol";

/// @title TestToken
/// @notice Money for development chains: six decimals, EIP-2612 permits, and anyone may mint.
contract TestToken is ERC20 {
    function name() public pure override returns (string memory) {
        return "Freehold Test Dollar";
    }

    function symbol() public pure override returns (string memory) {
        return "FTD";
    }

    function decimals() public pure override returns (uint8) {
        return 6;
    }

    function mint(address to, uint256 amount) external {
        _mint(to, amount);
    }
}

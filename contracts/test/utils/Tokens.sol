// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

/// @notice Tokens as they are found in the wild. The plain one returns nothing from transfers; the others build on it.
contract NoReturnToken {
    mapping(address => uint256) public balanceOf;
    mapping(address => mapping(address => uint256)) public allowance;

    function mint(address to, uint256 amount) external {
        balanceOf[to] += amount;
    }

    function approve(address spender, uint256 amount) external {
        allowance[msg.sender][spender] = amount;
    }

    function transfer(address to, uint256 amount) external {
        _move(msg.sender, to, amount);
    }

    function transferFrom(address from, address to, uint256 amount) external {
        if (allowance[from][msg.sender] != type(uint256).max) allowance[from][msg.sender] -= amount;
        _move(from, to, amount);
    }

    function _move(address from, address to, uint256 amount) internal virtual {
        balanceOf[from] -= amount;
        balanceOf[to] += amount;
    }
}

/// @notice Takes one part in `share` from what the recipient gets, or on top from the sender; 0 switches it off.
contract FeeToken is NoReturnToken {
    uint256 public share;
    bool public onTop;

    function setFee(uint256 share_, bool onTop_) external {
        (share, onTop) = (share_, onTop_);
    }

    function _move(address from, address to, uint256 amount) internal override {
        uint256 fee = share == 0 ? 0 : amount / share;
        super._move(from, to, onTop ? amount : amount - fee);
        balanceOf[from] -= fee;
    }
}

/// @notice Refuses to move to or from listed accounts.
contract BlocklistToken is NoReturnToken {
    mapping(address => bool) public blocked;

    function setBlocked(address account, bool isBlocked) external {
        blocked[account] = isBlocked;
    }

    function _move(address from, address to, uint256 amount) internal override {
        require(!blocked[from] && !blocked[to], "blocked");
        super._move(from, to, amount);
    }
}

/// @notice Tells the sender before and the recipient after a move, if they asked for it, as ERC-777 does.
contract HookToken is NoReturnToken {
    mapping(address => bool) public hooked;

    function register() external {
        hooked[msg.sender] = true;
    }

    function _move(address from, address to, uint256 amount) internal override {
        _notify(from);
        super._move(from, to, amount);
        _notify(to);
    }

    function _notify(address account) private {
        if (hooked[account]) IHook(account).onTokenMoved();
    }
}

interface IHook {
    function onTokenMoved() external;
}

/// @notice Says it moved tokens and does not.
contract LyingToken is NoReturnToken {
    function _move(address, address, uint256) internal override {}
}

/// @notice Returns false instead of reverting.
contract FalseToken {
    mapping(address => uint256) public balanceOf;

    function transferFrom(address, address, uint256) external pure returns (bool) {
        return false;
    }
}

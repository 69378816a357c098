// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Market} from "../../src/Market.sol";
import {State} from "../../src/types/MarketTypes.sol";
import {NoReturnToken} from "../utils/Tokens.sol";
import {Test} from "../utils/Vm.sol";
import {MarketHandler} from "./handlers/MarketHandler.sol";

/// @notice What holds after any calls by anyone. Numbers are those of the specification. `invariants.sh` repeats this a
/// million times over and adds up what the runs did.
/// - 1: a token's balance is the sum of free balances, funds and bonds (and of what was donated).
/// - 2: accrual is a function of time alone, grows, stays at or below the cap, and is zero before start.
/// - 3: after all deadlines a stranger's calls settle everything, and everything can be withdrawn.
/// - 8: settled orders never change, ids are never used again, states follow each other only as the table says.
/// Who may call what when, and who is paid how much, is checked by the handler at each call, as is 8.
contract MarketInvariantTest is Test {
    MarketHandler internal handler;
    Market internal market;
    address[] internal accounts;

    function setUp() external {
        handler = new MarketHandler();
        market = handler.market();
        accounts = [
            handler.tenants(0),
            handler.tenants(1),
            handler.providers(0),
            handler.providers(1),
            handler.providers(2),
            market.BURN()
        ];
    }

    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(handler);
    }

    struct FuzzSelector {
        address addr;
        bytes4[] selectors;
    }

    /// @dev `act` stands for twelve calls, hence its weight.
    function targetSelectors() external view returns (FuzzSelector[] memory targets) {
        bytes4[14] memory others = [
            MarketHandler.order.selector,
            MarketHandler.order.selector,
            MarketHandler.orderAgain.selector,
            MarketHandler.bid.selector,
            MarketHandler.bid.selector,
            MarketHandler.bid.selector,
            MarketHandler.topUp.selector,
            MarketHandler.deposit.selector,
            MarketHandler.withdraw.selector,
            MarketHandler.withdraw.selector,
            MarketHandler.pass.selector,
            MarketHandler.passLong.selector,
            MarketHandler.donate.selector,
            MarketHandler.misbehave.selector
        ];
        bytes4[] memory selectors = new bytes4[](30);
        for (uint256 i = 0; i < selectors.length; ++i) {
            selectors[i] = i < others.length ? others[i] : MarketHandler.act.selector;
        }
        targets = new FuzzSelector[](1);
        targets[0] = FuzzSelector(address(handler), selectors);
    }

    /// @dev The runs mean something only if the handler gets everywhere. Fixed seeds, so this cannot flicker.
    function test_HandlerReachesEveryState() external {
        bytes4[] memory selectors = this.targetSelectors()[0].selectors;
        uint256[11] memory reached;
        bool shared = false;
        for (uint256 run = 0; run < 10; ++run) {
            handler = new MarketHandler();
            for (uint256 i = 0; i < 200; ++i) {
                bytes32 h = keccak256(abi.encode(run, i));
                bytes memory arguments = abi.encode(
                    keccak256(abi.encode(h, 1)), keccak256(abi.encode(h, 2)), keccak256(abi.encode(h, 3)), h
                );
                bytes4 selector = selectors[uint8(h[0]) % selectors.length];
                (bool success,) = address(handler).call(bytes.concat(selector, arguments));
                vm.assertTrue(success, "a step failed");
            }
            for (uint256 s = 1; s < reached.length; ++s) {
                reached[s] += handler.reached(State(s));
            }
            shared = shared || handler.shared();
        }
        for (uint256 s = 1; s < reached.length; ++s) {
            vm.assertTrue(reached[s] != 0, vm.toString(s));
        }
        vm.assertTrue(shared, "two tenants in one token");
    }

    /// @dev One campaign for all of them, so that each holds after every call that is counted.
    function invariant_Market() external {
        _checkSolvency();
        handler.checkAccrual();
        vm.assertTrue(!handler.reentered(), "a hook called back");
    }

    function _checkSolvency() private view {
        uint256[] memory held = handler.held();
        for (uint256 i = 0; i < handler.BEARING(); ++i) {
            address token = handler.tokens(i);
            uint256 owed = held[i] + handler.donated(token);
            for (uint256 j = 0; j < accounts.length; ++j) {
                owed += market.free(token, accounts[j]);
            }
            vm.assertEq(NoReturnToken(token).balanceOf(address(market)), owed, "balance");
        }
    }

    /// @dev Also leaves the run's tally to who asked for it.
    function afterInvariant() external {
        string memory path = vm.envOr("TALLY", "");
        // Runs differ in their time, so a run that forge repeats can be told from another.
        if (bytes(path).length != 0) {
            vm.writeLine(path, string.concat("time=", vm.toString(handler.time()), ";", handler.tally()));
        }
        handler.settleAll();
        for (uint256 i = 0; i < handler.count(); ++i) {
            MarketHandler.Book memory b = handler.book(i);
            vm.assertTrue(market.orderOf(b.id).state >= State.Cancelled, "settled");
            vm.assertEq(market.orderOf(b.id).funds, 0, "funds");
            for (uint256 k = 0; k < 3; ++k) {
                vm.assertEq(market.bidOf(b.id, handler.providers(k)).bond, 0, "bond");
            }
        }
        for (uint256 i = 0; i < handler.tokenCount(); ++i) {
            address token = handler.tokens(i);
            for (uint256 j = 0; j + 1 < accounts.length; ++j) {
                if (market.free(token, accounts[j]) == 0) continue;
                vm.assertTrue(i < handler.BEARING(), "credited for a lie");
                // To another wallet, since the token may block this one or call it back.
                vm.prank(accounts[j]);
                market.withdraw(token, type(uint128).max, address(0xbeef));
            }
            if (i >= handler.BEARING()) continue;
            uint256 left = handler.donated(token) + market.free(token, market.BURN());
            vm.assertEq(NoReturnToken(token).balanceOf(address(market)), left, "only gifts and burned tokens stay");
        }
    }
}

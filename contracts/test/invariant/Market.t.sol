// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Market} from "../../src/Market.sol";
import {State} from "../../src/types/MarketTypes.sol";
import {NoReturnToken} from "../utils/Tokens.sol";
import {Test} from "../utils/Vm.sol";
import {MarketHandler} from "./handlers/MarketHandler.sol";

/// @notice What holds after any calls by anyone. Numbers are those of the specification.
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
        bytes4[] memory selectors = new bytes4[](20);
        selectors[0] = MarketHandler.order.selector;
        selectors[1] = MarketHandler.orderAgain.selector;
        selectors[2] = MarketHandler.bid.selector;
        selectors[3] = MarketHandler.bid.selector;
        selectors[4] = MarketHandler.topUp.selector;
        selectors[5] = MarketHandler.deposit.selector;
        selectors[6] = MarketHandler.withdraw.selector;
        selectors[7] = MarketHandler.pass.selector;
        selectors[8] = MarketHandler.passLong.selector;
        selectors[9] = MarketHandler.donate.selector;
        selectors[10] = MarketHandler.misbehave.selector;
        selectors[11] = MarketHandler.bid.selector;
        for (uint256 i = 12; i < selectors.length; ++i) {
            selectors[i] = MarketHandler.act.selector;
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

    function invariant_1_Solvency() external view {
        for (uint256 i = 0; i < 4; ++i) {
            address token = handler.tokens(i);
            uint256 owed = handler.donated(token);
            for (uint256 j = 0; j < accounts.length; ++j) {
                owed += market.free(token, accounts[j]);
            }
            for (uint256 j = 0; j < handler.count(); ++j) {
                MarketHandler.Book memory b = handler.book(j);
                if (b.terms.token != token) continue;
                owed += market.orderOf(b.id).funds;
                for (uint256 k = 0; k < 3; ++k) {
                    owed += market.bidOf(b.id, handler.providers(k)).bond;
                }
            }
            vm.assertEq(NoReturnToken(token).balanceOf(address(market)), owed, "balance");
        }
    }

    function invariant_2_Accrual() external {
        vm.warp(handler.time());
        for (uint256 i = 0; i < handler.count(); ++i) {
            MarketHandler.Book memory b = handler.book(i);
            (uint128 total, uint128 releasable) = market.accrued(b.id, b.terms);
            if (b.state != State.Running && b.state != State.Delivered) {
                vm.assertEq(uint256(total) + releasable, 0, "zero outside a lease");
                continue;
            }
            vm.assertEq(total, handler.accruedAt(i), "a function of time alone");
            vm.assertLe(total, b.cap, "at most the cap");
            vm.assertLe(b.paid, total, "never paid more than accrued");
            vm.warp(handler.time() + 1);
            (uint128 later,) = market.accrued(b.id, b.terms);
            vm.assertLe(total, later, "grows");
            vm.warp(handler.time());
        }
    }

    function invariant_NoReentry() external view {
        vm.assertTrue(!handler.reentered(), "a hook called back");
        vm.assertEq(market.free(handler.tokens(4), handler.tenants(0)), 0, "credited for a lie");
    }

    function afterInvariant() external {
        handler.settleAll();
        for (uint256 i = 0; i < handler.count(); ++i) {
            MarketHandler.Book memory b = handler.book(i);
            vm.assertTrue(market.orderOf(b.id).state >= State.Cancelled, "settled");
            vm.assertEq(market.orderOf(b.id).funds, 0, "funds");
            for (uint256 k = 0; k < 3; ++k) {
                vm.assertEq(market.bidOf(b.id, handler.providers(k)).bond, 0, "bond");
            }
        }
        for (uint256 i = 0; i < 4; ++i) {
            address token = handler.tokens(i);
            for (uint256 j = 0; j + 1 < accounts.length; ++j) {
                if (market.free(token, accounts[j]) == 0) continue;
                // To another wallet, since the token may block this one or call it back.
                vm.prank(accounts[j]);
                market.withdraw(token, type(uint128).max, address(0xbeef));
            }
            uint256 left = handler.donated(token) + market.free(token, market.BURN());
            vm.assertEq(NoReturnToken(token).balanceOf(address(market)), left, "only gifts and burned tokens stay");
        }
    }
}

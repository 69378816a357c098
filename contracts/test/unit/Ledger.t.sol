// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Market} from "../../src/Market.sol";
import {IMarket} from "../../src/interfaces/IMarket.sol";
import {Profile, State} from "../../src/types/MarketTypes.sol";
import {MarketTest} from "../utils/MarketTest.sol";
import {NoReturnToken} from "../utils/Tokens.sol";

contract LedgerTest is MarketTest {
    // -------------------------------------------------------------------------------------------- constructor

    function test_RevertWhen_ProfileZero() external {
        Profile[3] memory profiles = [Profile(0, 300, 600), Profile(10, 0, 600), Profile(10, 300, 0)];
        for (uint256 i = 0; i < profiles.length; ++i) {
            vm.expectRevert(IMarket.Market_ProfileZero.selector);
            new Market(profiles[i], new address[](0));
        }
    }

    function test_RevertWhen_TooManyArbiters() external {
        vm.expectRevert(abi.encodeWithSelector(IMarket.Market_TooManyArbiters.selector, 9, 8));
        new Market(Profile(10, 300, 600), new address[](9));
    }

    function test_Constructor() external {
        address[] memory arbiters = new address[](8);
        for (uint160 i = 0; i < 8; ++i) {
            arbiters[i] = address(i + 1);
        }
        Market other = new Market(Profile(60, 1800, 86400), arbiters);
        vm.assertEq(other.minBidPeriod(), 60, "bid period");
        vm.assertEq(other.minStartWindow(), 1800, "start window");
        vm.assertEq(other.minWindow(), 86400, "window");
        for (uint160 i = 0; i < 8; ++i) {
            vm.assertEq(other.arbiters(i), address(i + 1), "arbiter");
        }
        vm.assertEq(market.arbiters(0), address(0), "no arbiter");
        vm.assertEq(other.RATE_SCALE(), 1e12, "RATE_SCALE");
        vm.assertEq(other.MAX_HOLDBACK_BPS(), 5000, "MAX_HOLDBACK_BPS");
        vm.assertEq(other.SPEC_LIMIT(), 1024, "SPEC_LIMIT");
        vm.assertEq(other.MAX_PERIOD(), 3650 days, "MAX_PERIOD");
        vm.assertEq(other.BURN(), address(0xdead), "BURN");
    }

    // ------------------------------------------------------------------------------------------------ deposit

    function test_RevertWhen_DepositZero() external {
        vm.expectRevert(IMarket.Market_AmountZero.selector);
        market.deposit(address(token), 0);
    }

    function test_RevertWhen_DepositWithoutCode() external {
        vm.expectRevert(abi.encodeWithSelector(IMarket.Market_TokenHasNoCode.selector, anyone));
        market.deposit(anyone, 1);
    }

    function test_RevertWhen_AllowanceShort() external {
        vm.startPrank(tenant);
        token.approve(address(market), 4);
        vm.expectRevert(IMarket.TransferFromFailed.selector);
        market.deposit(address(token), 5);
    }

    function test_Deposit() external {
        vm.expectEmit();
        emit IMarket.Deposited(address(token), tenant, 5);
        vm.prank(tenant);
        market.deposit(address(token), 5);
        assertLedger(0, 5, 0);
        vm.assertEq(token.balanceOf(address(market)), 5, "held");
    }

    // -------------------------------------------------------------------------------------- depositWithPermit

    function permitOf(string memory owner, uint256 amount) internal view returns (uint8 v, bytes32 r, bytes32 s) {
        address account = named(owner);
        bytes32 permit = keccak256(
            abi.encode(
                keccak256("Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)"),
                account,
                address(market),
                amount,
                token.nonces(account),
                uint256(NOW)
            )
        );
        return vm.sign(keyOf(owner), keccak256(abi.encodePacked("\x19\x01", token.DOMAIN_SEPARATOR(), permit)));
    }

    function test_RevertWhen_PermitWithoutCode() external {
        vm.expectRevert(abi.encodeWithSelector(IMarket.Market_TokenHasNoCode.selector, anyone));
        market.depositWithPermit(anyone, 1, NOW, 27, 0, 0);
    }

    function test_RevertWhen_PermitForged() external {
        (uint8 v, bytes32 r, bytes32 s) = permitOf("loser", 7);
        vm.startPrank(tenant);
        token.approve(address(market), 0);
        vm.expectRevert(IMarket.TransferFromFailed.selector);
        market.depositWithPermit(address(token), 7, NOW, v, r, s);
    }

    function test_DepositWithPermit_Front() external {
        vm.prank(tenant);
        token.approve(address(market), 0);
        (uint8 v, bytes32 r, bytes32 s) = permitOf("tenant", 7);
        token.permit(tenant, address(market), 7, NOW, v, r, s);
        vm.prank(tenant);
        market.depositWithPermit(address(token), 7, NOW, v, r, s);
        assertLedger(0, 7, 0);
    }

    function test_DepositWithPermit_Unsupported() external {
        NoReturnToken plain = new NoReturnToken();
        plain.mint(tenant, 7);
        vm.startPrank(tenant);
        plain.approve(address(market), 7);
        market.depositWithPermit(address(plain), 7, NOW, 27, 0, 0);
        vm.assertEq(market.free(address(plain), tenant), 7, "free");
    }

    function test_DepositWithPermit() external {
        vm.prank(tenant);
        token.approve(address(market), 0);
        (uint8 v, bytes32 r, bytes32 s) = permitOf("tenant", 7);
        vm.prank(tenant);
        market.depositWithPermit(address(token), 7, NOW, v, r, s);
        assertLedger(0, 7, 0);
        vm.assertEq(token.allowance(tenant, address(market)), 0, "allowance");
    }

    // ----------------------------------------------------------------------------------------------- withdraw

    function deposited() internal {
        vm.prank(tenant);
        market.deposit(address(token), 10);
    }

    function expectAndWithdraw(uint128 amount, address to, bytes memory revertData) internal {
        vm.expectRevert(revertData);
        vm.prank(tenant);
        market.withdraw(address(token), amount, to);
    }

    function test_RevertWhen_WithdrawZero() external {
        deposited();
        expectAndWithdraw(0, tenant, abi.encodeWithSelector(IMarket.Market_AmountZero.selector));
    }

    function test_RevertWhen_WithdrawAllOfNothing() external {
        expectAndWithdraw(type(uint128).max, tenant, abi.encodeWithSelector(IMarket.Market_AmountZero.selector));
    }

    function test_RevertWhen_WithdrawTooMuch() external {
        deposited();
        vm.prank(loser);
        market.deposit(address(token), 10);
        bytes memory tooLow = abi.encodeWithSelector(IMarket.Market_FreeTooLow.selector, address(token), tenant, 11, 10);
        expectAndWithdraw(11, tenant, tooLow);
    }

    function test_RevertWhen_RecipientZero() external {
        deposited();
        expectAndWithdraw(1, address(0), abi.encodeWithSelector(IMarket.Market_RecipientZero.selector));
    }

    function test_RevertWhen_RecipientMarket() external {
        deposited();
        bytes memory moved = abi.encodeWithSelector(IMarket.Market_TokenMoved.selector, address(token), 1, 0);
        expectAndWithdraw(1, address(market), moved);
    }

    function test_Withdraw() external {
        deposited();
        vm.expectEmit();
        emit IMarket.Withdrawn(address(token), tenant, anyone, 4);
        vm.prank(tenant);
        market.withdraw(address(token), 4, anyone);
        assertLedger(0, 6, 0);
        vm.assertEq(token.balanceOf(anyone), 4, "wallet");
    }

    function test_Withdraw_All() external {
        deposited();
        vm.prank(tenant);
        market.withdraw(address(token), type(uint128).max, tenant);
        assertLedger(0, 0, 0);
        vm.assertEq(token.balanceOf(tenant), WEALTH, "wallet");
    }

    // ---------------------------------------------------------------------------------------------- multicall

    function test_RevertWhen_CallReverts() external {
        bytes[] memory calls = new bytes[](2);
        calls[0] = abi.encodeCall(IMarket.deposit, (address(token), 5));
        calls[1] = abi.encodeCall(IMarket.withdraw, (address(token), 6, tenant));
        vm.expectRevert(abi.encodeWithSelector(IMarket.Market_FreeTooLow.selector, address(token), tenant, 6, 5));
        vm.prank(tenant);
        market.multicall(calls);
        assertLedger(0, 0, 0);
    }

    function test_RevertWhen_CallUnknown() external {
        bytes[] memory calls = new bytes[](1);
        calls[0] = abi.encodeWithSignature("_credit(address,address,uint128)", address(token), tenant, 1);
        vm.expectRevert(bytes(""));
        market.multicall(calls);
    }

    function test_Multicall() external {
        goRunning();
        vm.warp(NOW + 30 minutes);
        bytes[] memory calls = new bytes[](2);
        calls[0] = abi.encodeCall(IMarket.settle, (id, t, 0));
        calls[1] = abi.encodeCall(IMarket.withdraw, (address(token), type(uint128).max, provider));
        vm.prank(provider);
        bytes[] memory results = market.multicall(calls);
        uint128 released = 3_999_999;
        vm.assertEq(abi.decode(results[0], (uint128)), released, "settled");
        vm.assertEq(results[1].length, 0, "withdraw returns nothing");
        vm.assertEq(token.balanceOf(provider), WEALTH - BOND + released, "wallet");
    }

    function test_Multicall_Gang() external {
        bytes[] memory calls = new bytes[](3);
        for (uint256 i = 0; i < 3; ++i) {
            calls[i] = abi.encodeCall(IMarket.order, (bytes32(i), t, spec));
        }
        vm.prank(tenant);
        bytes[] memory results = market.multicall(calls);
        for (uint256 i = 0; i < 3; ++i) {
            bytes32 gangId = abi.decode(results[i], (bytes32));
            vm.assertEq(gangId, market.orderId(tenant, bytes32(i)), "id");
            vm.assertEq(uint256(market.orderOf(gangId).state), uint256(State.Open), "state");
        }
    }
}

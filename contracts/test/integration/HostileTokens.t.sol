// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Market} from "../../src/Market.sol";
import {IMarket} from "../../src/interfaces/IMarket.sol";
import {Outcome, State, Terms} from "../../src/types/MarketTypes.sol";
import {MarketTest} from "../utils/MarketTest.sol";
import {BlocklistToken, FalseToken, FeeToken, HookToken, IHook, LyingToken, NoReturnToken} from "../utils/Tokens.sol";

/// @notice An account whose hook tries one call on the market whenever its tokens move.
contract Reentrant is IHook {
    Market private immutable market;
    bytes public attempt;
    bool public succeeded;
    bytes public reason;
    uint128 public freeSeen;
    address public watched;

    constructor(Market market_) {
        market = market_;
    }

    function setAttempt(bytes calldata attempt_) external {
        attempt = attempt_;
        (succeeded, reason) = (false, "");
    }

    function watch(address token) external {
        watched = token;
    }

    function onTokenMoved() external {
        if (watched != address(0)) freeSeen = market.free(watched, address(this));
        if (attempt.length != 0) (succeeded, reason) = address(market).call(attempt);
    }

    function run(address target, bytes calldata data) external returns (bytes memory) {
        (bool success, bytes memory result) = target.call(data);
        require(success, "run");
        return result;
    }
}

contract HostileTokensTest is MarketTest {
    /// @dev Rich accounts that let the market take what it wants, and terms in that token.
    function adopt(NoReturnToken hostile) internal {
        t.token = address(hostile);
        address[3] memory accounts = [tenant, provider, loser];
        for (uint256 i = 0; i < accounts.length; ++i) {
            hostile.mint(accounts[i], WEALTH);
            vm.prank(accounts[i]);
            hostile.approve(address(market), type(uint256).max);
        }
    }

    function freeOf(address account) internal view returns (uint128) {
        return market.free(t.token, account);
    }

    function expectMoved(uint256 asked, uint256 moved) internal {
        vm.expectRevert(abi.encodeWithSelector(IMarket.Market_TokenMoved.selector, t.token, asked, moved));
    }

    // --------------------------------------------------------------------------------------------------- fees

    function test_RevertWhen_FeeOnDeposit() external {
        FeeToken fee = new FeeToken();
        adopt(fee);
        fee.setFee(100, false);
        expectMoved(1000, 990);
        vm.prank(tenant);
        market.deposit(address(fee), 1000);
    }

    function test_RevertWhen_FeeOnOrderAndBond() external {
        FeeToken fee = new FeeToken();
        adopt(fee);
        fee.setFee(100, false);
        expectMoved(MAX_PRICE, MAX_PRICE - MAX_PRICE / 100);
        goOpen();
        fee.setFee(0, false);
        goOpen();
        fee.setFee(100, false);
        expectMoved(BOND, BOND - BOND / 100);
        goBid(provider);
    }

    /// @dev Without this check the fee would come out of what others hold in the market.
    function test_RevertWhen_FeeOnTopOfWithdrawal() external {
        FeeToken fee = new FeeToken();
        adopt(fee);
        vm.prank(loser);
        market.deposit(address(fee), 1000);
        vm.startPrank(tenant);
        market.deposit(address(fee), 1000);
        fee.setFee(100, true);
        expectMoved(1000, 1010);
        market.withdraw(address(fee), 1000, tenant);
        fee.setFee(0, true);
        market.withdraw(address(fee), 1000, tenant);
    }

    // ------------------------------------------------------------------------------------------ odd transfers

    function test_NoReturn() external {
        NoReturnToken plain = new NoReturnToken();
        adopt(plain);
        goAccepted();
        withdrawAll(plain);
    }

    function withdrawAll(NoReturnToken hostile) internal {
        vm.prank(provider);
        market.withdraw(address(hostile), type(uint128).max, provider);
        vm.prank(tenant);
        market.withdraw(address(hostile), type(uint128).max, tenant);
        vm.assertEq(hostile.balanceOf(provider), WEALTH + 4_999_999, "provider");
        vm.assertEq(hostile.balanceOf(tenant), WEALTH - 4_999_999, "tenant");
        vm.assertEq(hostile.balanceOf(address(market)), 0, "market");
    }

    function test_RevertWhen_TokenReturnsFalse() external {
        t.token = address(new FalseToken());
        vm.expectRevert(IMarket.TransferFromFailed.selector);
        goOpen();
    }

    function test_RevertWhen_TokenLies() external {
        adopt(new LyingToken());
        expectMoved(MAX_PRICE, 0);
        goOpen();
    }

    function test_Blocklist() external {
        BlocklistToken list = new BlocklistToken();
        adopt(list);
        goDelivered();
        list.setBlocked(provider, true);
        vm.prank(tenant);
        market.acceptResult(id, t, RESULT);
        vm.prank(tenant);
        market.withdraw(address(list), type(uint128).max, tenant);
        vm.startPrank(provider);
        vm.expectRevert(IMarket.TransferFailed.selector);
        market.withdraw(address(list), type(uint128).max, provider);
        market.withdraw(address(list), type(uint128).max, anyone);
        vm.assertEq(list.balanceOf(anyone), BOND + 4_999_999, "withdrawn elsewhere");
    }

    // -------------------------------------------------------------------------------------------------- hooks

    function reentrantWith(HookToken hook) internal returns (Reentrant attacker) {
        attacker = new Reentrant(market);
        hook.mint(address(attacker), WEALTH);
        attacker.run(address(hook), abi.encodeCall(hook.register, ()));
        attacker.run(address(hook), abi.encodeCall(hook.approve, (address(market), type(uint256).max)));
    }

    /// @dev Calls that would succeed outside a hook: the attacker has a free balance, a bid and a lease.
    function ready(address attacker, bytes32 leased) internal view returns (bytes[] memory calls) {
        calls = new bytes[](9);
        calls[0] = abi.encodeCall(IMarket.withdraw, (t.token, 100, attacker));
        calls[1] = abi.encodeCall(IMarket.deposit, (t.token, 1));
        calls[2] = abi.encodeCall(IMarket.unbid, (id, t));
        calls[3] = abi.encodeCall(IMarket.bid, (id, t, RATE, VALID_UNTIL));
        calls[4] = abi.encodeCall(IMarket.order, (SALT, t, spec));
        calls[5] = abi.encodeCall(IMarket.settle, (leased, t, 0));
        calls[6] = abi.encodeCall(IMarket.close, (leased, t));
        calls[7] = abi.encodeCall(IMarket.deliver, (leased, t, RESULT));
        bytes[] memory inner = new bytes[](1);
        inner[0] = calls[0];
        calls[8] = abi.encodeCall(IMarket.multicall, (inner));
    }

    /// @dev The functions that `ready` leaves out. The lock comes before any other check, so no state is prepared.
    function others(address attacker, bytes32 leased) internal view returns (bytes[] memory calls) {
        calls = new bytes[](10);
        calls[0] = abi.encodeCall(IMarket.depositWithPermit, (t.token, 1, NOW, 27, 0, 0));
        calls[1] = abi.encodeCall(IMarket.reclaim, (id, t, attacker, 0));
        calls[2] = abi.encodeCall(IMarket.accept, (id, t, attacker, RATE, VALID_UNTIL));
        calls[3] = abi.encodeCall(IMarket.cancel, (id, t));
        calls[4] = abi.encodeCall(IMarket.start, (leased, t));
        calls[5] = abi.encodeCall(IMarket.decline, (leased, t));
        calls[6] = abi.encodeCall(IMarket.noShow, (leased, t));
        calls[7] = abi.encodeCall(IMarket.topUp, (leased, t, 1));
        calls[8] = abi.encodeCall(IMarket.acceptResult, (leased, t, RESULT));
        calls[9] = abi.encodeCall(IMarket.rejectResult, (leased, t, RESULT));
    }

    /// @dev The attacker's hook makes this call when tokens come and when they go.
    function assertLocked(Reentrant attacker, bytes memory attempt, string memory what) internal {
        bytes[2] memory moves = [
            abi.encodeCall(IMarket.withdraw, (t.token, 10, address(attacker))),
            abi.encodeCall(IMarket.deposit, (t.token, 10))
        ];
        for (uint256 i = 0; i < moves.length; ++i) {
            attacker.setAttempt(attempt);
            attacker.run(address(market), moves[i]);
            vm.assertEq(attacker.succeeded(), false, what);
            vm.assertEq(attacker.reason(), abi.encodeWithSignature("Reentrancy()"), what);
        }
        attacker.setAttempt("");
    }

    /// @dev Every function that changes anything, by itself and in a multicall.
    function test_RevertWhen_HookReenters() external {
        HookToken hook = new HookToken();
        adopt(hook);
        Reentrant attacker = reentrantWith(hook);
        goOpen();
        attacker.run(address(market), abi.encodeCall(IMarket.bid, (id, t, RATE, VALID_UNTIL)));
        bytes32 leased = market.orderId(tenant, "leased");
        vm.prank(tenant);
        market.order("leased", t, spec);
        attacker.run(address(market), abi.encodeCall(IMarket.bid, (leased, t, RATE, VALID_UNTIL)));
        vm.prank(tenant);
        market.accept(leased, t, address(attacker), RATE, VALID_UNTIL);
        attacker.run(address(market), abi.encodeCall(IMarket.start, (leased, t)));
        attacker.run(address(market), abi.encodeCall(IMarket.deposit, (address(hook), 100)));
        vm.warp(NOW + 20);

        bytes[] memory calls = ready(address(attacker), leased);
        for (uint256 i = 0; i < calls.length; ++i) {
            uint256 fresh = vm.snapshotState();
            attacker.run(address(market), calls[i]);
            vm.revertToState(fresh);
            assertLocked(attacker, calls[i], string.concat("ready ", vm.toString(i)));
        }
        calls = others(address(attacker), leased);
        for (uint256 i = 0; i < calls.length; ++i) {
            assertLocked(attacker, calls[i], string.concat("others ", vm.toString(i)));
        }
        vm.assertEq(freeOf(address(attacker)), 100, "free");
    }

    function test_HookReads() external {
        HookToken hook = new HookToken();
        adopt(hook);
        Reentrant attacker = reentrantWith(hook);
        attacker.run(address(market), abi.encodeCall(IMarket.deposit, (address(hook), 100)));
        attacker.watch(address(hook));
        attacker.run(address(market), abi.encodeCall(IMarket.withdraw, (address(hook), 60, address(attacker))));
        vm.assertEq(attacker.freeSeen(), 40, "charged before the tokens move");
    }

    function test_Hooks() external {
        HookToken hook = new HookToken();
        adopt(hook);
        goAccepted();
        withdrawAll(hook);
    }

    // ------------------------------------------------------------------------------------------------- others

    function test_ForgedToken() external {
        // An order in a worthless token never lets its parties name the good one instead.
        NoReturnToken worthless = new NoReturnToken();
        vm.prank(loser);
        market.deposit(address(token), 100_000_000);
        adopt(worthless);
        goDelivered();
        Terms memory forged = t;
        forged.token = address(token);
        bytes[] memory calls = new bytes[](4);
        calls[0] = abi.encodeCall(IMarket.settle, (id, forged, RESULT));
        calls[1] = abi.encodeCall(IMarket.acceptResult, (id, forged, RESULT));
        calls[2] = abi.encodeCall(IMarket.rejectResult, (id, forged, RESULT));
        calls[3] = abi.encodeCall(IMarket.reclaim, (id, forged, provider, RESULT));
        for (uint256 i = 0; i < calls.length; ++i) {
            vm.prank(tenant);
            (bool success,) = address(market).call(calls[i]);
            vm.assertTrue(!success, vm.toString(i));
        }
        assertState(State.Delivered, Outcome.None);
        assertLedger(0, 0, 0);
    }

    function test_Donation() external {
        goRunning();
        vm.prank(loser);
        token.transfer(address(market), 1234);
        vm.warp(NOW + 30 minutes);
        vm.prank(tenant);
        market.close(id, t);
        assertLedger(4_999_999 + BOND, MAX_PRICE - 4_999_999, 0);
        vm.assertEq(token.balanceOf(address(market)), MAX_PRICE + BOND + 1234, "held");
    }
}

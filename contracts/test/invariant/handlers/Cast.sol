// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Market} from "../../../src/Market.sol";
import {IMarket} from "../../../src/interfaces/IMarket.sol";
import {Profile} from "../../../src/types/MarketTypes.sol";
import {BlocklistToken, FeeToken, HookToken, IHook, LyingToken, NoReturnToken} from "../../utils/Tokens.sol";
import {Tally} from "./Tally.sol";

/// @notice Who plays, with which tokens, and what each token does when it is asked to move.
abstract contract Cast is Tally, IHook {
    Market public immutable market = new Market(Profile(10, 300, 600), new address[](0));
    NoReturnToken private immutable plain = new NoReturnToken();
    FeeToken internal immutable feeToken = new FeeToken();
    BlocklistToken internal immutable blocklist = new BlocklistToken();
    HookToken internal immutable hookToken = new HookToken();
    LyingToken private immutable liar = new LyingToken();
    address private immutable codeless = named("no code");
    address internal immutable stranger = named("stranger");
    /// @dev The first `BEARING` can come to lie in the market, the others never.
    address[] public tokens;
    uint256 public constant BEARING = 4;
    address[] public tenants;
    address[] public providers;
    bool public reentered;
    mapping(address => bytes32) private nameOf;

    constructor() {
        tokens = [address(plain), address(feeToken), address(blocklist), address(hookToken), address(liar), codeless];
        tenants = [named("tenant 0"), named("tenant 1")];
        // The last provider is this contract: its hook re-enters.
        providers = [named("provider 0"), named("provider 1"), address(this)];
        hookToken.register();
        (nameOf[address(plain)], nameOf[address(feeToken)]) = ("in no-return", "in fee-on-transfer");
        (nameOf[address(blocklist)], nameOf[address(hookToken)]) = ("in blocklisting", "in re-entering");
        (nameOf[tenants[0]], nameOf[tenants[1]]) = ("by tenant 0", "by tenant 1");
        (nameOf[providers[0]], nameOf[providers[1]]) = ("by provider 0", "by provider 1");
        (nameOf[providers[2]], nameOf[stranger]) = ("by provider with a hook", "by stranger");
        for (uint256 i = 0; i < tokens.length; ++i) {
            if (tokens[i] == codeless) continue;
            for (uint256 j = 0; j < tenants.length + providers.length; ++j) {
                address account = _account(j);
                NoReturnToken(tokens[i]).mint(account, 1e30);
                vm.prank(account);
                NoReturnToken(tokens[i]).approve(address(market), type(uint256).max);
            }
        }
    }

    // -------------------------------------------------------------------------------------------------- calls

    /// @dev One call on the market. It must work if and only if `may`, and is counted only then.
    function _call(address caller, bytes memory data, address token, bool may) internal returns (bool success) {
        vm.prank(caller);
        (success,) = address(market).call(data);
        require(success == may, success ? "worked and must not" : "failed and must not");
        _count(success ? bytes32("worked") : bytes32("refused"));
        if (!success) return false;
        _count(nameOf[caller]);
        _count(nameOf[token]);
    }

    /// @dev A call by `account` that moves `amount` into the market, from its free balance first.
    function _pay(address account, bytes memory data, address token, uint128 amount, bool may) internal returns (bool) {
        uint128 held = market.free(token, account);
        bool pays = may && (amount <= held || _moves(token, account, amount - held, true));
        return _call(account, data, token, pays);
    }

    /// @dev Whether a token moves that very amount between a wallet and the market.
    function _moves(address token, address wallet, uint128 amount, bool isPull) internal returns (bool) {
        if (token == codeless) return _refused("refused: no code");
        if (token == address(liar)) return _refused("refused: a lie");
        if (blocklist.blocked(wallet) && token == address(blocklist)) return _refused("refused: blocked");
        // Taken from what arrives it matters to the market when it is paid, taken on top when it pays.
        uint256 share = token == address(feeToken) && feeToken.onTop() != isPull ? feeToken.share() : 0;
        return share == 0 || amount < share || _refused("refused: a fee");
    }

    function _refused(bytes32 reason) private returns (bool) {
        _count(reason);
        return false;
    }

    /// @dev The hook of a token whose owner is this contract: tries to take and to give while tokens move.
    function onTokenMoved() external {
        uint128 held = market.free(address(hookToken), address(this));
        (bool took,) = address(market)
            .call(abi.encodeCall(IMarket.withdraw, (address(hookToken), held == 0 ? 1 : held, address(this))));
        (bool gave,) = address(market).call(abi.encodeCall(IMarket.deposit, (address(hookToken), 1)));
        if (took || gave) reentered = true;
        else _count("refused: a re-entry");
    }

    // ------------------------------------------------------------------------------------------------ choices

    function tokenCount() external view returns (uint256) {
        return tokens.length;
    }

    /// @dev Mostly tokens that can pay.
    function _token(uint256 seed) internal view returns (address) {
        uint256 choice = seed % 10;
        return tokens[choice < 8 ? choice % BEARING : choice - BEARING];
    }

    function _provider(uint256 seed) internal view returns (address) {
        return providers[seed % providers.length];
    }

    function _account(uint256 seed) internal view returns (address) {
        uint256 index = seed % (tenants.length + providers.length);
        return index < tenants.length ? tenants[index] : providers[index - tenants.length];
    }
}

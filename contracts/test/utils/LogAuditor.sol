// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IMarket} from "../../src/interfaces/IMarket.sol";
import {Terms} from "../../src/types/MarketTypes.sol";
import {Vm} from "./Vm.sol";

/// @notice An auditor who sees nothing but the market's logs: rebuilds every balance from them, for one token.
contract LogAuditor {
    address private constant BURN = address(0xdead);
    mapping(address account => uint256) public free;
    mapping(bytes32 id => uint256) public funds;
    mapping(bytes32 id => mapping(address provider => uint256)) public bonds;
    mapping(bytes32 id => address) public tenants;
    mapping(bytes32 id => address) public providers;
    mapping(bytes32 id => bool) public settled;
    uint256 public held;

    /// @dev Reverts by underflow where an event pays more than there is, and names the order whose sum is off.
    error OutOfBalance(bytes32 id, uint256 heldForIt, uint256 paidOut);

    function read(Vm.Log[] calldata logs) external {
        for (uint256 i = 0; i < logs.length; ++i) {
            _read(logs[i]);
        }
    }

    function _read(Vm.Log calldata log) private {
        bytes32 kind = log.topics[0];
        bytes32 id = log.topics[1];
        address party = log.topics.length > 2 ? _address(log.topics[2]) : address(0);
        if (kind == IMarket.Deposited.selector) {
            uint256 amount = abi.decode(log.data, (uint128));
            free[party] += amount;
            held += amount;
        } else if (kind == IMarket.Withdrawn.selector) {
            uint256 amount = abi.decode(log.data, (uint128));
            free[party] -= amount;
            held -= amount;
        } else if (kind == IMarket.Ordered.selector) {
            (, Terms memory terms,) = abi.decode(log.data, (bytes32, Terms, bytes));
            tenants[id] = party;
            free[party] -= terms.maxPrice + terms.auditReserve;
            funds[id] = terms.maxPrice + terms.auditReserve;
        } else if (kind == IMarket.BidPlaced.selector) {
            (,, uint96 bond) = abi.decode(log.data, (uint128, uint32, uint96));
            free[party] -= bond - bonds[id][party];
            bonds[id][party] = bond;
        } else if (kind == IMarket.Unbid.selector || kind == IMarket.Reclaimed.selector) {
            uint96 bond = abi.decode(log.data, (uint96));
            free[party] += bond;
            bonds[id][party] -= bond;
        } else if (kind == IMarket.Leased.selector) {
            (,, uint128 refund) = abi.decode(log.data, (uint64, uint128, uint128));
            providers[id] = party;
            funds[id] -= refund;
            free[tenants[id]] += refund;
        } else if (kind == IMarket.ToppedUp.selector) {
            (uint128 amount,) = abi.decode(log.data, (uint128, uint40));
            free[tenants[id]] -= amount;
            funds[id] += amount;
        } else if (kind == IMarket.Settled.selector) {
            _pay(id, log.data, false);
        } else if (kind != IMarket.Started.selector && kind != IMarket.Delivered.selector) {
            _pay(id, log.data, true);
        }
    }

    /// @dev All events that pay out look alike.
    function _pay(bytes32 id, bytes calldata data, bool last) private {
        (, uint256 toProvider, uint256 toTenant, uint256 burned) =
            abi.decode(data, (uint128, uint128, uint128, uint128));
        address provider = providers[id];
        free[provider] += toProvider;
        free[tenants[id]] += toTenant;
        free[BURN] += burned;
        uint256 sum = toProvider + toTenant + burned;
        if (!last) {
            funds[id] -= sum;
            return;
        }
        uint256 there = funds[id] + bonds[id][provider];
        if (sum != there || settled[id]) revert OutOfBalance(id, there, sum);
        funds[id] = 0;
        bonds[id][provider] = 0;
        settled[id] = true;
    }

    function _address(bytes32 word) private pure returns (address) {
        return address(uint160(uint256(word)));
    }
}

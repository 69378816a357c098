// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IMarket} from "../interfaces/IMarket.sol";
import {Profile, Terms} from "../types/MarketTypes.sol";

/// @title TermsLib
/// @notice What terms may say. Checked once, in `order`; every later call trusts the hash.
library TermsLib {
    uint256 private constant TERMS_SIZE = 14 * 32;
    uint8 internal constant CLASS_NONE = 0;
    uint16 internal constant MAX_HOLDBACK_BPS = 5000;
    uint256 internal constant SPEC_LIMIT = 1024;
    /// @dev Keeps every deadline far inside 40 bits, so that no call can fail on an overflow later.
    uint40 internal constant MAX_PERIOD = 3650 days;

    /// @notice keccak256(abi.encode(terms)).
    /// @dev The calldata is that encoding already; copying it whole saves 1,500 gas a call. Words with dirty high bits
    /// cannot become an order, since `order` reads every field, and match no order.
    function hash(Terms calldata terms) internal pure returns (bytes32 result) {
        assembly ("memory-safe") {
            let copy := mload(0x40)
            calldatacopy(copy, terms, TERMS_SIZE)
            result := keccak256(copy, TERMS_SIZE)
        }
    }

    function validate(Terms calldata terms, bytes calldata spec, Profile memory min) internal view {
        _validateClass(terms);
        _validateMoney(terms);
        _validateTimes(terms, min);
        _validateSpec(terms.specHash, spec);
    }

    /// @dev Class none is metered and has neither an audit reserve nor rules of its own.
    function _validateClass(Terms calldata terms) private pure {
        if (terms.class != CLASS_NONE) revert IMarket.Market_ClassUnsupported(terms.class);
        if (terms.auditReserve != 0) revert IMarket.Market_AuditReserveNotZero(terms.auditReserve);
        if (terms.rulesHash != 0) revert IMarket.Market_RulesHashNotZero(terms.rulesHash);
    }

    function _validateMoney(Terms calldata terms) private pure {
        if (terms.maxPrice == 0) revert IMarket.Market_MaxPriceZero();
        if (terms.bond < terms.noShowPenalty || terms.bond > type(uint96).max) {
            revert IMarket.Market_BondOutOfRange(terms.bond, terms.noShowPenalty, type(uint96).max);
        }
        if (terms.holdbackBps > MAX_HOLDBACK_BPS) {
            revert IMarket.Market_HoldbackTooHigh(terms.holdbackBps, MAX_HOLDBACK_BPS);
        }
    }

    function _validateTimes(Terms calldata terms, Profile memory min) private view {
        uint256 earliest = block.timestamp + min.bidPeriod;
        uint256 latest = block.timestamp + MAX_PERIOD;
        if (terms.bidBy < earliest || terms.bidBy > latest) {
            revert IMarket.Market_BidByOutOfRange(terms.bidBy, earliest, latest);
        }
        if (terms.startWindow < min.startWindow || terms.startWindow > MAX_PERIOD) {
            revert IMarket.Market_StartWindowOutOfRange(terms.startWindow, min.startWindow, MAX_PERIOD);
        }
        if (terms.duration == 0 || terms.duration > MAX_PERIOD) {
            revert IMarket.Market_DurationOutOfRange(terms.duration, 1, MAX_PERIOD);
        }
        if (terms.window < min.window || terms.window > MAX_PERIOD) {
            revert IMarket.Market_WindowOutOfRange(terms.window, min.window, MAX_PERIOD);
        }
    }

    function _validateSpec(bytes32 specHash, bytes calldata spec) private pure {
        if (spec.length > SPEC_LIMIT) revert IMarket.Market_SpecTooLong(spec.length, SPEC_LIMIT);
        bytes32 computed = keccak256(spec);
        if (computed != specHash) revert IMarket.Market_SpecHashMismatch(specHash, computed);
    }
}

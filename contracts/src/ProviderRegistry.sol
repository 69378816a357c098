// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IProviderRegistry} from "./interfaces/IProviderRegistry.sol";

/// @title ProviderRegistry
/// @notice See {IProviderRegistry}.
contract ProviderRegistry is IProviderRegistry {
    uint256 public constant GATEWAY_LIMIT = 256;
    uint256 public constant ATTRIBUTES_LIMIT = 1024;

    mapping(address provider => Provider) private _providers;
    mapping(address auditor => mapping(address provider => Attestation)) private _attestations;

    /// @inheritdoc IProviderRegistry
    function register(string calldata gateway, bytes calldata attributes) external {
        uint256 length = bytes(gateway).length;
        if (length == 0 || length > GATEWAY_LIMIT) {
            revert ProviderRegistry_GatewayLength(length, 1, GATEWAY_LIMIT);
        }
        if (attributes.length > ATTRIBUTES_LIMIT) {
            revert ProviderRegistry_AttributesTooLong(attributes.length, ATTRIBUTES_LIMIT);
        }
        _providers[msg.sender] = Provider(gateway, attributes, uint40(block.timestamp));
        emit Registered(msg.sender, gateway, attributes);
    }

    /// @inheritdoc IProviderRegistry
    function unregister() external {
        _requireRegistered(msg.sender);
        delete _providers[msg.sender];
        emit Unregistered(msg.sender);
    }

    /// @inheritdoc IProviderRegistry
    function attest(address provider, bytes32 attributesHash) external {
        _requireRegistered(provider);
        bytes32 current = keccak256(_providers[provider].attributes);
        if (attributesHash != current) {
            revert ProviderRegistry_AttributesChanged(provider, attributesHash, current);
        }
        _attestations[msg.sender][provider] = Attestation(attributesHash, uint40(block.timestamp));
        emit Attested(msg.sender, provider, attributesHash);
    }

    /// @inheritdoc IProviderRegistry
    function revoke(address provider) external {
        if (_attestations[msg.sender][provider].attestedAt == 0) {
            revert ProviderRegistry_NotAttested(msg.sender, provider);
        }
        delete _attestations[msg.sender][provider];
        emit Revoked(msg.sender, provider);
    }

    /// @inheritdoc IProviderRegistry
    function providerOf(address provider) external view returns (Provider memory) {
        return _providers[provider];
    }

    /// @inheritdoc IProviderRegistry
    function attestation(address auditor, address provider) external view returns (Attestation memory) {
        return _attestations[auditor][provider];
    }

    /// @inheritdoc IProviderRegistry
    function attested(address auditor, address provider) external view returns (bool) {
        Provider storage record = _providers[provider];
        return record.updatedAt != 0 && _attestations[auditor][provider].attributesHash == keccak256(record.attributes);
    }

    function _requireRegistered(address provider) private view {
        if (_providers[provider].updatedAt == 0) revert ProviderRegistry_NotRegistered(provider);
    }
}

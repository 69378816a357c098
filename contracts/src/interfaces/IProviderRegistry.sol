// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

/// @title IProviderRegistry
/// @notice Who a provider is: where its gateway answers, what it says about itself, and which auditors vouch for it.
/// Holds no tokens. Anyone may register itself, and anyone may attest; tenants choose which auditors they believe.
interface IProviderRegistry {
    struct Provider {
        /// @dev Public base URL, e.g. `https://gpu.example.org`.
        string gateway;
        /// @dev RFC 8785 JSON object of string values, e.g. `{"region":"eu-west"}`.
        bytes attributes;
        /// @dev Unix time of the last change; 0 if not registered.
        uint40 updatedAt;
    }

    struct Attestation {
        /// @dev keccak256 of the attributes the auditor saw; 0 if there is none.
        bytes32 attributesHash;
        uint40 attestedAt;
    }

    event Registered(address indexed provider, string gateway, bytes attributes);
    event Unregistered(address indexed provider);
    event Attested(address indexed auditor, address indexed provider, bytes32 attributesHash);
    event Revoked(address indexed auditor, address indexed provider);

    error ProviderRegistry_GatewayLength(uint256 length, uint256 min, uint256 max);
    error ProviderRegistry_AttributesTooLong(uint256 length, uint256 max);
    error ProviderRegistry_NotRegistered(address provider);
    /// @dev The provider's attributes are not (or no longer) the ones the auditor looked at.
    error ProviderRegistry_AttributesChanged(address provider, bytes32 seen, bytes32 current);
    error ProviderRegistry_NotAttested(address auditor, address provider);

    /// @notice Publishes or replaces the caller's record. An attestation holds (`attested`) while the record's
    /// attributes are those attested: it lapses with others, returns with the same ones unless it was revoked, and does
    /// not depend on the gateway.
    function register(string calldata gateway, bytes calldata attributes) external;

    /// @notice Withdraws the caller's record. Attestations lapse with it, and return as in `register`.
    function unregister() external;

    /// @notice The caller vouches for the provider's current attributes.
    /// @param attributesHash keccak256 of the attributes it checked; must be those registered now.
    function attest(address provider, bytes32 attributesHash) external;

    /// @notice The caller withdraws its attestation.
    function revoke(address provider) external;

    /// @notice A provider's record; `updatedAt` 0 if it has none.
    function providerOf(address provider) external view returns (Provider memory);

    /// @notice What `auditor` attested last about `provider`, whether or not the attributes are still the same.
    function attestation(address auditor, address provider) external view returns (Attestation memory);

    /// @notice Whether `auditor` vouches for exactly what `provider` says now.
    function attested(address auditor, address provider) external view returns (bool);

    /// @notice 256 bytes.
    function GATEWAY_LIMIT() external view returns (uint256);

    /// @notice 1024 bytes.
    function ATTRIBUTES_LIMIT() external view returns (uint256);
}

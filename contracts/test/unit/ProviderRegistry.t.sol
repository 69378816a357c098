// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {ProviderRegistry} from "../../src/ProviderRegistry.sol";
import {IProviderRegistry} from "../../src/interfaces/IProviderRegistry.sol";
import {Test} from "../utils/Vm.sol";

contract ProviderRegistryTest is Test {
    ProviderRegistry internal registry = new ProviderRegistry();
    address internal provider = named("provider");
    address internal auditor = named("auditor");
    string internal gateway = "https://gpu.example.org";
    bytes internal attributes = '{"region":"eu-west"}';

    function setUp() external {
        vm.warp(1_800_000_000);
    }

    function register() internal {
        vm.prank(provider);
        registry.register(gateway, attributes);
    }

    function attest() internal {
        vm.prank(auditor);
        registry.attest(provider, keccak256(attributes));
    }

    function assertRecord(string memory gateway_, bytes memory attributes_, uint40 updatedAt) internal view {
        IProviderRegistry.Provider memory record = registry.providerOf(provider);
        vm.assertEq(record.gateway, gateway_, "gateway");
        vm.assertEq(record.attributes, attributes_, "attributes");
        vm.assertEq(record.updatedAt, updatedAt, "updatedAt");
    }

    // ----------------------------------------------------------------------------------------------- register

    function test_RevertWhen_GatewayEmpty() external {
        gateway = "";
        vm.expectRevert(abi.encodeWithSelector(IProviderRegistry.ProviderRegistry_GatewayLength.selector, 0, 1, 256));
        register();
    }

    function test_RevertWhen_GatewayTooLong() external {
        gateway = string(new bytes(257));
        vm.expectRevert(abi.encodeWithSelector(IProviderRegistry.ProviderRegistry_GatewayLength.selector, 257, 1, 256));
        register();
    }

    function test_RevertWhen_AttributesTooLong() external {
        attributes = new bytes(1025);
        vm.expectRevert(
            abi.encodeWithSelector(IProviderRegistry.ProviderRegistry_AttributesTooLong.selector, 1025, 1024)
        );
        register();
    }

    function test_Register() external {
        vm.expectEmit();
        emit IProviderRegistry.Registered(provider, gateway, attributes);
        register();
        assertRecord(gateway, attributes, 1_800_000_000);
    }

    function test_Register_Limits() external {
        (gateway, attributes) = (string(new bytes(256)), new bytes(1024));
        register();
        assertRecord(gateway, attributes, 1_800_000_000);
        (gateway, attributes) = ("x", "");
        register();
        assertRecord("x", "", 1_800_000_000);
    }

    function test_Register_Again() external {
        register();
        vm.warp(1_800_000_100);
        gateway = "https://other.example.org";
        register();
        assertRecord("https://other.example.org", attributes, 1_800_000_100);
    }

    // --------------------------------------------------------------------------------------------- unregister

    function test_RevertGiven_NotRegistered() external {
        vm.expectRevert(abi.encodeWithSelector(IProviderRegistry.ProviderRegistry_NotRegistered.selector, provider));
        vm.prank(provider);
        registry.unregister();
    }

    function test_Unregister() external {
        register();
        vm.expectEmit();
        emit IProviderRegistry.Unregistered(provider);
        vm.prank(provider);
        registry.unregister();
        assertRecord("", "", 0);
    }

    // ------------------------------------------------------------------------------------------------- attest

    function test_RevertGiven_AttestUnregistered() external {
        vm.expectRevert(abi.encodeWithSelector(IProviderRegistry.ProviderRegistry_NotRegistered.selector, provider));
        attest();
    }

    function test_RevertGiven_AttributesChanged() external {
        register();
        bytes32 current = keccak256(attributes);
        attributes = '{"region":"us-east"}';
        vm.expectRevert(
            abi.encodeWithSelector(
                IProviderRegistry.ProviderRegistry_AttributesChanged.selector, provider, keccak256(attributes), current
            )
        );
        attest();
    }

    function test_Attest() external {
        register();
        vm.assertEq(registry.attested(auditor, provider), false, "before");
        vm.expectEmit();
        emit IProviderRegistry.Attested(auditor, provider, keccak256(attributes));
        attest();
        vm.assertEq(registry.attested(auditor, provider), true, "attested");
        IProviderRegistry.Attestation memory attestation = registry.attestation(auditor, provider);
        vm.assertEq(attestation.attributesHash, keccak256(attributes), "hash");
        vm.assertEq(attestation.attestedAt, 1_800_000_000, "time");
    }

    function test_Attest_ThenNewAttributes() external {
        register();
        attest();
        attributes = '{"region":"us-east"}';
        register();
        vm.assertEq(registry.attested(auditor, provider), false, "attested");
    }

    function test_Attest_ThenNewGateway() external {
        register();
        attest();
        gateway = "https://other.example.org";
        register();
        vm.assertEq(registry.attested(auditor, provider), true, "attested");
    }

    function test_Attest_ThenUnregistered() external {
        attributes = "";
        register();
        attest();
        vm.prank(provider);
        registry.unregister();
        // The hash still fits the empty attributes of no record.
        vm.assertEq(registry.attested(auditor, provider), false, "attested");
    }

    function test_Attest_ThenAttributesReturn() external {
        register();
        attest();
        bytes memory attestedTo = attributes;
        attributes = '{"region":"us-east"}';
        register();
        vm.assertEq(registry.attested(auditor, provider), false, "other attributes");
        attributes = attestedTo;
        register();
        vm.assertEq(registry.attested(auditor, provider), true, "the same attributes");
        revoke();
        register();
        vm.assertEq(registry.attested(auditor, provider), false, "revoked");
    }

    function test_Attest_ThenRegisteredAgain() external {
        register();
        attest();
        vm.prank(provider);
        registry.unregister();
        vm.assertEq(registry.attested(auditor, provider), false, "unregistered");
        attributes = '{"region":"us-east"}';
        register();
        vm.assertEq(registry.attested(auditor, provider), false, "other attributes");
        attributes = '{"region":"eu-west"}';
        register();
        vm.assertEq(registry.attested(auditor, provider), true, "the same attributes");
    }

    // ------------------------------------------------------------------------------------------------- revoke

    function revoke() internal {
        vm.prank(auditor);
        registry.revoke(provider);
    }

    function test_RevertGiven_NotAttested() external {
        register();
        vm.expectRevert(
            abi.encodeWithSelector(IProviderRegistry.ProviderRegistry_NotAttested.selector, auditor, provider)
        );
        revoke();
    }

    function test_Revoke() external {
        register();
        attest();
        vm.expectEmit();
        emit IProviderRegistry.Revoked(auditor, provider);
        revoke();
        vm.assertEq(registry.attested(auditor, provider), false, "attested");
        vm.assertEq(registry.attestation(auditor, provider).attestedAt, 0, "time");
    }

    function test_Revoke_OnlyOwn() external {
        register();
        attest();
        registry.attest(provider, keccak256(attributes));
        revoke();
        vm.assertEq(registry.attested(address(this), provider), true, "attested by another");
    }
}

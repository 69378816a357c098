// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IMarket} from "../../src/interfaces/IMarket.sol";
import {OrderView, State, Terms} from "../../src/types/MarketTypes.sol";
import {MarketTest} from "../utils/MarketTest.sol";

/// @notice The whole state table at once.
contract TransitionsTest is MarketTest {
    uint256 internal constant CALLS = 14;

    /// @dev Call number `call` on the order, with what `state` makes right.
    function encode(uint256 call, State state) internal view returns (bytes memory) {
        bytes32 result = resultAt(state);
        if (call == 0) return abi.encodeCall(IMarket.bid, (id, t, RATE, VALID_UNTIL));
        if (call == 1) return abi.encodeCall(IMarket.unbid, (id, t));
        if (call == 2) return abi.encodeCall(IMarket.accept, (id, t, provider, RATE, VALID_UNTIL));
        if (call == 3) return abi.encodeCall(IMarket.cancel, (id, t));
        if (call == 4) return abi.encodeCall(IMarket.start, (id, t));
        if (call == 5) return abi.encodeCall(IMarket.decline, (id, t));
        if (call == 6) return abi.encodeCall(IMarket.noShow, (id, t));
        if (call == 7) return abi.encodeCall(IMarket.topUp, (id, t, 1));
        if (call == 8) return abi.encodeCall(IMarket.settle, (id, t, result));
        if (call == 9) return abi.encodeCall(IMarket.close, (id, t));
        if (call == 10) return abi.encodeCall(IMarket.deliver, (id, t, RESULT));
        if (call == 11) return abi.encodeCall(IMarket.acceptResult, (id, t, result));
        if (call == 12) return abi.encodeCall(IMarket.rejectResult, (id, t, result));
        return abi.encodeCall(IMarket.reclaim, (id, t, provider, result));
    }

    function allowed(uint256 call, State state) internal pure returns (bool) {
        if (call == 13) return state != State.None;
        if (state == State.Open) return call <= 3;
        if (state == State.Awaiting) return call >= 3 && call <= 6;
        if (state == State.Running) return call >= 7 && call <= 10;
        if (state == State.Delivered) return call == 8 || call == 11 || call == 12;
        return false;
    }

    function test_ForbiddenCalls() external {
        uint256 checked = 0;
        for (uint256 s = 0; s <= uint256(State.Rejected); ++s) {
            State state = State(s);
            uint256 fresh = vm.snapshotState();
            go(state);
            vm.assertEq(uint256(market.orderOf(id).state), s, "state reached");
            for (uint256 call = 0; call < CALLS; ++call) {
                if (allowed(call, state)) continue;
                address[3] memory callers = [tenant, provider, anyone];
                for (uint256 i = 0; i < callers.length; ++i) {
                    vm.prank(callers[i]);
                    (bool success, bytes memory reason) = address(market).call(encode(call, state));
                    vm.assertTrue(!success, vm.toString(call));
                    vm.assertEq(
                        reason, abi.encodeWithSelector(IMarket.Market_WrongState.selector, id, state), vm.toString(call)
                    );
                    ++checked;
                }
            }
            vm.revertToState(fresh);
        }
        // 11 states x 14 calls, less the 15 + 10 that are allowed, by three callers.
        vm.assertEq(checked, (11 * CALLS - 15 - 10) * 3, "calls checked");
    }

    function test_SettledAbsorbs() external {
        for (uint256 s = uint256(State.Cancelled); s <= uint256(State.Rejected); ++s) {
            State state = State(s);
            uint256 fresh = vm.snapshotState();
            go(state);
            bytes32 before = keccak256(abi.encode(market.orderOf(id), free(tenant), free(provider)));
            vm.warp(NOW + 365 days);
            for (uint256 call = 0; call < CALLS; ++call) {
                address[3] memory callers = [tenant, provider, anyone];
                for (uint256 i = 0; i < callers.length; ++i) {
                    vm.prank(callers[i]);
                    (bool success,) = address(market).call(encode(call, state));
                    vm.assertTrue(!success, vm.toString(call));
                }
            }
            // Terms that are good now: only the id stands in the way.
            Terms memory again = t;
            again.bidBy = uint40(NOW + 365 days + 60);
            vm.prank(tenant);
            vm.expectRevert(abi.encodeWithSelector(IMarket.Market_OrderExists.selector, id));
            market.order(SALT, again, spec);
            bytes32 afterwards = keccak256(abi.encode(market.orderOf(id), free(tenant), free(provider)));
            vm.assertEq(afterwards, before, "unchanged");
            vm.prank(tenant);
            market.order("another salt", again, spec);
            vm.revertToState(fresh);
        }
    }

    /// @dev O0 to O3, so that what is added later moves nothing.
    function test_StorageLayout() external {
        goDelivered();
        uint256 slot = uint256(keccak256(abi.encode(id, uint256(0))));
        OrderView memory o = market.orderOf(id);
        uint256 o0 = uint256(uint160(tenant)) | uint256(o.state) << 160 | uint256(o.deadline) << 208;
        uint256 o1 = uint256(uint160(provider)) | uint256(o.startedAt) << 160 | uint256(o.endAt) << 200;
        uint256 o2 = uint256(o.funds) | uint256(o.paid) << 128;
        vm.assertEq(uint256(vm.load(address(market), bytes32(slot))), o0, "O0");
        vm.assertEq(uint256(vm.load(address(market), bytes32(slot + 1))), o1, "O1");
        vm.assertEq(uint256(vm.load(address(market), bytes32(slot + 2))), o2, "O2");
        vm.assertEq(vm.load(address(market), bytes32(slot + 3)), o.termsHash, "O3");
        bytes32 bids = keccak256(abi.encode(id, uint256(1)));
        uint256 bid = uint256(RATE) | uint256(BOND) << 128 | uint256(VALID_UNTIL) << 224;
        vm.assertEq(uint256(vm.load(address(market), keccak256(abi.encode(provider, bids)))), bid, "bid");
    }

    function test_ViewsOfNothing() external view {
        OrderView memory none;
        vm.assertEq(abi.encode(market.orderOf(id)), abi.encode(none), "orderOf");
        vm.assertEq(market.bidOf(id, provider).validUntil, 0, "bidOf");
        (uint128 total, uint128 releasable) = market.accrued(id, t);
        vm.assertEq(uint256(total) + releasable, 0, "accrued");
        vm.assertEq(market.leases(provider), 0, "leases");
    }
}

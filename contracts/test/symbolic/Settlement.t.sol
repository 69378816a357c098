// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Market} from "../../src/Market.sol";
import {OrderView, Profile, Terms} from "../../src/types/MarketTypes.sol";
import {NoReturnToken} from "../utils/Tokens.sol";
import {Test} from "../utils/Vm.sol";

/// @notice Every exit of an order before a start, through the whole contract, for all amounts at once: what is paid out
/// is exactly what was held, and nothing stays. After a start there are more paths than halmos comes to the end of.
contract SettlementSymbolicTest is Test {
    uint40 private constant NOW = 1_800_000_000;
    address private constant TENANT = address(0x1001);
    address private constant PROVIDER = address(0x1002);
    address private constant STRANGER = address(0x1003);

    Market private market;
    NoReturnToken private token;
    bytes32 private id;

    struct Amounts {
        uint128 maxPrice;
        uint96 bond;
        uint96 penalty;
        uint16 holdbackBps;
        uint128 rate;
    }

    function setUp() external {
        vm.warp(NOW);
        market = new Market(Profile(10, 300, 600), new address[](0));
        token = new NoReturnToken();
        id = market.orderId(TENANT, 0);
        address[2] memory accounts = [TENANT, PROVIDER];
        for (uint256 i = 0; i < accounts.length; ++i) {
            token.mint(accounts[i], type(uint128).max);
            vm.prank(accounts[i]);
            token.approve(address(market), type(uint256).max);
        }
    }

    function check_CancelOpen(Amounts memory a) external {
        Terms memory t = _open(a);
        vm.prank(TENANT);
        market.cancel(id, t);
        assert(market.free(address(token), TENANT) == a.maxPrice);
        _assertPaidOut(a.maxPrice);
    }

    function check_CancelAwaiting(Amounts memory a) external {
        Terms memory t = _awaiting(a);
        vm.prank(TENANT);
        market.cancel(id, t);
        uint256 fee = a.penalty < a.maxPrice ? a.penalty : a.maxPrice;
        assert(market.free(address(token), PROVIDER) == fee + a.bond);
        _assertPaidOut(uint256(a.maxPrice) + a.bond);
    }

    function check_Decline(Amounts memory a) external {
        Terms memory t = _awaiting(a);
        vm.prank(PROVIDER);
        market.decline(id, t);
        assert(market.free(address(token), TENANT) == a.maxPrice);
        assert(market.free(address(token), market.BURN()) == a.penalty / 10);
        _assertPaidOut(uint256(a.maxPrice) + a.bond);
    }

    function check_NoShow(Amounts memory a) external {
        Terms memory t = _awaiting(a);
        vm.warp(NOW + 301);
        vm.prank(STRANGER);
        market.noShow(id, t);
        assert(market.free(address(token), PROVIDER) == a.bond - a.penalty);
        _assertPaidOut(uint256(a.maxPrice) + a.bond);
    }

    // -------------------------------------------------------------------------------------------------- the way

    function _open(Amounts memory a) private returns (Terms memory t) {
        vm.assume(a.maxPrice != 0 && a.penalty <= a.bond && a.holdbackBps <= 5000);
        t.token = address(token);
        t.maxPrice = a.maxPrice;
        t.bond = a.bond;
        t.noShowPenalty = a.penalty;
        t.bidBy = NOW + 60;
        t.startWindow = 300;
        t.duration = 2 hours;
        t.window = 600;
        t.holdbackBps = a.holdbackBps;
        t.specHash = keccak256("");
        vm.prank(TENANT);
        market.order(0, t, "");
    }

    function _awaiting(Amounts memory a) private returns (Terms memory t) {
        t = _open(a);
        uint32 validUntil = uint32(NOW) + 60;
        vm.prank(PROVIDER);
        market.bid(id, t, a.rate, validUntil);
        vm.prank(TENANT);
        market.accept(id, t, PROVIDER, a.rate, validUntil);
    }

    // --------------------------------------------------------------------------------------------------- checks

    function _assertPaidOut(uint256 whole) private view {
        OrderView memory o = market.orderOf(id);
        assert(o.funds == 0 && o.bond == 0);
        uint256 sum = uint256(market.free(address(token), PROVIDER)) + market.free(address(token), TENANT);
        assert(sum + market.free(address(token), market.BURN()) == whole);
        assert(token.balanceOf(address(market)) == whole);
    }
}

// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IMarket} from "../../../src/interfaces/IMarket.sol";
import {Bid, State, Terms} from "../../../src/types/MarketTypes.sol";
import {NoReturnToken} from "../../utils/Tokens.sol";
import {Books} from "./Books.sol";

/// @notice Plays all parties on one market, with honest and hostile tokens. Before each call it says from its own books
/// whether the call must succeed and where the money must go; a market that differs fails the run.
contract MarketHandler is Books {
    uint256 public constant ORDERS = 10;
    bytes private constant SPEC = "{}";
    /// @dev Whether two tenants ever had live orders in the same token.
    bool public shared;

    modifier atTime() {
        vm.warp(time);
        _;
    }

    // ----------------------------------------------------------------------------------------- calls that pay

    function order(uint256 seed) external atTime {
        _order(seed);
    }

    function _order(uint256 seed) private {
        if (books.length == ORDERS) return;
        Terms memory terms;
        terms.token = _token(_part(seed, 0));
        terms.maxPrice = _amount(_part(seed, 5));
        terms.bond = uint96(_amount(_part(seed, 6)) - 1);
        terms.noShowPenalty = uint96(bound(_part(seed, 1), 0, terms.bond));
        terms.bidBy = time + uint40(bound(_part(seed, 2), 10, 900));
        terms.startWindow = 300;
        terms.duration = uint40(bound(_part(seed, 3), 1, 2 hours));
        terms.window = 600;
        terms.holdbackBps = uint16(bound(_part(seed, 7), 0, 5000));
        terms.specHash = keccak256(SPEC);
        address tenant = tenants[_part(seed, 4) % tenants.length];
        bytes32 salt = bytes32(books.length);
        bytes memory data = abi.encodeCall(IMarket.order, (salt, terms, SPEC));
        if (!_pay(tenant, data, terms.token, terms.maxPrice, true)) return;
        _count("1 order");
        for (uint256 i = 0; i < books.length; ++i) {
            Book storage other = books[i];
            bool live = other.state < State.Cancelled;
            if (live && other.terms.token == terms.token && other.tenant != tenant) shared = true;
        }
        Book storage b = books.push();
        b.id = market.orderId(tenant, salt);
        b.tenant = tenant;
        b.terms = terms;
        b.cap = terms.maxPrice;
        _move(b, State.Open, terms.bidBy);
    }

    /// @dev Ordering again with a salt that is used never works, in any state, whatever else is right.
    function orderAgain(uint256 seed, uint256 maxPrice) external atTime {
        if (books.length == 0) return;
        uint256 index = seed % books.length;
        Book storage b = books[index];
        Terms memory terms = b.terms;
        terms.maxPrice = _amount(maxPrice);
        terms.bidBy = time + 3600;
        vm.prank(b.tenant);
        try market.order(bytes32(index), terms, SPEC) {
            revert("an id was used again");
        } catch (bytes memory reason) {
            bytes memory exists = abi.encodeWithSelector(IMarket.Market_OrderExists.selector, b.id);
            require(keccak256(reason) == keccak256(exists), "refused for another reason");
        }
        _count("refused");
        _check(b);
    }

    /// @dev Mostly on an order that takes bids.
    function bid(uint256 seed) external atTime {
        if (books.length != 0) _bid(_first(_part(seed, 0), State.Open), _provider(_part(seed, 1)), seed);
    }

    function _bid(Book storage b, address provider, uint256 seed) private {
        // From nothing, through what lasts up to three hours, to what is used up in a second.
        uint256 used = uint256(b.cap) * 1e12;
        uint256 pace = _part(seed, 2);
        uint128 rate = uint128(pace % 8 == 0 ? bound(pace, 0, used) : used / (1 + pace % 3 hours));
        uint32 validUntil = uint32(time + bound(_part(seed, 3), 0, 600));
        bytes memory data = abi.encodeCall(IMarket.bid, (b.id, b.terms, rate, validUntil));
        bool again = market.bidOf(b.id, provider).validUntil != 0;
        bool may = b.state == State.Open && time <= b.deadline;
        if (!_pay(provider, data, b.terms.token, again ? 0 : b.terms.bond, may)) return;
        if (!again) ++b.bids;
        _count(again ? bytes32("2 bid again") : bytes32("2 bid"));
    }

    /// @dev Mostly on a lease that runs.
    function topUp(uint256 seed, uint256 amountSeed) external atTime {
        if (books.length == 0) return;
        Book storage b = _first(seed, State.Running);
        uint128 amount = _amount(amountSeed);
        bytes memory data = abi.encodeCall(IMarket.topUp, (b.id, b.terms, amount));
        bool may = b.state == State.Running && time <= b.deadline;
        if (!_pay(b.tenant, data, b.terms.token, amount, may)) return;
        _count("top up");
        b.cap += amount;
        b.endAt = _end(b);
        b.deadline = b.endAt;
        _check(b);
    }

    function deposit(uint256 seed, uint256 accountSeed, uint256 amountSeed) external atTime {
        address token = tokens[seed % tokens.length];
        address account = _account(accountSeed);
        uint128 amount = _amount(amountSeed);
        uint128 held = market.free(token, account);
        bytes memory data = abi.encodeCall(IMarket.deposit, (token, amount));
        if (!_call(account, data, token, _moves(token, account, amount, true))) return;
        _count("deposit");
        require(market.free(token, account) == held + amount, "credited another amount");
    }

    /// @dev Mostly of what there is.
    function withdraw(uint256 seed, uint256 accountSeed, uint256 amountSeed) external atTime {
        address account = _account(accountSeed);
        address token = tokens[seed % BEARING];
        for (uint256 i = 1; i < BEARING && market.free(token, account) == 0; ++i) {
            token = tokens[(seed % BEARING + i) % BEARING];
        }
        uint128 held = market.free(token, account);
        // All, any part, or one more than there is.
        uint128 moved = seed % 3 == 0 ? held : uint128(bound(amountSeed, 1, uint256(held) + 1));
        uint128 asked = seed % 3 == 0 ? type(uint128).max : moved;
        uint256 before = NoReturnToken(token).balanceOf(account);
        bool may = moved != 0 && moved <= held && _moves(token, account, moved, false);
        if (!_call(account, abi.encodeCall(IMarket.withdraw, (token, asked, account)), token, may)) return;
        _count("withdraw");
        // A fee that the token takes from what arrives is between it and the recipient.
        bool fee = token == address(feeToken) && feeToken.share() != 0;
        require(fee || NoReturnToken(token).balanceOf(account) == before + moved, "withdrawn another amount");
        require(market.free(token, account) == held - moved, "charged another amount");
    }

    // ------------------------------------------------------------------------------------ calls on the ledger

    /// @notice Any call on any order by anyone: whether it works and what it pays must be what the books say. Mostly
    /// what the order waits for, by whom it waits for.
    function act(uint256 seed) external atTime {
        if (books.length == 0 || _live(0).state >= State.Cancelled) _order(seed);
        if (books.length == 0) return;
        uint256 place = _part(seed, 1);
        Book storage b = seed % 16 == 0 ? books[place % books.length] : _live(place);
        address bidder = _bidder(b, _part(seed, 2));
        Bid memory offer = market.bidOf(b.id, bidder);
        bool noOffer = b.state == State.Open && offer.validUntil == 0;
        if (noOffer && _part(seed, 3) % 8 != 0) return _bid(b, bidder, seed);
        uint256 kind = _part(seed, 4);
        Call call = kind % 16 == 0 ? Call(kind / 16 % 12) : _likely(b, offer, kind / 16);
        uint256 who = _part(seed, 5);
        address caller = who % 4 != 0 ? _rightful(b, call, bidder) : _caller(b, who / 4);
        _act(b, call, caller, bidder, offer);
    }

    function _act(Book storage b, Call call, address caller, address bidder, Bid memory offer) private {
        bool may = _may(b, call, caller, bidder, offer);
        Payout memory due = may ? _due(b, call, caller, offer.bond) : Payout(0, 0, 0);
        address payee = call == Call.Reclaim ? bidder : call == Call.Unbid ? caller : b.provider;
        uint128[3] memory before = _free(b, payee);
        if (_call(caller, _encode(b, call, bidder, offer), b.terms.token, may)) {
            bool idle = call == Call.Settle && due.toProvider == 0;
            _count(idle ? bytes32("settle, nothing due") : _transition(b, call, caller));
            _follow(b, call, bidder, offer.price, due);
        }
        uint128[3] memory afterwards = _free(b, payee);
        require(afterwards[0] == before[0] + due.toProvider, "another sum to the provider");
        require(afterwards[1] == before[1] + due.toTenant, "another sum to the tenant");
        require(afterwards[2] == before[2] + due.burned, "another sum burned");
        _check(b);
    }

    function _encode(Book storage b, Call call, address bidder, Bid memory offer) private view returns (bytes memory) {
        if (call == Call.Unbid) return abi.encodeCall(IMarket.unbid, (b.id, b.terms));
        if (call == Call.Reclaim) return abi.encodeCall(IMarket.reclaim, (b.id, b.terms, bidder, b.resultHash));
        if (call == Call.Accept) {
            return abi.encodeCall(IMarket.accept, (b.id, b.terms, bidder, offer.price, offer.validUntil));
        }
        if (call == Call.Cancel) return abi.encodeCall(IMarket.cancel, (b.id, b.terms));
        if (call == Call.Start) return abi.encodeCall(IMarket.start, (b.id, b.terms));
        if (call == Call.Decline) return abi.encodeCall(IMarket.decline, (b.id, b.terms));
        if (call == Call.NoShow) return abi.encodeCall(IMarket.noShow, (b.id, b.terms));
        if (call == Call.Settle) return abi.encodeCall(IMarket.settle, (b.id, b.terms, b.resultHash));
        if (call == Call.Close) return abi.encodeCall(IMarket.close, (b.id, b.terms));
        if (call == Call.Deliver) return abi.encodeCall(IMarket.deliver, (b.id, b.terms, _result(b)));
        if (call == Call.AcceptResult) return abi.encodeCall(IMarket.acceptResult, (b.id, b.terms, b.resultHash));
        return abi.encodeCall(IMarket.rejectResult, (b.id, b.terms, b.resultHash));
    }

    // ------------------------------------------------------------------------------------------- surroundings

    function pass(uint256 seconds_) external {
        time += uint40(bound(seconds_, 1, 100));
    }

    function passLong(uint256 seconds_) external {
        time += uint40(bound(seconds_, 100, 20 minutes));
    }

    function donate(uint256 seed, uint256 amountSeed) external {
        uint256 amount = bound(amountSeed, 1, 1e24);
        address token = tokens[seed % BEARING];
        NoReturnToken(token).mint(address(market), amount);
        donated[token] += amount;
    }

    /// @dev Off more often than on, so that hostile tokens carry leases too.
    function misbehave(uint256 seed, uint256 chance) external {
        bool on = chance % 4 == 0;
        if (seed % 2 == 0) feeToken.setFee(on ? 7 : 0, seed % 4 == 0);
        else blocklist.setBlocked(_account(seed), on);
    }

    /// @notice After every deadline, a stranger settles what is open and frees every bond.
    function settleAll() external {
        time += 3650 days;
        vm.warp(time);
        feeToken.setFee(0, false);
        vm.startPrank(stranger);
        for (uint256 i = 0; i < books.length; ++i) {
            Book storage b = books[i];
            if (b.state == State.Open) market.cancel(b.id, b.terms);
            if (b.state == State.Awaiting) market.noShow(b.id, b.terms);
            if (b.state == State.Running) market.close(b.id, b.terms);
            if (b.state == State.Delivered) market.acceptResult(b.id, b.terms, b.resultHash);
            for (uint256 j = 0; j < providers.length; ++j) {
                bool lost = market.bidOf(b.id, providers[j]).validUntil != 0 && providers[j] != b.provider;
                if (lost) market.reclaim(b.id, b.terms, providers[j], b.resultHash);
            }
        }
        vm.stopPrank();
    }

    // ------------------------------------------------------------------------------------------------ choices

    /// @dev Independent numbers from one seed, so that no choice decides another.
    function _part(uint256 seed, uint256 i) private pure returns (uint256) {
        return uint256(keccak256(abi.encode(seed, i)));
    }

    function _amount(uint256 seed) private pure returns (uint128) {
        return uint128(bound(seed, 1, 1e24));
    }

    function _free(Book storage b, address payee) private view returns (uint128[3] memory) {
        address token = b.terms.token;
        return [market.free(token, payee), market.free(token, b.tenant), market.free(token, market.BURN())];
    }

    /// @dev The first order in `state` from a random place on, or any.
    function _first(uint256 seed, State state) private view returns (Book storage b) {
        uint256 length = books.length;
        for (uint256 i = 0; i < length; ++i) {
            b = books[(seed % length + i) % length];
            if (b.state == state) return b;
        }
        return books[seed % length];
    }

    /// @dev The first order that is not settled from a random place on, or any.
    function _live(uint256 seed) private view returns (Book storage b) {
        uint256 length = books.length;
        for (uint256 i = 0; i < length; ++i) {
            b = books[(seed % length + i) % length];
            if (b.state < State.Cancelled) return b;
        }
        return books[seed % length];
    }

    /// @dev Anyone, mostly the parties.
    function _caller(Book storage b, uint256 seed) private view returns (address) {
        if (seed % 4 == 0) return b.tenant;
        if (seed % 4 == 1 && b.provider != address(0)) return b.provider;
        return seed % 4 == 2 ? stranger : _account(seed / 4);
    }

    /// @dev A call that the order's state waits for, so that runs get to the end of leases.
    function _likely(Book storage b, Bid memory offer, uint256 seed) private view returns (Call) {
        bool late = time > b.deadline;
        if (b.state == State.Open) {
            if (late) return [Call.Cancel, Call.Reclaim][seed % 2];
            if (time > offer.validUntil) return [Call.Reclaim, Call.Unbid, Call.Cancel][seed % 3];
            return [Call.Accept, Call.Accept, Call.Accept, Call.Accept, Call.Accept, Call.Unbid][seed % 6];
        }
        if (b.state == State.Awaiting) {
            if (late) return Call.NoShow;
            return [Call.Start, Call.Start, Call.Start, Call.Start, Call.Decline, Call.Cancel][seed % 6];
        }
        if (b.state == State.Running) {
            if (late) return [Call.Settle, Call.Close][seed % 2];
            return [Call.Settle, Call.Settle, Call.Deliver, Call.Deliver, Call.Close][seed % 5];
        }
        if (b.state == State.Delivered) return [Call.Settle, Call.AcceptResult, Call.RejectResult][seed % 3];
        return Call.Reclaim;
    }

    function _rightful(Book storage b, Call call, address bidder) private view returns (address) {
        if (call == Call.Unbid) return bidder;
        if (call == Call.Start || call == Call.Decline || call == Call.Deliver) return b.provider;
        if (call == Call.NoShow || call == Call.Settle || call == Call.Reclaim) return stranger;
        // After the deadline it is anyone's.
        return time > b.deadline ? stranger : b.tenant;
    }

    /// @dev The first provider with a bid from a random place on, or any.
    function _bidder(Book storage b, uint256 seed) private view returns (address provider) {
        for (uint256 i = 0; i < providers.length; ++i) {
            provider = _provider(seed % 3 + i);
            if (market.bidOf(b.id, provider).validUntil != 0) return provider;
        }
    }
}

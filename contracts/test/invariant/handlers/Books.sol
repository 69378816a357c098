// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IMarket} from "../../../src/interfaces/IMarket.sol";
import {Bid, OrderView, State, Terms} from "../../../src/types/MarketTypes.sol";
import {Cast} from "./Cast.sol";

/// @notice What the specification says of each order, kept apart from the market: who may call what when, who is then
/// paid how much, and where the order stands afterwards.
abstract contract Books is Cast {
    /// @dev What the handler knows about an order without asking the market.
    struct Book {
        bytes32 id;
        address tenant;
        address provider;
        State state;
        uint40 deadline;
        uint40 startedAt;
        uint40 endAt;
        uint128 cap;
        uint128 paid;
        uint128 rate;
        bytes32 resultHash;
        bytes32 digest;
        /// @dev How many bids hold a bond.
        uint256 bids;
        Terms terms;
    }

    struct Payout {
        uint128 toProvider;
        uint128 toTenant;
        uint128 burned;
    }

    enum Call {
        Unbid,
        Reclaim,
        Accept,
        Cancel,
        Start,
        Decline,
        NoShow,
        Settle,
        Close,
        Deliver,
        AcceptResult,
        RejectResult
    }

    Book[] internal books;
    mapping(address token => uint256) public donated;
    mapping(State => uint256) public reached;
    uint40 public time = 1_800_000_000;

    function count() external view returns (uint256) {
        return books.length;
    }

    /// @notice What the market says it holds of each token for orders and bids.
    function held() external view returns (uint256[] memory sums) {
        sums = new uint256[](tokens.length);
        for (uint256 i = 0; i < books.length; ++i) {
            Book storage b = books[i];
            // Were a settled order to hold more than its losers' bonds, the balance would be above the sum.
            if (b.state >= State.Cancelled && b.bids == 0) continue;
            uint256 sum = market.orderOf(b.id).funds;
            for (uint256 j = 0; j < providers.length; ++j) {
                sum += market.bidOf(b.id, providers[j]).bond;
            }
            for (uint256 j = 0; sum != 0; ++j) {
                if (tokens[j] == b.terms.token) (sums[j], sum) = (sums[j] + sum, 0);
            }
        }
    }

    function book(uint256 index) external view returns (Book memory) {
        return books[index];
    }

    // -------------------------------------------------------------------------------------------------- rules

    function _may(Book storage b, Call call, address caller, address bidder, Bid memory offer)
        internal
        view
        returns (bool)
    {
        bool late = time > b.deadline;
        bool byTenant = caller == b.tenant;
        bool byProvider = caller == b.provider;
        if (call == Call.Unbid) return b.state == State.Open && market.bidOf(b.id, caller).validUntil != 0;
        if (call == Call.Reclaim) {
            if (offer.validUntil == 0) return false;
            return b.state == State.Open ? late || time > offer.validUntil : bidder != b.provider;
        }
        if (call == Call.Accept) {
            return b.state == State.Open && byTenant && !late && offer.validUntil >= time;
        }
        if (call == Call.Cancel) {
            return b.state == State.Open ? byTenant || late : b.state == State.Awaiting && byTenant;
        }
        if (call == Call.Start || call == Call.Decline) return b.state == State.Awaiting && byProvider && !late;
        if (call == Call.NoShow) return b.state == State.Awaiting && late;
        if (call == Call.Settle) return b.state == State.Running || b.state == State.Delivered;
        if (call == Call.Close) return b.state == State.Running && (byTenant || byProvider || late);
        if (call == Call.Deliver) return b.state == State.Running && byProvider && !late;
        if (call == Call.AcceptResult) return b.state == State.Delivered && (byTenant || late);
        return b.state == State.Delivered && byTenant && !late;
    }

    /// @dev The table of the specification: letters as there.
    function _due(Book storage b, Call call, address caller, uint96 offered) internal view returns (Payout memory) {
        uint128 bond = uint128(b.terms.bond);
        uint128 n = b.terms.noShowPenalty;
        uint128 x = accruedOf(b);
        uint128 kept = uint128(uint256(x) - uint256(x) * (10_000 - b.terms.holdbackBps) / 10_000);
        if (call == Call.Unbid) return Payout(market.bidOf(b.id, caller).bond, 0, 0);
        if (call == Call.Reclaim) return Payout(offered, 0, 0);
        if (call == Call.Cancel && b.state == State.Open) return Payout(0, b.cap, 0);
        if (call == Call.Cancel) {
            uint128 fee = n < b.cap ? n : b.cap;
            return Payout(fee + bond, b.cap - fee, 0);
        }
        if (call == Call.Decline) return Payout(bond - n / 10, b.cap, n / 10);
        if (call == Call.NoShow) return Payout(bond - n, b.cap + n, 0);
        if (call == Call.Settle) return Payout(x - kept - b.paid, 0, 0);
        if (call == Call.Close && caller != b.tenant) return Payout(x - kept - b.paid + bond, b.cap - x + kept, 0);
        if (call == Call.Close || call == Call.AcceptResult) return Payout(x - b.paid + bond, b.cap - x, 0);
        if (call == Call.RejectResult) return Payout(x - kept - b.paid + bond, b.cap - x, kept);
        return Payout(0, 0, 0);
    }

    /// @notice Accrual is a function of time alone, at most the cap, never below what was paid, it grows, and outside a
    /// lease it is zero.
    function checkAccrual() external {
        for (uint256 i = 0; i < books.length; ++i) {
            Book storage b = books[i];
            // What is settled was looked at when it settled, and does not change.
            if (b.state >= State.Cancelled) continue;
            vm.warp(time);
            (uint128 total, uint128 releasable) = market.accrued(b.id, b.terms);
            require(total == accruedOf(b), "not a function of time alone");
            require(total <= b.cap, "above the cap");
            require(b.paid + releasable <= total, "paid more than accrued");
            if (b.state < State.Running) continue;
            vm.warp(time + 1);
            (uint128 later,) = market.accrued(b.id, b.terms);
            require(total <= later, "accrual shrinks");
        }
    }

    /// @dev X by the book: from the start, the rate and the cap alone.
    function accruedOf(Book storage b) internal view returns (uint128) {
        if (b.startedAt == 0) return 0;
        uint256 until = time < b.endAt ? time : b.endAt;
        uint256 sum = uint256(b.rate) * (until - b.startedAt) / 1e12;
        return uint128(sum < b.cap ? sum : b.cap);
    }

    function _end(Book storage b) internal view returns (uint40) {
        if (b.rate == 0) return b.startedAt + b.terms.duration;
        uint256 whole = uint256(b.cap) * 1e12 / b.rate;
        if (whole * b.rate < uint256(b.cap) * 1e12) ++whole;
        return b.startedAt + uint40(whole < b.terms.duration ? whole : b.terms.duration);
    }

    function _result(Book storage b) internal view returns (bytes32) {
        return keccak256(abi.encode("result", b.id));
    }

    /// @dev Steps that the specification names, and no others.
    function _move(Book storage b, State to, uint40 deadline) internal {
        State from = b.state;
        bool legal = (from == State.None && to == State.Open)
            || (from == State.Open && (to == State.Awaiting || to == State.Cancelled))
            || (from == State.Awaiting
                && (to == State.Running || to == State.Declined || to == State.NoShow || to == State.Cancelled))
            || (from == State.Running && (to == State.Delivered || to == State.Closed))
            || (from == State.Delivered && (to == State.Accepted || to == State.Rejected));
        require(legal, "a step that does not exist");
        // The winner's bond settles with the order.
        if (to >= State.Cancelled && from != State.Open) --b.bids;
        b.state = to;
        b.deadline = deadline;
        ++reached[to];
        _check(b);
    }

    /// @dev Number and kind of the transition that a call which may be made is, as the specification counts them.
    function _transition(Book storage b, Call call, address caller) internal view returns (bytes32) {
        bool open = b.state == State.Open;
        bool byTenant = caller == b.tenant;
        if (call == Call.Unbid) return "2 unbid";
        if (call == Call.Reclaim) return open ? bytes32("2 reclaim, expired") : bytes32("2 reclaim, lost");
        if (call == Call.Accept) return "3 accept";
        if (call == Call.Cancel && !open) return "8 cancel after accept";
        if (call == Call.Cancel) return byTenant ? bytes32("4 cancel, tenant") : bytes32("4 cancel, anyone");
        if (call == Call.Start) return "5 start";
        if (call == Call.Decline) return "6 decline";
        if (call == Call.NoShow) return "7 no-show";
        if (call == Call.Settle) return "settle";
        if (call == Call.Close && byTenant) return "9 close, tenant";
        if (call == Call.Close) {
            return caller == b.provider ? bytes32("10 close, provider") : bytes32("10 close, anyone");
        }
        if (call == Call.Deliver) return "11 deliver";
        if (call == Call.AcceptResult) return byTenant ? bytes32("17 accept, tenant") : bytes32("17 accept, anyone");
        return "18 reject";
    }

    // --------------------------------------------------------------------------------------------------- steps

    function _follow(Book storage b, Call call, address bidder, uint128 rate, Payout memory due) internal {
        if (call == Call.Unbid || call == Call.Reclaim) --b.bids;
        if (call == Call.Settle) b.paid += due.toProvider;
        if (call == Call.Accept) {
            b.provider = bidder;
            b.rate = rate;
            _move(b, State.Awaiting, time + b.terms.startWindow);
        }
        if (call == Call.Start) {
            b.startedAt = time;
            b.endAt = _end(b);
            _move(b, State.Running, b.endAt);
        }
        if (call == Call.Deliver) {
            b.endAt = time;
            b.resultHash = _result(b);
            _move(b, State.Delivered, time + b.terms.window);
        }
        if (call == Call.Cancel) _move(b, State.Cancelled, 0);
        if (call == Call.Decline) _move(b, State.Declined, 0);
        if (call == Call.NoShow) _move(b, State.NoShow, 0);
        if (call == Call.Close) _move(b, State.Closed, 0);
        if (call == Call.AcceptResult) _move(b, State.Accepted, 0);
        if (call == Call.RejectResult) _move(b, State.Rejected, 0);
    }

    /// @dev The market tells the same story, and of a settled order always the same one.
    function _check(Book storage b) internal {
        OrderView memory o = market.orderOf(b.id);
        require(o.state == b.state, "another state");
        require(o.deadline == b.deadline, "another deadline");
        require(o.tenant == b.tenant && o.provider == b.provider, "other parties");
        require(o.startedAt == b.startedAt && o.endAt == b.endAt, "other times");
        if (b.state < State.Cancelled) {
            require(o.funds + o.paid == b.cap && o.paid == b.paid, "other funds");
            return;
        }
        bytes32 digest = keccak256(abi.encode(o));
        if (b.digest == 0) b.digest = digest;
        require(o.funds == 0 && o.bond == 0, "a settled order holds tokens");
        (uint128 total,) = market.accrued(b.id, b.terms);
        require(total == 0, "a settled order accrues");
        require(b.digest == digest, "a settled order changed");
    }
}

// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Market} from "../../../src/Market.sol";
import {IMarket} from "../../../src/interfaces/IMarket.sol";
import {Bid, OrderView, Profile, State, Terms} from "../../../src/types/MarketTypes.sol";
import {BlocklistToken, FeeToken, HookToken, IHook, LyingToken, NoReturnToken} from "../../utils/Tokens.sol";
import {Test} from "../../utils/Vm.sol";

/// @notice Plays all parties on one market, with honest and hostile tokens, and keeps books of its own. Before each
/// call it says whether the call must succeed and where the money must go; a market that differs fails the run.
contract MarketHandler is Test, IHook {
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

    uint256 public constant ORDERS = 10;
    bytes private constant SPEC = "{}";

    Market public immutable market = new Market(Profile(10, 300, 600), new address[](0));
    FeeToken public immutable feeToken = new FeeToken();
    BlocklistToken public immutable blocklist = new BlocklistToken();
    HookToken public immutable hookToken = new HookToken();
    address[] public tokens;
    address[] public tenants;
    address[] public providers;
    Book[] internal books;
    mapping(address token => uint256) public donated;
    mapping(State => uint256) public reached;
    uint40 public time = 1_800_000_000;
    bool public reentered;
    /// @dev Whether two tenants ever had live orders in the same token.
    bool public shared;

    constructor() {
        tokens = [address(new NoReturnToken()), address(feeToken), address(blocklist), address(hookToken)];
        tokens.push(address(new LyingToken()));
        tenants = [named("tenant 0"), named("tenant 1")];
        // The last provider is this contract: its hook re-enters.
        providers = [named("provider 0"), named("provider 1"), address(this)];
        hookToken.register();
        for (uint256 i = 0; i < tokens.length; ++i) {
            for (uint256 j = 0; j < tenants.length; ++j) {
                _enrich(tokens[i], tenants[j]);
            }
            for (uint256 j = 0; j < providers.length; ++j) {
                _enrich(tokens[i], providers[j]);
            }
        }
    }

    function _enrich(address token, address account) private {
        NoReturnToken(token).mint(account, 1e30);
        vm.prank(account);
        NoReturnToken(token).approve(address(market), type(uint256).max);
    }

    modifier atTime() {
        vm.warp(time);
        _;
    }

    // ----------------------------------------------------------------------------------------- calls that pay

    function order(uint256 seed, uint256 maxPrice, uint256 bond, uint256 holdbackBps) external atTime {
        if (books.length == ORDERS) return;
        Terms memory terms;
        terms.token = tokens[_part(seed, 0) % 4];
        terms.maxPrice = uint128(bound(maxPrice, 1, 1e24));
        terms.bond = uint96(bound(bond, 0, 1e24));
        terms.noShowPenalty = uint96(bound(_part(seed, 1), 0, terms.bond));
        terms.bidBy = time + uint40(bound(_part(seed, 2), 10, 3600));
        terms.startWindow = 300;
        terms.duration = uint40(bound(_part(seed, 3), 1, 2 hours));
        terms.window = 600;
        terms.holdbackBps = uint16(bound(holdbackBps, 0, 5000));
        terms.specHash = keccak256(SPEC);
        address tenant = tenants[_part(seed, 4) % tenants.length];
        bytes32 salt = bytes32(books.length);
        if (!_pays(tenant, abi.encodeCall(IMarket.order, (salt, terms, SPEC)), terms.token, tenant)) return;
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

    /// @dev Independent numbers from one seed, so that no choice decides another.
    function _part(uint256 seed, uint256 i) private pure returns (uint256) {
        return uint256(keccak256(abi.encode(seed, i)));
    }

    /// @dev Ordering again with a salt that is used never works, in any state, whatever else is right.
    function orderAgain(uint256 seed, uint256 maxPrice) external atTime {
        if (books.length == 0) return;
        uint256 index = seed % books.length;
        Book storage b = books[index];
        Terms memory terms = b.terms;
        terms.maxPrice = uint128(bound(maxPrice, 1, 1e24));
        terms.bidBy = time + 3600;
        vm.prank(b.tenant);
        try market.order(bytes32(index), terms, SPEC) {
            revert("an id was used again");
        } catch (bytes memory reason) {
            bytes memory exists = abi.encodeWithSelector(IMarket.Market_OrderExists.selector, b.id);
            require(keccak256(reason) == keccak256(exists), "refused for another reason");
        }
        _check(b);
    }

    function bid(uint256 seed, uint256 providerSeed, uint256 rateSeed, uint256 validity) external atTime {
        Book storage b = _book(seed, State.Open);
        if (b.id == 0 || time > b.terms.bidBy) return;
        address provider = _provider(providerSeed);
        // From nothing, through what lasts up to three hours, to what is used up in a second.
        uint256 used = uint256(b.cap) * 1e12;
        uint128 rate = uint128(rateSeed % 8 == 0 ? bound(rateSeed, 0, used) : used / (1 + rateSeed % 3 hours));
        uint32 validUntil = uint32(time + bound(validity, 0, 600));
        _pays(provider, abi.encodeCall(IMarket.bid, (b.id, b.terms, rate, validUntil)), b.terms.token, provider);
    }

    function topUp(uint256 seed, uint256 amountSeed) external atTime {
        Book storage b = _book(seed, State.Running);
        if (b.id == 0 || time > b.endAt) return;
        uint128 amount = uint128(bound(amountSeed, 1, 1e24));
        if (!_pays(b.tenant, abi.encodeCall(IMarket.topUp, (b.id, b.terms, amount)), b.terms.token, b.tenant)) return;
        b.cap += amount;
        b.endAt = _end(b);
        b.deadline = b.endAt;
        _check(b);
    }

    function deposit(uint256 seed, uint256 accountSeed, uint256 amountSeed) external atTime {
        address token = tokens[seed % tokens.length];
        address account = _account(accountSeed);
        uint128 amount = uint128(bound(amountSeed, 1, 1e24));
        bool paid = _pays(account, abi.encodeCall(IMarket.deposit, (token, amount)), token, account);
        require(!paid || token != tokens[4], "credited for a lie");
    }

    function withdraw(uint256 seed, uint256 accountSeed, uint256 amountSeed) external atTime {
        address token = tokens[seed % tokens.length];
        address account = _account(accountSeed);
        uint128 held = market.free(token, account);
        if (held == 0) return;
        uint128 amount = seed % 3 == 0 ? type(uint128).max : uint128(bound(amountSeed, 1, held));
        uint256 before = NoReturnToken(token).balanceOf(account);
        if (!_pays(account, abi.encodeCall(IMarket.withdraw, (token, amount, account)), token, account)) return;
        uint128 moved = amount == type(uint128).max ? held : amount;
        // A fee that the token takes from what arrives is between it and the recipient.
        bool fee = token == address(feeToken) && feeToken.share() != 0;
        require(fee || NoReturnToken(token).balanceOf(account) == before + moved, "withdrawn another amount");
        require(market.free(token, account) == held - moved, "charged another amount");
    }

    /// @dev A call that may move tokens works, unless a hostile token is in its way.
    function _pays(address from, bytes memory data, address token, address account) private returns (bool success) {
        vm.prank(from);
        (success,) = address(market).call(data);
        bool hostile = (token == address(feeToken) && feeToken.share() != 0)
            || (token == address(blocklist) && blocklist.blocked(account)) || token == tokens[4];
        require(success || hostile, "a good token did not move");
    }

    // ------------------------------------------------------------------------------------ calls on the ledger

    /// @notice Any call on any order by anyone: whether it works and what it pays must be what the books say.
    function act(uint256 kind, uint256 seed, uint256 callerSeed, uint256 providerSeed) external atTime {
        if (books.length == 0) return;
        Book storage b = seed % 4 == 0 ? books[seed / 4 % books.length] : _live(seed / 4);
        Call call = kind % 4 == 0 ? Call(kind / 4 % 12) : _likely(b, kind / 4);
        address caller = callerSeed % 2 == 0 ? _rightful(b, call) : _caller(b, callerSeed / 2);
        address bidder = _bidder(b, providerSeed);
        Bid memory offer = market.bidOf(b.id, bidder);
        bool may = _may(b, call, caller, bidder, offer);
        Payout memory due = may ? _due(b, call, caller, offer.bond) : Payout(0, 0, 0);
        address payee = call == Call.Reclaim ? bidder : call == Call.Unbid ? caller : b.provider;
        uint128[3] memory before = _free(b, payee);
        bytes memory data = _encode(b, call, bidder, offer);
        vm.prank(caller);
        (bool success,) = address(market).call(data);
        require(success == may, success ? "worked and must not" : "failed and must not");
        if (success) _follow(b, call, bidder, offer.price, due);
        uint128[3] memory afterwards = _free(b, payee);
        require(afterwards[0] == before[0] + due.toProvider, "another sum to the provider");
        require(afterwards[1] == before[1] + due.toTenant, "another sum to the tenant");
        require(afterwards[2] == before[2] + due.burned, "another sum burned");
        _check(b);
    }

    function _may(Book storage b, Call call, address caller, address bidder, Bid memory offer)
        private
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
    function _due(Book storage b, Call call, address caller, uint96 offered) private view returns (Payout memory) {
        uint128 bond = uint128(b.terms.bond);
        uint128 n = b.terms.noShowPenalty;
        uint128 x = accruedOf(b);
        uint128 held = uint128(uint256(x) - uint256(x) * (10_000 - b.terms.holdbackBps) / 10_000);
        if (call == Call.Unbid) return Payout(market.bidOf(b.id, caller).bond, 0, 0);
        if (call == Call.Reclaim) return Payout(offered, 0, 0);
        if (call == Call.Cancel && b.state == State.Open) return Payout(0, b.cap, 0);
        if (call == Call.Cancel) {
            uint128 fee = n < b.cap ? n : b.cap;
            return Payout(fee + bond, b.cap - fee, 0);
        }
        if (call == Call.Decline) return Payout(bond - n / 10, b.cap, n / 10);
        if (call == Call.NoShow) return Payout(bond - n, b.cap + n, 0);
        if (call == Call.Settle) return Payout(x - held - b.paid, 0, 0);
        if (call == Call.Close && caller != b.tenant) return Payout(x - held - b.paid + bond, b.cap - x + held, 0);
        if (call == Call.Close || call == Call.AcceptResult) return Payout(x - b.paid + bond, b.cap - x, 0);
        if (call == Call.RejectResult) return Payout(x - held - b.paid + bond, b.cap - x, held);
        return Payout(0, 0, 0);
    }

    function _follow(Book storage b, Call call, address bidder, uint128 rate, Payout memory due) private {
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
        address token = tokens[seed % 4];
        NoReturnToken(token).mint(address(market), amount);
        donated[token] += amount;
    }

    /// @dev Off more often than on, so that hostile tokens carry leases too.
    function misbehave(uint256 seed, uint256 chance) external {
        bool on = chance % 4 == 0;
        if (seed % 2 == 0) feeToken.setFee(on ? 7 : 0, seed % 4 == 0);
        else blocklist.setBlocked(_account(seed), on);
    }

    /// @dev The hook of a token whose owner is this contract: tries to take and to order while tokens move.
    function onTokenMoved() external {
        uint128 held = market.free(address(hookToken), address(this));
        (bool took,) = address(market)
            .call(abi.encodeCall(IMarket.withdraw, (address(hookToken), held == 0 ? 1 : held, address(this))));
        (bool gave,) = address(market).call(abi.encodeCall(IMarket.deposit, (address(hookToken), 1)));
        if (took || gave) reentered = true;
    }

    /// @notice After every deadline, a stranger settles what is open and frees every bond.
    function settleAll() external {
        time += 3650 days;
        vm.warp(time);
        feeToken.setFee(0, false);
        vm.startPrank(named("stranger"));
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

    // -------------------------------------------------------------------------------------------------- books

    function count() external view returns (uint256) {
        return books.length;
    }

    function book(uint256 index) external view returns (Book memory) {
        return books[index];
    }

    /// @notice X by the book: from the start, the rate and the cap alone.
    function accruedAt(uint256 index) external view returns (uint128) {
        return accruedOf(books[index]);
    }

    function accruedOf(Book storage b) internal view returns (uint128) {
        if (b.startedAt == 0) return 0;
        uint256 until = time < b.endAt ? time : b.endAt;
        uint256 sum = uint256(b.rate) * (until - b.startedAt) / 1e12;
        return uint128(sum < b.cap ? sum : b.cap);
    }

    function _end(Book storage b) private view returns (uint40) {
        if (b.rate == 0) return b.startedAt + b.terms.duration;
        uint256 whole = uint256(b.cap) * 1e12 / b.rate;
        if (whole * b.rate < uint256(b.cap) * 1e12) ++whole;
        return b.startedAt + uint40(whole < b.terms.duration ? whole : b.terms.duration);
    }

    /// @dev Steps that the specification names, and no others.
    function _move(Book storage b, State to, uint40 deadline) private {
        State from = b.state;
        bool legal = (from == State.None && to == State.Open)
            || (from == State.Open && (to == State.Awaiting || to == State.Cancelled))
            || (from == State.Awaiting
                && (to == State.Running || to == State.Declined || to == State.NoShow || to == State.Cancelled))
            || (from == State.Running && (to == State.Delivered || to == State.Closed))
            || (from == State.Delivered && (to == State.Accepted || to == State.Rejected));
        require(legal, "a step that does not exist");
        b.state = to;
        b.deadline = deadline;
        ++reached[to];
        _check(b);
    }

    /// @dev The market tells the same story, and of a settled order always the same one.
    function _check(Book storage b) private {
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
        require(b.digest == digest, "a settled order changed");
    }

    function _free(Book storage b, address payee) private view returns (uint128[3] memory) {
        address token = b.terms.token;
        return [market.free(token, payee), market.free(token, b.tenant), market.free(token, market.BURN())];
    }

    function _result(Book storage b) private view returns (bytes32) {
        return keccak256(abi.encode("result", b.id));
    }

    /// @dev The first order in `state` from a random place on; id 0 if there is none.
    function _book(uint256 seed, State state) private view returns (Book storage b) {
        uint256 length = books.length;
        for (uint256 i = 0; i < length; ++i) {
            b = books[(seed % length + i) % length];
            if (b.state == state) return b;
        }
        return _nothing();
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

    function _nothing() private pure returns (Book storage b) {
        assembly ("memory-safe") {
            b.slot := not(0)
        }
    }

    function _provider(uint256 seed) private view returns (address) {
        return providers[seed % providers.length];
    }

    function _account(uint256 seed) private view returns (address) {
        uint256 index = seed % (tenants.length + providers.length);
        return index < tenants.length ? tenants[index] : providers[index - tenants.length];
    }

    /// @dev Anyone, mostly the parties.
    function _caller(Book storage b, uint256 seed) private view returns (address) {
        if (seed % 4 == 0) return b.tenant;
        if (seed % 4 == 1 && b.provider != address(0)) return b.provider;
        return seed % 4 == 2 ? named("stranger") : _account(seed / 4);
    }

    /// @dev A call that the order's state waits for, so that runs get to the end of leases.
    function _likely(Book storage b, uint256 seed) private view returns (Call) {
        bool late = time > b.deadline;
        if (b.state == State.Open) {
            if (late) return [Call.Cancel, Call.Reclaim][seed % 2];
            return [Call.Accept, Call.Accept, Call.Accept, Call.Accept, Call.Accept, Call.Cancel][seed % 6];
        }
        if (b.state == State.Awaiting) {
            if (late) return Call.NoShow;
            return [Call.Start, Call.Start, Call.Start, Call.Start, Call.Decline, Call.Cancel][seed % 6];
        }
        if (b.state == State.Running) {
            if (late) return [Call.Settle, Call.Close][seed % 2];
            return [Call.Settle, Call.Deliver, Call.Deliver, Call.Deliver, Call.Close][seed % 5];
        }
        if (b.state == State.Delivered) return [Call.Settle, Call.AcceptResult, Call.RejectResult][seed % 3];
        return Call.Reclaim;
    }

    function _rightful(Book storage b, Call call) private view returns (address) {
        if (call == Call.Start || call == Call.Decline || call == Call.Deliver) return b.provider;
        if (call == Call.NoShow || call == Call.Settle || call == Call.Reclaim) return named("stranger");
        return b.tenant;
    }

    /// @dev The first provider with a bid from a random place on, or any.
    function _bidder(Book storage b, uint256 seed) private view returns (address provider) {
        for (uint256 i = 0; i < providers.length; ++i) {
            provider = _provider(seed % 3 + i);
            if (market.bidOf(b.id, provider).validUntil != 0) return provider;
        }
    }
}

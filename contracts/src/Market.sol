// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ERC20} from "solady/tokens/ERC20.sol";
import {ReentrancyGuardTransient} from "solady/utils/ReentrancyGuardTransient.sol";

import {IMarket} from "./interfaces/IMarket.sol";
import {AccrualLib} from "./libraries/AccrualLib.sol";
import {TermsLib} from "./libraries/TermsLib.sol";
import {TokenLib} from "./libraries/TokenLib.sol";
import {Bid, Order, OrderView, Outcome, Profile, State, Terms} from "./types/MarketTypes.sol";

/// @title Market
/// @notice See {IMarket}. Metered leases (class none).
/// @dev Every payout goes through `_finish` or `settle`: the tenant's part is always what is left, so nothing can be
/// paid twice or forgotten.
contract Market is IMarket, ReentrancyGuardTransient {
    using TermsLib for Terms;
    using TokenLib for address;

    // ---------------------------------------------------------------------------------------------- constants

    uint256 public constant RATE_SCALE = AccrualLib.SCALE;
    uint16 public constant MAX_HOLDBACK_BPS = TermsLib.MAX_HOLDBACK_BPS;
    uint256 public constant SPEC_LIMIT = TermsLib.SPEC_LIMIT;
    uint40 public constant MAX_PERIOD = TermsLib.MAX_PERIOD;
    address public constant BURN = address(0xdead);

    uint256 private constant MAX_ARBITERS = 8;
    /// @dev A provider that declines loses this part of the no-show penalty.
    uint128 private constant DECLINE_DIVISOR = 10;

    uint40 public immutable minBidPeriod;
    uint40 public immutable minStartWindow;
    uint40 public immutable minWindow;

    // ------------------------------------------------------------------------------------------------ storage

    mapping(bytes32 id => Order) private _orders;
    mapping(bytes32 id => mapping(address provider => Bid)) private _bids;
    mapping(address token => mapping(address account => uint128)) public free;
    mapping(address provider => uint64) public leases;
    address[MAX_ARBITERS] public arbiters;

    constructor(Profile memory profile, address[] memory arbiters_) {
        if (profile.bidPeriod == 0 || profile.startWindow == 0 || profile.window == 0) revert Market_ProfileZero();
        if (arbiters_.length > MAX_ARBITERS) revert Market_TooManyArbiters(arbiters_.length, MAX_ARBITERS);
        minBidPeriod = profile.bidPeriod;
        minStartWindow = profile.startWindow;
        minWindow = profile.window;
        for (uint256 i = 0; i < arbiters_.length; ++i) {
            arbiters[i] = arbiters_[i];
        }
    }

    // ------------------------------------------------------------------------------------------------- ledger

    /// @inheritdoc IMarket
    function deposit(address token, uint128 amount) external nonReentrant {
        _deposit(token, amount);
    }

    /// @inheritdoc IMarket
    function depositWithPermit(address token, uint128 amount, uint256 deadline, uint8 v, bytes32 r, bytes32 s)
        external
        nonReentrant
    {
        token.requireCode();
        try ERC20(token).permit(msg.sender, address(this), amount, deadline, v, r, s) {} catch {}
        _deposit(token, amount);
    }

    /// @inheritdoc IMarket
    function withdraw(address token, uint128 amount, address to) external nonReentrant {
        uint128 held = free[token][msg.sender];
        if (amount == type(uint128).max) amount = held;
        if (amount == 0) revert Market_AmountZero();
        if (amount > held) revert Market_FreeTooLow(token, msg.sender, amount, held);
        if (to == address(0)) revert Market_RecipientZero();
        free[token][msg.sender] = held - amount;
        token.push(to, amount);
        emit Withdrawn(token, msg.sender, to, amount);
    }

    // ------------------------------------------------------------------------------------------------- market

    /// @inheritdoc IMarket
    function order(bytes32 salt, Terms calldata terms, bytes calldata spec) external nonReentrant returns (bytes32 id) {
        id = orderId(msg.sender, salt);
        Order storage o = _orders[id];
        if (o.state != State.None) revert Market_OrderExists(id);
        terms.validate(spec, Profile(minBidPeriod, minStartWindow, minWindow));
        o.tenant = msg.sender;
        o.state = State.Open;
        o.deadline = terms.bidBy;
        o.funds = terms.maxPrice;
        o.termsHash = terms.hash();
        _take(terms.token, terms.maxPrice);
        emit Ordered(id, msg.sender, salt, terms, spec);
    }

    /// @inheritdoc IMarket
    function bid(bytes32 id, Terms calldata terms, uint128 price, uint32 validUntil) external nonReentrant {
        Order storage o = _orderIn(State.Open, id, terms);
        _requireInTime(id, o.deadline);
        if (block.timestamp > validUntil) revert Market_BidExpired(id, validUntil);
        Bid storage b = _bids[id][msg.sender];
        bool first = b.validUntil == 0;
        uint96 bond = uint96(terms.bond);
        (b.price, b.bond, b.validUntil) = (price, bond, validUntil);
        if (first) _take(terms.token, bond);
        emit BidPlaced(id, msg.sender, price, validUntil, bond);
    }

    /// @inheritdoc IMarket
    function unbid(bytes32 id, Terms calldata terms) external nonReentrant {
        _orderIn(State.Open, id, terms);
        emit Unbid(id, msg.sender, _releaseBid(id, terms.token, msg.sender));
    }

    /// @inheritdoc IMarket
    function reclaim(bytes32 id, Terms calldata terms, address provider, bytes32 resultHash) external nonReentrant {
        Order storage o = _orders[id];
        if (o.state == State.None) revert Market_WrongState(id, State.None);
        _requireTerms(id, o, _termsHash(terms, resultHash));
        if (o.state == State.Open) {
            uint32 validUntil = _bids[id][provider].validUntil;
            uint40 until = validUntil < o.deadline ? validUntil : o.deadline;
            if (block.timestamp <= until) revert Market_BidLive(id, provider, until);
        } else if (provider == o.provider) {
            revert Market_BidWon(id, provider);
        }
        emit Reclaimed(id, provider, _releaseBid(id, terms.token, provider));
    }

    /// @inheritdoc IMarket
    function accept(bytes32 id, Terms calldata terms, address provider, uint128 price, uint32 validUntil)
        external
        nonReentrant
    {
        Order storage o = _orderIn(State.Open, id, terms);
        _requireTenant(id, o);
        _requireInTime(id, o.deadline);
        Bid storage b = _bids[id][provider];
        if (b.validUntil == 0) revert Market_BidUnknown(id, provider);
        if (b.price != price || b.validUntil != validUntil) {
            revert Market_BidChanged(id, provider, b.price, b.validUntil);
        }
        if (block.timestamp > validUntil) revert Market_BidExpired(id, validUntil);
        o.state = State.Awaiting;
        o.deadline = uint40(block.timestamp) + terms.startWindow;
        o.provider = provider;
        // A metered price is a rate: the funds stay whole, and nothing is refunded here.
        emit Leased(id, provider, ++leases[provider], price, 0);
    }

    /// @inheritdoc IMarket
    function cancel(bytes32 id, Terms calldata terms) external nonReentrant {
        Order storage o = _orders[id];
        State state = o.state;
        if (state != State.Open && state != State.Awaiting) revert Market_WrongState(id, state);
        _requireTerms(id, o, terms.hash());
        bool byTenant = msg.sender == o.tenant;
        uint128 toProvider = 0;
        if (state == State.Awaiting) {
            if (!byTenant) revert Market_NotTenant(id, msg.sender);
            uint128 fee = terms.noShowPenalty < o.funds ? terms.noShowPenalty : o.funds;
            toProvider = fee + _bids[id][o.provider].bond;
        } else if (!byTenant) {
            _requirePassed(id, o.deadline);
        }
        Outcome outcome = byTenant ? Outcome.ByTenant : Outcome.ByTimeout;
        uint128 toTenant = _finish(id, o, terms.token, State.Cancelled, outcome, toProvider, 0);
        emit Cancelled(id, msg.sender, 0, toProvider, toTenant, 0);
    }

    // -------------------------------------------------------------------------------------------------- lease

    /// @inheritdoc IMarket
    function start(bytes32 id, Terms calldata terms) external nonReentrant {
        Order storage o = _orderIn(State.Awaiting, id, terms);
        _requireProvider(id, o);
        _requireInTime(id, o.deadline);
        uint40 startedAt = uint40(block.timestamp);
        uint40 endAt = AccrualLib.end(startedAt, terms.duration, o.funds, _bids[id][msg.sender].price);
        o.state = State.Running;
        o.deadline = endAt;
        o.startedAt = startedAt;
        o.endAt = endAt;
        emit Started(id, msg.sender, endAt);
    }

    /// @inheritdoc IMarket
    function decline(bytes32 id, Terms calldata terms) external nonReentrant {
        Order storage o = _orderIn(State.Awaiting, id, terms);
        _requireProvider(id, o);
        _requireInTime(id, o.deadline);
        uint128 burned = terms.noShowPenalty / DECLINE_DIVISOR;
        uint128 toProvider = _bids[id][msg.sender].bond - burned;
        uint128 toTenant = _finish(id, o, terms.token, State.Declined, Outcome.ByProvider, toProvider, burned);
        emit Declined(id, msg.sender, 0, toProvider, toTenant, burned);
    }

    /// @inheritdoc IMarket
    function noShow(bytes32 id, Terms calldata terms) external nonReentrant {
        Order storage o = _orderIn(State.Awaiting, id, terms);
        _requirePassed(id, o.deadline);
        uint128 toProvider = _bids[id][o.provider].bond - terms.noShowPenalty;
        uint128 toTenant = _finish(id, o, terms.token, State.NoShow, Outcome.ByTimeout, toProvider, 0);
        emit NoShow(id, msg.sender, 0, toProvider, toTenant, 0);
    }

    /// @inheritdoc IMarket
    function topUp(bytes32 id, Terms calldata terms, uint128 amount) external nonReentrant {
        Order storage o = _orderIn(State.Running, id, terms);
        _requireTenant(id, o);
        _requireInTime(id, o.deadline);
        if (amount == 0) revert Market_AmountZero();
        uint128 funds = o.funds + amount;
        uint40 endAt = AccrualLib.end(o.startedAt, terms.duration, funds + o.paid, _bids[id][o.provider].price);
        o.funds = funds;
        o.deadline = endAt;
        o.endAt = endAt;
        _take(terms.token, amount);
        emit ToppedUp(id, amount, endAt);
    }

    /// @inheritdoc IMarket
    function settle(bytes32 id, Terms calldata terms, bytes32 resultHash)
        external
        nonReentrant
        returns (uint128 amount)
    {
        Order storage o = _orders[id];
        State state = o.state;
        if (state != State.Running && state != State.Delivered) revert Market_WrongState(id, state);
        _requireTerms(id, o, _termsHash(terms, resultHash));
        uint128 total = _accrued(id, o);
        amount = AccrualLib.released(total, terms.holdbackBps) - o.paid;
        if (amount == 0) return 0;
        o.funds -= amount;
        o.paid += amount;
        _credit(terms.token, o.provider, amount);
        emit Settled(id, msg.sender, total, amount, 0, 0);
    }

    /// @inheritdoc IMarket
    function close(bytes32 id, Terms calldata terms) external nonReentrant {
        Order storage o = _orderIn(State.Running, id, terms);
        uint128 total = _accrued(id, o);
        uint128 earned = total;
        Outcome outcome = Outcome.ByTenant;
        if (msg.sender != o.tenant) {
            outcome = Outcome.ByProvider;
            if (msg.sender != o.provider) {
                _requirePassed(id, o.deadline);
                outcome = Outcome.ByTimeout;
            }
            earned = AccrualLib.released(total, terms.holdbackBps);
        }
        uint128 toProvider = earned - o.paid + _bids[id][o.provider].bond;
        uint128 toTenant = _finish(id, o, terms.token, State.Closed, outcome, toProvider, 0);
        emit Closed(id, msg.sender, total, toProvider, toTenant, 0);
    }

    /// @inheritdoc IMarket
    function deliver(bytes32 id, Terms calldata terms, bytes32 resultHash) external nonReentrant {
        Order storage o = _orderIn(State.Running, id, terms);
        _requireProvider(id, o);
        _requireInTime(id, o.deadline);
        if (resultHash == 0) revert Market_ResultHashZero(id);
        uint128 total = _accrued(id, o);
        uint40 deliveredAt = uint40(block.timestamp);
        uint40 reviewBy = deliveredAt + terms.window;
        o.state = State.Delivered;
        o.deadline = reviewBy;
        o.endAt = deliveredAt;
        o.termsHash = _termsHash(terms, resultHash);
        emit Delivered(id, resultHash, total, reviewBy);
    }

    /// @inheritdoc IMarket
    function acceptResult(bytes32 id, Terms calldata terms, bytes32 resultHash) external nonReentrant {
        Order storage o = _deliveredOrder(id, terms, resultHash);
        Outcome outcome = Outcome.ByTenant;
        if (msg.sender != o.tenant) {
            _requirePassed(id, o.deadline);
            outcome = Outcome.ByTimeout;
        }
        uint128 total = _accrued(id, o);
        uint128 toProvider = total - o.paid + _bids[id][o.provider].bond;
        uint128 toTenant = _finish(id, o, terms.token, State.Accepted, outcome, toProvider, 0);
        emit Accepted(id, msg.sender, total, toProvider, toTenant, 0);
    }

    /// @inheritdoc IMarket
    function rejectResult(bytes32 id, Terms calldata terms, bytes32 resultHash) external nonReentrant {
        Order storage o = _deliveredOrder(id, terms, resultHash);
        _requireTenant(id, o);
        _requireInTime(id, o.deadline);
        uint128 total = _accrued(id, o);
        uint128 released = AccrualLib.released(total, terms.holdbackBps);
        // Burned, not refunded: a threat to reject is worth nothing to the tenant.
        uint128 burned = total - released;
        uint128 toProvider = released - o.paid + _bids[id][o.provider].bond;
        uint128 toTenant = _finish(id, o, terms.token, State.Rejected, Outcome.ByTenant, toProvider, burned);
        emit Rejected(id, msg.sender, total, toProvider, toTenant, burned);
    }

    /// @inheritdoc IMarket
    function multicall(bytes[] calldata calls) external returns (bytes[] memory results) {
        results = new bytes[](calls.length);
        for (uint256 i = 0; i < calls.length; ++i) {
            (bool success, bytes memory data) = address(this).delegatecall(calls[i]);
            if (!success) {
                assembly ("memory-safe") {
                    revert(add(data, 0x20), mload(data))
                }
            }
            results[i] = data;
        }
    }

    // -------------------------------------------------------------------------------------------------- views

    /// @inheritdoc IMarket
    function orderOf(bytes32 id) external view returns (OrderView memory) {
        Order storage o = _orders[id];
        Bid storage b = _bids[id][o.provider];
        return OrderView({
            tenant: o.tenant,
            state: o.state,
            outcome: o.outcome,
            games: o.games,
            deadline: o.deadline,
            provider: o.provider,
            startedAt: o.startedAt,
            endAt: o.endAt,
            funds: o.funds,
            paid: o.paid,
            price: b.price,
            bond: b.bond,
            termsHash: o.termsHash
        });
    }

    /// @inheritdoc IMarket
    function bidOf(bytes32 id, address provider) external view returns (Bid memory) {
        return _bids[id][provider];
    }

    /// @inheritdoc IMarket
    function orderId(address tenant, bytes32 salt) public view returns (bytes32) {
        return keccak256(abi.encode(block.chainid, address(this), tenant, salt));
    }

    /// @inheritdoc IMarket
    function accrued(bytes32 id, Terms calldata terms) external view returns (uint128 total, uint128 releasable) {
        Order storage o = _orders[id];
        if (o.state != State.Running && o.state != State.Delivered) return (0, 0);
        total = _accrued(id, o);
        releasable = AccrualLib.released(total, terms.holdbackBps) - o.paid;
    }

    // ------------------------------------------------------------------------------------------------- checks

    function _orderIn(State state, bytes32 id, Terms calldata terms) private view returns (Order storage o) {
        o = _orders[id];
        if (o.state != state) revert Market_WrongState(id, o.state);
        _requireTerms(id, o, terms.hash());
    }

    function _deliveredOrder(bytes32 id, Terms calldata terms, bytes32 resultHash)
        private
        view
        returns (Order storage o)
    {
        o = _orders[id];
        if (o.state != State.Delivered) revert Market_WrongState(id, o.state);
        _requireTerms(id, o, _termsHash(terms, resultHash));
    }

    function _requireTerms(bytes32 id, Order storage o, bytes32 hash) private view {
        if (o.termsHash != hash) revert Market_TermsMismatch(id, o.termsHash);
    }

    /// @dev What storage holds of terms: with the result once there is one. Results are never 0.
    function _termsHash(Terms calldata terms, bytes32 resultHash) private pure returns (bytes32) {
        bytes32 hash = terms.hash();
        return resultHash == 0 ? hash : keccak256(abi.encode(hash, resultHash));
    }

    function _requireTenant(bytes32 id, Order storage o) private view {
        if (msg.sender != o.tenant) revert Market_NotTenant(id, msg.sender);
    }

    function _requireProvider(bytes32 id, Order storage o) private view {
        if (msg.sender != o.provider) revert Market_NotProvider(id, msg.sender);
    }

    function _requireInTime(bytes32 id, uint40 deadline) private view {
        if (block.timestamp > deadline) revert Market_TooLate(id, deadline);
    }

    function _requirePassed(bytes32 id, uint40 deadline) private view {
        if (block.timestamp <= deadline) revert Market_TooEarly(id, deadline);
    }

    // -------------------------------------------------------------------------------------------------- money

    function _accrued(bytes32 id, Order storage o) private view returns (uint128) {
        uint256 until = block.timestamp < o.endAt ? block.timestamp : o.endAt;
        return AccrualLib.accrued(uint256(o.funds) + o.paid, _bids[id][o.provider].price, until - o.startedAt);
    }

    /// @dev Settles an order for good: `toProvider` and `burned` as given, the rest of funds and bond to the tenant.
    /// A bond is either given back whole or cut, and then nothing was earned; so what exceeds it was paid from funds.
    function _finish(
        bytes32 id,
        Order storage o,
        address token,
        State state,
        Outcome outcome,
        uint128 toProvider,
        uint128 burned
    ) private returns (uint128 toTenant) {
        address provider = o.provider;
        Bid storage b = _bids[id][provider];
        uint96 bond = b.bond;
        toTenant = o.funds + bond - toProvider - burned;
        o.state = state;
        o.outcome = outcome;
        o.deadline = 0;
        if (toProvider > bond) o.paid += toProvider - bond;
        o.funds = 0;
        if (bond != 0) b.bond = 0;
        _credit(token, provider, toProvider);
        _credit(token, o.tenant, toTenant);
        _credit(token, BURN, burned);
    }

    function _releaseBid(bytes32 id, address token, address provider) private returns (uint96 bond) {
        Bid storage b = _bids[id][provider];
        if (b.validUntil == 0) revert Market_BidUnknown(id, provider);
        bond = b.bond;
        delete _bids[id][provider];
        _credit(token, provider, bond);
    }

    function _credit(address token, address account, uint128 amount) private {
        if (amount != 0) free[token][account] += amount;
    }

    /// @dev From the caller's free balance first, the rest from its wallet.
    function _take(address token, uint128 amount) private {
        uint128 held = free[token][msg.sender];
        if (held >= amount) {
            free[token][msg.sender] = held - amount;
        } else {
            if (held != 0) free[token][msg.sender] = 0;
            _pull(token, amount - held);
        }
    }

    function _deposit(address token, uint128 amount) private {
        if (amount == 0) revert Market_AmountZero();
        free[token][msg.sender] += amount;
        _pull(token, amount);
    }

    function _pull(address token, uint128 amount) private {
        token.pull(msg.sender, amount);
        emit Deposited(token, msg.sender, amount);
    }

    function _useTransientReentrancyGuardOnlyOnMainnet() internal pure override returns (bool) {
        return false;
    }
}

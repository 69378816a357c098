// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Bid, OrderView, State, Terms} from "../types/MarketTypes.sol";

/// @title IMarket
/// @notice Leases of compute: a tenant funds an order, providers bid, one is accepted, works and is paid. The only
/// contract that holds tokens. It has no owner and cannot be changed; every state that is not settled has an exit
/// that anyone may take after a deadline.
///
/// Conventions
/// - Amounts are in the token's smallest unit. Rates are tokens a second scaled by `RATE_SCALE`.
/// - Times are Unix seconds of block timestamps. "By" and "until" include the second they name.
/// - `accrued` X = min(funds + paid, rate * (min(now, endAt) - startedAt) / RATE_SCALE), rounded down: a function of
///   time alone, so how often `settle` is called changes nothing.
/// - Released of X without the tenant's word: floor(X * (10000 - holdbackBps) / 10000).
/// - Payments are credited to a ledger (`free`) and pulled by `withdraw`. Burned tokens are credited to `BURN`.
/// - Calls on an order take its terms again; they must hash to what is stored (`Market_TermsMismatch`).
///
/// Assumptions about tokens: they have code, move exactly the amount asked (both ways are checked, and a mismatch
/// reverts), do not rebase, and have a supply below 2^128. Tokens may call back; every write is locked against re-entry. A token that refuses
/// transfers to or from an account hurts withdrawals in that token by that account alone.
///
/// Events
/// - The ledger is `Deposited - Withdrawn` plus what the events below move; what a call takes from the caller's
///   wallet because `free` did not suffice appears as a `Deposited` just before.
/// - Every event that pays out has the same data: `by` (the caller), `accrued` (X of the whole lease, with what was
///   settled earlier), `toProvider`, `toTenant`, `burned`. For an event that settles the order, their sum is the
///   funds still held plus the bond of the winner; `toProvider` includes what the bond gives back.
interface IMarket {
    // ------------------------------------------------------------------------------------------------- events

    /// @notice `amount` came from the account's wallet into its free balance.
    event Deposited(address indexed token, address indexed account, uint128 amount);

    /// @notice `amount` went from the account's free balance to the wallet `to`.
    event Withdrawn(address indexed token, address indexed account, address indexed to, uint128 amount);

    /// @notice The tenant's free balance paid `maxPrice + auditReserve` into a new order.
    event Ordered(bytes32 indexed id, address indexed tenant, bytes32 salt, Terms terms, bytes spec);

    /// @notice A bid was placed or replaced; `bond` is what it holds. A first bid takes it from the provider's free
    /// balance, a replacement moves nothing.
    event BidPlaced(bytes32 indexed id, address indexed provider, uint128 price, uint32 validUntil, uint96 bond);

    /// @notice The provider withdrew its bid; `bond` went back to its free balance.
    event Unbid(bytes32 indexed id, address indexed provider, uint96 bond);

    /// @notice A bid that can no longer win was cleared; `bond` went back to the provider's free balance.
    event Reclaimed(bytes32 indexed id, address indexed provider, uint96 bond);

    /// @notice The tenant took a bid. `seq` counts this provider's leases from 1. `refund` of the funds went back to
    /// the tenant's free balance (0 when metered).
    event Leased(bytes32 indexed id, address indexed provider, uint64 seq, uint128 price, uint128 refund);

    /// @notice The provider holds validated inputs and works; time is paid from now on, at most until `endAt`.
    event Started(bytes32 indexed id, address indexed provider, uint40 endAt);

    /// @notice The tenant's free balance paid `amount` into the funds, which moves the end to `endAt`.
    event ToppedUp(bytes32 indexed id, uint128 amount, uint40 endAt);

    /// @notice The provider names its result; accrual stops at `accrued`. The tenant answers by `reviewBy`.
    event Delivered(bytes32 indexed id, bytes32 resultHash, uint128 accrued, uint40 reviewBy);

    /// @notice Accrual was released to the provider; the order stays where it is.
    event Settled(
        bytes32 indexed id, address indexed by, uint128 accrued, uint128 toProvider, uint128 toTenant, uint128 burned
    );

    /// @notice Settled: the order ended before a start, by the tenant or because no bid was taken in time.
    event Cancelled(
        bytes32 indexed id, address indexed by, uint128 accrued, uint128 toProvider, uint128 toTenant, uint128 burned
    );

    /// @notice Settled: the accepted provider gave the lease back before starting.
    event Declined(
        bytes32 indexed id, address indexed by, uint128 accrued, uint128 toProvider, uint128 toTenant, uint128 burned
    );

    /// @notice Settled: the accepted provider did not start in time.
    event NoShow(
        bytes32 indexed id, address indexed by, uint128 accrued, uint128 toProvider, uint128 toTenant, uint128 burned
    );

    /// @notice Settled: a running lease ended without a delivery.
    event Closed(
        bytes32 indexed id, address indexed by, uint128 accrued, uint128 toProvider, uint128 toTenant, uint128 burned
    );

    /// @notice Settled: the result was accepted, by the tenant or by silence.
    event Accepted(
        bytes32 indexed id, address indexed by, uint128 accrued, uint128 toProvider, uint128 toTenant, uint128 burned
    );

    /// @notice Settled: the tenant refused the result.
    event Rejected(
        bytes32 indexed id, address indexed by, uint128 accrued, uint128 toProvider, uint128 toTenant, uint128 burned
    );

    // ------------------------------------------------------------------------------------------------- errors

    error Market_AmountZero();
    error Market_RecipientZero();
    error Market_FreeTooLow(address token, address account, uint128 asked, uint128 free);
    error Market_TokenHasNoCode(address token);
    /// @dev The token moved another amount than asked: fees on transfer and rebasing are not supported.
    error Market_TokenMoved(address token, uint256 asked, uint256 moved);
    /// @dev The token refused the transfer. Names fixed by the transfer library.
    error TransferFailed();
    error TransferFromFailed();

    error Market_OrderExists(bytes32 id);
    error Market_ClassUnsupported(uint8 class);
    error Market_MaxPriceZero();
    error Market_AuditReserveNotZero(uint128 auditReserve);
    error Market_RulesHashNotZero(bytes32 rulesHash);
    error Market_BondOutOfRange(uint128 bond, uint128 min, uint128 max);
    error Market_HoldbackTooHigh(uint16 holdbackBps, uint16 max);
    error Market_BidByOutOfRange(uint40 bidBy, uint256 min, uint256 max);
    error Market_StartWindowOutOfRange(uint40 startWindow, uint40 min, uint40 max);
    error Market_DurationOutOfRange(uint40 duration, uint40 min, uint40 max);
    error Market_WindowOutOfRange(uint40 window, uint40 min, uint40 max);
    error Market_SpecTooLong(uint256 length, uint256 max);
    error Market_SpecHashMismatch(bytes32 specHash, bytes32 computed);

    /// @dev The order (None: no such order) is not where this call needs it.
    error Market_WrongState(bytes32 id, State state);
    /// @dev Terms, or terms with result hash, do not hash to `stored`.
    error Market_TermsMismatch(bytes32 id, bytes32 stored);
    error Market_NotTenant(bytes32 id, address caller);
    error Market_NotProvider(bytes32 id, address caller);
    error Market_ResultHashZero(bytes32 id);
    error Market_TooLate(bytes32 id, uint40 deadline);
    /// @dev Until `deadline` has passed this call is for a party of the order alone.
    error Market_TooEarly(bytes32 id, uint40 deadline);

    error Market_BidUnknown(bytes32 id, address provider);
    error Market_BidExpired(bytes32 id, uint32 validUntil);
    /// @dev The stored bid is not the one the tenant named.
    error Market_BidChanged(bytes32 id, address provider, uint128 price, uint32 validUntil);
    /// @dev The bid can still win: the provider may `unbid`, others wait for `until`.
    error Market_BidLive(bytes32 id, address provider, uint40 until);
    /// @dev The bid won; its bond stays until the lease settles.
    error Market_BidWon(bytes32 id, address provider);

    error Market_ProfileZero();
    error Market_TooManyArbiters(uint256 count, uint256 max);

    // ------------------------------------------------------------------------------------------------- ledger

    /// @notice Moves `amount` from the caller's wallet to its free balance.
    /// @dev Requirements: `amount` > 0; the token has code, lets the market transfer, and moves exactly `amount`.
    function deposit(address token, uint128 amount) external;

    /// @notice `deposit` after an EIP-2612 permit to the market. A permit that fails (somebody sent it first) does
    /// not matter if the allowance is there.
    function depositWithPermit(address token, uint128 amount, uint256 deadline, uint8 v, bytes32 r, bytes32 s) external;

    /// @notice Moves `amount` (`type(uint128).max`: all) of the caller's free balance to the wallet `to`.
    /// @dev Requirements: the amount is > 0 and covered; `to` is not zero; the token moves exactly that.
    function withdraw(address token, uint128 amount, address to) external;

    // ------------------------------------------------------------------------------------------------- market

    /// @notice Opens and funds an order with `maxPrice + auditReserve`, from the caller's free balance first, the rest
    /// from its wallet. The same salt twice reverts, so sending an order again can never fund it twice.
    /// @param salt Chosen by the tenant, unique for it.
    /// @param terms See `Terms`.
    /// @param spec The work, for bidders to judge: RFC 8785 JSON of at most `SPEC_LIMIT` bytes, hashed in the terms.
    /// @return id keccak256(abi.encode(chain id, market, caller, salt)).
    /// @dev Requirements: class 0, auditReserve 0, rulesHash 0; maxPrice > 0; noShowPenalty <= bond <=
    /// type(uint96).max; holdbackBps <= MAX_HOLDBACK_BPS; bidBy in [now + minBidPeriod, now + MAX_PERIOD];
    /// startWindow, window in [the chain's minimum, MAX_PERIOD]; duration in [1, MAX_PERIOD].
    function order(bytes32 salt, Terms calldata terms, bytes calldata spec) external returns (bytes32 id);

    /// @notice Offers to do an open order at `price`, a rate when metered, until `validUntil`. Locks the bond, from
    /// the caller's free balance first, the rest from its wallet. Bidding again replaces price and validity.
    /// @dev Requirements: Open; now <= bidBy; now <= validUntil.
    function bid(bytes32 id, Terms calldata terms, uint128 price, uint32 validUntil) external;

    /// @notice Takes the caller's bid back while the order is open. Bond -> provider.
    function unbid(bytes32 id, Terms calldata terms) external;

    /// @notice Frees the bond of a bid that lost, or that can no longer be accepted. Callable by anyone.
    /// @param resultHash What was delivered; 0 if nothing was.
    /// @dev Requirements: the order is not Open, or now > min(bidBy, validUntil); the bid did not win.
    function reclaim(bytes32 id, Terms calldata terms, address provider, bytes32 resultHash) external;

    /// @notice Takes a bid. From here on the order is a lease and the provider has `startWindow` to start.
    /// @dev Requirements: Open; caller is the tenant; now <= min(bidBy, validUntil); `price` and `validUntil` are
    /// those of the stored bid.
    function accept(bytes32 id, Terms calldata terms, address provider, uint128 price, uint32 validUntil) external;

    /// @notice Ends an order before its start.
    /// Open, by the tenant, or by anyone after bidBy: funds -> tenant.
    /// Awaiting, by the tenant: min(noShowPenalty, funds) + bond -> provider, rest -> tenant.
    function cancel(bytes32 id, Terms calldata terms) external;

    // -------------------------------------------------------------------------------------------------- lease

    /// @notice The provider holds the validated inputs and begins. The end is
    /// now + min(duration, ceil(funds * RATE_SCALE / rate)).
    /// @dev Requirements: Awaiting; caller is the provider; now <= startBy.
    function start(bytes32 id, Terms calldata terms) external;

    /// @notice The provider gives the lease back. Funds -> tenant; noShowPenalty / 10 burned; rest of the bond ->
    /// provider.
    /// @dev Requirements: Awaiting; caller is the provider; now <= startBy.
    function decline(bytes32 id, Terms calldata terms) external;

    /// @notice Ends a lease that was not started in time. Callable by anyone. Funds + noShowPenalty -> tenant; rest of
    /// the bond -> provider.
    /// @dev Requirements: Awaiting; now > startBy.
    function noShow(bytes32 id, Terms calldata terms) external;

    /// @notice Adds `amount` to the funds of a running lease, which moves its end, never beyond startedAt + duration.
    /// @dev Requirements: Running; caller is the tenant; now <= endAt; amount > 0.
    function topUp(bytes32 id, Terms calldata terms, uint128 amount) external;

    /// @notice Credits what has been released of the accrual and was not yet paid to the provider. Callable by anyone;
    /// does nothing if that is 0.
    /// @param resultHash What was delivered; 0 while Running.
    /// @return amount Credited to the provider.
    /// @dev Requirements: Running or Delivered.
    function settle(bytes32 id, Terms calldata terms, bytes32 resultHash) external returns (uint128 amount);

    /// @notice Ends a running lease without a delivery.
    /// By the tenant: accrued + bond -> provider, rest -> tenant.
    /// By the provider, or by anyone after endAt: released + bond -> provider, rest -> tenant.
    function close(bytes32 id, Terms calldata terms) external;

    /// @notice Names the result and stops the accrual.
    /// @param resultHash Class none: SHA-256 of `result.json`.
    /// @dev Requirements: Running; caller is the provider; now <= endAt; `resultHash` is not 0.
    function deliver(bytes32 id, Terms calldata terms, bytes32 resultHash) external;

    /// @notice Accepts the delivered result: accrued + bond -> provider, rest -> tenant.
    /// @dev Requirements: Delivered `resultHash`; caller is the tenant, or now > reviewBy.
    function acceptResult(bytes32 id, Terms calldata terms, bytes32 resultHash) external;

    /// @notice Refuses the delivered result: released + bond -> provider, held-back share burned, rest -> tenant.
    /// @dev Requirements: Delivered `resultHash`; caller is the tenant; now <= reviewBy.
    function rejectResult(bytes32 id, Terms calldata terms, bytes32 resultHash) external;

    /// @notice Calls this contract once for each element, as the caller; reverts as a whole.
    function multicall(bytes[] calldata calls) external returns (bytes[] memory results);

    // -------------------------------------------------------------------------------------------------- views

    /// @notice Everything stored about an order; state None if there is none.
    function orderOf(bytes32 id) external view returns (OrderView memory);

    /// @notice A provider's bid on an order; validUntil 0 if there is none.
    function bidOf(bytes32 id, address provider) external view returns (Bid memory);

    /// @notice What `account` may withdraw or spend.
    function free(address token, address account) external view returns (uint128);

    /// @notice How many leases this provider was given so far; the `seq` of its newest.
    function leases(address provider) external view returns (uint64);

    /// @notice The id that an order by `tenant` with `salt` has or will have.
    function orderId(address tenant, bytes32 salt) external view returns (bytes32);

    /// @notice X of a lease at this block's time, and what `settle` would credit now.
    /// @dev `terms` are not checked against the stored hash; only `holdbackBps` is read. Once settled both are 0.
    function accrued(bytes32 id, Terms calldata terms) external view returns (uint128 total, uint128 releasable);

    /// @notice The arbiter at `index` (class = index + 1), fixed at deployment; zero if there is none.
    function arbiters(uint256 index) external view returns (address);

    /// @notice The shortest time that an order must stay open for bids.
    function minBidPeriod() external view returns (uint40);

    /// @notice The shortest `startWindow` that this chain allows.
    function minStartWindow() external view returns (uint40);

    /// @notice The shortest review `window` that this chain allows.
    function minWindow() external view returns (uint40);

    /// @notice 1e12.
    function RATE_SCALE() external view returns (uint256);

    /// @notice 5000.
    function MAX_HOLDBACK_BPS() external view returns (uint16);

    /// @notice 1024 bytes.
    function SPEC_LIMIT() external view returns (uint256);

    /// @notice Ten years, the longest of any period.
    function MAX_PERIOD() external view returns (uint40);

    /// @notice The account whose free balance is what was burned.
    function BURN() external view returns (address);
}

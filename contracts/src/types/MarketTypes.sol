// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

/// @notice What a tenant asks for and promises. Travels in calldata and in `Ordered`; storage keeps
/// `keccak256(abi.encode(terms))` alone.
struct Terms {
    /// @dev ERC-20 that every amount of this order is in.
    address token;
    /// @dev P at most, in the token's smallest unit. Metered: the cap that time may use up.
    uint128 maxPrice;
    /// @dev A: reserve for audits. Metered: 0.
    uint128 auditReserve;
    /// @dev B: what a bid locks. At least `noShowPenalty`, at most `type(uint96).max`.
    uint128 bond;
    /// @dev N: what a provider loses by not starting, and what a tenant pays for cancelling after `accept`.
    uint128 noShowPenalty;
    /// @dev Unix time of the last second in which bids and `accept` are possible.
    uint40 bidBy;
    /// @dev Seconds from `accept` in which the provider must `start` or `decline`.
    uint40 startWindow;
    /// @dev Seconds a lease may run at most.
    uint40 duration;
    /// @dev Seconds from `deliver` in which the tenant reviews the result.
    uint40 window;
    /// @dev h: share of the accrual that is released only by the tenant or by silence, in 1/10000.
    uint16 holdbackBps;
    /// @dev Verification class. 0 = none (metered); no other class is accepted by this version.
    uint8 class;
    /// @dev keccak256 of the spec bytes in `Ordered`.
    bytes32 specHash;
    /// @dev Hash of what the class fixes beyond these fields. Class none: 0.
    bytes32 rulesHash;
    /// @dev Free mark of the tenant (its software, a referral); not interpreted.
    bytes32 origin;
}

/// @notice Where an order stands. From `Cancelled` on every state is settled: it absorbs, and only the ledger is
/// left. 11 to 16 belong to fixed-price classes.
enum State {
    None,
    Open,
    Awaiting,
    Running,
    Delivered,
    Cancelled,
    Declined,
    NoShow,
    Closed,
    Accepted,
    Rejected,
    Killed,
    Failed,
    Proved,
    Valid,
    Invalid,
    Stuck
}

/// @notice Whose act settled an order; `None` until then.
enum Outcome {
    None,
    ByTenant,
    ByProvider,
    ByTimeout
}

/// @notice One order in storage: four slots.
struct Order {
    // O0: who pays and where it stands.
    address tenant;
    State state;
    Outcome outcome;
    uint32 games;
    uint40 deadline;
    // O1: who works, and since and until when time is paid.
    address provider;
    uint40 startedAt;
    uint40 endAt;
    // O2: the tenant's tokens still held, and those already credited to the provider.
    uint128 funds;
    uint128 paid;
    // O3: hash of the terms; once delivered, keccak256(abi.encode(hash of the terms, result hash)).
    bytes32 termsHash;
}

/// @notice One bid in storage: one slot. It exists if and only if `validUntil` is not 0. The winner's stays, as the
/// lease's price and bond.
struct Bid {
    /// @dev Metered: tokens a second, scaled by 1e12.
    uint128 price;
    uint96 bond;
    /// @dev Unix time of the last second in which the tenant may accept.
    uint32 validUntil;
}

/// @notice An order as `orderOf` shows it.
struct OrderView {
    address tenant;
    State state;
    Outcome outcome;
    /// @dev Live challenges; always 0 when metered.
    uint32 games;
    /// @dev After this second anyone may move the order on: Open bidBy, Awaiting startBy, Running endAt, Delivered
    /// reviewBy, settled 0.
    uint40 deadline;
    address provider;
    uint40 startedAt;
    /// @dev Accrual stops here: the planned end, from `deliver` on the time of delivery.
    uint40 endAt;
    /// @dev Held for this order (without bonds); 0 once settled.
    uint128 funds;
    /// @dev Credited from `funds` to the provider so far; the cap of the accrual is `funds + paid` until settled.
    uint128 paid;
    /// @dev The accepted bid: tokens a second, scaled by 1e12, when metered.
    uint128 price;
    /// @dev The accepted bid's bond; 0 once settled.
    uint96 bond;
    /// @dev keccak256(abi.encode(terms)), from `deliver` on keccak256(abi.encode(that, resultHash)).
    bytes32 termsHash;
}

/// @notice The shortest periods that a chain allows; orders may name longer ones.
struct Profile {
    uint40 bidPeriod;
    uint40 startWindow;
    uint40 window;
}

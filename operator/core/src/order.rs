//! Orders and leases as the Market contract keeps them.

use alloy_primitives::{Address, B256, keccak256};
use alloy_sol_types::{SolValue, sol};

use crate::money::{Amount, Rate};

sol! {
    /// The terms of an order: in calldata and in the event; the contract stores their hash.
    #[derive(Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
    struct Terms {
        address token;
        uint128 maxPrice;
        uint128 auditReserve;
        uint128 bond;
        uint128 noShowPenalty;
        uint40 bidBy;
        uint40 startWindow;
        uint40 duration;
        uint40 window;
        uint16 holdbackBps;
        uint8 class;
        bytes32 specHash;
        bytes32 rulesHash;
        bytes32 origin;
    }
}

impl Terms {
    pub fn hash(&self) -> B256 {
        keccak256(self.abi_encode())
    }

    pub fn cap(&self) -> Amount {
        Amount(self.maxPrice)
    }
}

/// Salt of a task's n-th order: whoever knows the task knows the id, so a repeat can only collide.
pub fn salt(task_uid: &str, attempt: u32) -> B256 {
    keccak256((task_uid.to_owned(), alloy_primitives::U256::from(attempt)).abi_encode_params())
}

/// `keccak256(abi.encode(chainId, market, tenant, salt))`.
pub fn order_id(chain_id: u64, market: Address, tenant: Address, salt: B256) -> B256 {
    keccak256((alloy_primitives::U256::from(chain_id), market, tenant, salt).abi_encode_params())
}

/// What marks the orders of one cluster: `keccak256(abi.encode(UID of kube-system))`.
pub fn origin(kube_system_uid: &str) -> B256 {
    keccak256((kube_system_uid.to_owned(),).abi_encode_params())
}

/// State of an order; numbers as in the contract.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum OrderState {
    #[default]
    None = 0,
    Open = 1,
    Awaiting = 2,
    Running = 3,
    Delivered = 4,
    Cancelled = 5,
    Declined = 6,
    NoShow = 7,
    Closed = 8,
    Accepted = 9,
    Rejected = 10,
    Killed = 11,
    Failed = 12,
    Proved = 13,
    Valid = 14,
    Invalid = 15,
    Stuck = 16,
}

impl OrderState {
    pub fn from_u8(value: u8) -> Option<Self> {
        use OrderState::*;
        [
            None, Open, Awaiting, Running, Delivered, Cancelled, Declined, NoShow, Closed, Accepted, Rejected, Killed,
            Failed, Proved, Valid, Invalid, Stuck,
        ]
        .get(usize::from(value))
        .copied()
    }

    /// Absorbing: all money of the order is in the ledger.
    pub fn is_settled(self) -> bool {
        self >= Self::Cancelled
    }

    /// A provider holds capacity for it.
    pub fn is_leased(self) -> bool {
        matches!(self, Self::Awaiting | Self::Running | Self::Delivered)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Open => "Open",
            Self::Awaiting => "Awaiting",
            Self::Running => "Running",
            Self::Delivered => "Delivered",
            Self::Cancelled => "Cancelled",
            Self::Declined => "Declined",
            Self::NoShow => "NoShow",
            Self::Closed => "Closed",
            Self::Accepted => "Accepted",
            Self::Rejected => "Rejected",
            Self::Killed => "Killed",
            Self::Failed => "Failed",
            Self::Proved => "Proved",
            Self::Valid => "Valid",
            Self::Invalid => "Invalid",
            Self::Stuck => "Stuck",
        }
    }
}

/// The contract's storage of one order at one block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OrderSlot {
    pub state: OrderState,
    pub tenant: Address,
    pub provider: Address,
    /// Price, or rate when metered.
    pub price: u128,
    /// Unix seconds; what it bounds depends on the state (bidBy, startBy, end, reviewBy).
    pub deadline: u64,
    pub started_at: u64,
    pub end_at: u64,
    pub funds: Amount,
    pub paid: Amount,
    pub terms_hash: B256,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bid {
    pub provider: Address,
    /// Price, or rate when metered.
    pub price: u128,
    pub bond: Amount,
    /// Unix seconds.
    pub valid_until: u64,
}

/// How an order's money was split when it settled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Split {
    pub to_provider: Amount,
    pub to_tenant: Amount,
    pub burned: Amount,
}

/// An order as read at one block: what its event said and what storage holds.
#[derive(Clone, Debug)]
pub struct Order {
    pub id: B256,
    pub salt: B256,
    pub terms: Terms,
    /// RFC 8785 JSON of [`crate::spec::OrderSpec`], as the event carried it.
    pub spec: Vec<u8>,
    pub slot: OrderSlot,
    /// Live bids, lowest price first.
    pub bids: Vec<Bid>,
    /// From the `Delivered` event.
    pub result_hash: Option<B256>,
    /// Split of the settling transition, from its event.
    pub split: Option<Split>,
}

impl Order {
    pub fn rate(&self) -> Rate {
        Rate(self.slot.price)
    }

    /// Accrued at `now` (unix seconds), as the contract would compute it.
    pub fn accrued(&self, now: u64) -> Amount {
        if self.slot.started_at == 0 {
            return Amount::ZERO;
        }
        let until = now.min(self.slot.end_at).max(self.slot.started_at);
        let cap = self.slot.funds.saturating_add(self.slot.paid);
        self.rate().accrued(until - self.slot.started_at, cap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_keep_their_numbers() {
        for value in 0..=16 {
            assert_eq!(OrderState::from_u8(value).map(|s| s as u8), Some(value));
        }
        assert_eq!(OrderState::from_u8(17), None);
        assert!(OrderState::Cancelled.is_settled() && !OrderState::Delivered.is_settled());
    }

    #[test]
    fn the_same_task_and_attempt_give_the_same_id() {
        let id = |uid, attempt| order_id(31337, Address::repeat_byte(1), Address::repeat_byte(2), salt(uid, attempt));
        assert_eq!(id("a", 0), id("a", 0));
        assert_ne!(id("a", 0), id("a", 1));
        assert_ne!(id("a", 0), id("b", 0));
    }
}

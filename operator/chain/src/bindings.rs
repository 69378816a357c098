//! The contracts' interfaces, from `contracts/abi`, and conversions to the domain's types.

use alloy::primitives::{Address, B256};
use freehold_core::money::Amount;
use freehold_core::order::{self, OrderSlot, OrderState};

/// The Market contract.
#[allow(clippy::too_many_arguments)]
pub mod market {
    alloy::sol! {
        #[derive(Debug, PartialEq, Eq)]
        Market,
        "../../contracts/abi/Market.json"
    }

    pub use self::Market::{Bid, OrderView, Terms};
}

/// The ProviderRegistry contract.
pub mod registry {
    alloy::sol! {
        #[derive(Debug, PartialEq, Eq)]
        ProviderRegistry,
        "../../contracts/abi/ProviderRegistry.json"
    }
}

/// What Freehold asks of a token.
pub mod token {
    alloy::sol! {
        interface Erc20 {
            function decimals() external view returns (uint8);
            function balanceOf(address account) external view returns (uint256);
            function allowance(address owner, address spender) external view returns (uint256);
            function approve(address spender, uint256 amount) external returns (bool);
        }
    }
}

pub use market::Market;
pub use registry::ProviderRegistry;
pub use token::Erc20;

/// The domain's terms as the contract's calldata wants them. Both are the same words.
pub fn terms_to_contract(terms: &order::Terms) -> market::Terms {
    market::Terms {
        token: terms.token,
        maxPrice: terms.maxPrice,
        auditReserve: terms.auditReserve,
        bond: terms.bond,
        noShowPenalty: terms.noShowPenalty,
        bidBy: terms.bidBy,
        startWindow: terms.startWindow,
        duration: terms.duration,
        window: terms.window,
        holdbackBps: terms.holdbackBps,
        class: terms.class,
        specHash: terms.specHash,
        rulesHash: terms.rulesHash,
        origin: terms.origin,
    }
}

pub fn terms_of_contract(terms: &market::Terms) -> order::Terms {
    order::Terms {
        token: terms.token,
        maxPrice: terms.maxPrice,
        auditReserve: terms.auditReserve,
        bond: terms.bond,
        noShowPenalty: terms.noShowPenalty,
        bidBy: terms.bidBy,
        startWindow: terms.startWindow,
        duration: terms.duration,
        window: terms.window,
        holdbackBps: terms.holdbackBps,
        class: terms.class,
        specHash: terms.specHash,
        rulesHash: terms.rulesHash,
        origin: terms.origin,
    }
}

/// An order's storage; `None` where the contract names a state that this version does not know.
pub fn slot_of_contract(view: &market::OrderView) -> Option<OrderSlot> {
    Some(OrderSlot {
        state: OrderState::from_u8(view.state)?,
        tenant: view.tenant,
        provider: view.provider,
        price: view.price,
        deadline: view.deadline.to(),
        started_at: view.startedAt.to(),
        end_at: view.endAt.to(),
        funds: Amount(view.funds),
        paid: Amount(view.paid),
        terms_hash: view.termsHash,
    })
}

/// A provider's stored bid; `None` where there is none.
pub fn bid_of_contract(provider: Address, bid: &market::Bid) -> Option<order::Bid> {
    (bid.validUntil != 0).then(|| order::Bid {
        provider,
        price: bid.price,
        bond: Amount(bid.bond.to()),
        valid_until: u64::from(bid.validUntil),
    })
}

/// Topic of an event's first word.
pub fn id_topic(topics: &[B256]) -> Option<B256> {
    topics.get(1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy::primitives::{Uint, keccak256};
    use alloy::sol_types::SolValue;

    #[test]
    fn terms_keep_their_hash_on_the_way_to_the_contract() {
        let terms = order::Terms {
            token: Address::repeat_byte(1),
            maxPrice: 5,
            auditReserve: 0,
            bond: 7,
            noShowPenalty: 3,
            bidBy: Uint::from(1_800_000_000u64),
            startWindow: Uint::from(300u64),
            duration: Uint::from(3600u64),
            window: Uint::from(600u64),
            holdbackBps: 2000,
            class: 0,
            specHash: B256::repeat_byte(9),
            rulesHash: B256::ZERO,
            origin: B256::repeat_byte(8),
        };
        let there = terms_to_contract(&terms);
        assert_eq!(keccak256(there.abi_encode()), terms.hash());
        assert_eq!(terms_of_contract(&there), terms);
    }
}

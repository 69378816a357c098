//! What the logs say: which orders, bidders and auditors exist, and the facts
//! that storage does not keep (terms, spec, result, split). Every fact carries
//! its block, so a reorganisation takes back exactly what it undid. Pure.

use std::collections::{BTreeMap, BTreeSet};

use alloy::primitives::{Address, B256};
use alloy::rpc::types::Log;
use alloy::sol_types::SolEventInterface;
use freehold_core::money::Amount;
use freehold_core::order::{Bid, Order, OrderSlot, OrderState, Split, Terms};
use freehold_core::record::{Outcome, Record};

use crate::bindings::market::Market::MarketEvents as E;
use crate::bindings::registry::ProviderRegistry::ProviderRegistryEvents as R;
use crate::bindings::terms_of_contract;

mod records;

use records::Records;

/// A fact and the block that said so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct At<T> {
    block: u64,
    value: T,
}

#[derive(Clone, Debug)]
struct Facts {
    block: u64,
    salt: B256,
    terms: Terms,
    spec: Vec<u8>,
    /// Every account that ever bid, with the block of its first bid.
    bidders: BTreeMap<Address, u64>,
    result: Option<At<B256>>,
    split: Option<At<Split>>,
}

/// Candidates by id, and what changed since it was last asked.
#[derive(Clone, Debug, Default)]
pub struct Index {
    orders: BTreeMap<B256, Facts>,
    /// Provider, and the auditors that ever spoke of it; blocks of the first word.
    providers: BTreeMap<Address, At<BTreeMap<Address, u64>>>,
    touched_orders: BTreeSet<B256>,
    touched_providers: BTreeSet<Address>,
    records: Records,
}

impl Index {
    /// Takes in a log of the market or the registry. Others, and those of orders
    /// from before the scan, say nothing.
    pub fn apply(&mut self, log: &Log, block: u64) {
        if let Ok(event) = E::decode_log(&log.inner) {
            self.market(event.data, block);
        } else if let Ok(event) = R::decode_log(&log.inner) {
            self.registry(event.data, block);
        }
    }

    fn market(&mut self, event: E, block: u64) {
        match event {
            E::Ordered(e) => {
                let facts = Facts {
                    block,
                    salt: e.salt,
                    terms: terms_of_contract(&e.terms),
                    spec: e.spec.to_vec(),
                    bidders: BTreeMap::new(),
                    result: None,
                    split: None,
                };
                self.orders.insert(e.id, facts);
                self.touched_orders.insert(e.id);
            }
            E::BidPlaced(e) => {
                self.note_provider(e.provider, block);
                self.touch(e.id, |facts| {
                    facts.bidders.entry(e.provider).or_insert(block);
                });
            }
            E::Leased(e) => {
                self.note_provider(e.provider, block);
                self.records.leased(e.id, e.provider, block);
                self.touch(e.id, |_| ());
            }
            E::Delivered(e) => self.touch(e.id, |facts| facts.result = Some(At { block, value: e.resultHash })),
            E::Unbid(e) => self.touch(e.id, |_| ()),
            E::Reclaimed(e) => self.touch(e.id, |_| ()),
            E::Started(e) => self.touch(e.id, |_| ()),
            E::ToppedUp(e) => self.touch(e.id, |_| ()),
            E::Settled(e) => self.touch(e.id, |_| ()),
            E::Cancelled(e) => {
                self.records.ended(e.id, block, |_| None);
                self.settled(e.id, block, e.toProvider, e.toTenant, e.burned);
            }
            E::Declined(e) => {
                self.records.ended(e.id, block, |_| Some(Outcome::Declined));
                self.settled(e.id, block, e.toProvider, e.toTenant, e.burned);
            }
            E::NoShow(e) => {
                self.records.ended(e.id, block, |_| Some(Outcome::NoShow));
                self.settled(e.id, block, e.toProvider, e.toTenant, e.burned);
            }
            E::Closed(e) => {
                self.records.ended(e.id, block, |provider| (e.by == provider).then_some(Outcome::Closed));
                self.settled(e.id, block, e.toProvider, e.toTenant, e.burned);
            }
            E::Accepted(e) => {
                self.records.ended(e.id, block, |_| Some(Outcome::Accepted));
                self.settled(e.id, block, e.toProvider, e.toTenant, e.burned);
            }
            E::Rejected(e) => {
                self.records.ended(e.id, block, |_| Some(Outcome::Rejected));
                self.settled(e.id, block, e.toProvider, e.toTenant, e.burned);
            }
            E::Deposited(_) | E::Withdrawn(_) => {}
        }
    }

    fn settled(&mut self, id: B256, block: u64, to_provider: u128, to_tenant: u128, burned: u128) {
        let value = Split { to_provider: Amount(to_provider), to_tenant: Amount(to_tenant), burned: Amount(burned) };
        self.touch(id, |facts| facts.split = Some(At { block, value }));
    }

    fn registry(&mut self, event: R, block: u64) {
        match event {
            R::Registered(e) => self.touch_provider(e.provider, block),
            R::Unregistered(e) => self.touch_provider(e.provider, block),
            R::Attested(e) => {
                self.touch_provider(e.provider, block);
                if let Some(known) = self.providers.get_mut(&e.provider) {
                    known.value.entry(e.auditor).or_insert(block);
                }
            }
            R::Revoked(e) => self.touch_provider(e.provider, block),
        }
    }

    fn touch(&mut self, id: B256, change: impl FnOnce(&mut Facts)) {
        if let Some(facts) = self.orders.get_mut(&id) {
            change(facts);
            self.touched_orders.insert(id);
        }
    }

    /// A provider that was seen for the first time has to be read.
    pub fn note_provider(&mut self, provider: Address, block: u64) {
        if !self.providers.contains_key(&provider) {
            self.touch_provider(provider, block);
        }
    }

    fn touch_provider(&mut self, provider: Address, block: u64) {
        self.providers.entry(provider).or_insert(At { block, value: BTreeMap::new() });
        self.touched_providers.insert(provider);
    }

    /// Forgets what was said above `ancestor`; all that is left has to be read again.
    pub fn rewind(&mut self, ancestor: u64) {
        self.records.rewind(ancestor);
        self.orders.retain(|_, facts| facts.block <= ancestor);
        for facts in self.orders.values_mut() {
            facts.bidders.retain(|_, block| *block <= ancestor);
            facts.result = facts.result.filter(|fact| fact.block <= ancestor);
            facts.split = facts.split.filter(|fact| fact.block <= ancestor);
        }
        // Providers stay: the registry is asked again, and answers that nothing is there.
        self.touched_providers = self.providers.keys().copied().collect();
        self.touch_all();
    }

    /// Every order has to be read again.
    pub fn touch_all(&mut self) {
        self.touched_orders = self.orders.keys().copied().collect();
    }

    /// Orders to read again; [`Index::read`] clears the list once that was done.
    pub fn touched_orders(&self) -> Vec<B256> {
        self.touched_orders.iter().copied().collect()
    }

    pub fn touched_providers(&self) -> Vec<Address> {
        self.touched_providers.iter().copied().collect()
    }

    pub fn orders_read(&mut self) {
        self.touched_orders.clear();
    }

    pub fn providers_read(&mut self) {
        self.touched_providers.clear();
    }

    /// Orders that stood at block `at`.
    pub fn orders_at(&self, at: u64) -> Vec<B256> {
        self.orders.iter().filter(|(_, facts)| facts.block <= at).map(|(id, _)| *id).collect()
    }

    pub fn bidders(&self, id: &B256) -> Vec<Address> {
        self.orders.get(id).map(|facts| facts.bidders.keys().copied().collect()).unwrap_or_default()
    }

    pub fn auditors(&self, provider: &Address) -> Vec<Address> {
        self.providers.get(provider).map(|known| known.value.keys().copied().collect()).unwrap_or_default()
    }

    /// Drops orders that no longer matter to anybody here.
    pub fn retain(&mut self, keep: impl Fn(&B256, u64) -> bool) {
        self.orders.retain(|id, facts| keep(id, facts.block));
        self.touched_orders.retain(|id| self.orders.contains_key(id));
    }

    /// What each provider did with its leases.
    pub fn records(&self) -> BTreeMap<Address, Record> {
        self.records.all()
    }

    pub fn len(&self) -> usize {
        self.orders.len()
    }

    pub fn is_empty(&self) -> bool {
        self.orders.is_empty()
    }

    /// The order as of block `at`: what storage held there, with the facts known there.
    pub fn order(&self, id: &B256, slot: OrderSlot, mut bids: Vec<Bid>, at: u64) -> Option<Order> {
        let facts = self.orders.get(id).filter(|facts| facts.block <= at)?;
        bids.sort_by_key(|bid| (bid.price, bid.provider));
        Some(Order {
            id: *id,
            salt: facts.salt,
            terms: facts.terms.clone(),
            spec: facts.spec.clone(),
            slot,
            bids,
            result_hash: facts.result.filter(|fact| fact.block <= at).map(|fact| fact.value),
            split: facts.split.filter(|fact| fact.block <= at).map(|fact| fact.value),
        })
    }
}

/// What a view holds: the account's own orders, open ones of others, and those
/// that still hold a bond of the account.
pub fn matters(order: &Order, account: Address) -> bool {
    order.slot.tenant == account
        || order.slot.provider == account
        || order.slot.state == OrderState::Open
        || order.bids.iter().any(|bid| bid.provider == account)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bindings::Market;
    use alloy::primitives::{Bytes, Log as RawLog, Uint};
    use alloy::sol_types::SolEvent;

    fn log<T: SolEvent>(event: &T) -> Log {
        let inner = RawLog { address: Address::repeat_byte(9), data: event.encode_log_data() };
        Log { inner, ..Log::default() }
    }

    fn ordered(id: u8) -> Log {
        log(&Market::Ordered {
            id: B256::repeat_byte(id),
            tenant: Address::repeat_byte(1),
            salt: B256::ZERO,
            terms: crate::bindings::market::Terms {
                token: Address::ZERO,
                maxPrice: 1,
                auditReserve: 0,
                bond: 0,
                noShowPenalty: 0,
                bidBy: Uint::from(10u64),
                startWindow: Uint::from(1u64),
                duration: Uint::from(1u64),
                window: Uint::from(1u64),
                holdbackBps: 0,
                class: 0,
                specHash: B256::ZERO,
                rulesHash: B256::ZERO,
                origin: B256::ZERO,
            },
            spec: Bytes::from_static(b"{}"),
        })
    }

    fn bid(id: u8, provider: u8) -> Log {
        log(&Market::BidPlaced {
            id: B256::repeat_byte(id),
            provider: Address::repeat_byte(provider),
            price: 1,
            validUntil: 5,
            bond: Uint::from(0u64),
        })
    }

    fn delivered(id: u8) -> Log {
        log(&Market::Delivered {
            id: B256::repeat_byte(id),
            resultHash: B256::repeat_byte(7),
            accrued: 1,
            reviewBy: Uint::from(9u64),
        })
    }

    #[test]
    fn a_reorganisation_takes_back_what_it_undid() {
        let mut index = Index::default();
        index.apply(&ordered(1), 10);
        index.apply(&bid(1, 3), 11);
        index.apply(&delivered(1), 12);
        index.apply(&ordered(2), 12);
        index.orders_read();

        index.rewind(10);

        assert_eq!(index.orders_at(u64::MAX), vec![B256::repeat_byte(1)]);
        assert!(index.bidders(&B256::repeat_byte(1)).is_empty());
        let order = index.order(&B256::repeat_byte(1), OrderSlot::default(), vec![], 20).expect("kept");
        assert_eq!(order.result_hash, None);
        assert_eq!(index.touched_orders(), vec![B256::repeat_byte(1)]);
    }

    #[test]
    fn an_older_block_does_not_know_later_facts() {
        let mut index = Index::default();
        index.apply(&ordered(1), 10);
        index.apply(&delivered(1), 12);
        let id = B256::repeat_byte(1);
        assert!(index.order(&id, OrderSlot::default(), vec![], 9).is_none());
        assert_eq!(index.order(&id, OrderSlot::default(), vec![], 11).and_then(|o| o.result_hash), None);
        assert!(index.order(&id, OrderSlot::default(), vec![], 12).and_then(|o| o.result_hash).is_some());
    }

    #[test]
    fn only_what_a_log_named_is_read_again() {
        let mut index = Index::default();
        index.apply(&ordered(1), 10);
        index.apply(&ordered(2), 10);
        index.orders_read();
        index.apply(&bid(2, 3), 11);
        index.apply(&bid(8, 3), 11);
        assert_eq!(index.touched_orders(), vec![B256::repeat_byte(2)]);
        assert_eq!(index.touched_providers(), vec![Address::repeat_byte(3)]);
    }

    #[test]
    fn strangers_leased_orders_do_not_matter_until_a_bond_is_back() {
        let account = Address::repeat_byte(5);
        let mut index = Index::default();
        index.apply(&ordered(1), 10);
        let slot = |state| OrderSlot {
            state,
            tenant: Address::repeat_byte(1),
            provider: Address::repeat_byte(2),
            ..OrderSlot::default()
        };
        let order = |state, bids| index.order(&B256::repeat_byte(1), slot(state), bids, 10).expect("order");
        let own = Bid { provider: account, price: 1, bond: Amount(1), valid_until: 5 };
        assert!(matters(&order(OrderState::Open, vec![]), account));
        assert!(!matters(&order(OrderState::Awaiting, vec![]), account));
        assert!(matters(&order(OrderState::Awaiting, vec![own]), account));
    }
}

//! Reads an order's, a tenant's or a provider's whole history from the chain,
//! for [`freehold_core::audit`] to judge.

use std::collections::{BTreeMap, BTreeSet};

use alloy::primitives::{Address, B256};
use alloy::rpc::types::{Filter, Log};
use alloy::sol_types::SolEventInterface;
use freehold_core::audit::{Entry, Event, Report, Settlement, audit};
use freehold_core::money::Amount;
use freehold_core::order::{OrderState, order_id, salt};

use crate::bindings::market::Market::{self, MarketEvents};
use crate::bindings::{slot_of_contract, terms_of_contract};
use crate::rpc::{self, Rpc};

/// Attempts of a task whose orders are looked for.
const ATTEMPTS: u32 = 1024;
/// Blocks asked for at once: what public endpoints take.
const RANGE: u64 = 9_000;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Rpc(#[from] rpc::Error),
    #[error("the chain has no head")]
    NoHead,
    #[error("block {number} cannot be read")]
    NoBlock { number: u64 },
    #[error("no order {id} on Market {market}: check the id, the Market's address and the chain")]
    UnknownOrder { id: B256, market: Address },
    #[error("{tenant} placed no order for a task of uid {uid}: check the uid (metadata.uid) and the tenant's address")]
    UnknownTask { uid: String, tenant: Address },
    #[error("{market} is no Freehold Market: {reason}")]
    NotMarket { market: Address, reason: String },
    #[error("the contract names state {state}, which this version does not know")]
    UnknownState { state: u8 },
}

/// Everything the chain tells about one Market, read at one head.
pub struct Auditor {
    rpc: Rpc,
    market: Address,
    chain_id: u64,
    head: B256,
    head_number: u64,
    from_block: u64,
    times: BTreeMap<u64, u64>,
}

impl Auditor {
    pub async fn new(rpc: Rpc, market: Address, from_block: u64) -> Result<Self, Error> {
        let chain_id = rpc.chain_id().await?;
        let head = rpc.header(alloy::eips::BlockNumberOrTag::Latest).await?.ok_or(Error::NoHead)?.block;
        if rpc.code(market, head.hash).await?.is_empty() {
            return Err(Error::NotMarket { market, reason: format!("no code there on chain {chain_id}") });
        }
        Ok(Self {
            rpc,
            market,
            chain_id,
            head: head.hash,
            head_number: head.number,
            from_block,
            times: BTreeMap::new(),
        })
    }

    /// One order's report.
    pub async fn order(&mut self, id: B256) -> Result<Report, Error> {
        let logs = self.logs(Filter::new().topic1(id)).await?;
        let mut entries = Vec::with_capacity(logs.len());
        for log in logs {
            entries.extend(self.entry(&log).await?);
        }
        let view = self.rpc.call(self.market, &Market::orderOfCall { id }, self.head).await?;
        let slot = slot_of_contract(&view).ok_or(Error::UnknownState { state: view.state })?;
        let expected = |tenant, salt| order_id(self.chain_id, self.market, tenant, salt);
        audit(id, expected, &entries, &slot).ok_or(Error::UnknownOrder { id, market: self.market })
    }

    /// Orders that `account` placed.
    pub async fn orders_of_tenant(&self, account: Address) -> Result<BTreeSet<B256>, Error> {
        let filter = Filter::new().event_signature(<Market::Ordered as alloy::sol_types::SolEvent>::SIGNATURE_HASH);
        self.ids(filter.topic2(account.into_word())).await
    }

    /// Orders that were leased to `account`.
    pub async fn orders_of_provider(&self, account: Address) -> Result<BTreeSet<B256>, Error> {
        let filter = Filter::new().event_signature(<Market::Leased as alloy::sol_types::SolEvent>::SIGNATURE_HASH);
        self.ids(filter.topic2(account.into_word())).await
    }

    /// Orders that `tenant` placed for the task of this uid, attempt by attempt.
    pub async fn orders_of_task(&self, tenant: Address, uid: &str) -> Result<Vec<B256>, Error> {
        let placed = self.orders_of_tenant(tenant).await?;
        let id = |attempt| order_id(self.chain_id, self.market, tenant, salt(uid, attempt));
        let found: Vec<B256> = (0..ATTEMPTS).map(id).filter(|id| placed.contains(id)).collect();
        if found.is_empty() {
            return Err(Error::UnknownTask { uid: uid.to_owned(), tenant });
        }
        Ok(found)
    }

    async fn ids(&self, filter: Filter) -> Result<BTreeSet<B256>, Error> {
        let logs = self.logs(filter).await?;
        Ok(logs.iter().filter_map(|log| log.topics().get(1).copied()).collect())
    }

    async fn logs(&self, filter: Filter) -> Result<Vec<Log>, Error> {
        let mut out = Vec::new();
        let mut from = self.from_block;
        while from <= self.head_number {
            let to = self.head_number.min(from + RANGE - 1);
            out.extend(self.rpc.logs(filter.clone().address(self.market).from_block(from).to_block(to)).await?);
            from = to + 1;
        }
        out.retain(|log| !log.removed);
        Ok(out)
    }

    async fn entry(&mut self, log: &Log) -> Result<Option<Entry>, Error> {
        let Ok(decoded) = MarketEvents::decode_raw_log(log.topics(), &log.data().data) else {
            return Ok(None);
        };
        let (Some(event), Some(block), Some(transaction)) = (event_of(decoded), log.block_number, log.transaction_hash)
        else {
            return Ok(None);
        };
        Ok(Some(Entry { block, time: self.time(block).await?, transaction, event }))
    }

    async fn time(&mut self, number: u64) -> Result<u64, Error> {
        if let Some(time) = self.times.get(&number) {
            return Ok(*time);
        }
        let header = self.rpc.header(number.into()).await?.ok_or(Error::NoBlock { number })?;
        self.times.insert(number, header.block.timestamp);
        Ok(header.block.timestamp)
    }
}

/// The domain's form of an order's event; others (deposits, withdrawals) are not about one order.
pub fn event_of(event: MarketEvents) -> Option<Event> {
    let ended = |state, by, accrued, to_provider, to_tenant, burned| {
        Event::Ended(Settlement {
            state,
            by,
            accrued: Amount(accrued),
            to_provider: Amount(to_provider),
            to_tenant: Amount(to_tenant),
            burned: Amount(burned),
        })
    };
    Some(match event {
        MarketEvents::Ordered(e) => Event::Ordered {
            tenant: e.tenant,
            salt: e.salt,
            terms: Box::new(terms_of_contract(&e.terms)),
            spec: e.spec.to_vec(),
        },
        MarketEvents::BidPlaced(e) => Event::BidPlaced {
            provider: e.provider,
            price: e.price,
            valid_until: u64::from(e.validUntil),
            bond: Amount(e.bond.to()),
        },
        MarketEvents::Unbid(e) => Event::Unbid { provider: e.provider, bond: Amount(e.bond.to()) },
        MarketEvents::Reclaimed(e) => Event::Reclaimed { provider: e.provider, bond: Amount(e.bond.to()) },
        MarketEvents::Leased(e) => {
            Event::Leased { provider: e.provider, seq: e.seq, price: e.price, refund: Amount(e.refund) }
        }
        MarketEvents::Started(e) => Event::Started { provider: e.provider, end_at: e.endAt.to() },
        MarketEvents::ToppedUp(e) => Event::ToppedUp { amount: Amount(e.amount), end_at: e.endAt.to() },
        MarketEvents::Settled(e) => Event::Settled {
            by: e.by,
            accrued: Amount(e.accrued),
            to_provider: Amount(e.toProvider),
            to_tenant: Amount(e.toTenant),
            burned: Amount(e.burned),
        },
        MarketEvents::Delivered(e) => {
            Event::Delivered { result_hash: e.resultHash, accrued: Amount(e.accrued), review_by: e.reviewBy.to() }
        }
        MarketEvents::Cancelled(e) => ended(OrderState::Cancelled, e.by, e.accrued, e.toProvider, e.toTenant, e.burned),
        MarketEvents::Declined(e) => ended(OrderState::Declined, e.by, e.accrued, e.toProvider, e.toTenant, e.burned),
        MarketEvents::NoShow(e) => ended(OrderState::NoShow, e.by, e.accrued, e.toProvider, e.toTenant, e.burned),
        MarketEvents::Closed(e) => ended(OrderState::Closed, e.by, e.accrued, e.toProvider, e.toTenant, e.burned),
        MarketEvents::Accepted(e) => ended(OrderState::Accepted, e.by, e.accrued, e.toProvider, e.toTenant, e.burned),
        MarketEvents::Rejected(e) => ended(OrderState::Rejected, e.by, e.accrued, e.toProvider, e.toTenant, e.burned),
        MarketEvents::Deposited(_) | MarketEvents::Withdrawn(_) => return None,
    })
}

//! The reader's copy of the chain: recent headers, the index of logs and a
//! snapshot for each head that was seen.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use alloy::eips::BlockNumberOrTag;
use alloy::primitives::{Address, B256};
use freehold_core::money::Amount;
use freehold_core::order::Order;

use super::{Error, Purse, ReaderConfig, state};
use crate::index::{Index, matters};
use crate::rpc::Header;
use crate::rpc::survey::Source;
use crate::view::{Balances, Block, ChainView, Health, ProviderRecord, Snapshot};

/// Blocks that are followed one by one, by hash; a longer gap is scanned by ranges.
const WALK: usize = 64;
/// Headers kept to find a common ancestor with.
const HEADERS: usize = 512;
/// Heads after which contracts and all orders are read again, whatever the logs said.
const REFRESH: u64 = 64;
/// Blocks in one request for logs; halved where the endpoint finds that too many.
const RANGE: u64 = 10_000;

pub struct Mirror {
    config: ReaderConfig,
    index: Index,
    /// Ascending; the last one is the head.
    headers: VecDeque<Header>,
    orders: BTreeMap<B256, Arc<Order>>,
    providers: BTreeMap<Address, ProviderRecord>,
    snapshots: BTreeMap<u64, Snapshot>,
    confirmed: Option<u64>,
    balances: Balances,
    /// Token's decimals, once the contracts were checked.
    decimals: Option<u8>,
    heads: u64,
    /// A head was followed, but not all of its state has been read.
    pending: bool,
}

impl Mirror {
    pub fn new(config: ReaderConfig) -> Self {
        Self {
            config,
            index: Index::default(),
            headers: VecDeque::new(),
            orders: BTreeMap::new(),
            providers: BTreeMap::new(),
            snapshots: BTreeMap::new(),
            confirmed: None,
            balances: Balances::default(),
            decimals: None,
            heads: 0,
            pending: false,
        }
    }

    pub fn head(&self) -> Option<Block> {
        self.headers.back().map(|header| header.block)
    }

    /// Looks at the chain once, by the endpoint that a survey chose; true if there is a new head and all of it was read.
    pub async fn look(&mut self, source: Source) -> Result<bool, Error> {
        self.config.rpc = source.rpc;
        let head = source.head;
        if self.decimals.is_none() || self.heads.is_multiple_of(REFRESH) {
            self.decimals = Some(state::check_contracts(&self.config, head.block.hash).await?);
        }
        if self.headers.iter().any(|known| known.block == head.block) {
            let last = self.head() == Some(head.block);
            match self.pending {
                false => return Ok(false),
                // An endpoint that is merely behind the last one: what was begun at the later head waits for it.
                true if !last => return Err(Error::Moved),
                true => {}
            }
        }
        self.pending = true;
        self.follow(head).await?;
        self.read(head.block).await?;
        self.confirm(source.confirmed).await?;
        self.pending = false;
        self.heads += 1;
        Ok(true)
    }

    /// Brings the index to `head`, along parent hashes.
    async fn follow(&mut self, head: Header) -> Result<(), Error> {
        let Some(path) = self.path_to(head).await? else { return self.rescan(head).await };
        let ancestor = path.last().map_or(head.block.number, |first| first.block.number.saturating_sub(1));
        self.rewind(ancestor);
        for header in path.into_iter().rev() {
            self.append(header).await?;
        }
        Ok(())
    }

    /// Headers from `head` down to the child of one that is known; `None` if that is too far.
    async fn path_to(&self, head: Header) -> Result<Option<Vec<Header>>, Error> {
        if self.headers.is_empty() {
            return Ok(None);
        }
        if self.headers.back() == Some(&head) {
            return Ok(Some(vec![]));
        }
        let mut path = vec![head];
        while path.len() <= WALK {
            let Some(parent) = path.last().map(|header| header.parent) else { break };
            if self.headers.iter().rev().any(|known| known.block.hash == parent) {
                return Ok(Some(path));
            }
            let Some(header) = self.config.rpc.header_by_hash(parent).await? else { return Ok(None) };
            path.push(header);
        }
        Ok(None)
    }

    fn rewind(&mut self, ancestor: u64) {
        if self.head().is_none_or(|head| head.number <= ancestor) {
            return;
        }
        tracing::warn!(market = %self.config.market, ancestor, "the chain was reorganised");
        self.headers.retain(|header| header.block.number <= ancestor);
        self.index.rewind(ancestor);
        self.orders.clear();
        self.snapshots.split_off(&(ancestor + 1));
    }

    /// Takes in one block on top of the last.
    async fn append(&mut self, header: Header) -> Result<(), Error> {
        let logs = self.config.rpc.logs_of(header.block.hash, &[self.config.market, self.config.registry]).await?;
        for log in &logs {
            self.index.apply(log, header.block.number);
        }
        self.headers.push_back(header);
        while self.headers.len() > HEADERS {
            self.headers.pop_front();
        }
        Ok(())
    }

    /// Starts from nothing: old blocks by ranges, the newest ones by hash.
    async fn rescan(&mut self, head: Header) -> Result<(), Error> {
        self.forget();
        let mut recent = vec![head];
        while recent.len() < WALK {
            let Some(last) = recent.last().copied().filter(|last| last.block.number > 0) else { break };
            recent.push(self.config.rpc.header_by_hash(last.parent).await?.ok_or(Error::Moved)?);
        }
        let oldest = recent.last().copied().unwrap_or(head);
        if let Some(to) = oldest.block.number.checked_sub(1) {
            let from = head.block.number.saturating_sub(self.config.lookback());
            self.scan(from, to).await?;
            // A range names blocks by number: it is believed if it still leads to the block that follows it.
            let last = self.config.rpc.header(BlockNumberOrTag::Number(to)).await?;
            if last.map(|header| header.block.hash) != Some(oldest.parent) {
                self.forget();
                return Err(Error::Moved);
            }
        }
        self.index.note_provider(self.config.account, 0);
        for header in recent.into_iter().rev() {
            self.append(header).await?;
        }
        Ok(())
    }

    fn forget(&mut self) {
        self.index = Index::default();
        self.headers.clear();
        self.orders.clear();
        self.snapshots.clear();
        self.providers.clear();
    }

    async fn scan(&mut self, from: u64, to: u64) -> Result<(), Error> {
        let addresses = [self.config.market, self.config.registry];
        let (mut next, mut step) = (from, RANGE);
        while next <= to {
            let end = to.min(next + step - 1);
            match self.config.rpc.logs_between(next, end, &addresses).await {
                Ok(logs) => {
                    for log in &logs {
                        self.index.apply(log, log.block_number.unwrap_or(end));
                    }
                    next = end + 1;
                }
                Err(error) if error.is_refusal() && step > 1 => step /= 2,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Reads at the head what the logs named, and the balances.
    async fn read(&mut self, head: Block) -> Result<(), Error> {
        if self.heads.is_multiple_of(REFRESH) {
            self.index.touch_all();
        }
        let ids = self.index.touched_orders();
        let names = self.index.touched_providers();
        let (orders, records, purse, free) = futures::try_join!(
            state::orders(&self.config, &self.index, &ids, head),
            state::providers(&self.config, &self.index, names, head.hash),
            state::purse(&self.config, head.hash),
            state::free(&self.config, head.hash),
        )?;
        for (id, order) in orders {
            match order.filter(|order| matters(order, self.config.account)) {
                Some(order) => self.orders.insert(id, order),
                None => self.orders.remove(&id),
            };
        }
        for (provider, record) in records {
            match record {
                Some(record) => self.providers.insert(provider, record),
                None => self.providers.remove(&provider),
            };
        }
        self.index.orders_read();
        self.index.providers_read();
        self.balances = balances(purse, free);
        self.snapshots.insert(head.number, Snapshot { block: head, orders: self.orders.clone() });
        Ok(())
    }

    /// Takes the snapshot at the confirmed block, and reads one where none was taken at that depth.
    async fn confirm(&mut self, block: Block) -> Result<(), Error> {
        let followed = self.headers.iter().find(|header| header.block.number == block.number);
        if followed.is_some_and(|header| header.block.hash != block.hash) {
            // The head and the confirmed block are of two chains: the endpoint changed its mind in between.
            return Err(Error::Moved);
        }
        let ahead = self.confirmed.filter(|known| *known > block.number);
        if ahead.is_some_and(|known| self.snapshots.contains_key(&known)) {
            // Another endpoint confirms later; what was confirmed on this chain stays so.
            return Ok(());
        }
        let known = self.snapshots.range(..=block.number).next_back().map(|(number, _)| *number);
        let number = match known {
            Some(number) => number,
            None => self.read_confirmed(block).await?,
        };
        self.confirmed = Some(number);
        self.snapshots = self.snapshots.split_off(&number);
        self.prune(number);
        Ok(())
    }

    async fn read_confirmed(&mut self, block: Block) -> Result<u64, Error> {
        let ids = self.index.orders_at(block.number);
        let orders = state::orders(&self.config, &self.index, &ids, block).await?;
        let account = self.config.account;
        let orders =
            orders.into_iter().filter_map(|(id, order)| Some((id, order.filter(|order| matters(order, account))?)));
        self.snapshots.insert(block.number, Snapshot { block, orders: orders.collect() });
        Ok(block.number)
    }

    /// Forgets orders that have ceased to matter for good.
    fn prune(&mut self, confirmed: u64) {
        let then = self.snapshots.get(&confirmed);
        let kept = |id: &B256| self.orders.contains_key(id) || then.is_some_and(|then| then.orders.contains_key(id));
        self.index.retain(|id, block| block > confirmed || kept(id));
    }

    /// What was read last; `None` before the first full read.
    pub fn view(&self) -> Option<ChainView> {
        let latest = self.snapshots.last_key_value()?.1;
        let confirmed = self.snapshots.get(&self.confirmed?)?;
        Some(ChainView {
            health: Health::Fresh,
            chain_id: self.config.chain_id,
            market: self.config.market,
            registry: self.config.registry,
            token: self.config.token,
            account: self.config.account,
            decimals: self.decimals?,
            latest: latest.clone(),
            confirmed: confirmed.clone(),
            balances: self.balances,
            providers: self.providers.clone(),
            records: self.index.records(),
            endpoints: vec![],
            block_time: self.config.block_time.as_secs().max(1),
        })
    }
}

fn balances(purse: Purse, free: Amount) -> Balances {
    Balances { wallet: purse.wallet, free, allowance: purse.allowance, gas: purse.gas }
}

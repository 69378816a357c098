//! The task that keeps a [`ChainView`] true. Each new head is followed block by
//! block from the last one known (by parent hashes, so a reorganisation is
//! seen and undone), logs name what changed, and storage is read at the head's
//! hash through the Market's own `multicall`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use alloy::primitives::{Address, B256};
use freehold_core::money::Amount;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::rpc::{Depth, Rpc};
use crate::view::{Balances, Block, ChainView, Health, Snapshot, ViewReceiver};

mod mirror;
mod state;

pub use mirror::Mirror;

/// Blocks without which a head counts as standing still.
const STALE_BLOCKS: u32 = 5;
const MIN_POLL: Duration = Duration::from_millis(250);
const MAX_POLL: Duration = Duration::from_secs(5);
/// How far back the first scan looks for orders; none that matters is older.
const LOOKBACK: Duration = Duration::from_secs(90 * 24 * 3600);

#[derive(Clone)]
pub struct ReaderConfig {
    pub rpc: Rpc,
    pub chain_id: u64,
    pub market: Address,
    pub registry: Address,
    pub token: Address,
    /// Whose orders and balances are read.
    pub account: Address,
    pub depth: Depth,
    pub block_time: Duration,
}

impl ReaderConfig {
    fn poll(&self) -> Duration {
        (self.block_time / 2).clamp(MIN_POLL, MAX_POLL)
    }

    /// Longest time without a new head.
    fn patience(&self) -> Duration {
        self.block_time * STALE_BLOCKS
    }

    /// Blocks of the first scan.
    fn lookback(&self) -> u64 {
        let millis = self.block_time.as_millis().max(1);
        u64::try_from(LOOKBACK.as_millis() / millis).unwrap_or(u64::MAX)
    }
}

/// Ends the reader when dropped.
pub struct ReaderGuard(JoinHandle<()>);

impl Drop for ReaderGuard {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What one look at the chain can fail with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Rpc(#[from] crate::rpc::Error),
    #[error("the endpoint serves chain {found}, not {expected}")]
    WrongChain { expected: u64, found: u64 },
    #[error("{address} is not a Freehold Market: {error}")]
    WrongMarket { address: Address, error: String },
    #[error("{field} {address} is not what it should be: {error}")]
    WrongContract { field: &'static str, address: Address, error: String },
    #[error("the chain changed while it was read; trying again")]
    Moved,
    #[error("the endpoint gave no block for {0}")]
    NoBlock(&'static str),
}

/// Starts reading. The receiver holds a view in health `Starting` at once.
pub fn spawn(config: ReaderConfig) -> (ViewReceiver, ReaderGuard) {
    let (sender, receiver) = watch::channel(Arc::new(empty(&config)));
    let task = tokio::spawn(run(config, sender));
    (receiver, ReaderGuard(task))
}

fn empty(config: &ReaderConfig) -> ChainView {
    ChainView {
        health: Health::Starting,
        chain_id: config.chain_id,
        market: config.market,
        registry: config.registry,
        token: config.token,
        account: config.account,
        decimals: 0,
        latest: Snapshot::default(),
        confirmed: Snapshot::default(),
        balances: Balances::default(),
        providers: BTreeMap::new(),
        block_time: config.block_time.as_secs().max(1),
    }
}

async fn run(config: ReaderConfig, sender: watch::Sender<Arc<ChainView>>) {
    let mut mirror = Mirror::new(config.clone());
    let mut pulse = Pulse::new(config.patience());
    let mut ticks = tokio::time::interval(config.poll());
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let outcome = mirror.look().await;
        if let Err(error) = &outcome {
            tracing::debug!(market = %config.market, %error, "the chain could not be read");
        }
        let moved = matches!(outcome, Ok(true));
        let head = mirror.head().unwrap_or_default();
        let health = pulse.judge(outcome.map(|_| head), Instant::now());
        let changed = sender.borrow().health != health;
        if changed {
            tracing::info!(market = %config.market, health = ?health, "chain health");
        }
        if moved || changed {
            // Without a full read the last one stands: half a view would look like orders that vanished.
            let read = if moved { mirror.view() } else { None };
            let view = read.unwrap_or_else(|| sender.borrow().as_ref().clone());
            sender.send_replace(Arc::new(ChainView { health, ..view }));
        }
        if sender.is_closed() {
            return;
        }
    }
}

/// Judges health by the monotonic clock: whether answers come, and whether the head moves.
#[derive(Debug)]
struct Pulse {
    patience: Duration,
    answered: Option<Instant>,
    moved: Option<(Instant, B256)>,
    health: Health,
}

impl Pulse {
    fn new(patience: Duration) -> Self {
        Self { patience, answered: None, moved: None, health: Health::Starting }
    }

    fn judge(&mut self, outcome: Result<Block, Error>, now: Instant) -> Health {
        self.health = match outcome {
            Ok(head) => self.alive(head, now),
            Err(Error::WrongChain { expected, found }) => Health::WrongChain { expected, found },
            Err(Error::WrongMarket { address, error }) => Health::WrongMarket { address, error },
            Err(Error::WrongContract { field, address, error }) => Health::WrongContract { field, address, error },
            Err(error) => self.silent(&error, now),
        };
        self.health.clone()
    }

    fn alive(&mut self, head: Block, now: Instant) -> Health {
        self.answered = Some(now);
        match self.moved {
            Some((since, hash)) if hash == head.hash => {
                if now.duration_since(since) > self.patience {
                    return Health::Stale { head: head.number };
                }
            }
            _ => self.moved = Some((now, head.hash)),
        }
        Health::Fresh
    }

    /// A single failed request is no reason to stop; silence is.
    fn silent(&self, error: &Error, now: Instant) -> Health {
        match self.answered {
            Some(last) if now.duration_since(last) <= self.patience => self.health.clone(),
            _ => Health::Unreachable { error: error.to_string() },
        }
    }
}

/// Balances that are read beside the orders.
#[derive(Clone, Copy, Debug, Default)]
struct Purse {
    wallet: Amount,
    allowance: Amount,
    gas: u128,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(number: u64) -> Block {
        Block { number, hash: B256::with_last_byte(number as u8), timestamp: number }
    }

    fn failure() -> Error {
        Error::NoBlock("latest")
    }

    #[test]
    fn a_head_that_stands_still_is_stale_until_it_moves() {
        let start = Instant::now();
        let mut pulse = Pulse::new(Duration::from_secs(10));
        assert_eq!(pulse.judge(Ok(head(1)), start), Health::Fresh);
        assert_eq!(pulse.judge(Ok(head(1)), start + Duration::from_secs(10)), Health::Fresh);
        assert_eq!(pulse.judge(Ok(head(1)), start + Duration::from_secs(11)), Health::Stale { head: 1 });
        assert_eq!(pulse.judge(Ok(head(2)), start + Duration::from_secs(12)), Health::Fresh);
    }

    #[test]
    fn one_failure_is_forgiven_and_silence_is_not() {
        let start = Instant::now();
        let mut pulse = Pulse::new(Duration::from_secs(10));
        pulse.judge(Ok(head(1)), start);
        assert_eq!(pulse.judge(Err(failure()), start + Duration::from_secs(3)), Health::Fresh);
        assert!(matches!(pulse.judge(Err(failure()), start + Duration::from_secs(11)), Health::Unreachable { .. }));
    }

    #[test]
    fn nothing_is_assumed_before_the_first_answer() {
        let mut pulse = Pulse::new(Duration::from_secs(10));
        let health = pulse.judge(Err(failure()), Instant::now());
        assert!(matches!(health, Health::Unreachable { .. }));
        let health = pulse.judge(Err(Error::WrongChain { expected: 1, found: 2 }), Instant::now());
        assert_eq!(health, Health::WrongChain { expected: 1, found: 2 });
    }
}

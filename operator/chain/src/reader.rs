//! The task that keeps a [`ChainView`] true. Each new head is followed block by
//! block from the last one known (by parent hashes, so a reorganisation is
//! seen and undone), logs name what changed, and storage is read at the head's
//! hash through the Market's own `multicall`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use alloy::primitives::Address;
use freehold_core::money::Amount;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::rpc::judge::{Rules, Verdict};
use crate::rpc::survey::{NoSource, Surveyor};
use crate::rpc::{Depth, Rpc};
use crate::view::{Balances, ChainView, Health, Snapshot, ViewReceiver};

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
    /// Endpoints that must name the same confirmed block.
    pub quorum: usize,
    /// Spreads the pauses between attempts of several operators.
    pub seed: u64,
}

impl ReaderConfig {
    fn rules(&self) -> Rules {
        Rules { chain_id: self.chain_id, quorum: self.quorum, patience: self.patience() }
    }

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
    #[error(transparent)]
    NoSource(#[from] NoSource),
    #[error("{address} is not a Freehold Market: {error}")]
    WrongMarket { address: Address, error: String },
    #[error("{field} {address} is not what it should be: {error}")]
    WrongContract { field: &'static str, address: Address, error: String },
    #[error("the chain changed while it was read; trying again")]
    Moved,
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
        records: BTreeMap::new(),
        endpoints: vec![],
        block_time: config.block_time.as_secs().max(1),
    }
}

async fn run(config: ReaderConfig, sender: watch::Sender<Arc<ChainView>>) {
    let mut surveyor = Surveyor::new(config.rpc.clone(), config.rules(), config.depth, config.seed, Instant::now());
    let mut mirror = Mirror::new(config.clone());
    let mut pulse = Pulse::new(config.patience());
    let mut ticks = tokio::time::interval(config.poll());
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let outcome = look(&mut surveyor, &mut mirror).await;
        if let Err(error) = &outcome {
            tracing::debug!(market = %config.market, %error, "the chain could not be read");
        }
        let moved = matches!(outcome, Ok(true));
        let head = mirror.head().map(|head| head.number).unwrap_or_default();
        let health = pulse.judge(outcome.map(|_| ()), head, config.chain_id, Instant::now());
        let endpoints = config.rpc.standings();
        let known = sender.borrow().clone();
        if known.health != health {
            tracing::info!(market = %config.market, health = ?health, "chain health");
        }
        if moved || known.health != health || known.endpoints != endpoints {
            // Without a full read the last one stands: half a view would look like orders that vanished.
            let read = if moved { mirror.view() } else { None };
            let view = read.unwrap_or_else(|| known.as_ref().clone());
            sender.send_replace(Arc::new(ChainView { health, endpoints, ..view }));
        }
        if sender.is_closed() {
            return;
        }
    }
}

async fn look(surveyor: &mut Surveyor, mirror: &mut Mirror) -> Result<bool, Error> {
    let source = surveyor.survey().await?;
    mirror.look(source).await
}

/// Judges health by the monotonic clock: whether answers come that may be believed.
#[derive(Debug)]
struct Pulse {
    patience: Duration,
    answered: Option<Instant>,
    health: Health,
}

impl Pulse {
    fn new(patience: Duration) -> Self {
        Self { patience, answered: None, health: Health::Starting }
    }

    fn judge(&mut self, outcome: Result<(), Error>, head: u64, chain_id: u64, now: Instant) -> Health {
        self.health = match outcome {
            Ok(()) => {
                self.answered = Some(now);
                Health::Fresh
            }
            Err(Error::WrongMarket { address, error }) => Health::WrongMarket { address, error },
            Err(Error::WrongContract { field, address, error }) => Health::WrongContract { field, address, error },
            Err(Error::NoSource(none)) => match refusal(&none, head, chain_id) {
                Some(health) => health,
                None => self.silent(silence(&none), now),
            },
            Err(error) => self.silent(Health::Unreachable { error: error.to_string() }, now),
        };
        self.health.clone()
    }

    /// A single failed request is no reason to stop; silence is.
    fn silent(&self, health: Health, now: Instant) -> Health {
        match self.answered {
            Some(last) if now.duration_since(last) <= self.patience => self.health.clone(),
            _ => health,
        }
    }
}

/// What the endpoints said that must not be acted on, not even for a moment.
fn refusal(none: &NoSource, head: u64, expected: u64) -> Option<Health> {
    let verdicts = || none.endpoints.iter().map(|(_, verdict)| verdict);
    if verdicts().any(|verdict| *verdict == Verdict::Diverged) {
        return Some(Health::Diverged { endpoints: none.words() });
    }
    if verdicts().any(|verdict| *verdict == Verdict::Unwitnessed) {
        return None;
    }
    if verdicts().any(|verdict| *verdict == Verdict::Stale) {
        return Some(Health::Stale { head });
    }
    verdicts().find_map(|verdict| match verdict {
        Verdict::WrongChain(found) => Some(Health::WrongChain { expected, found: *found }),
        _ => None,
    })
}

fn silence(none: &NoSource) -> Health {
    let answers = none.endpoints.iter().any(|(_, verdict)| *verdict == Verdict::Unwitnessed);
    if answers {
        return Health::Unwitnessed { endpoints: none.words() };
    }
    Health::Unreachable { error: none.words() }
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

    fn none(verdicts: &[Verdict]) -> Error {
        let named = |(at, verdict): (usize, &Verdict)| (format!("http://{at}"), verdict.clone());
        Error::NoSource(NoSource { endpoints: verdicts.iter().enumerate().map(named).collect() })
    }

    fn dead() -> Verdict {
        Verdict::Unreachable("connection refused".into())
    }

    fn after(pulse: &mut Pulse, verdicts: &[Verdict], now: Instant) -> Health {
        pulse.judge(Err(none(verdicts)), 7, 1, now)
    }

    #[test]
    fn one_failure_is_forgiven_and_silence_is_not() {
        let start = Instant::now();
        let mut pulse = Pulse::new(Duration::from_secs(10));
        pulse.judge(Ok(()), 7, 1, start);
        assert_eq!(after(&mut pulse, &[dead()], start + Duration::from_secs(3)), Health::Fresh);
        let health = after(&mut pulse, &[dead()], start + Duration::from_secs(11));
        assert!(matches!(&health, Health::Unreachable { error } if error.contains("connection refused")), "{health:?}");
        assert_eq!(pulse.judge(Ok(()), 8, 1, start + Duration::from_secs(12)), Health::Fresh);
    }

    #[test]
    fn a_lost_witness_is_forgiven_for_a_while_and_a_contradiction_never() {
        let start = Instant::now();
        let mut pulse = Pulse::new(Duration::from_secs(10));
        pulse.judge(Ok(()), 7, 1, start);
        let alone = [dead(), Verdict::Unwitnessed];
        assert_eq!(after(&mut pulse, &alone, start + Duration::from_secs(3)), Health::Fresh);
        let health = after(&mut pulse, &alone, start + Duration::from_secs(11));
        assert!(matches!(health, Health::Unwitnessed { .. }), "{health:?}");
        pulse.judge(Ok(()), 8, 1, start + Duration::from_secs(12));
        let health = after(&mut pulse, &[Verdict::Diverged, Verdict::Diverged], start + Duration::from_secs(12));
        assert!(matches!(health, Health::Diverged { .. }), "{health:?}");
    }

    #[test]
    fn a_head_that_stands_still_and_a_wrong_chain_are_told_at_once() {
        let mut pulse = Pulse::new(Duration::from_secs(10));
        let now = Instant::now();
        assert_eq!(after(&mut pulse, &[Verdict::Stale, dead()], now), Health::Stale { head: 7 });
        let health = after(&mut pulse, &[Verdict::WrongChain(2)], now);
        assert_eq!(health, Health::WrongChain { expected: 1, found: 2 });
    }

    #[test]
    fn nothing_is_assumed_before_the_first_answer() {
        let mut pulse = Pulse::new(Duration::from_secs(10));
        let health = after(&mut pulse, &[dead()], Instant::now());
        assert!(matches!(health, Health::Unreachable { .. }));
    }
}

//! Asks every endpoint what it knows, and chooses the one to read from. An
//! endpoint that hangs delays nobody: it is waited for only while it is thought
//! good, and one that fails is asked again after pauses that grow.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use alloy::eips::BlockNumberOrTag;
use alloy::primitives::B256;
use futures::future::join_all;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

use super::judge::{Rules, Sighting, Silence, Verdict, judge};
use super::{Depth, Error, Header, Rpc};
use crate::view::Block;

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// Where to read, and up to which block.
pub struct Source {
    /// Asks the chosen endpoint alone.
    pub rpc: Rpc,
    pub head: Header,
    /// The block at confirmed depth that enough endpoints agree on.
    pub confirmed: Block,
}

/// No endpoint may be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.words())]
pub struct NoSource {
    /// Host and verdict of each endpoint.
    pub endpoints: Vec<(String, Verdict)>,
}

impl NoSource {
    pub fn words(&self) -> String {
        let all: Vec<String> = self.endpoints.iter().map(|(host, verdict)| format!("{host} {verdict}")).collect();
        all.join("; ")
    }
}

/// What an endpoint answered when it was looked at.
#[derive(Clone, Copy, Debug)]
struct Look {
    chain_id: u64,
    head: Header,
    confirmed: Block,
}

/// One endpoint over the surveys.
struct Watched {
    rpc: Rpc,
    underway: Option<(JoinHandle<Result<Look, Error>>, Instant)>,
    look: Result<Look, Silence>,
    /// Since when the head is what it is.
    moved: Instant,
    /// When it answered last.
    answered: Instant,
    hashes: BTreeMap<u64, B256>,
    failures: u32,
    retry_at: Option<Instant>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some((task, _)) = &self.underway {
            task.abort();
        }
    }
}

pub struct Surveyor {
    rpc: Rpc,
    rules: Rules,
    depth: Depth,
    /// Spreads the pauses of several operators.
    seed: u64,
    watched: Vec<Watched>,
    verdicts: Arc<[Verdict]>,
}

impl Surveyor {
    pub fn new(rpc: Rpc, rules: Rules, depth: Depth, seed: u64, now: Instant) -> Self {
        let watched = (0..rpc.size()).map(|at| Watched::new(rpc.pin(at), now)).collect();
        let verdicts = vec![Verdict::Unasked; rpc.size()].into();
        Self { rpc, rules, depth, seed, watched, verdicts }
    }

    /// One look at all endpoints.
    pub async fn survey(&mut self) -> Result<Source, NoSource> {
        self.ask().await;
        self.compare().await;
        let now = Instant::now();
        let sightings: Vec<_> = self.watched.iter().map(|one| one.sighting(now, self.rules.patience)).collect();
        let (verdicts, used) = judge(&sightings, &self.rules);
        self.tell(&verdicts, used);
        let source = used.and_then(|at| {
            let look = self.watched[at].look.as_ref().ok()?;
            Some(Source { rpc: self.watched[at].rpc.clone(), head: look.head, confirmed: look.confirmed })
        });
        let hosts = self.rpc.pool.endpoints.iter().map(|endpoint| endpoint.host.clone());
        source.ok_or_else(|| NoSource { endpoints: hosts.zip(verdicts).collect() })
    }

    /// Fresh looks; of endpoints that are thought bad only those that are there already.
    async fn ask(&mut self) {
        let now = Instant::now();
        let deadline = now + self.rules.patience / 2;
        let anyone_good = self.verdicts.iter().any(|verdict| matches!(verdict, Verdict::Good | Verdict::Unasked));
        for (at, one) in self.watched.iter_mut().enumerate() {
            one.begin(now, self.depth);
            let wait = !anyone_good || matches!(self.verdicts[at], Verdict::Good | Verdict::Unasked);
            let seed = self.seed.wrapping_add(at as u64);
            // They run side by side; only the waiting is one after another.
            one.finish(if wait { deadline } else { now }, seed).await;
        }
    }

    /// Each endpoint's hashes at the heights that the others call confirmed.
    async fn compare(&mut self) {
        let looks = self.watched.iter().filter_map(|one| one.look.as_ref().ok());
        let heights: BTreeSet<u64> = looks.map(|look| look.confirmed.number).collect();
        if self.watched.len() < 2 {
            return;
        }
        let limit = self.rules.patience / 4;
        join_all(self.watched.iter_mut().map(|one| one.name_hashes(&heights, limit))).await;
    }

    fn tell(&mut self, verdicts: &[Verdict], used: Option<usize>) {
        for (at, verdict) in verdicts.iter().enumerate() {
            if self.verdicts[at] != *verdict && *verdict != Verdict::Unasked {
                let host = &self.rpc.pool.endpoints[at].host;
                tracing::info!(endpoint = host, used = used == Some(at), "{host} {verdict}");
            }
        }
        self.rpc.pool.judged(verdicts.to_vec(), used, self.rules.quorum);
        self.verdicts = verdicts.into();
    }
}

impl Watched {
    fn new(rpc: Rpc, now: Instant) -> Self {
        Self {
            rpc,
            underway: None,
            look: Err(Silence::Unasked),
            moved: now,
            answered: now,
            hashes: BTreeMap::new(),
            failures: 0,
            retry_at: None,
        }
    }

    fn begin(&mut self, now: Instant, depth: Depth) {
        if self.underway.is_some() || self.retry_at.is_some_and(|at| now < at) {
            return;
        }
        let (rpc, known) = (self.rpc.clone(), self.look.as_ref().ok().copied());
        self.underway = Some((tokio::spawn(async move { look(&rpc, depth, known).await }), now));
    }

    async fn finish(&mut self, deadline: Instant, seed: u64) {
        let Some((task, _)) = &mut self.underway else { return };
        let Ok(outcome) = timeout_at(deadline, task).await else { return };
        self.underway = None;
        let now = Instant::now();
        match outcome {
            Ok(Ok(look)) => self.answered(look, now),
            Ok(Err(Error::Limited { .. })) => self.failed(Silence::Limited, seed, now),
            Ok(Err(Error::Unreachable { reason, .. })) => self.failed(Silence::Unreachable(reason), seed, now),
            Ok(Err(error)) => self.failed(Silence::Unreachable(error.to_string()), seed, now),
            Err(error) => self.failed(Silence::Unreachable(error.to_string()), seed, now),
        }
    }

    fn answered(&mut self, look: Look, now: Instant) {
        let same = self.look.as_ref().is_ok_and(|known| known.head == look.head);
        if !same {
            self.moved = now;
            self.hashes.clear();
        }
        self.answered = now;
        self.look = Ok(look);
        self.failures = 0;
        self.retry_at = None;
    }

    fn failed(&mut self, silence: Silence, seed: u64, now: Instant) {
        self.retry_at = Some(now + pause(self.failures, seed));
        self.failures = self.failures.saturating_add(1);
        self.look = Err(silence);
        self.hashes.clear();
    }

    async fn name_hashes(&mut self, heights: &BTreeSet<u64>, limit: Duration) {
        let Ok(look) = self.look else { return };
        self.hashes.insert(look.confirmed.number, look.confirmed.hash);
        for height in heights.iter().filter(|height| **height <= look.head.block.number) {
            if self.hashes.contains_key(height) {
                continue;
            }
            let asked = timeout(limit, self.rpc.header(BlockNumberOrTag::Number(*height))).await;
            if let Ok(Ok(Some(header))) = asked {
                self.hashes.insert(*height, header.block.hash);
            }
        }
    }

    fn sighting(&self, now: Instant, patience: Duration) -> Result<Sighting, Silence> {
        let look = self.look.clone()?;
        let waits = self.underway.as_ref().is_some_and(|(_, since)| now.duration_since(*since) >= patience / 2);
        if waits || now.duration_since(self.answered) > patience {
            return Err(Silence::Unreachable("no answer in time".into()));
        }
        Ok(Sighting {
            chain_id: look.chain_id,
            head: look.head,
            confirmed: look.confirmed,
            stood: now.duration_since(self.moved),
            hashes: self.hashes.clone(),
        })
    }
}

/// What the endpoint says now. While the head is the one that is `known`, so is the rest.
async fn look(rpc: &Rpc, depth: Depth, known: Option<Look>) -> Result<Look, Error> {
    let (chain_id, head) = tokio::try_join!(rpc.chain_id(), rpc.header(BlockNumberOrTag::Latest))?;
    let missing = |what| Error::Unexpected { method: "eth_getBlockByNumber", reason: format!("no block for {what}") };
    let head = head.ok_or_else(|| missing("latest"))?;
    if let Some(known) = known.filter(|known| known.head == head && known.chain_id == chain_id) {
        return Ok(known);
    }
    let confirmed = match depth {
        Depth::Blocks(0) => head.block,
        Depth::Blocks(blocks) => {
            let number = head.block.number.saturating_sub(blocks);
            rpc.header(BlockNumberOrTag::Number(number)).await?.ok_or_else(|| missing("the confirmed height"))?.block
        }
        Depth::Finalized => {
            let block = rpc.header(BlockNumberOrTag::Finalized).await?.ok_or_else(|| missing("finalized"))?.block;
            if block.number > head.block.number { head.block } else { block }
        }
    };
    Ok(Look { chain_id, head, confirmed })
}

/// Time until an endpoint that failed `failures` times before is asked again: doubled each time, half of it by chance.
fn pause(failures: u32, seed: u64) -> Duration {
    let longest = FIRST_PAUSE.saturating_mul(1 << failures.min(16)).min(LONGEST_PAUSE);
    let mut mixed = seed ^ (u64::from(failures) << 32);
    for _ in 0..2 {
        mixed = (mixed ^ (mixed >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x632b_e59b_d9b4_e019);
    }
    let share = (mixed >> 40) as u32 & 0xffff;
    longest / 2 + longest / 2 * share / 0xffff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit_and_differ_between_operators() {
        for seed in 0..50 {
            let all: Vec<Duration> = (0..12).map(|failures| pause(failures, seed)).collect();
            assert!(all[0] >= FIRST_PAUSE / 2 && all[0] <= FIRST_PAUSE, "{:?}", all[0]);
            assert!(all[2] > all[0], "{all:?}");
            assert!(all.iter().all(|pause| *pause <= LONGEST_PAUSE) && all[11] >= LONGEST_PAUSE / 2, "{all:?}");
        }
        let firsts: BTreeSet<Duration> = (0..50).map(|seed| pause(5, seed)).collect();
        assert!(firsts.len() > 40, "{} different ones of 50", firsts.len());
    }
}

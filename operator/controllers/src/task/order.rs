//! Builds an order: manifest, spec and terms from validated work. Pure; called
//! once an attempt, and what it returns is written down for good.

use alloy::primitives::aliases::U40;
use freehold_api::{GROUP, VERSION};
use freehold_core::manifest::{self, Manifest, ManifestInput, ManifestOutput};
use freehold_core::money::Amount;
use freehold_core::order::{Terms, order_id, salt};
use freehold_core::spec::{self, OrderSpec, SpecInput};
use freehold_core::wire::CheckpointNote;
use freehold_core::{Address, B256, canonical};

use super::stored::Draft;
use super::validate::{Limits, Work};

/// Only class `none` exists yet: its number in the terms, and its name in spec and manifest.
const CLASS: (u8, &str) = (0, "none");
const NO_SHOW_BPS: u16 = 200;
const BOND_BPS: u16 = 1000;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Canonical(#[from] canonical::Error),
    #[error(transparent)]
    Manifest(#[from] manifest::Error),
    #[error(transparent)]
    Spec(#[from] spec::Error),
}

/// Who orders, where and when.
#[derive(Clone, Debug)]
pub struct Site {
    pub chain_id: u64,
    pub market: Address,
    pub token: Address,
    pub account: Address,
    pub origin: B256,
    /// Timestamp of the latest block.
    pub now: u64,
    pub block_time: u64,
}

#[derive(Clone, Debug)]
pub struct Job<'a> {
    pub kind: &'static str,
    pub uid: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    pub attempt: u32,
    pub backoff_limit: u32,
    /// Failed runs of the attempts before.
    pub failures: u32,
    /// Seconds that the lease may run at most.
    pub duration: u64,
    pub cap: Amount,
    pub resume: Option<&'a CheckpointNote>,
}

/// What an attempt may hold: the least of what is left of the budget, and the highest rate over the time left, or over
/// the first slice of it.
pub fn cap(limits: &Limits, budget_left: Amount, seconds_left: u64) -> Amount {
    budget_left.min(limits.at_most(limits.slice.map_or(seconds_left, |slice| slice.min(seconds_left))))
}

/// Seconds that an order is given to get into a block, beyond the time for bids: the contract counts that from there.
pub fn placement(block_time: u64) -> u64 {
    10 * block_time
}

/// Name of the input that a later attempt goes on from.
pub const CHECKPOINT: &str = "checkpoint";

pub fn build(site: &Site, limits: &Limits, work: &Work, job: &Job<'_>) -> Result<Draft, Error> {
    let manifest = manifest_of(work, job).to_bytes()?;
    let spec = spec_of(work, job.kind, job.resume, &manifest)?.to_bytes()?;
    let salt = salt(job.uid, job.attempt);
    Ok(Draft {
        id: order_id(site.chain_id, site.market, site.account, salt),
        salt,
        attempt: job.attempt,
        failures: job.failures,
        terms: terms(site, limits, job, canonical::keccak(&spec)),
        spec,
        manifest: Some(manifest),
        adopted: false,
    })
}

fn terms(site: &Site, limits: &Limits, job: &Job<'_>, spec_hash: B256) -> Terms {
    let penalty = job.cap.bps(NO_SHOW_BPS);
    Terms {
        token: site.token,
        maxPrice: job.cap.0,
        auditReserve: 0,
        bond: penalty.max(job.cap.bps(BOND_BPS)).0,
        noShowPenalty: penalty.0,
        bidBy: U40::saturating_from(site.now + limits.bid_window + placement(site.block_time)),
        startWindow: U40::saturating_from(limits.start_window),
        duration: U40::saturating_from(job.duration),
        window: U40::saturating_from(limits.review_window),
        holdbackBps: limits.holdback_bps,
        class: CLASS.0,
        specHash: spec_hash,
        rulesHash: B256::ZERO,
        origin: site.origin,
    }
}

fn manifest_of(work: &Work, job: &Job<'_>) -> Manifest {
    let mut inputs: Vec<ManifestInput> = work
        .inputs
        .iter()
        .map(|input| ManifestInput {
            name: input.name.to_owned(),
            sha256: input.sha256.clone(),
            size: input.size,
            file_name: input.file_name.clone(),
            uri: input.uri.clone(),
        })
        .collect();
    inputs.extend(job.resume.map(|note| ManifestInput {
        name: CHECKPOINT.to_owned(),
        sha256: note.sha256.clone(),
        size: note.size,
        file_name: note.file_name.clone(),
        uri: None,
    }));
    Manifest {
        api_version: format!("{GROUP}/{VERSION}"),
        kind: job.kind.to_owned(),
        name: job.name.to_owned(),
        namespace: job.namespace.to_owned(),
        uid: job.uid.to_owned(),
        attempt: job.attempt,
        class: CLASS.1.to_owned(),
        image: work.image.clone(),
        args: work.args.clone(),
        recipe: work.recipe.clone(),
        output: work.output.map(|format| ManifestOutput { format }),
        inputs,
        resources: work.resources.clone(),
        backoff_limit: job.backoff_limit.saturating_sub(job.failures),
        deadline_seconds: job.duration,
        runtime_class: work.require.runtime_class.clone(),
        resume_step: job.resume.map(|note| note.step),
    }
}

pub fn spec_of(
    work: &Work,
    kind: &'static str,
    resume: Option<&CheckpointNote>,
    manifest: &[u8],
) -> Result<OrderSpec, Error> {
    let recipe = match &work.recipe {
        None => None,
        Some(recipe) => Some(canonical::sha256_hex(&canonical::to_vec("the recipe", recipe)?)),
    };
    let mut inputs: Vec<SpecInput> = work
        .inputs
        .iter()
        .map(|input| SpecInput { name: input.name.to_owned(), sha256: input.sha256.clone(), size: input.size })
        .collect();
    inputs.extend(resume.map(|note| SpecInput {
        name: CHECKPOINT.into(),
        sha256: note.sha256.clone(),
        size: note.size,
    }));
    Ok(OrderSpec {
        kind: kind.to_owned(),
        class: CLASS.1.to_owned(),
        image: work.image.clone(),
        resources: work.resources.clone(),
        recipe,
        inputs,
        manifest: canonical::sha256_hex(manifest),
        require: work.require.clone(),
    })
}

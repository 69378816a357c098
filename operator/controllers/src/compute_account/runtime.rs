//! What runs for one account: its signer and its reader of the chain.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use freehold_api::ComputeAccount;
use freehold_api::account::{Chain, ComputeAccountSpec, SecretKey, SignerRef};
use freehold_api::scalars::EvmAddress;
use freehold_chain::reader::{self, ReaderConfig, ReaderGuard};
use freehold_chain::rpc::{Depth, Rpc};
use freehold_chain::signer::{LocalSigner, Signer};
use freehold_core::Address;
use freehold_core::units::seconds;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::Api;
use tokio::sync::watch;
use tokio::time::Instant;

use super::signers;
use crate::accounts::{Account, Report};
use crate::context::Context;

/// Longest wait for one answer of an endpoint.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The Secret is read again this often, and after each change of the account.
const KEY_CHECK: Duration = Duration::from_secs(60);
/// A signer elsewhere is called this often.
const SIGNER_CHECK: Duration = Duration::from_secs(5);

/// Why there is no signer, or no reader.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("Secret {name} is not in namespace {namespace}. Create it with the private key under `{key}`.")]
    NoSecret { namespace: String, name: String, key: String },
    #[error("Secret {name} has no key `{key}`. Put the private key there as 64 hexadecimal digits.")]
    NoKey { name: String, key: String },
    #[error("Key `{key}` of Secret {name}: {reason}.")]
    BadKey { name: String, key: String, reason: String },
    #[error("The key belongs to {found}, spec.address is {expected}. Correct one of them.")]
    OtherAddress { expected: String, found: Address },
    #[error("Secret {name} cannot be read: {reason}.")]
    Unreadable { name: String, reason: String },
    /// With its reason.
    #[error("{message}. {remedy}")]
    Signer { reason: &'static str, message: String, remedy: &'static str },
    #[error("{field} is not valid: {reason}.")]
    Invalid { field: &'static str, reason: String },
}

impl Problem {
    /// Reason of `SignerReachable=False`.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoSecret { .. } | Self::NoKey { .. } => "SecretMissing",
            Self::BadKey { .. } => "KeyMalformed",
            Self::OtherAddress { .. } => "AddressMismatch",
            Self::Unreadable { .. } => "SecretUnreadable",
            Self::Signer { reason, .. } => reason,
            Self::Invalid { .. } => "InvalidSpec",
        }
    }
}

/// The signer and reader of one account, kept over passes.
#[derive(Default)]
pub struct Runtime {
    spec: Option<ComputeAccountSpec>,
    signer: Option<Result<Address, Problem>>,
    checked: Option<Instant>,
    reader: Option<ReaderGuard>,
}

impl Runtime {
    /// Brings signer and reader to what the spec says; the account's address, or what is wrong.
    pub async fn keep(&mut self, ctx: &Context, account: &ComputeAccount) -> Result<Address, Problem> {
        let changed = self.spec.as_ref() != Some(&account.spec);
        let often = if account.spec.signer_ref.secret.is_some() { KEY_CHECK } else { SIGNER_CHECK };
        let settled = self.checked.is_some_and(|at| at.elapsed() < often) && matches!(self.signer, Some(Ok(_)));
        if let (false, true, Some(Ok(address))) = (changed, settled, &self.signer) {
            return Ok(*address);
        }
        let outcome = match (self.start(ctx, account, changed).await, &self.signer) {
            // The API server's trouble is no reason to go blind: the key that was read last still holds.
            (Err(Problem::Unreadable { reason, .. }), Some(Ok(known))) if !changed => {
                tracing::warn!(account = account.name_any(), reason, "the key's Secret cannot be read now");
                let known = *known;
                self.checked = Some(Instant::now());
                return Ok(known);
            }
            // A signer that is away comes back: what runs goes on, and only signatures wait.
            (Err(problem @ Problem::Signer { .. }), Some(Ok(_))) if !changed => {
                self.checked = None;
                return Err(problem);
            }
            (outcome, _) => outcome,
        };
        if outcome.is_err() {
            self.reader = None;
            self.spec = None;
            forget(ctx, &account.name_any());
        }
        self.checked = Some(Instant::now());
        self.signer = Some(outcome.clone());
        outcome
    }

    async fn start(&mut self, ctx: &Context, account: &ComputeAccount, changed: bool) -> Result<Address, Problem> {
        let signer = load(ctx, &account.spec).await?;
        let address = signer.address();
        let same = matches!(&self.signer, Some(Ok(known)) if *known == address);
        if changed || !same || self.reader.is_none() {
            let name = account.name_any();
            let config = reader_config(&account.spec, address)?;
            let served = Account {
                name: name.clone(),
                signer: signer.clone(),
                rpc: config.rpc.clone(),
                depth: config.depth,
                chain_id: config.chain_id,
                market: config.market,
                block_time: config.block_time.as_secs(),
                report: watch::Sender::new(Report::default()),
            };
            let (view, guard) = reader::spawn(config);
            tracing::info!(account = name, %address, "reading the chain");
            ctx.views.insert(&name, view);
            ctx.signers.insert(&name, signer);
            ctx.accounts.insert(Arc::new(served));
            self.reader = Some(guard);
            self.spec = Some(account.spec.clone());
        }
        Ok(address)
    }
}

/// The account is no longer served.
pub fn forget(ctx: &Context, name: &str) {
    ctx.accounts.remove(name);
    ctx.signers.remove(name);
    ctx.views.remove(name);
}

async fn load(ctx: &Context, spec: &ComputeAccountSpec) -> Result<Arc<dyn Signer>, Problem> {
    let signer = match &spec.signer_ref {
        SignerRef { secret: Some(secret), url: None, web3signer: None } => from_secret(ctx, secret).await?,
        elsewhere => signers::connect(&ctx.settings.signer_token, elsewhere, spec.address.as_ref()).await?,
    };
    check_address(spec.address.as_ref(), signer.address())?;
    Ok(signer)
}

async fn from_secret(ctx: &Context, secret: &SecretKey) -> Result<Arc<dyn Signer>, Problem> {
    let (name, key) = (secret.name.to_string(), secret.key.clone());
    let namespace = ctx.settings.namespace.clone();
    let api: Api<Secret> = Api::namespaced(ctx.client.clone(), &namespace);
    let found = api
        .get_opt(&name)
        .await
        .map_err(|error| Problem::Unreadable { name: name.clone(), reason: error.to_string() })?;
    let secret = found.ok_or_else(|| Problem::NoSecret { namespace, name: name.clone(), key: key.clone() })?;
    let data = secret.data.unwrap_or_default();
    let bytes = data.get(&key).ok_or_else(|| Problem::NoKey { name: name.clone(), key: key.clone() })?;
    let bad = |reason: String| Problem::BadKey { name: name.clone(), key: key.clone(), reason };
    let text = std::str::from_utf8(&bytes.0).map_err(|_| bad("it is not text".into()))?;
    Ok(Arc::new(LocalSigner::from_hex(text).map_err(|error| bad(error.to_string()))?))
}

fn check_address(expected: Option<&EvmAddress>, found: Address) -> Result<(), Problem> {
    match expected {
        Some(expected) if expected.as_str().parse() != Ok(found) => {
            Err(Problem::OtherAddress { expected: expected.to_string(), found })
        }
        _ => Ok(()),
    }
}

fn reader_config(spec: &ComputeAccountSpec, account: Address) -> Result<ReaderConfig, Problem> {
    let address = |field, text: &EvmAddress| -> Result<Address, Problem> {
        text.as_str().parse().map_err(|_| Problem::Invalid { field, reason: format!("`{text}` is no address") })
    };
    let urls: Vec<String> = spec.chain.rpc_urls.iter().map(ToString::to_string).collect();
    let rpc = Rpc::new(&urls, TIMEOUT)
        .map_err(|error| Problem::Invalid { field: "spec.chain.rpcUrls", reason: error.to_string() })?;
    let block_time =
        seconds(spec.chain.block_time.as_str()).filter(|seconds| *seconds > 0).ok_or_else(|| Problem::Invalid {
            field: "spec.chain.blockTime",
            reason: format!("`{}` must be at least 1s", spec.chain.block_time),
        })?;
    let depth = match (spec.confirmations.finalized, spec.confirmations.blocks) {
        (false, Some(blocks)) => Depth::Blocks(u64::from(blocks)),
        _ => Depth::Finalized,
    };
    Ok(ReaderConfig {
        rpc,
        chain_id: spec.chain.chain_id,
        market: address("spec.market", &spec.market)?,
        registry: address("spec.providerRegistry", &spec.provider_registry)?,
        token: address("spec.token", &spec.token)?,
        account,
        depth,
        block_time: Duration::from_secs(block_time),
        quorum: quorum(&spec.chain)?,
        seed: RandomState::new().hash_one(account),
    })
}

/// Endpoints that must agree: two where there are two, unless the spec says otherwise.
fn quorum(chain: &Chain) -> Result<usize, Problem> {
    let endpoints = chain.rpc_urls.len();
    let quorum = chain.quorum.map_or(endpoints.min(2), |quorum| quorum as usize);
    if quorum > endpoints {
        let reason = format!("{quorum} endpoints cannot agree where spec.chain.rpcUrls names {endpoints}");
        return Err(Problem::Invalid { field: "spec.chain.quorum", reason });
    }
    Ok(quorum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_must_be_the_one_that_the_spec_names() {
        let found = Address::repeat_byte(1);
        assert_eq!(check_address(None, found), Ok(()));
        let same: EvmAddress = found.to_string().to_lowercase().replace("0X", "0x").into();
        assert_eq!(check_address(Some(&same), found), Ok(()));
        let other: EvmAddress = Address::repeat_byte(2).to_string().into();
        assert_eq!(check_address(Some(&other), found).map_err(|problem| problem.reason()), Err("AddressMismatch"));
    }
}

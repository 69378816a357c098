//! ChainTransaction: the outbox. One worker an account, and only in the leading
//! operator, since it is the account's only writer. The rules are
//! `freehold_chain::outbox`; here is what they are fed and how it is done.

mod allocate;
mod apply;
mod gather;
mod refusals;
mod retention;
mod status;
mod worker;

use std::collections::BTreeMap;
use std::sync::Arc;

use freehold_api::ChainTransaction;
use futures::StreamExt;
use kube::Api;
use kube::runtime::{WatchStreamExt, watcher};
use tokio::task::JoinHandle;

use crate::accounts::Account;
use crate::context::Context;
use crate::rbac::{Rule, Scope};

const GROUP: &str = freehold_api::GROUP;

pub const RULES: &[Rule] = &[
    Rule::new(GROUP, &["chaintransactions"], &["get", "list", "watch", "create", "delete"], Scope::Release),
    Rule::new(GROUP, &["chaintransactions/status"], &["patch"], Scope::Release),
    Rule::new(GROUP, &["computeaccounts"], &["get"], Scope::Cluster),
    Rule::new(GROUP, &["computeaccounts/status"], &["patch"], Scope::Cluster),
    Rule::new("", &["configmaps"], &["get"], Scope::Release),
];

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the cache of ChainTransactions is kept by another call of run already")]
    SecondRun,
    #[error("the watch on ChainTransactions ended")]
    WatchEnded,
}

/// Keeps the cache of ChainTransactions, and a worker for each account that is served.
pub async fn run(ctx: Context) -> Result<(), Error> {
    let outbox = ctx.outbox.clone();
    ctx.live.count(move || outbox.unfinished());
    let cache = keep_cache(ctx.clone());
    let workers = supervise(ctx);
    tokio::select! {
        outcome = cache => outcome,
        () = workers => Ok(()),
    }
}

async fn keep_cache(ctx: Context) -> Result<(), Error> {
    let mut writer = ctx.outbox.take_writer().ok_or(Error::SecondRun)?;
    let api: Api<ChainTransaction> = Api::namespaced(ctx.client.clone(), &ctx.settings.namespace);
    let mut events = watcher(api, watcher::Config::default()).default_backoff().boxed();
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => ctx.outbox.apply(&mut writer, &event),
            Err(error) => tracing::warn!(%error, "ChainTransactions cannot be watched; trying again"),
        }
    }
    Err(Error::WatchEnded)
}

/// A worker and the account that it works for.
struct Running {
    account: Arc<Account>,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn supervise(ctx: Context) {
    // Without the first listing a goal could look lost, and its nonce be given away.
    if !ctx.outbox.ready().await {
        return;
    }
    let mut accounts = ctx.accounts.subscribe();
    let mut running: BTreeMap<String, Running> = BTreeMap::new();
    loop {
        let served = accounts.borrow_and_update().clone();
        running.retain(|name, worker| served.get(name).is_some_and(|account| Arc::ptr_eq(account, &worker.account)));
        for (name, account) in served {
            running
                .entry(name)
                .or_insert_with(|| Running { task: tokio::spawn(worker::work(ctx.clone(), account.clone())), account });
        }
        if accounts.changed().await.is_err() {
            return;
        }
    }
}

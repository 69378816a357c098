//! The courier: Freehold's side of a task pod.
//!
//! ```text
//! init fetch ─▶ sidecar watch (progress, checkpoints) ─▶ init trainer ─▶ main publish
//! ```
//!
//! It holds the pod's only token, and believes nothing that the trainer wrote:
//! names are checked, links are not followed, sizes are bounded.

mod fetch;
mod files;
mod processes;
mod publish;
pub mod tail;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use freehold_core::access::Scope;
use reqwest::Url;

use crate::address;
use crate::transfer::{self, Authorize, Remote};

pub use fetch::{FetchArgs, fetch, step_of};
pub use processes::{Processes, SharedNamespace};
pub use publish::{PublishArgs, metrics_of, publish};
pub use watch::{WatchArgs, watch};

#[derive(Clone, Debug, clap::Args)]
pub struct CourierArgs {
    #[command(flatten)]
    pub pod: PodArgs,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Clone, Debug, clap::Args)]
pub struct PodArgs {
    /// The gateway's courier listener.
    #[arg(long, env = "FREEHOLD_GATEWAY_URL")]
    pub gateway_url: String,
    /// The lease (`0x…`).
    #[arg(long, env = "FREEHOLD_ORDER_ID")]
    pub order_id: String,
    /// Projected service-account token; read again for each call, since the kubelet renews it.
    #[arg(long, env = "FREEHOLD_TOKEN_FILE", default_value = "/var/run/secrets/freehold/gateway-token")]
    pub token_file: PathBuf,
    /// Folder of the container contract.
    #[arg(long, env = "FREEHOLD_ROOT", default_value = "/freehold")]
    pub root: PathBuf,
}

#[derive(Clone, Debug, clap::Subcommand)]
pub enum Command {
    /// Init container: brings the task and its inputs, and lets the trainer begin when the lease runs.
    Fetch(FetchArgs),
    /// Sidecar: reports progress and stores checkpoints.
    Watch(WatchArgs),
    /// Main container: delivers the outputs.
    Publish(PublishArgs),
}

/// Exit codes, as in sysexits: 64 and 65 cannot be helped by trying again, 75 can.
const BAD_USAGE: u8 = 64;
const BAD_DATA: u8 = 65;
const SOFTWARE: u8 = 70;
const FILE: u8 = 74;
const TRY_AGAIN: u8 = 75;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Transfer(#[from] transfer::Error),
    #[error("{0}")]
    BadData(String),
    #[error("{what} did not succeed within {seconds} s; last: {last}")]
    TimedOut { what: &'static str, seconds: u64, last: String },
    #[error("{path}: {source}")]
    File { path: String, source: std::io::Error },
    #[error("{0}")]
    Usage(String),
    #[error("stopped before it was done")]
    Stopped,
}

impl Error {
    fn file(path: impl std::fmt::Display) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::File { path: path.to_string(), source }
    }

    /// As in sysexits; what is neither terminal nor to be tried again counts as a failed run.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::BadData(_) => BAD_DATA,
            Self::Transfer(error) if error.is_digest_mismatch() => BAD_DATA,
            Self::Transfer(transfer::Error::TooLarge { .. } | transfer::Error::Answer { status: 413 | 422, .. }) => {
                BAD_DATA
            }
            Self::Transfer(error) if error.is_transient() => TRY_AGAIN,
            Self::Transfer(_) => SOFTWARE,
            Self::TimedOut { .. } | Self::Stopped => TRY_AGAIN,
            Self::File { .. } => FILE,
            Self::Usage(_) => BAD_USAGE,
        }
    }
}

/// Runs one of the courier's containers to its end.
pub async fn run(args: CourierArgs) -> ExitCode {
    processes::hide();
    match dispatch(args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(code = error.exit_code(), "{error}");
            ExitCode::from(error.exit_code())
        }
    }
}

async fn dispatch(args: CourierArgs) -> Result<(), Error> {
    let remote = args.pod.remote()?;
    let root = args.pod.root;
    let stop = stop_requested().map_err(Error::file("signals"))?;
    match args.command {
        Command::Fetch(fetch_args) => {
            tokio::select! {
                done = fetch(&remote, &root, &fetch_args) => done,
                () = stop => Err(Error::Stopped),
            }
        }
        Command::Watch(watch_args) => watch(&remote, &root, &watch_args, stop, &SharedNamespace).await,
        // SIGTERM is heard and not followed: the outputs are all there is to show for the money.
        // Time is bounded by the arguments and by the pod's grace period.
        Command::Publish(publish_args) => publish(&remote, &root, &publish_args).await,
    }
}

/// Resolves on SIGTERM or SIGINT.
fn stop_requested() -> std::io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
    })
}

impl PodArgs {
    pub fn remote(&self) -> Result<Remote, Error> {
        let url = Url::parse(&self.gateway_url)
            .map_err(|e| Error::Usage(format!("FREEHOLD_GATEWAY_URL `{}`: {e}", self.gateway_url)))?;
        let builder = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .connect_timeout(Duration::from_secs(10))
            .read_timeout(Duration::from_secs(120));
        let http = address::trust(builder, url.scheme() == "http")
            .build()
            .map_err(|e| Error::Usage(format!("no HTTP client can be made: {e}")))?;
        let auth = Arc::new(TokenFile(self.token_file.clone()));
        Ok(Remote::new(http, &url, "work", &self.order_id, auth))
    }
}

struct TokenFile(PathBuf);

#[async_trait::async_trait]
impl Authorize for TokenFile {
    async fn header(&self, _: &[Scope]) -> Result<String, transfer::Error> {
        let token = tokio::fs::read_to_string(&self.0)
            .await
            .map_err(|e| transfer::Error::Sign(format!("token file {}: {e}", self.0.display())))?;
        Ok(format!("Bearer {}", token.trim()))
    }
}

/// How long to keep trying, and how often.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    pub first: Duration,
    pub longest: Duration,
    pub total: Duration,
}

impl Pace {
    pub fn within(total: Duration) -> Self {
        Self { first: Duration::from_secs(1), longest: Duration::from_secs(15), total }
    }

    /// Repeats what may succeed later, ever less often.
    pub async fn keep_trying<T, F>(&self, what: &'static str, mut attempt: impl FnMut() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, transfer::Error>>,
    {
        let started = tokio::time::Instant::now();
        let mut wait = self.first;
        loop {
            let error = match attempt().await {
                Ok(value) => return Ok(value),
                Err(error) if !error.is_transient() => return Err(error.into()),
                Err(error) => error,
            };
            if started.elapsed() + wait > self.total {
                return Err(Error::TimedOut { what, seconds: self.total.as_secs(), last: error.to_string() });
            }
            tracing::warn!("{what}: {error}; trying again in {wait:?}");
            tokio::time::sleep(wait).await;
            wait = self.longest.min(wait * 2);
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        courier: CourierArgs,
    }

    #[test]
    fn containers_of_a_pod_are_subcommands() {
        let start = |command| {
            let args = ["courier", "--gateway-url", "http://10.102.3.4:8081", "--order-id", "0x0a", command];
            Program::try_parse_from(args).map(|program| program.courier).map_err(|e| e.to_string())
        };
        assert!(matches!(start("fetch").unwrap().command, Command::Fetch(FetchArgs { seconds: 1800, .. })));
        assert!(matches!(start("watch").unwrap().command, Command::Watch(_)));
        let publish = start("publish").unwrap();
        assert!(matches!(publish.command, Command::Publish(_)));
        assert_eq!(publish.pod.root, PathBuf::from("/freehold"));
        assert!(start("other").is_err());
    }
}

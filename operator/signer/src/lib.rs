//! Freehold's signer: the only holder of an account's key. The operator asks it for goals'
//! transactions and gateway tokens; it signs what its policy allows, and nothing else.
//!
//! ```text
//! operator ──token──▶ who asks? ──▶ what does it do? ──▶ what is left? ──▶ journal ──▶ key
//!                     TokenReview   calls                policy, state     fsync
//! ```
//!
//! A compromised operator holds a token, not the key: it cannot pay anybody but the Market, nor
//! withdraw to anybody but the account, nor commit more than the policy's period allows.

pub mod calls;
pub mod config;
pub mod journal;
pub mod policy;
pub mod server;
pub mod state;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use alloy::signers::local::{LocalSignerError, PrivateKeySigner};
use freehold_chain::signer::wire::AUDIENCE;
use freehold_gateway::reviews::{ApiServer, Reviews};
use freehold_gateway::slots::Slots;
use freehold_gateway::{serve, system_clock};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use self::config::Policy;
use self::journal::Journal;
use self::server::{Parts, Server};

/// Connections at a time, a listener.
const CONNECTIONS: usize = 128;

#[derive(Clone, Debug, clap::Args)]
pub struct SignerArgs {
    /// The account's key as a Web3 Secret Storage (version 3) file.
    #[arg(long, env = "FREEHOLD_SIGNER_KEYSTORE")]
    pub keystore: PathBuf,
    /// File with the keystore's password.
    #[arg(long, env = "FREEHOLD_SIGNER_PASSWORD_FILE")]
    pub password_file: PathBuf,
    /// The policy, YAML or JSON; read anew for each request.
    #[arg(long, env = "FREEHOLD_SIGNER_POLICY")]
    pub policy: PathBuf,
    /// File of the decisions; it only grows.
    #[arg(long, env = "FREEHOLD_SIGNER_JOURNAL")]
    pub journal: PathBuf,
    /// User name of the one that may ask, such as `system:serviceaccount:freehold:freehold-operator`.
    #[arg(long, env = "FREEHOLD_OPERATOR_ACCOUNT")]
    pub operator_account: String,
    /// Where the operator calls.
    #[arg(long, env = "FREEHOLD_SIGNER_LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
    /// Health.
    #[arg(long, env = "FREEHOLD_SIGNER_HEALTH_LISTEN", default_value = "0.0.0.0:8082")]
    pub health_listen: SocketAddr,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the password file {} cannot be read", path.display())]
    Password { path: PathBuf, source: std::io::Error },
    #[error("the keystore {} cannot be opened: it must be Web3 Secret Storage of version 3, and the password its own", path.display())]
    Keystore { path: PathBuf, source: LocalSignerError },
    #[error(transparent)]
    Policy(#[from] config::Error),
    #[error(transparent)]
    Journal(#[from] journal::Error),
    #[error("no way to the API server: {0}")]
    Kubernetes(#[from] kube::Error),
    #[error("{0}")]
    Listen(String),
    #[error("cannot wait for signals: {0}")]
    Signals(std::io::Error),
}

/// Opens the keystore.
pub fn open(keystore: &PathBuf, password_file: &PathBuf) -> Result<PrivateKeySigner, Error> {
    let password = std::fs::read_to_string(password_file)
        .map_err(|source| Error::Password { path: password_file.clone(), source })?;
    // Editors and shells end a file with a line's end that is no part of a password.
    PrivateKeySigner::decrypt_keystore(keystore, password.trim_end_matches(['\r', '\n']))
        .map_err(|source| Error::Keystore { path: keystore.clone(), source })
}

/// Runs the signer until SIGTERM or SIGINT.
pub async fn run(args: SignerArgs) -> Result<(), Error> {
    let key = open(&args.keystore, &args.password_file)?;
    Policy::read(&args.policy)?;
    let (journal, state) = Journal::open(&args.journal)?;
    let client = kube::Client::try_default().await?;
    let clock = system_clock();
    let server = Arc::new(Server::new(Parts {
        key,
        policy: args.policy,
        journal,
        state,
        reviews: Reviews::new(Arc::new(ApiServer::new(client, AUDIENCE)), clock.clone()),
        operator: args.operator_account,
        clock,
    }));
    let operator = serve::bind(args.listen).await.map_err(Error::Listen)?;
    let kubelet = serve::bind(args.health_listen).await.map_err(Error::Listen)?;
    let (stop, stopped) = watch::channel(false);
    let places = || Slots::<IpAddr>::new(CONNECTIONS, CONNECTIONS);
    tracing::info!(address = %server.address(), listen = %args.listen, "signer ready");
    let servers = futures::future::join(
        serve::serve(operator, server::routes(server.clone()), places(), stopped.clone()),
        serve::serve(kubelet, server::health(server), places(), stopped),
    );
    let mut term = signal(SignalKind::terminate()).map_err(Error::Signals)?;
    let mut int = signal(SignalKind::interrupt()).map_err(Error::Signals)?;
    let signals = async {
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
        tracing::info!("stopping; requests under way may finish");
        stop.send_replace(true);
    };
    futures::future::join(servers, signals).await;
    Ok(())
}

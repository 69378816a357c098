//! `freehold`: one binary, one subcommand a process. `kubectl-freehold` is the
//! same binary under the name that kubectl looks for.

mod adopt;
mod audit;
mod crdgen;
mod evict;
mod live;
mod metricsgen;
mod operator;
mod rbacgen;
mod schema;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use freehold_gateway::courier;

#[derive(Parser)]
#[command(name = "freehold", version, about = "Own your AI, lease the compute.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Form of log lines: text for people, json for machines.
    #[arg(long, global = true, env = "FREEHOLD_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Subcommand)]
enum Command {
    /// Reconciles Freehold's kinds: a tenant's tasks, a provider's leases, or both.
    Operator(operator::Args),
    /// Serves tenants and the pods of their leases: manifests, artifacts, status, logs.
    Gateway(freehold_gateway::GatewayArgs),
    /// Holds the account's key, and signs what its policy allows.
    Signer(freehold_signer::SignerArgs),
    /// Publishes a node's GPUs and, if installed so, serves them to the kubelet.
    NodeAgent(freehold_node_agent::AgentArgs),
    /// Asks the container runtime for GPUs that it was not given: a container of the agent's pod.
    #[command(hide = true)]
    IsolationProbe(freehold_node_agent::ProbeArgs),
    /// Carries a lease's inputs and outputs inside its pod.
    Courier(courier::CourierArgs),
    /// Rebuilds leases from the chain alone and checks their sums.
    Audit(audit::Args),
    /// A provider gives a lease up: its checkpoint is saved and the lease closed, or declined before its start.
    Evict(evict::Args),
    /// A tenant takes over, or ends, an order of its account that was placed from elsewhere.
    Adopt(adopt::Args),
    /// Fails while the release has live orders or leases, and says which: what `helm uninstall` asks first.
    #[command(hide = true)]
    Live(live::Args),
    /// Writes the CustomResourceDefinitions, a file a kind.
    #[command(hide = true)]
    Crdgen(crdgen::Args),
    /// Writes the operator's RBAC rules for the chart.
    #[command(hide = true)]
    Rbacgen(rbacgen::Args),
    /// Writes the names of what the processes export, for the chart's alerts.
    #[command(hide = true)]
    Metricsgen(metricsgen::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    log(cli.log_format);
    // Two TLS providers in one process panic at the first connection: ring is ours.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        eprintln!("error: another TLS provider was installed before ring");
        return ExitCode::FAILURE;
    }
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(run(cli.command)),
        Err(error) => {
            eprintln!("error: no runtime: {error}");
            ExitCode::FAILURE
        }
    }
}

/// To stderr: what a command answers is on stdout.
fn log(format: LogFormat) {
    let lines = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => lines.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init(),
        // Flat, so that `task`, `lease` and `tx` are found without knowing where they were said.
        LogFormat::Json => lines.json().flatten_event(true).init(),
    }
}

async fn run(command: Command) -> ExitCode {
    match command {
        Command::Operator(args) => report(operator::run(args).await),
        Command::Gateway(args) => report(freehold_gateway::run(args).await),
        Command::Signer(args) => report(freehold_signer::run(args).await),
        Command::NodeAgent(args) => report(freehold_node_agent::run(args).await),
        Command::IsolationProbe(args) => report(freehold_node_agent::probe(args).await),
        Command::Courier(args) => courier::run(args).await,
        Command::Audit(args) => report(audit::run(&args).await),
        Command::Evict(args) => report(evict::run(&args).await),
        Command::Adopt(args) => report(adopt::run(&args).await),
        Command::Live(args) => report(live::run(&args).await),
        Command::Crdgen(args) => report(crdgen::run(&args)),
        Command::Rbacgen(args) => report(rbacgen::run(&args)),
        Command::Metricsgen(args) => report(metricsgen::run(&args)),
    }
}

/// One sentence for what failed, one a cause.
fn report<E: std::error::Error>(outcome: Result<(), E>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            let mut source = error.source();
            while let Some(cause) = source {
                eprintln!("  because: {cause}");
                source = cause.source();
            }
            ExitCode::FAILURE
        }
    }
}

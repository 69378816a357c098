//! `freehold audit`: a lease's, a tenant's or a provider's books, from an RPC
//! address and the Market's address alone. Exits 1 if a sum is off.

use std::fmt::Write as _;
use std::time::Duration;

use clap::{Subcommand, ValueEnum};
use freehold_chain::audit::Auditor;
use freehold_chain::rpc::Rpc;
use freehold_core::audit::Report;
use freehold_core::{Address, B256};

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
    /// JSON-RPC address of a node of the chain.
    #[arg(long, env = "FREEHOLD_RPC", global = true, default_value = "http://127.0.0.1:8545")]
    rpc: String,
    /// Address of the Market contract.
    #[arg(long, env = "FREEHOLD_MARKET", global = true)]
    market: Option<Address>,
    /// First block to read; the Market's deployment saves time on long chains.
    #[arg(long, global = true, default_value_t = 0)]
    from_block: u64,
    /// Form of the report.
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Subcommand)]
enum What {
    /// One lease (or order), by its id.
    Lease { id: B256 },
    /// Every order of one task, and what the attempts cost that came to nothing.
    Task {
        /// The task's metadata.uid.
        uid: String,
        /// The account that paid.
        #[arg(long)]
        tenant: Address,
    },
    /// Every order that an account placed.
    Tenant { address: Address },
    /// Every lease that an account held as provider.
    Provider { address: Address },
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    Table,
    Json,
    Yaml,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("--market (or FREEHOLD_MARKET) is missing: the address of the Market contract")]
    NoMarket,
    #[error("the chain cannot be read")]
    Chain(#[from] freehold_chain::audit::Error),
    #[error("the RPC address cannot be used")]
    Rpc(#[from] freehold_chain::rpc::Error),
    #[error("the report cannot be written as JSON")]
    Json(#[from] serde_json::Error),
    #[error("the report cannot be written as YAML")]
    Yaml(#[from] serde_saphyr::ser::Error),
    #[error("{orders} of the orders do not add up: {first}")]
    Findings { orders: usize, first: String },
}

pub async fn run(args: &Args) -> Result<(), Error> {
    let market = args.market.ok_or(Error::NoMarket)?;
    let rpc = Rpc::new(std::slice::from_ref(&args.rpc), Duration::from_secs(30))?;
    let mut auditor = Auditor::new(rpc, market, args.from_block).await?;
    let mut reports = Vec::new();
    let single = match &args.what {
        What::Lease { id } => {
            reports.push(auditor.order(*id).await?);
            true
        }
        What::Task { uid, tenant } => {
            for id in auditor.orders_of_task(*tenant, uid).await? {
                reports.push(auditor.order(id).await?);
            }
            false
        }
        What::Tenant { address } => {
            for id in auditor.orders_of_tenant(*address).await? {
                reports.push(auditor.order(id).await?);
            }
            false
        }
        What::Provider { address } => {
            for id in auditor.orders_of_provider(*address).await? {
                reports.push(auditor.order(id).await?);
            }
            false
        }
    };
    print(&render(args.output, &reports, single)?);
    if let (What::Task { .. }, Output::Table) = (&args.what, args.output) {
        print(&detour(&reports));
    }
    let off: Vec<&Report> = reports.iter().filter(|report| !report.findings.is_empty()).collect();
    match off.first() {
        None => Ok(()),
        Some(report) => Err(Error::Findings {
            orders: off.len(),
            first: format!("order {}: {}", report.order_id, report.findings.join("; ")),
        }),
    }
}

fn print(text: &str) {
    use std::io::Write as _;
    // A closed pipe (`| head`) is the reader's choice, no error of ours.
    let _ = writeln!(std::io::stdout(), "{}", text.trim_end());
}

fn render(output: Output, reports: &[Report], single: bool) -> Result<String, Error> {
    Ok(match (output, single) {
        (Output::Json, true) => serde_json::to_string_pretty(&reports[0])?,
        (Output::Json, false) => serde_json::to_string_pretty(reports)?,
        (Output::Yaml, true) => serde_saphyr::to_string(&reports[0])?,
        (Output::Yaml, false) => serde_saphyr::to_string(&reports)?,
        (Output::Table, true) => table(&reports[0]),
        (Output::Table, false) => summary(reports),
    })
}

fn table(report: &Report) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(out, "{name:<10} {value}");
    };
    line("order", &report.order_id);
    line("state", &report.state);
    line("tenant", &report.tenant);
    line("provider", report.provider.as_deref().unwrap_or("-"));
    line("token", &report.token);
    if let Some(rate) = &report.rate {
        line("rate", &format!("{rate} (smallest units a second, times 10^12)"));
    }
    if let Some(hash) = &report.result_hash {
        line("result", hash);
    }
    line("spec", &report.spec.to_string());
    let totals = &report.totals;
    let _ = writeln!(out, "\n{:>8}  {:<20}  {:<10}  {:<66}  MONEY", "BLOCK", "TIME", "EVENT", "TRANSACTION");
    for step in &report.transitions {
        let _ = writeln!(
            out,
            "{:>8}  {:<20}  {:<10}  {:<66}  {}",
            step.block, step.time, step.event, step.transaction, step.money
        );
    }
    let _ = writeln!(
        out,
        "\nfunded {}  =  paid {}  +  refunded {}  +  burned {}  −  lost bond {}   (bond {})",
        totals.funded, totals.paid, totals.refunded, totals.burned, totals.bond_lost, totals.bond
    );
    match report.findings.as_slice() {
        [] => out.push_str("The sums balance; every amount follows from the terms and the block times.\n"),
        findings => {
            for finding in findings {
                let _ = writeln!(out, "WRONG: {finding}");
            }
        }
    }
    out
}

fn summary(reports: &[Report]) -> String {
    let mut out = format!(
        "{:<66}  {:<10}  {:>12}  {:>12}  {:>12}  {:>8}  CHECK\n",
        "ORDER", "STATE", "FUNDED", "PAID", "REFUNDED", "BURNED"
    );
    for report in reports {
        let totals = &report.totals;
        let check = if report.findings.is_empty() { "ok".to_owned() } else { report.findings.join("; ") };
        let _ = writeln!(
            out,
            "{:<66}  {:<10}  {:>12}  {:>12}  {:>12}  {:>8}  {check}",
            report.order_id, report.state, totals.funded, totals.paid, totals.refunded, totals.burned
        );
    }
    out
}

/// What a task paid for work whose result it has, and for leases that were lost before.
fn detour(reports: &[Report]) -> String {
    let paid = |accepted: bool| {
        let chosen = reports.iter().filter(|report| (report.state == "Accepted") == accepted);
        chosen.map(|report| report.totals.paid.parse::<u128>().unwrap_or_default()).sum::<u128>()
    };
    format!("\npaid for the accepted result: {}; for attempts without one: {}", paid(true), paid(false))
}

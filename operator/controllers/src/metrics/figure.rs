//! What can be measured, as a closed table: names, labels, and what a label may
//! say. Names of tasks, ids, addresses and URLs have no place in it: a label
//! that anybody can fill makes as many series as he likes.

use freehold_api::Goal;
use freehold_core::order::OrderState;

/// What a label may say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// One of these.
    OneOf(&'static [&'static str]),
    /// A ComputeAccount of this release, or a ComputeBudget as `namespace/name`: an administrator makes them.
    Object,
    /// A place in a short list of the spec.
    Index,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label {
    pub name: &'static str,
    pub values: Values,
}

/// A gauge; its exported name has the operator's prefix.
#[derive(Debug, PartialEq, Eq)]
pub struct Figure {
    pub name: &'static str,
    pub help: &'static str,
    pub labels: &'static [Label],
}

/// One series at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub of: &'static Figure,
    /// In the order of the figure's labels.
    pub labels: Vec<String>,
    pub value: f64,
}

impl Figure {
    pub fn at(&'static self, labels: &[&str], value: f64) -> Sample {
        Sample { of: self, labels: labels.iter().map(|label| (*label).to_owned()).collect(), value }
    }

    /// One series for each of `all`: 1 for the one that holds, 0 for the others.
    pub fn one_of(&'static self, labels: &[&str], all: &[&'static str], holds: &str) -> Vec<Sample> {
        let series = |value: &&'static str| {
            let labels: Vec<&str> = labels.iter().copied().chain([*value]).collect();
            self.at(&labels, f64::from(u8::from(*value == holds)))
        };
        all.iter().map(series).collect()
    }
}

impl Values {
    pub fn allow(self, value: &str) -> bool {
        match self {
            Self::OneOf(all) => all.contains(&value),
            Self::Index => value.parse::<u8>().is_ok(),
            Self::Object => {
                let parts: Vec<&str> = value.split('/').collect();
                parts.len() <= 2 && parts.iter().all(|part| is_object_name(part))
            }
        }
    }
}

/// A DNS subdomain that is no address of the chain.
fn is_object_name(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    !text.is_empty() && text.len() <= 253 && text.chars().all(fits) && !text.starts_with("0x")
}

/// Reasons of a chain's health, as ComputeAccount's `ChainHealthy` has them.
pub const HEALTHS: &[&str] = &[
    "Fresh",
    "Starting",
    "Unreachable",
    "Stale",
    "WrongChain",
    "Diverged",
    "Unwitnessed",
    "WrongMarket",
    "WrongContract",
];
pub const VERDICTS: &[&str] =
    &["good", "unasked", "unreachable", "limited", "wrong_chain", "stale", "lagging", "diverged", "unwitnessed"];
pub const NONCES: &[&str] = &["Healthy", "Foreign", "Stuck", "Refused"];
pub const PLACES: &[&str] = &["wallet", "ledger"];
pub const GOALS: &[&str] = &Goal::NAMES;
/// States of goals that are pursued; Waiting is Pending until the chain's clock, or depth, lets it go on.
pub const OPEN: &[&str] = &["Pending", "Waiting", "Submitted", "Mined"];
/// Why a goal waits on somebody; what is on its way, or waits its turn, is not among them.
pub const REASONS: &[&str] = &["GasLow", "FeeCap", "InsufficientBalance", "TokenCap", "Reverted", SIGNER_REFUSED];
/// The signer's policy does not allow what a goal asks for.
pub const SIGNER_REFUSED: &str = "SignerRefused";
pub const ORDERS: &[&str] = &["Open", "Awaiting", "Running", "Delivered"];
pub const KINDS: &[&str] = &["TrainingTask", "InferenceTask"];
pub const STATES: &[&str] = &[
    "Pending",
    "Funded",
    "Leased",
    "Running",
    "ResultSubmitted",
    "Verified",
    "Complete",
    "Failed",
    "Suspended",
    "Deleting",
];
pub const PHASES: &[&str] = &["AwaitingInputs", "Starting", "Running", "Finished", "Delivered", "Failed", "Closed"];
pub const LEFT_OVER: &[&str] = &["order", "namespace"];
const SWITCH: &[&str] = &["true", "false"];

const ACCOUNT: Label = Label { name: "account", values: Values::Object };

const fn one_of(name: &'static str, values: &'static [&'static str]) -> Label {
    Label { name, values: Values::OneOf(values) }
}

/// The states of orders that are not settled: only these are counted.
pub fn order_state(state: OrderState) -> Option<&'static str> {
    ORDERS.iter().copied().find(|name| *name == state.name())
}

macro_rules! figures {
    ($($name:ident = $text:literal, $help:literal, [$($label:expr),*];)*) => {
        $(pub static $name: Figure = Figure { name: $text, help: $help, labels: &[$($label),*] };)*
        /// All of them.
        pub static CATALOG: &[&Figure] = &[$(&$name),*];
    };
}

figures! {
    INFO = "info", "1 while the operator runs; its roles", [one_of("tenant", SWITCH), one_of("provider", SWITCH)];
    READY = "account_ready", "1 while the account can act, as its condition Ready says", [ACCOUNT];
    CHAIN_HEALTH = "chain_health", "1 for what is thought of the account's chain; only Fresh lets it act", [ACCOUNT, one_of("health", HEALTHS)];
    ENDPOINT = "endpoint_verdict", "1 for what is thought of an RPC endpoint, by its place in spec.chain.rpcUrls", [ACCOUNT, Label { name: "endpoint", values: Values::Index }, one_of("verdict", VERDICTS)];
    ENDPOINT_USED = "endpoint_used", "1 for the RPC endpoint that is read", [ACCOUNT, Label { name: "endpoint", values: Values::Index }];
    HEAD = "head_block", "Number of the newest block that was read", [ACCOUNT];
    HEAD_AGE = "head_age_seconds", "Seconds since the newest block that was read, by its own time", [ACCOUNT];
    GAS = "account_gas_coins", "Coins that pay for gas", [ACCOUNT];
    TOKENS = "account_tokens", "Tokens in the wallet, and free in the Market's ledger", [ACCOUNT, one_of("place", PLACES)];
    COMMITTED = "account_committed_tokens", "Tokens in orders and bids that are not settled, and in goals that no block holds yet", [ACCOUNT];
    NONCE = "nonce_health", "1 for the state of the account's nonces", [ACCOUNT, one_of("health", NONCES)];
    OUTBOX = "outbox_goals", "Goals that are pursued", [ACCOUNT, one_of("goal", GOALS), one_of("state", OPEN)];
    OUTBOX_OLDEST = "outbox_oldest_seconds", "Age of the oldest goal in this state; 0 if there is none", [ACCOUNT, one_of("state", OPEN)];
    OUTBOX_WAITING = "outbox_waiting_goals", "Goals that wait on somebody, and those that a signer refused in the last hour", [ACCOUNT, one_of("reason", REASONS)];
    ORDER_COUNT = "orders", "Orders of the account that are not settled", [ACCOUNT, one_of("state", ORDERS)];
    FOREIGN = "foreign_orders", "Live orders of the account that were placed from elsewhere, and that no task has taken over", [ACCOUNT];
    ESCROW = "escrow_ends_seconds", "Seconds until the soonest escrow of a running lease ends; those funded for less than two hours in all, and those that are topped up, aside", [ACCOUNT];
    START_USED = "start_window_used_ratio", "Largest share of a start window that is gone, of leases that wait to be started", [ACCOUNT];
    REVIEW = "review_ends_seconds", "Seconds until the soonest review window of a delivered result ends", [ACCOUNT];
    REVIEW_USED = "review_window_used_ratio", "Largest share of a review window that is gone, of results that wait for a verdict", [ACCOUNT];
    TASKS = "tasks", "Tasks by kind and state", [one_of("kind", KINDS), one_of("state", STATES)];
    TASK_DELETING = "task_deleting_seconds", "Age of the oldest deletion of a task that is still there; 0 if there is none", [one_of("kind", KINDS)];
    BUDGET_USED = "budget_used_ratio", "Share of a ComputeBudget that its period has spent or committed", [Label { name: "budget", values: Values::Object }];
    LEASES = "leases", "ComputeLeases by phase", [one_of("phase", PHASES)];
    REBUILDS = "lease_rebuilds", "Times that work of the ComputeLeases that are kept was lost on this side and made again", [];
    ORPHANS = "orphans", "Live orders without a task, lease namespaces without a lease", [one_of("kind", LEFT_OVER)];
    TERMINATING = "lease_namespace_terminating_seconds", "Age of the oldest deletion of a lease namespace that is still there; 0 if there is none", [];
    STORE_USED = "store_used_bytes", "Bytes in use on the filesystem of the tenant's store", [];
    STORE_LIMIT = "store_limit_bytes", "Bytes of the filesystem of the tenant's store", [];
}

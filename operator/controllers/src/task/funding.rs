//! May a task place an order now, or add to one? A chain of small checks over
//! budgets, account and balances; the first that fails is the reason.

use freehold_api::account::{Caps, ComputeBudgetSpec};
use freehold_api::conditions::{Claim, types};
use freehold_chain::view::Balances;
use freehold_core::Address;
use freehold_core::money::Amount;
use freehold_core::units;

use super::ledger::{self, Entry};
use super::observed::Observed;
use super::reasons::funded;
use super::validate::Limits;

/// Enough for a handful of transactions where fees are low; where they are not, the outbox says so.
const LEAST_GAS_WEI: u128 = 10_000_000_000_000;

/// What the money is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    Order,
    /// More for a lease that is counted already.
    TopUp,
}

impl Asks {
    fn phrase(self) -> &'static str {
        match self {
            Self::Order => "The order would hold",
            Self::TopUp => "The lease needs another",
        }
    }
}

/// Everything a decision rests on.
#[derive(Clone, Debug)]
pub struct Question<'a> {
    pub account: &'a str,
    pub namespace: &'a str,
    pub limits: &'a Limits,
    pub asks: Asks,
    /// What the order would hold, or what is to be added to it.
    pub cap: Amount,
    /// ComputeBudgets of the namespace for the account: name and spec.
    pub budgets: &'a [(String, ComputeBudgetSpec)],
    pub caps: Option<&'a Caps>,
    /// All orders of the account.
    pub entries: &'a [Entry],
    pub balances: Balances,
    /// Where the account lives on the chain.
    pub address: Address,
    pub decimals: u8,
    /// Unix seconds.
    pub now: u64,
}

impl<'a> Question<'a> {
    /// What a task asks, as far as account, chain and limits are known.
    pub fn of(o: &'a Observed, asks: Asks, cap: Amount, entries: &'a [Entry]) -> Option<Self> {
        let (Ok(account), Some(view), Some(limits)) = (&o.account, &o.view, o.limits()) else { return None };
        Some(Self {
            account: &account.name,
            namespace: &o.task.namespace,
            limits,
            asks,
            cap,
            budgets: &o.budgets,
            caps: account.caps.as_ref(),
            entries,
            balances: view.balances,
            address: view.account,
            decimals: view.decimals,
            now: o.unix_now(),
        })
    }
}

/// `Ok` if the money may be spent; else what `Funded` says.
pub fn decide(question: &Question<'_>) -> Result<(), Claim> {
    if question.budgets.is_empty() {
        return Err(no(
            funded::NO_BUDGET,
            format!(
                "Namespace `{}` has no ComputeBudget for account `{}`. Ask the platform's admin for one, or name another account.",
                question.namespace, question.account
            ),
        ));
    }
    for (name, budget) in question.budgets {
        within_budget(question, name, budget)?;
    }
    within_caps(question)?;
    affordable(question)
}

fn no(reason: &'static str, message: impl Into<String>) -> Claim {
    Claim::no(types::FUNDED, reason, message)
}

fn within_budget(q: &Question<'_>, name: &str, budget: &ComputeBudgetSpec) -> Result<(), Claim> {
    let amount = |field: &str, text: &str| parse(q, &format!("ComputeBudget `{name}` {field}"), text);
    if let Some(most) = &budget.max_per_task
        && q.limits.budget > amount("maxPerTask", most.as_str())?
    {
        return Err(no(
            funded::BUDGET_EXCEEDED,
            format!(
                "market.budget {} is above {most}, the maxPerTask of ComputeBudget `{name}`. Lower market.budget.",
                show(q, q.limits.budget)
            ),
        ));
    }
    if let Some(most) = &budget.max_rate_per_hour
        && q.limits.max_hourly > amount("maxRatePerHour", most.as_str())?
    {
        return Err(no(
            funded::BUDGET_EXCEEDED,
            format!(
                "market.maxRatePerHour {} is above {most}, the maxRatePerHour of ComputeBudget `{name}`. Lower it.",
                show(q, q.limits.max_hourly)
            ),
        ));
    }
    let sums =
        ledger::totals(q.entries.iter().filter(|e| e.namespace == q.namespace), since(q.now, budget.period.as_str()));
    if let Some(most) = budget.max_concurrent
        && q.asks == Asks::Order
        && sums.live >= most
    {
        return Err(no(
            funded::BUDGET_EXCEEDED,
            format!(
                "{} orders of the namespace are open or leased, the maxConcurrent of ComputeBudget `{name}`. Waits for one to end.",
                sums.live
            ),
        ));
    }
    let limit = amount("limit", budget.limit.as_str())?;
    if sums.committed.saturating_add(sums.spent).saturating_add(q.cap) > limit {
        return Err(no(
            funded::BUDGET_EXCEEDED,
            format!(
                "{} {}; of ComputeBudget `{name}` (limit {}) {} are committed and {} spent. Waits for orders to end; raise the limit, or lower market.budget.",
                q.asks.phrase(),
                show(q, q.cap),
                show(q, limit),
                show(q, sums.committed),
                show(q, sums.spent)
            ),
        ));
    }
    Ok(())
}

/// The account's own limit, all namespaces together.
fn within_caps(q: &Question<'_>) -> Result<(), Claim> {
    let Some(caps) = q.caps else { return Ok(()) };
    let Some(tokens) = &caps.tokens else { return Ok(()) };
    let most = parse(q, &format!("ComputeAccount `{}` caps.tokens", q.account), tokens.as_str())?;
    let sums = ledger::totals(q.entries.iter(), since(q.now, caps.period.as_str()));
    if sums.committed.saturating_add(sums.spent).saturating_add(q.cap) > most {
        return Err(no(
            funded::BUDGET_EXCEEDED,
            format!(
                "{} {}; account `{}` may spend {} in {}, {} are committed and {} spent. Waits for orders to end; raise caps.tokens.",
                q.asks.phrase(),
                show(q, q.cap),
                q.account,
                show(q, most),
                caps.period,
                show(q, sums.committed),
                show(q, sums.spent)
            ),
        ));
    }
    Ok(())
}

fn affordable(q: &Question<'_>) -> Result<(), Claim> {
    let promised = ledger::totals(q.entries.iter(), 0).promised;
    let held = q.balances.wallet.saturating_add(q.balances.free);
    let needed = promised.saturating_add(q.cap);
    if held < needed {
        return Err(no(
            funded::INSUFFICIENT_BALANCE,
            format!(
                "Account `{}` holds {}, this and what comes before it need {}. Send at least {} more tokens to {}.",
                q.account,
                show(q, held),
                show(q, needed),
                show(q, needed.saturating_sub(held)),
                q.address
            ),
        ));
    }
    if q.balances.gas < LEAST_GAS_WEI {
        return Err(no(
            funded::GAS_LOW,
            format!(
                "Account `{}` holds {} wei of the chain's coin, too little for fees. Send some to {}.",
                q.account, q.balances.gas, q.address
            ),
        ));
    }
    Ok(())
}

fn parse(q: &Question<'_>, what: &str, text: &str) -> Result<Amount, Claim> {
    Amount::parse(text, q.decimals).map_err(|e| no(funded::BUDGET_EXCEEDED, format!("{what}: {e}.")))
}

fn show(q: &Question<'_>, amount: Amount) -> String {
    amount.format(q.decimals)
}

/// Start of the period that ends now.
pub fn since(now: u64, period: &str) -> u64 {
    now.saturating_sub(units::seconds(period).unwrap_or(u64::MAX))
}

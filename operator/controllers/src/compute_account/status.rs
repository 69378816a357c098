//! What an account's status says. Pure. Nonces are the outbox's to write.

use std::sync::Arc;

use freehold_api::account::ComputeAccountStatus;
use freehold_api::conditions::{self, Claim, types};
use freehold_api::{ChainTransaction, ComputeAccount};
use freehold_chain::outbox::NonceHealth;
use freehold_chain::rpc::Standing;
use freehold_chain::rpc::judge::Verdict;
use freehold_chain::view::ChainView;
use freehold_core::money::Amount;
use freehold_core::order::OrderState;
use freehold_core::{Address, B256};
use jiff::Timestamp;
use kube::{Resource, ResourceExt};
use serde_json::{Value, json};

use super::runtime::Problem;
use crate::accounts::Report;

/// Decimals of the chain's own coin.
const COIN_DECIMALS: u8 = 18;
/// The column shows coins to six decimals: fees far below that would only cause writes.
const SHOWN_DECIMALS: u8 = 6;

pub struct Observed<'a> {
    pub signer: Result<Address, Problem>,
    pub view: Option<&'a ChainView>,
    pub report: Report,
    pub open: Vec<Arc<ChainTransaction>>,
    /// Live orders that were placed from elsewhere; nothing before the first sweep.
    pub foreign: Option<Vec<(B256, OrderState)>>,
    pub now: Timestamp,
}

/// A merge patch of the status; nothing if only the head or an age would change.
pub fn patch(account: &ComputeAccount, observed: &Observed<'_>) -> Option<Value> {
    let known = account.status.clone().unwrap_or_default();
    let status = next(account, &known, observed);
    let unchanged = ComputeAccountStatus { head: known.head, ..status.clone() } == known;
    (!unchanged).then(|| {
        json!({ "status": {
            "observedGeneration": status.observed_generation,
            "conditions": status.conditions,
            "address": status.address,
            "decimals": status.decimals,
            "balance": status.balance,
            "gas": status.gas,
            "committed": status.committed,
            "oldestPending": status.oldest_pending,
            "head": status.head,
        } })
    })
}

fn next(account: &ComputeAccount, known: &ComputeAccountStatus, observed: &Observed<'_>) -> ComputeAccountStatus {
    let mut status = known.clone();
    status.observed_generation = account.meta().generation;
    if let Ok(address) = &observed.signer {
        status.address = Some(address.to_string().into());
    }
    // Figures of a chain that was read; before that the old ones stand.
    if let Some(view) = observed.view.filter(|view| view.latest.block.number > 0) {
        let whole = |amount: Amount| amount.format(view.decimals).into();
        status.decimals = Some(view.decimals);
        status.balance = Some(whole(view.balances.wallet.saturating_add(view.balances.free)));
        status.gas = Some(coins(view.balances.gas).into());
        // A goal that a newer block has reached must not count twice.
        if observed.report.block == view.latest.block.hash {
            status.committed = Some(whole(committed(view).saturating_add(observed.report.pending)));
        }
        status.head = Some(view.latest.block.number);
    }
    status.oldest_pending = oldest(&observed.open, observed.now).map(Into::into);
    for claim in claims(account, observed) {
        conditions::set(&mut status.conditions, claim, account.meta().generation, observed.now);
    }
    status
}

fn coins(wei: u128) -> String {
    let unit = 10u128.pow(u32::from(COIN_DECIMALS - SHOWN_DECIMALS));
    Amount(wei / unit).format(SHOWN_DECIMALS)
}

/// Tokens in the account's orders and bids that are not settled; an account has one role, so one of the two is nothing.
pub(crate) fn committed(view: &ChainView) -> Amount {
    let orders = view.latest.orders.values();
    let placed = orders.clone().filter(|order| order.slot.tenant == view.account && !order.slot.state.is_settled());
    let bids = orders.flat_map(|order| order.bids.iter()).filter(|bid| bid.provider == view.account);
    placed.map(|order| order.slot.funds).chain(bids.map(|bid| bid.bond)).sum()
}

/// Age of the oldest open goal, in steps that grow, so that time alone causes few writes.
fn oldest(open: &[Arc<ChainTransaction>], now: Timestamp) -> Option<&'static str> {
    const STEPS: [(i64, &str); 7] =
        [(60, "1m"), (300, "5m"), (900, "15m"), (3_600, "1h"), (21_600, "6h"), (86_400, "1d"), (604_800, "7d")];
    let born = open.iter().filter_map(|object| object.creation_timestamp()).map(|time| time.0).min()?;
    let age = now.as_second().saturating_sub(born.as_second());
    let step = STEPS.iter().rev().find(|(seconds, _)| age >= *seconds);
    Some(step.map_or("<1m", |(_, name)| name))
}

fn claims(account: &ComputeAccount, observed: &Observed<'_>) -> Vec<Claim> {
    let signer = match &observed.signer {
        Ok(address) if account.spec.signer_ref.secret.is_some() => {
            Claim::yes(types::SIGNER_REACHABLE, "KeyLoaded", format!("The key of {address} is loaded."))
        }
        Ok(address) => Claim::yes(
            types::SIGNER_REACHABLE,
            "Answers",
            format!("The signer answers and holds the key of {address}; this operator holds none."),
        ),
        Err(problem) => Claim::no(types::SIGNER_REACHABLE, problem.reason(), problem.to_string()),
    };
    let chain = match observed.view.map(|view| &view.health) {
        None => Claim::unknown(types::CHAIN_HEALTHY, "NotRead", "The chain is not read before the signer is known."),
        Some(health) => {
            let (reason, message) = health.explain();
            if health.allows_action() {
                let endpoints = observed.view.map(|view| endpoints(&view.endpoints)).unwrap_or_default();
                Claim::yes(types::CHAIN_HEALTHY, reason, format!("{message}{endpoints}"))
            } else {
                Claim::no(types::CHAIN_HEALTHY, reason, message)
            }
        }
    };
    let nonces = match &observed.report.nonces {
        NonceHealth::Healthy => {
            Claim::yes(types::NONCE_HEALTHY, "Contiguous", "Every nonce of the account is this operator's.")
        }
        NonceHealth::Foreign { nonce } => Claim::no(
            types::NONCE_HEALTHY,
            "ForeignNonce",
            format!(
                "Nonce {nonce} was used by a transaction that this operator did not send. Keep the key to this operator alone."
            ),
        ),
        NonceHealth::Stuck { nonce, goal } => Claim::no(
            types::NONCE_HEALTHY,
            "Stuck",
            format!(
                "Nonce {nonce} ({goal}) finds no block although its fee was raised. Look at the chain's fees and the account's coin balance."
            ),
        ),
        NonceHealth::Refused { nonce, reason } => Claim::no(
            types::NONCE_HEALTHY,
            "SignerRefused",
            format!(
                "Nonce {nonce} cannot be filled, and what comes after it waits: {reason}. Correct the signer's policy."
            ),
        ),
    };
    let first = [&signer, &chain, &nonces].into_iter().find(|claim| claim.status != conditions::Status::True);
    let ready = match first {
        None => Claim::yes(types::READY, "Ready", "The account can act."),
        Some(claim) => Claim::no(types::READY, claim.reason, claim.message.clone()),
    };
    let orders = observed.foreign.as_ref().map(|foreign| orders_known(&account.name_any(), foreign));
    [signer, chain, nonces, ready].into_iter().chain(orders).collect()
}

/// A second cluster with the same key, or a restored one, has placed orders that this operator leaves alone.
fn orders_known(account: &str, foreign: &[(B256, OrderState)]) -> Claim {
    let Some((id, state)) = foreign.first() else {
        return Claim::yes(types::ORDERS_KNOWN, "Own", "Every live order of the account was placed from this cluster.");
    };
    Claim::no(
        types::ORDERS_KNOWN,
        "ForeignOrders",
        format!(
            "{} live order(s) of the account were placed from elsewhere and are left alone; the first is {id:#x} ({}). Let a task take it over: kubectl freehold adopt {id:#x} --task KIND/NAME -n NAMESPACE. Or end it: kubectl freehold adopt {id:#x} --end --account {account}.",
            foreign.len(),
            state.name()
        ),
    )
}

/// Which endpoint is used, and why another is not.
fn endpoints(standings: &[Standing]) -> String {
    let used = standings.iter().filter(|one| one.used).map(|one| format!(" {} is used.", one.host));
    let others = standings.iter().filter(|one| one.verdict != Verdict::Good);
    used.chain(others.map(|one| format!(" {} {}.", one.host, one.verdict))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use freehold_chain::view::{Balances, Block, Health, Snapshot};

    fn account() -> ComputeAccount {
        let spec = json!({
            "role": "Tenant",
            "chain": { "chainId": 1, "rpcUrls": ["http://localhost"], "blockTime": "2s" },
            "market": "0x0000000000000000000000000000000000000001",
            "providerRegistry": "0x0000000000000000000000000000000000000002",
            "token": "0x0000000000000000000000000000000000000003",
            "signerRef": { "secret": { "name": "key", "key": "key" } },
            "operator": "ns.release",
        });
        ComputeAccount::new("a", serde_json::from_value(spec).expect("spec"))
    }

    fn view(head: u64, health: Health) -> ChainView {
        let block = Block { number: head, ..Block::default() };
        let balances = Balances { wallet: Amount(1_500_000), gas: 2_000_000_000_000_000_000, ..Balances::default() };
        ChainView {
            health,
            decimals: 6,
            balances,
            latest: Snapshot { block, ..Snapshot::default() },
            ..ChainView::default()
        }
    }

    fn observed(view: &ChainView) -> Observed<'_> {
        Observed {
            signer: Ok(Address::repeat_byte(1)),
            view: Some(view),
            report: Report::default(),
            open: vec![],
            foreign: None,
            now: Timestamp::UNIX_EPOCH,
        }
    }

    fn ready(status: &ComputeAccountStatus) -> (String, String) {
        let condition = conditions::find(&status.conditions, types::READY).expect("Ready");
        (condition.status.clone(), condition.reason.clone())
    }

    #[test]
    fn a_new_block_alone_writes_nothing() {
        let (first, second) = (view(7, Health::Fresh), view(8, Health::Fresh));
        let mut account = account();
        account.status = Some(next(&account, &ComputeAccountStatus::default(), &observed(&first)));
        let status = account.status.as_ref().expect("status");
        assert_eq!(status.balance, Some("1.5".into()));
        assert_eq!(status.gas, Some("2".into()));
        assert_eq!(ready(status), ("True".into(), "Ready".into()));
        assert_eq!(patch(&account, &observed(&second)), None);
    }

    #[test]
    fn a_blind_account_is_not_ready_and_keeps_its_figures() {
        let (first, blind) =
            (view(7, Health::Fresh), ChainView { health: Health::Stale { head: 7 }, ..view(7, Health::Fresh) });
        let mut account = account();
        account.status = Some(next(&account, &ComputeAccountStatus::default(), &observed(&first)));
        let status = next(&account, account.status.as_ref().expect("status"), &observed(&blind));
        assert_eq!(ready(&status), ("False".into(), "Stale".into()));
        assert_eq!(status.balance, Some("1.5".into()));
    }

    #[test]
    fn the_condition_says_which_endpoint_is_used_and_why_another_is_not() {
        let one = |host: &str, verdict, used| Standing { host: host.into(), verdict, used };
        let endpoints = vec![
            one("http://a", Verdict::Lagging, false),
            one("http://b", Verdict::Good, true),
            one("http://c", Verdict::Good, false),
        ];
        let view = ChainView { endpoints, ..view(7, Health::Fresh) };
        let status = next(&account(), &ComputeAccountStatus::default(), &observed(&view));
        let condition = conditions::find(&status.conditions, types::CHAIN_HEALTHY).expect("ChainHealthy");
        assert!(condition.message.ends_with("http://b is used. http://a is behind the others."), "{condition:?}");
    }

    #[test]
    fn orders_from_elsewhere_are_told_with_both_ways_out_and_do_not_keep_the_account_from_acting() {
        let view = view(7, Health::Fresh);
        let seen = |foreign| next(&account(), &Default::default(), &Observed { foreign, ..observed(&view) });
        let known = |status: &ComputeAccountStatus| conditions::find(&status.conditions, types::ORDERS_KNOWN).cloned();
        assert_eq!(known(&seen(None)), None, "not looked yet");
        assert_eq!(known(&seen(Some(vec![]))).expect("a condition").status, "True");
        let told = seen(Some(vec![(B256::repeat_byte(7), OrderState::Running)]));
        let condition = known(&told).expect("a condition");
        assert_eq!((condition.status.as_str(), condition.reason.as_str()), ("False", "ForeignOrders"));
        let id = format!("{:#x}", B256::repeat_byte(7));
        assert!(condition.message.contains(&format!("adopt {id} --end --account a")), "{}", condition.message);
        assert!(condition.message.contains(&format!("adopt {id} --task")));
        assert_eq!(ready(&told), ("True".into(), "Ready".into()));
    }

    #[test]
    fn a_missing_key_says_where_to_put_it() {
        let problem = Problem::NoSecret { namespace: "ns".into(), name: "key".into(), key: "k".into() };
        let blind = Observed { signer: Err(problem), view: None, ..observed(&ChainView::default()) };
        let status = next(&account(), &ComputeAccountStatus::default(), &blind);
        assert_eq!(ready(&status), ("False".into(), "SecretMissing".into()));
    }
}

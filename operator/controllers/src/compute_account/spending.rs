//! Which approvals and withdrawals an account needs now. Pure.

use std::sync::Arc;

use freehold_api::account::Role;
use freehold_api::scalars::TokenAmount;
use freehold_api::{ChainTransaction, ComputeAccount, Goal};
use freehold_chain::view::ChainView;
use freehold_core::money::Amount;
use freehold_core::order::{Order, OrderState};
use freehold_core::units::seconds;

/// Decimals that a token amount of the API may have.
const API_DECIMALS: u32 = 9;
/// So many times the sum that is needed is approved at once, so that not each order costs an approval.
const HEADROOM: u128 = 16;

/// Seconds of earnings that may wait in an escrow where the account does not say.
const SETTLE_EVERY: u64 = 86_400;

/// Goals to ask for. `open` are the goals that are still pursued, `affordable`
/// the tokens that those of them will take that can be paid.
pub fn plan(
    account: &ComputeAccount,
    view: &ChainView,
    open: &[Arc<ChainTransaction>],
    affordable: Amount,
) -> Vec<Goal> {
    let block = view.latest.block.number;
    let asked = |wanted: fn(&Goal) -> bool| open.iter().any(|object| wanted(&object.spec.goal));
    let cap = cap(account, view);
    let approval = needed(view, affordable.min(cap))
        .filter(|_| !asked(|goal| matches!(goal, Goal::Approve { .. })))
        .map(|amount| Goal::Approve { amount: rounded_up(with_headroom(amount).min(cap), view.decimals), block });
    let spends = asked(|goal| {
        matches!(goal, Goal::PlaceOrder { .. } | Goal::Bid { .. } | Goal::TopUp { .. } | Goal::Withdraw { .. })
    });
    let withdrawal = (!spends).then(|| withdrawal(account, view, block)).flatten();
    approval.into_iter().chain(withdrawal).collect()
}

/// What is free goes to the wallet, and what lay in escrows for long enough goes with it.
fn withdrawal(account: &ComputeAccount, view: &ChainView, block: u64) -> Option<Goal> {
    let idle = view.balances.free > Amount::ZERO && !bids(account, view);
    let due = settlements(account, view, idle);
    if !idle && due.is_empty() {
        return None;
    }
    let earned: Amount = due.iter().map(|order| order.unpaid(view.latest.block.timestamp)).sum();
    let amount = rounded_down(view.balances.free.saturating_add(earned), view.decimals)?;
    let orders = due.iter().map(|order| order.id.to_string().into()).collect();
    Some(Goal::Withdraw { amount, block, orders })
}

/// Leases of a provider to settle now, those that owe most first. One is due once the earnings of a whole period were
/// not paid; where a transaction is made anyway, half of a period is worth a place in it.
fn settlements<'a>(account: &ComputeAccount, view: &'a ChainView, anyway: bool) -> Vec<&'a Order> {
    let period = account.spec.settle_every.as_ref().and_then(|text| seconds(text.as_str())).unwrap_or(SETTLE_EVERY);
    let now = view.latest.block.timestamp;
    let owes = |order: &Order, seconds: u64| {
        let earned = order.rate().accrued(seconds.max(1), Amount(u128::MAX)).released(order.terms.holdbackBps);
        order.slot.provider == view.account && order.unpaid(now) >= earned.max(Amount(1))
    };
    let orders = || view.latest.orders.values().map(AsRef::as_ref);
    let mut due: Vec<&Order> = match anyway || orders().any(|order| owes(order, period)) {
        true => orders().filter(|order| owes(order, period / 2)).collect(),
        false => vec![],
    };
    due.sort_by_key(|order| (std::cmp::Reverse(order.unpaid(now)), order.id));
    due.truncate(Goal::MOST_ORDERS);
    due
}

/// What has to come from the wallet, if the Market may not draw so much.
fn needed(view: &ChainView, affordable: Amount) -> Option<Amount> {
    let needed = affordable.saturating_sub(view.balances.free);
    (needed > view.balances.allowance).then_some(needed)
}

fn with_headroom(needed: Amount) -> Amount {
    Amount(needed.0.saturating_mul(HEADROOM))
}

/// What a period may take at most; more is not approved, however much is asked for.
fn cap(account: &ComputeAccount, view: &ChainView) -> Amount {
    let cap = account.spec.caps.as_ref().and_then(|caps| caps.tokens.as_ref());
    cap.map_or(Amount(u128::MAX), |tokens| Amount::limit(tokens.as_str(), view.decimals))
}

/// A provider's standing bids lock and free the same bonds over and over: they stay in the ledger.
fn bids(account: &ComputeAccount, view: &ChainView) -> bool {
    account.spec.role == Role::Provider
        && view.latest.orders.values().any(|order| {
            order.slot.state == OrderState::Open && order.bids.iter().any(|bid| bid.provider == view.account)
        })
}

/// Smallest units that the API's nine decimals cannot tell apart.
fn unit(decimals: u8) -> u128 {
    10u128.checked_pow(u32::from(decimals).saturating_sub(API_DECIMALS)).unwrap_or(u128::MAX)
}

fn rounded_up(amount: Amount, decimals: u8) -> TokenAmount {
    let unit = unit(decimals);
    Amount(amount.0.div_ceil(unit).saturating_mul(unit)).format(decimals).into()
}

fn rounded_down(amount: Amount, decimals: u8) -> Option<TokenAmount> {
    let unit = unit(decimals);
    let whole = amount.0 / unit * unit;
    (whole > 0).then(|| Amount(whole).format(decimals).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use freehold_api::account::{Caps, Chain, ComputeAccountSpec, SecretKey, SignerRef};
    use freehold_api::transaction::ChainTransactionSpec;
    use freehold_chain::view::Balances;
    use freehold_core::money::Rate;
    use freehold_core::order::OrderSlot;
    use freehold_core::{Address, B256};

    fn account(role: Role, tokens: Option<&str>) -> ComputeAccount {
        let chain = Chain {
            quorum: None,
            chain_id: 1,
            rpc_urls: vec!["http://localhost".into()],
            block_time: "2s".into(),
            windows: Default::default(),
        };
        let signer_ref =
            SignerRef { secret: Some(SecretKey { name: "key".into(), key: "key".into() }), ..SignerRef::default() };
        let zero = "0x0000000000000000000000000000000000000000";
        let spec = ComputeAccountSpec {
            role,
            chain,
            market: zero.into(),
            provider_registry: zero.into(),
            token: zero.into(),
            address: None,
            signer_ref,
            confirmations: Default::default(),
            caps: tokens.map(|tokens| Caps { period: "24h".into(), tokens: Some(tokens.into()), fees: None }),
            settle_every: None,
            operator: "ns.release".into(),
        };
        ComputeAccount::new("a", spec)
    }

    fn view(free: u128, wallet: u128, allowance: u128) -> ChainView {
        let balances = Balances { wallet: Amount(wallet), free: Amount(free), allowance: Amount(allowance), gas: 0 };
        ChainView { decimals: 6, balances, ..ChainView::default() }
    }

    fn open(goal: Goal) -> Vec<Arc<ChainTransaction>> {
        vec![Arc::new(ChainTransaction::new("g", ChainTransactionSpec { account: "a".into(), goal }))]
    }

    fn order() -> Vec<Arc<ChainTransaction>> {
        open(Goal::PlaceOrder { order_id: "0x00".into(), order: "order-1".into() })
    }

    fn withdraw(amount: &str, orders: &[u8]) -> Goal {
        let orders = orders.iter().map(|id| B256::repeat_byte(*id).to_string().into()).collect();
        Goal::Withdraw { amount: amount.into(), block: 0, orders }
    }

    const HOUR: u64 = 3_600;
    const NOW: u64 = 1_000 * HOUR;

    /// A lease at one token an hour, a fifth held back, that was started and last settled so many hours ago.
    fn lease(id: u8, hours: u64, settled: u64) -> (B256, Arc<Order>) {
        let terms = freehold_testkit::chain::terms(Address::ZERO, 900_000_000, NOW, b"{}");
        let (id, rate) = (B256::repeat_byte(id), Rate::per_hour(Amount(1_000_000)));
        let paid = rate.accrued((hours - settled) * HOUR, Amount(u128::MAX)).released(2_000);
        let slot = OrderSlot {
            state: OrderState::Running,
            provider: Address::ZERO,
            price: rate.0,
            started_at: NOW - hours * HOUR,
            end_at: NOW + 100 * HOUR,
            funds: Amount(900_000_000).saturating_sub(paid),
            paid,
            ..OrderSlot::default()
        };
        (id, Arc::new(Order { id, salt: id, terms, spec: vec![], slot, bids: vec![], result_hash: None, split: None }))
    }

    fn leases(free: u128, leases: impl IntoIterator<Item = (B256, Arc<Order>)>) -> ChainView {
        let mut view = view(free, 0, 0);
        view.latest.block.timestamp = NOW;
        view.latest.orders = leases.into_iter().collect();
        view
    }

    #[test]
    fn what_a_lease_has_earned_in_a_period_is_settled_and_withdrawn_in_one_goal() {
        let plan_of = |view: &ChainView| plan(&account(Role::Provider, None), view, &[], Amount::ZERO);
        assert_eq!(plan_of(&leases(0, [lease(1, 30, 23), lease(2, 30, 20)])), vec![], "nothing is a day old");
        // One is due; those with half a day come along, the one that owes most first.
        let due = leases(0, [lease(1, 30, 13), lease(2, 30, 25), lease(3, 30, 11)]);
        assert_eq!(plan_of(&due), vec![withdraw("30.4", &[2, 1])]);
        let idle = leases(500_000, [lease(1, 30, 13), lease(3, 30, 11)]);
        assert_eq!(plan_of(&idle), vec![withdraw("10.9", &[1])], "a withdrawal is made anyway");
        let mut stranger = leases(0, [lease(1, 30, 25)]);
        stranger.account = Address::repeat_byte(9);
        assert_eq!(plan_of(&stranger), vec![], "another provider's");
    }

    #[test]
    fn a_batch_is_bounded_and_waits_for_the_one_before() {
        let view = leases(0, (1..=40).map(|id| lease(id, 100, 24 + u64::from(id))));
        let goals = plan(&account(Role::Provider, None), &view, &[], Amount::ZERO);
        let [Goal::Withdraw { orders, .. }] = goals.as_slice() else { panic!("{goals:?}") };
        assert_eq!(orders.len(), Goal::MOST_ORDERS);
        assert_eq!(orders[0].as_str(), B256::repeat_byte(40).to_string(), "the one that owes most");
        let open = open(goals[0].clone());
        assert_eq!(plan(&account(Role::Provider, None), &view, &open, Amount::ZERO), vec![]);
    }

    #[test]
    fn the_account_says_how_long_earnings_wait() {
        let mut account = account(Role::Provider, None);
        account.spec.settle_every = Some("1h".into());
        let due = |view: &ChainView| plan(&account, view, &[], Amount::ZERO).len();
        assert_eq!(due(&leases(0, [lease(1, 5, 0)])), 0);
        assert_eq!(due(&leases(0, [lease(1, 5, 1)])), 1);
    }

    #[test]
    fn the_allowance_is_raised_once_and_with_room() {
        let plan_of =
            |tokens, open: &[_], view: &ChainView| plan(&account(Role::Tenant, tokens), view, open, Amount(2_000_000));
        let expected = |amount: &str| vec![Goal::Approve { amount: amount.into(), block: 0 }];
        assert_eq!(plan_of(None, &order(), &view(0, 9_000_000, 0)), expected("32"));
        assert_eq!(plan_of(Some("5"), &order(), &view(500_000, 9_000_000, 0)), expected("5"));
        assert_eq!(plan_of(Some("1"), &order(), &view(0, 9_000_000, 0)), expected("1"));
        assert_eq!(plan_of(Some("1"), &order(), &view(0, 9_000_000, 1_000_000)), vec![]);
        assert_eq!(plan_of(None, &order(), &view(0, 9_000_000, 2_000_000)), vec![]);
        let asked = open(Goal::Approve { amount: "1".into(), block: 0 });
        assert_eq!(plan_of(None, &asked, &view(0, 9_000_000, 0)), vec![]);
    }

    #[test]
    fn what_is_free_goes_to_the_wallet_unless_it_is_about_to_be_used() {
        let plan_of = |open: &[_]| plan(&account(Role::Tenant, None), &view(1_500_000, 0, 0), open, Amount::ZERO);
        assert_eq!(plan_of(&[]), vec![withdraw("1.5", &[])]);
        assert_eq!(plan_of(&order()), vec![]);
        assert_eq!(plan_of(&open(withdraw("1", &[]))), vec![]);
    }

    #[test]
    fn amounts_keep_to_nine_decimals() {
        assert_eq!(rounded_up(Amount(1), 18), "0.000000001".into());
        assert_eq!(rounded_down(Amount(1), 18), None);
        assert_eq!(rounded_up(Amount(1), 6), "0.000001".into());
    }
}

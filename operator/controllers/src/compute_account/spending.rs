//! Which approvals and withdrawals an account needs now. Pure.

use std::sync::Arc;

use freehold_api::account::Role;
use freehold_api::scalars::TokenAmount;
use freehold_api::{ChainTransaction, ComputeAccount, Goal};
use freehold_chain::view::ChainView;
use freehold_core::money::Amount;
use freehold_core::order::OrderState;

/// Decimals that a token amount of the API may have.
const API_DECIMALS: u32 = 9;
/// So many times the sum that is needed is approved at once, so that not each order costs an approval.
const HEADROOM: u128 = 16;

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
    let withdrawal = (!spends && !bids(account, view))
        .then(|| rounded_down(view.balances.free, view.decimals))
        .flatten()
        .map(|amount| Goal::Withdraw { amount, block });
    approval.into_iter().chain(withdrawal).collect()
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
        assert_eq!(plan_of(&[]), vec![Goal::Withdraw { amount: "1.5".into(), block: 0 }]);
        assert_eq!(plan_of(&order()), vec![]);
        assert_eq!(plan_of(&open(Goal::Withdraw { amount: "1".into(), block: 0 })), vec![]);
    }

    #[test]
    fn amounts_keep_to_nine_decimals() {
        assert_eq!(rounded_up(Amount(1), 18), "0.000000001".into());
        assert_eq!(rounded_down(Amount(1), 18), None);
        assert_eq!(rounded_up(Amount(1), 6), "0.000001".into());
    }
}

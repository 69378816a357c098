//! Every rule: what keeps it is signed, what breaks it is refused by its name.

use alloy::primitives::{Bytes, TxKind, U256};
use alloy::sol_types::SolCall;
use freehold_api::scalars::Bytes32;
use freehold_chain::bindings::{Erc20, Market, ProviderRegistry, terms_to_contract};
use freehold_core::access::Claims;
use freehold_core::order::{Terms, order_id, salt};
use proptest::prelude::*;

use freehold_testkit::chain;

use super::*;

const NOW: u64 = 1_800_000_000;
const CHAIN: u64 = 31_337;
const UNIT: u128 = 1_000_000;
const GWEI: u128 = 1_000_000_000;

fn market() -> Address {
    Address::repeat_byte(0x4d)
}

fn registry() -> Address {
    Address::repeat_byte(0x52)
}

fn erc20() -> Address {
    Address::repeat_byte(0x54)
}

fn account() -> Address {
    Address::repeat_byte(0xaa)
}

fn stranger() -> Address {
    Address::repeat_byte(0xee)
}

fn policy() -> Policy {
    Policy {
        chain_id: CHAIN,
        market: market(),
        registry: registry(),
        token: erc20(),
        decimals: 6,
        goals: Goal::NAMES.iter().map(ToString::to_string).collect(),
        gateways: vec!["*".into()],
        period: 86_400,
        tokens: Amount(10 * UNIT),
        fees: Amount(10u128.pow(18)),
        allowance: Amount(100 * UNIT),
        rate: 1_000,
    }
}

fn terms() -> Terms {
    Terms { auditReserve: UNIT, bond: 2 * UNIT, noShowPenalty: 1, ..chain::terms(erc20(), 3 * UNIT, NOW + 300, b"{}") }
}

fn order(n: u32) -> B256 {
    order_id(CHAIN, market(), account(), salt("uid", n))
}

fn id(n: u32) -> Bytes32 {
    order(n).to_string().into()
}

fn result() -> B256 {
    B256::repeat_byte(5)
}

fn asked(goal: Goal, to: Address, input: Vec<u8>) -> SignTransaction {
    let transaction = TxEip1559 {
        chain_id: CHAIN,
        nonce: 7,
        gas_limit: 200_000,
        max_fee_per_gas: 10 * GWEI,
        max_priority_fee_per_gas: GWEI,
        to: TxKind::Call(to),
        value: U256::ZERO,
        input: Bytes::from(input),
        ..TxEip1559::default()
    };
    SignTransaction { goal, transaction }
}

fn place(n: u32, terms: &Terms) -> SignTransaction {
    let call =
        Market::orderCall { salt: salt("uid", n), terms: terms_to_contract(terms), spec: b"{}".as_slice().into() };
    asked(Goal::PlaceOrder { order_id: id(n), order: "order".into() }, market(), call.abi_encode())
}

fn bid(n: u32, terms: &Terms) -> SignTransaction {
    let call = Market::bidCall { id: order(n), terms: terms_to_contract(terms), price: 9, validUntil: 5 };
    asked(Goal::Bid { order_id: id(n), price: "9".into(), valid_until: 5 }, market(), call.abi_encode())
}

fn top_up(n: u32, amount: u128) -> SignTransaction {
    let call = Market::topUpCall { id: order(n), terms: terms_to_contract(&terms()), amount };
    let goal = Goal::TopUp { order_id: id(n), amount: Amount(amount).format(6).into(), escrow: "0".into() };
    asked(goal, market(), call.abi_encode())
}

fn withdraw(to: Address, token: Address) -> SignTransaction {
    let call = Market::withdrawCall { token, amount: u128::MAX, to };
    asked(Goal::Withdraw { amount: "1".into(), block: 1, orders: vec![] }, market(), call.abi_encode())
}

fn approve(spender: Address, whole: u64) -> SignTransaction {
    let call = Erc20::approveCall { spender, amount: U256::from(u128::from(whole) * UNIT) };
    asked(Goal::Approve { amount: whole.to_string().into(), block: 1 }, erc20(), call.abi_encode())
}

fn register(gateway: &str) -> SignTransaction {
    let call = ProviderRegistry::registerCall { gateway: gateway.into(), attributes: b"{}".as_slice().into() };
    let goal = Goal::Register { gateway: "https://gpu.example".into(), attributes: "{}".into() };
    asked(goal, registry(), call.abi_encode())
}

fn void(nonce: u64) -> SignTransaction {
    asked(Goal::Void { nonce }, account(), vec![])
}

fn reclaim(provider: Address) -> SignTransaction {
    let call =
        Market::reclaimCall { id: order(0), terms: terms_to_contract(&terms()), provider, resultHash: B256::ZERO };
    asked(Goal::Reclaim { order_id: id(0) }, market(), call.abi_encode())
}

fn accept(provider: Address) -> SignTransaction {
    let call =
        Market::acceptCall { id: order(0), terms: terms_to_contract(&terms()), provider, price: 9, validUntil: 5 };
    let provider = account().to_string().into();
    let goal = Goal::AcceptBid { order_id: id(0), provider, price: "9".into(), valid_until: 5 };
    asked(goal, market(), call.abi_encode())
}

/// One honest request of every goal.
fn honest() -> Vec<SignTransaction> {
    let terms = || terms_to_contract(&terms());
    let (id, order) = (|| id(0), order(0));
    let at_market = |goal, input: Vec<u8>| asked(goal, market(), input);
    let result_hash = || Bytes32::from(result().to_string());
    vec![
        approve(market(), 100),
        place(0, &self::terms()),
        accept(account()),
        at_market(Goal::CancelOrder { order_id: id() }, Market::cancelCall { id: order, terms: terms() }.abi_encode()),
        at_market(Goal::CloseOrder { order_id: id() }, Market::closeCall { id: order, terms: terms() }.abi_encode()),
        at_market(
            Goal::AcceptResult { order_id: id(), result_hash: result_hash() },
            Market::acceptResultCall { id: order, terms: terms(), resultHash: result() }.abi_encode(),
        ),
        at_market(
            Goal::RejectResult { order_id: id(), result_hash: result_hash() },
            Market::rejectResultCall { id: order, terms: terms(), resultHash: result() }.abi_encode(),
        ),
        at_market(Goal::NoShow { order_id: id() }, Market::noShowCall { id: order, terms: terms() }.abi_encode()),
        top_up(0, UNIT),
        bid(0, &self::terms()),
        at_market(Goal::Unbid { order_id: id() }, Market::unbidCall { id: order, terms: terms() }.abi_encode()),
        reclaim(account()),
        at_market(Goal::Start { order_id: id() }, Market::startCall { id: order, terms: terms() }.abi_encode()),
        at_market(Goal::Decline { order_id: id() }, Market::declineCall { id: order, terms: terms() }.abi_encode()),
        at_market(
            Goal::Deliver { order_id: id(), result_hash: result_hash() },
            Market::deliverCall { id: order, terms: terms(), resultHash: result() }.abi_encode(),
        ),
        at_market(
            Goal::Settle { order_id: id() },
            Market::settleCall { id: order, terms: terms(), resultHash: result() }.abi_encode(),
        ),
        withdraw(account(), erc20()),
        register("https://gpu.example"),
        void(7),
    ]
}

fn judged(asked: &SignTransaction) -> Result<Decision, Refusal> {
    judge(&policy(), account(), &State::default(), Request::Transaction(asked), NOW)
}

fn refused_by(asked: &SignTransaction) -> String {
    judged(asked).expect_err("refused").rule
}

fn with(asked: SignTransaction, change: impl FnOnce(&mut TxEip1559)) -> SignTransaction {
    let mut asked = asked;
    change(&mut asked.transaction);
    asked
}

#[test]
fn every_goal_can_be_signed_and_counts_what_it_takes() {
    let honest = honest();
    let names: Vec<&str> = honest.iter().map(|asked| asked.goal.name()).collect();
    assert_eq!(names, Goal::NAMES, "none is forgotten");
    for asked in &honest {
        let decision = judged(asked).unwrap_or_else(|refusal| panic!("{}: {refusal}", asked.goal.name()));
        let spend = decision.spend.map_or(0, |spend| spend.amount);
        let expected = match asked.goal.name() {
            "placeOrder" => 4 * UNIT,
            "bid" => 2 * UNIT,
            "topUp" => UNIT,
            _ => 0,
        };
        assert_eq!(spend, expected, "{}", asked.goal.name());
        assert_eq!(decision.fee.map(|fee| fee.amount), Some(200_000 * 10 * GWEI));
        assert_eq!(decision.hash, asked.transaction.signature_hash());
    }
}

#[test]
fn another_chain_value_contract_or_selector_is_refused_for_every_goal() {
    for asked in honest() {
        let name = asked.goal.name();
        assert_eq!(refused_by(&with(asked.clone(), |tx| tx.chain_id = 1)), rule::CHAIN, "{name}");
        assert_eq!(refused_by(&with(asked.clone(), |tx| tx.value = U256::from(1))), rule::VALUE, "{name}");
        assert_eq!(refused_by(&with(asked.clone(), |tx| tx.to = TxKind::Call(stranger()))), rule::CONTRACT, "{name}");
        assert_eq!(refused_by(&with(asked.clone(), |tx| tx.to = TxKind::Create)), rule::CONTRACT, "{name}");
        let other = with(asked.clone(), |tx| tx.input = Bytes::from_static(&[1, 2, 3, 4, 5]));
        assert_eq!(refused_by(&other), rule::CALLDATA, "{name}");
        // Something behind the arguments.
        let longer = with(asked.clone(), |tx| tx.input = [&tx.input[..], &[0; 32]].concat().into());
        assert_eq!(refused_by(&longer), rule::CALLDATA, "{name}");
        let mut policy = policy();
        policy.goals.remove(name);
        let refusal =
            judge(&policy, account(), &State::default(), Request::Transaction(&asked), NOW).expect_err("refused");
        assert_eq!((refusal.rule.as_str(), refusal.value.as_str()), (rule::GOAL, name));
    }
}

#[test]
fn one_goal_does_not_carry_anothers_call() {
    let honest = honest();
    for asked in &honest {
        for other in honest.iter().filter(|other| other.goal != asked.goal) {
            let swapped = SignTransaction { goal: asked.goal.clone(), transaction: other.transaction.clone() };
            assert!(judged(&swapped).is_err(), "{} carries {}", asked.goal.name(), other.goal.name());
        }
    }
    // A batch hides calls: no goal but a withdrawal that names leases is one.
    let calls = [withdraw(stranger(), erc20()), withdraw(account(), erc20())].map(|asked| asked.transaction.input);
    for asked in honest {
        for call in &calls {
            let batch = Market::multicallCall { calls: vec![call.clone()] };
            let batched = with(asked.clone(), |tx| tx.input = batch.abi_encode().into());
            assert_eq!(refused_by(&batched), refused_by_contract_or_call(&asked), "{}", asked.goal.name());
        }
    }
}

/// Goals of other contracts are refused for the contract that the transaction goes to, those of the Market for the call.
fn refused_by_contract_or_call(asked: &SignTransaction) -> String {
    refused_by(&with(asked.clone(), |tx| tx.input = Bytes::from_static(&[1, 2, 3, 4, 5])))
}

fn settle(n: u32, terms: &Terms) -> Bytes {
    Market::settleCall { id: order(n), terms: terms_to_contract(terms), resultHash: result() }.abi_encode().into()
}

/// A withdrawal that names orders 0 to 2 and carries these calls.
fn batch(calls: Vec<Bytes>) -> SignTransaction {
    let goal = Goal::Withdraw { amount: "1".into(), block: 1, orders: (0..3).map(id).collect() };
    asked(goal, market(), Market::multicallCall { calls }.abi_encode())
}

fn withdrawal(to: Address, token: Address) -> Bytes {
    withdraw(to, token).transaction.input
}

#[test]
fn a_batch_settles_the_goals_leases_and_withdraws_to_the_account() {
    let all = || withdrawal(account(), erc20());
    let of = |n| settle(n, &terms());
    assert_eq!(judged(&batch(vec![of(0), of(1), of(2), all()])).map(|decision| decision.spend), Ok(None));
    assert!(judged(&batch(vec![of(2), all()])).is_ok(), "some were over already");
    let alone = with(batch(vec![]), |tx| tx.input = all());
    assert!(judged(&alone).is_ok(), "all were");
    // The goal names no lease: no batch at all.
    let unnamed = SignTransaction { goal: withdraw(account(), erc20()).goal, ..batch(vec![of(0), all()]) };
    assert_eq!(refused_by(&unnamed), rule::CALLDATA);
}

#[test]
fn each_call_of_a_batch_is_judged() {
    let all = || withdrawal(account(), erc20());
    let of = |n| settle(n, &terms());
    let rule_of = |calls: Vec<Bytes>| refused_by(&batch(calls));
    assert_eq!(rule_of(vec![of(0), of(3), all()]), rule::ORDER, "not the goal's");
    assert_eq!(rule_of(vec![of(0), of(0), all()]), rule::ORDER, "twice");
    assert_eq!(rule_of(vec![settle(0, &Terms { token: stranger(), ..terms() }), all()]), rule::TOKEN);
    assert_eq!(rule_of(vec![of(0), withdrawal(account(), stranger())]), rule::TOKEN);
    assert_eq!(rule_of(vec![of(0), withdrawal(stranger(), erc20())]), rule::RECIPIENT);
    assert_eq!(rule_of(vec![withdrawal(stranger(), erc20()), all()]), rule::CALLDATA, "two withdrawals");
    assert_eq!(rule_of(vec![all(), of(0)]), rule::CALLDATA, "not the last");
    assert_eq!(rule_of(vec![of(0)]), rule::CALLDATA, "none");
    assert_eq!(rule_of(vec![]), rule::CALLDATA, "nothing");
    let nested = |calls: Vec<Bytes>| Bytes::from(Market::multicallCall { calls }.abi_encode());
    assert_eq!(rule_of(vec![nested(vec![of(0)]), all()]), rule::CALLDATA);
    assert_eq!(rule_of(vec![of(0), nested(vec![all()])]), rule::CALLDATA);
    for other in honest().into_iter().filter(|asked| !["settle", "withdraw"].contains(&asked.goal.name())) {
        assert!(judged(&batch(vec![other.transaction.input, all()])).is_err(), "{} in a batch", other.goal.name());
    }
    let longer: Bytes = [&of(0)[..], &[0; 32]].concat().into();
    assert_eq!(rule_of(vec![longer, all()]), rule::CALLDATA, "something behind the arguments");
    let whole = batch(vec![of(0), all()]);
    assert_eq!(refused_by(&with(whole.clone(), |tx| tx.to = TxKind::Call(stranger()))), rule::CONTRACT);
    let longer = with(whole, |tx| tx.input = [&tx.input[..], &[0; 32]].concat().into());
    assert_eq!(refused_by(&longer), rule::CALLDATA);
}

#[test]
fn nobody_else_is_paid() {
    assert_eq!(refused_by(&withdraw(stranger(), erc20())), rule::RECIPIENT);
    assert_eq!(refused_by(&withdraw(account(), stranger())), rule::TOKEN);
    assert_eq!(refused_by(&approve(stranger(), 1)), rule::RECIPIENT);
    assert_eq!(refused_by(&reclaim(stranger())), rule::RECIPIENT);
    assert_eq!(refused_by(&accept(stranger())), rule::RECIPIENT);
    let transfer = with(approve(market(), 1), |tx| {
        // transfer(address,uint256)
        tx.input = [&[0xa9, 0x05, 0x9c, 0xbb][..], &tx.input[4..]].concat().into();
    });
    assert_eq!(refused_by(&transfer), rule::CALLDATA);
    assert_eq!(refused_by(&register("https://other.example")), rule::CALLDATA);
    assert_eq!(refused_by(&void(8)), rule::NONCE);
    assert_eq!(refused_by(&with(void(7), |tx| tx.to = TxKind::Call(stranger()))), rule::CONTRACT);
}

#[test]
fn an_order_is_the_goals_in_the_policys_token() {
    let other = Terms { token: stranger(), ..terms() };
    assert_eq!(refused_by(&place(0, &other)), rule::TOKEN);
    assert_eq!(refused_by(&bid(0, &other)), rule::TOKEN);
    for mut asked in honest().into_iter().filter(|asked| asked.goal.order_id().is_some()) {
        let (from, to) = (order(0).to_string(), order(1).to_string());
        let text = serde_json::to_string(&asked.goal).expect("goal").replace(&from, &to);
        asked.goal = serde_json::from_str(&text).expect("goal");
        assert_eq!(refused_by(&asked), rule::ORDER, "{}", asked.goal.name());
    }
}

#[test]
fn an_approval_has_a_limit_and_says_what_its_goal_says() {
    let refusal = judged(&approve(market(), 101)).expect_err("refused");
    assert_eq!((refusal.rule.as_str(), refusal.value.as_str(), refusal.limit.as_str()), ("allowance", "101", "100"));
    let mut other = approve(market(), 3);
    other.goal = Goal::Approve { amount: "2".into(), block: 1 };
    assert_eq!(refused_by(&other), rule::CALLDATA);
}

fn state_of(policy: &Policy, asked: &[(SignTransaction, u64)]) -> State {
    let mut state = State::default();
    for (asked, at) in asked {
        let request = Request::Transaction(asked);
        let decision = judge(policy, account(), &state, request, *at).unwrap_or_else(|refusal| panic!("{refusal}"));
        state.record(&decision, *at);
    }
    state
}

#[test]
fn a_period_spends_no_more_than_its_cap() {
    let policy = policy();
    let state = state_of(&policy, &[(place(0, &terms()), NOW), (place(1, &terms()), NOW + 1)]);
    let third = place(2, &terms());
    let refusal = judge(&policy, account(), &state, Request::Transaction(&third), NOW + 2).expect_err("refused");
    assert_eq!(refusal.rule, rule::SPEND);
    assert_eq!(refusal.value, "4 tokens, 12 with the rest of the period");
    assert_eq!(refusal.limit, "10 in 24h");
    let later = NOW + policy.period;
    assert!(judge(&policy, account(), &state, Request::Transaction(&third), later).is_ok(), "a new period");
}

#[test]
fn a_replacement_counts_once_at_its_highest() {
    let mut policy = policy();
    // Gas × fee of one: 0.002; of the dearer one 0.004.
    policy.fees = Amount(5 * 10u128.pow(15));
    let dearer = |asked| with(asked, |tx| tx.max_fee_per_gas = 20 * GWEI);
    let state = state_of(
        &policy,
        &[(place(0, &terms()), NOW), (dearer(place(0, &terms())), NOW + 1), (place(0, &terms()), NOW + 2)],
    );
    let other = place(1, &terms());
    let refusal = judge(&policy, account(), &state, Request::Transaction(&other), NOW + 3).expect_err("refused");
    assert_eq!(refusal.rule, rule::FEES);
    assert!(refusal.value.contains("0.006 with the rest"), "{}", refusal.value);
    // Of tokens it took those of one order, and a bid's bond is held once however often it is renewed.
    let renewed = |nonce| with(bid(5, &terms()), |tx| tx.nonce = nonce);
    policy.fees = Amount(10u128.pow(18));
    let bids: Vec<_> = (0..9).map(|nonce| (renewed(nonce), NOW + nonce)).collect();
    assert_eq!(state_of(&policy, &bids).tokens.sum_with(&Charge { key: String::new(), amount: 0 }, 0), 2 * UNIT);
    // Two top-ups at two nonces are two.
    let twice = [(top_up(0, UNIT), NOW), (with(top_up(0, UNIT), |tx| tx.nonce = 8), NOW)];
    assert_eq!(state_of(&policy, &twice).tokens.sum_with(&Charge { key: String::new(), amount: 0 }, 0), 2 * UNIT);
}

#[test]
fn so_many_a_minute() {
    let policy = Policy { rate: 2, ..policy() };
    let state = state_of(&policy, &[(void(7), NOW), (void(7), NOW + 1), (withdraw(account(), erc20()), NOW + 2)]);
    let third = approve(market(), 1);
    let refusal = judge(&policy, account(), &state, Request::Transaction(&third), NOW + 3).expect_err("refused");
    assert_eq!((refusal.rule.as_str(), refusal.limit.as_str()), (rule::RATE, "2"));
    // The same once more is nothing new, and the minute passes.
    assert!(judge(&policy, account(), &state, Request::Transaction(&void(7)), NOW + 3).is_ok());
    assert!(judge(&policy, account(), &state, Request::Transaction(&third), NOW + 60).is_ok());
}

fn token_for(change: impl FnOnce(&mut SignAccess)) -> Result<Decision, Refusal> {
    let claims =
        Claims { lease: order(0), host: "gw.example.org:8443".into(), scopes: "read write".into(), expiry: NOW + 600 };
    let mut asked = SignAccess { claims, chain_id: CHAIN, market: market() };
    change(&mut asked);
    let policy = Policy { gateways: vec!["*.example.org:8443".into(), "10.0.0.1".into()], ..policy() };
    judge(&policy, account(), &State::default(), Request::Access(&asked), NOW)
}

#[test]
fn gateway_tokens_are_short_and_for_known_gateways() {
    assert!(token_for(|_| ()).is_ok());
    assert!(token_for(|asked| asked.claims.host = "10.0.0.1".into()).is_ok());
    let rule_of = |change: fn(&mut SignAccess)| token_for(change).expect_err("refused").rule;
    assert_eq!(rule_of(|asked| asked.chain_id = 1), rule::CHAIN);
    assert_eq!(rule_of(|asked| asked.market = stranger()), rule::CONTRACT);
    assert_eq!(rule_of(|asked| asked.claims.expiry = NOW + 601), rule::EXPIRY);
    assert_eq!(rule_of(|asked| asked.claims.scopes = "write read".into()), rule::SCOPES);
    assert_eq!(rule_of(|asked| asked.claims.scopes = "admin".into()), rule::SCOPES);
    for host in ["evil.example", "example.org:8443", ".example.org:8443x", "", "a b.example.org:8443"] {
        let refusal = token_for(|asked| asked.claims.host = host.into()).expect_err(host);
        assert_eq!((refusal.rule.as_str(), refusal.value.as_str()), (rule::GATEWAY, host));
    }
}

#[test]
fn a_provider_registers_its_own_gateway_alone() {
    let judged = |gateways: &[&str]| {
        let policy = Policy { gateways: gateways.iter().map(ToString::to_string).collect(), ..policy() };
        let asked = register("https://gpu.example");
        judge(&policy, account(), &State::default(), Request::Transaction(&asked), NOW).map_err(|refusal| refusal.rule)
    };
    assert!(judged(&["gpu.example"]).is_ok());
    assert_eq!(judged(&["gpu.example:8443", "other.example"]).expect_err("refused"), rule::GATEWAY);
}

/// What a compromised operator may ask for, in any order.
#[derive(Clone, Debug)]
struct Ask {
    kind: u8,
    order: u32,
    tokens: u8,
    nonce: u64,
    gwei: u64,
    wait: u64,
}

fn ask() -> impl Strategy<Value = Ask> {
    (0u8..3, 0u32..6, 1u8..5, 0u64..5, 1u64..40, 0u64..40_000)
        .prop_map(|(kind, order, tokens, nonce, gwei, wait)| Ask { kind, order, tokens, nonce, gwei, wait })
}

impl Ask {
    fn request(&self) -> SignTransaction {
        let amount = u128::from(self.tokens) * UNIT;
        let asked = match self.kind {
            0 => place(self.order, &Terms { maxPrice: amount, ..terms() }),
            1 => bid(self.order, &Terms { bond: amount, ..terms() }),
            _ => top_up(self.order, amount),
        };
        with(asked, |tx| {
            (tx.nonce, tx.max_fee_per_gas) = (self.nonce, u128::from(self.gwei) * GWEI);
        })
    }
}

proptest! {
    /// Whatever is asked for, what is signed in any period can neither take more tokens nor cost
    /// more than the caps: counted here from the signed transactions themselves, of which one a
    /// nonce and goal can be mined, one an order can place it, and one bond an order can be held.
    #[test]
    fn no_sequence_of_requests_exceeds_the_caps(asks in proptest::collection::vec(ask(), 1..60)) {
        let policy = Policy { fees: Amount(10u128.pow(16)), ..policy() };
        let mut state = State::default();
        let mut signed: Vec<(u64, SignTransaction)> = Vec::new();
        let mut now = NOW;
        for ask in asks {
            now += ask.wait;
            let asked = ask.request();
            if let Ok(decision) = judge(&policy, account(), &state, Request::Transaction(&asked), now) {
                state.record(&decision, now);
                signed.push((now, asked));
            }
            let recent: Vec<&SignTransaction> =
                signed.iter().filter(|(at, _)| *at + policy.period > now).map(|(_, asked)| asked).collect();
            let mut tokens = std::collections::BTreeMap::<String, u128>::new();
            let mut fees = std::collections::BTreeMap::<String, u128>::new();
            for asked in recent {
                let one = format!("{:?} {}", asked.goal, asked.transaction.nonce);
                let (key, amount) = match &asked.goal {
                    Goal::PlaceOrder { order_id, .. } => {
                        let call = Market::orderCall::abi_decode(&asked.transaction.input).expect("order");
                        (format!("order {order_id}"), call.terms.maxPrice + call.terms.auditReserve)
                    }
                    Goal::Bid { order_id, .. } => {
                        let call = Market::bidCall::abi_decode(&asked.transaction.input).expect("bid");
                        (format!("bid {order_id}"), call.terms.bond)
                    }
                    _ => {
                        let call = Market::topUpCall::abi_decode(&asked.transaction.input).expect("top-up");
                        (one.clone(), call.amount)
                    }
                };
                let most = tokens.entry(key).or_default();
                *most = amount.max(*most);
                let most = fees.entry(one).or_default();
                *most = (u128::from(asked.transaction.gas_limit) * asked.transaction.max_fee_per_gas).max(*most);
            }
            prop_assert!(tokens.values().sum::<u128>() <= policy.tokens.0);
            prop_assert!(fees.values().sum::<u128>() <= policy.fees.0);
        }
    }
}

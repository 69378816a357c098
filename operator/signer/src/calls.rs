//! What a transaction does, read from its bytes and held against the goal that it is said to
//! be for. Pure.

use std::collections::BTreeSet;
use std::fmt::Display;

use alloy::consensus::TxEip1559;
use alloy::primitives::{Address, B256, U256};
use alloy::sol_types::SolCall;
use freehold_api::Goal;
use freehold_api::scalars::{Bytes32, EvmAddress, TokenAmount};
use freehold_chain::bindings::{Erc20, Market, ProviderRegistry, market};
use freehold_chain::calldata;
use freehold_chain::signer::wire::Refusal;
use freehold_core::money::Amount;
use freehold_core::order::order_id;

use crate::config::Policy;
use crate::policy::rule;

/// Tokens that a transaction takes from the account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spend {
    pub amount: Amount,
    /// What can happen only once, however many transactions ask for it: an order stands once
    /// under its id, and holds one bond of a bidder.
    pub once: Option<String>,
}

/// Refuses a transaction that is not the goal's one call, or that pays somebody else; says what it takes.
pub fn read(policy: &Policy, account: Address, goal: &Goal, transaction: &TxEip1559) -> Result<Option<Spend>, Refusal> {
    let reader = Reader { policy, account, transaction };
    match goal {
        Goal::Approve { amount, .. } => reader.approve(amount).map(|()| None),
        Goal::Register { gateway, attributes } => reader.register(gateway.as_str(), attributes).map(|()| None),
        Goal::Withdraw { orders, .. } => reader.withdraw(orders).map(|()| None),
        Goal::Void { nonce } => reader.void(*nonce).map(|()| None),
        Goal::PlaceOrder { order_id, .. } => reader.place(order_id).map(Some),
        Goal::TopUp { order_id, amount, .. } => reader.top_up(order_id, amount).map(Some),
        Goal::Bid { order_id, price, valid_until } => reader.bid(order_id, price, *valid_until).map(Some),
        Goal::AcceptBid { order_id, provider, price, valid_until } => {
            reader.accept(order_id, provider, price, *valid_until).map(|()| None)
        }
        Goal::Reclaim { order_id } => reader.reclaim(order_id).map(|()| None),
        Goal::Settle { order_id } => {
            let call: Market::settleCall = reader.market()?;
            reader.order(order_id, call.id, &call.terms).map(|()| None)
        }
        Goal::CancelOrder { order_id } => {
            let call: Market::cancelCall = reader.market()?;
            reader.order(order_id, call.id, &call.terms).map(|()| None)
        }
        Goal::CloseOrder { order_id } => {
            let call: Market::closeCall = reader.market()?;
            reader.order(order_id, call.id, &call.terms).map(|()| None)
        }
        Goal::NoShow { order_id } => {
            let call: Market::noShowCall = reader.market()?;
            reader.order(order_id, call.id, &call.terms).map(|()| None)
        }
        Goal::Unbid { order_id } => {
            let call: Market::unbidCall = reader.market()?;
            reader.order(order_id, call.id, &call.terms).map(|()| None)
        }
        Goal::Start { order_id } => {
            let call: Market::startCall = reader.market()?;
            reader.order(order_id, call.id, &call.terms).map(|()| None)
        }
        Goal::Decline { order_id } => {
            let call: Market::declineCall = reader.market()?;
            reader.order(order_id, call.id, &call.terms).map(|()| None)
        }
        Goal::AcceptResult { order_id, result_hash } => {
            let call: Market::acceptResultCall = reader.market()?;
            reader.result(order_id, call.id, &call.terms, result_hash, call.resultHash).map(|()| None)
        }
        Goal::RejectResult { order_id, result_hash } => {
            let call: Market::rejectResultCall = reader.market()?;
            reader.result(order_id, call.id, &call.terms, result_hash, call.resultHash).map(|()| None)
        }
        Goal::Deliver { order_id, result_hash } => {
            let call: Market::deliverCall = reader.market()?;
            reader.result(order_id, call.id, &call.terms, result_hash, call.resultHash).map(|()| None)
        }
    }
}

struct Reader<'a> {
    policy: &'a Policy,
    account: Address,
    transaction: &'a TxEip1559,
}

impl Reader<'_> {
    fn market<C: SolCall>(&self) -> Result<C, Refusal> {
        self.call("Market", self.policy.market)
    }

    /// The one call that the transaction makes, of the contract that the policy names.
    fn call<C: SolCall>(&self, name: &str, contract: Address) -> Result<C, Refusal> {
        self.is_to(name, contract)?;
        decode(&self.transaction.input)
    }

    fn is_to(&self, name: &str, contract: Address) -> Result<(), Refusal> {
        match self.transaction.to.to() {
            Some(to) if *to == contract => Ok(()),
            Some(to) => Err(Refusal::new(rule::CONTRACT, to, format!("{name} {contract}"))),
            None => Err(Refusal::new(rule::CONTRACT, "a new contract", format!("{name} {contract}"))),
        }
    }

    /// The goal's order, in the policy's token.
    fn order(&self, goal: &Bytes32, id: B256, terms: &market::Terms) -> Result<(), Refusal> {
        same(rule::ORDER, "order", id, calldata::hash_of("orderId", goal).map_err(malformed)?)?;
        self.is_token(terms.token)
    }

    fn is_token(&self, token: Address) -> Result<(), Refusal> {
        same(rule::TOKEN, "token", token, self.policy.token)
    }

    fn result(
        &self,
        goal: &Bytes32,
        id: B256,
        terms: &market::Terms,
        goal_result: &Bytes32,
        result: B256,
    ) -> Result<(), Refusal> {
        self.order(goal, id, terms)?;
        let expected = calldata::hash_of("resultHash", goal_result).map_err(malformed)?;
        same(rule::CALLDATA, "resultHash", result, expected)
    }

    fn approve(&self, amount: &TokenAmount) -> Result<(), Refusal> {
        let call: Erc20::approveCall = self.call("token", self.policy.token)?;
        same(rule::RECIPIENT, "spender", call.spender, self.policy.market)?;
        same(rule::CALLDATA, "amount", call.amount, U256::from(self.amount(amount)?.0))?;
        if call.amount > U256::from(self.policy.allowance.0) {
            let whole = |amount: Amount| amount.format(self.policy.decimals);
            return Err(Refusal::new(rule::ALLOWANCE, amount, whole(self.policy.allowance)));
        }
        Ok(())
    }

    fn register(&self, gateway: &str, attributes: &str) -> Result<(), Refusal> {
        let call: ProviderRegistry::registerCall = self.call("ProviderRegistry", self.policy.registry)?;
        same(rule::CALLDATA, "gateway", call.gateway.as_str(), gateway)?;
        let host = gateway.split_once("://").and_then(|(_, rest)| rest.split('/').next()).unwrap_or_default();
        self.policy.allows_gateway(host)?;
        if call.attributes[..] != *attributes.as_bytes() {
            return Err(Refusal::new(rule::CALLDATA, "other attributes", "the goal's"));
        }
        Ok(())
    }

    /// A withdrawal alone, or a batch that settles some of the goal's leases, each once, and then withdraws. Nothing
    /// else goes into a batch, another batch least of all.
    fn withdraw(&self, orders: &[Bytes32]) -> Result<(), Refusal> {
        self.is_to("Market", self.policy.market)?;
        let input = &self.transaction.input;
        if orders.is_empty() || !input.starts_with(&Market::multicallCall::SELECTOR) {
            return self.is_withdrawal(&decode(input)?);
        }
        let batch: Market::multicallCall = decode(input)?;
        let (last, settlements) = batch.calls.split_last().ok_or_else(|| {
            Refusal::new(
                rule::CALLDATA,
                "an empty batch",
                format!("calls that end with {}", Market::withdrawCall::SIGNATURE),
            )
        })?;
        let mut left = orders
            .iter()
            .map(|id| calldata::hash_of("orders", id).map_err(malformed))
            .collect::<Result<BTreeSet<_>, _>>()?;
        for input in settlements {
            let call: Market::settleCall = decode(input)?;
            if !left.remove(&call.id) {
                return Err(Refusal::new(rule::ORDER, format!("order {}", call.id), "each of the goal's orders once"));
            }
            self.is_token(call.terms.token)?;
        }
        self.is_withdrawal(&decode(last)?)
    }

    fn is_withdrawal(&self, call: &Market::withdrawCall) -> Result<(), Refusal> {
        same(rule::RECIPIENT, "recipient", call.to, self.account)?;
        self.is_token(call.token)
    }

    fn void(&self, nonce: u64) -> Result<(), Refusal> {
        self.is_to("the account itself", self.account)?;
        if !self.transaction.input.is_empty() {
            let value = format!("{} bytes", self.transaction.input.len());
            return Err(Refusal::new(rule::CALLDATA, value, "none in a void"));
        }
        same(rule::NONCE, "nonce", self.transaction.nonce, nonce)
    }

    fn place(&self, goal: &Bytes32) -> Result<Spend, Refusal> {
        let call: Market::orderCall = self.market()?;
        let id = order_id(self.policy.chain_id, self.policy.market, self.account, call.salt);
        self.order(goal, id, &call.terms)?;
        let amount = Amount(call.terms.maxPrice).saturating_add(Amount(call.terms.auditReserve));
        Ok(Spend { amount, once: Some(format!("order/{id}")) })
    }

    fn top_up(&self, goal: &Bytes32, amount: &TokenAmount) -> Result<Spend, Refusal> {
        let call: Market::topUpCall = self.market()?;
        self.order(goal, call.id, &call.terms)?;
        same(rule::CALLDATA, "amount", call.amount, self.amount(amount)?.0)?;
        Ok(Spend { amount: Amount(call.amount), once: None })
    }

    fn bid(&self, goal: &Bytes32, price: &str, valid_until: u32) -> Result<Spend, Refusal> {
        let call: Market::bidCall = self.market()?;
        self.order(goal, call.id, &call.terms)?;
        same(rule::CALLDATA, "price", call.price, calldata::price_of(price).map_err(malformed)?)?;
        same(rule::CALLDATA, "validUntil", call.validUntil, valid_until)?;
        Ok(Spend { amount: Amount(call.terms.bond), once: Some(format!("bid/{}", call.id)) })
    }

    fn accept(&self, goal: &Bytes32, provider: &EvmAddress, price: &str, valid_until: u32) -> Result<(), Refusal> {
        let call: Market::acceptCall = self.market()?;
        self.order(goal, call.id, &call.terms)?;
        let expected = calldata::address_of("provider", provider).map_err(malformed)?;
        same(rule::RECIPIENT, "provider", call.provider, expected)?;
        same(rule::CALLDATA, "price", call.price, calldata::price_of(price).map_err(malformed)?)?;
        same(rule::CALLDATA, "validUntil", call.validUntil, valid_until)
    }

    fn reclaim(&self, goal: &Bytes32) -> Result<(), Refusal> {
        let call: Market::reclaimCall = self.market()?;
        self.order(goal, call.id, &call.terms)?;
        same(rule::RECIPIENT, "provider", call.provider, self.account)
    }

    fn amount(&self, text: &TokenAmount) -> Result<Amount, Refusal> {
        calldata::amount_of("amount", text, self.policy.decimals).map_err(malformed)
    }
}

/// The one call that the bytes are.
fn decode<C: SolCall>(input: &[u8]) -> Result<C, Refusal> {
    // Encoded again it is the same, or something hides behind or between the arguments.
    C::abi_decode_validate(input).ok().filter(|call| call.abi_encode() == input).ok_or_else(|| {
        let shown: String = input.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        let value = format!("{} bytes that begin with 0x{shown}", input.len());
        Refusal::new(rule::CALLDATA, value, format!("a call of {}", C::SIGNATURE))
    })
}

fn same<T: PartialEq + Display>(rule: &str, field: &str, found: T, expected: T) -> Result<(), Refusal> {
    if found == expected {
        return Ok(());
    }
    Err(Refusal::new(rule, format!("{field} {found}"), expected))
}

/// A goal that says nothing which calldata could be held against.
fn malformed(error: calldata::Error) -> Refusal {
    Refusal::new(rule::GOAL, error, "a goal that can be read")
}

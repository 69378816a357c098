//! A withdrawal that settles leases, killed at each of its steps.

use alloy::primitives::Address;
use alloy::rpc::types::Log;
use alloy::sol_types::{SolCall, SolEvent};
use freehold_chain::bindings::{Erc20, Market, terms_to_contract};
use freehold_core::money::{Amount, Rate};

use super::*;

const TENANT: Address = ACCOUNTS[2].0;
const PROVIDER: Address = ACCOUNTS[1].0;

impl Site {
    /// A running lease of the account, ordered, bid on and started by hand.
    async fn lease(&self, attempt: u32) -> B256 {
        let (_, stored) = self.stored(attempt).await;
        let terms = terms_to_contract(&stored.terms);
        let id = order_id(CHAIN_ID, self.anvil.contracts.market, TENANT, stored.salt);
        let price = Rate::per_hour(Amount(TOKENS)).0;
        let valid_until = u32::MAX;
        let order = Market::orderCall { salt: stored.salt, terms: terms.clone(), spec: stored.spec.into() };
        let bid = Market::bidCall { id, terms: terms.clone(), price, validUntil: valid_until };
        let accept =
            Market::acceptCall { id, terms: terms.clone(), provider: PROVIDER, price, validUntil: valid_until };
        let start = Market::startCall { id, terms };
        for (from, data) in [
            (TENANT, order.abi_encode()),
            (PROVIDER, bid.abi_encode()),
            (TENANT, accept.abi_encode()),
            (PROVIDER, start.abi_encode()),
        ] {
            self.anvil.send(from, self.anvil.contracts.market, data).await.expect("mined");
        }
        id
    }

    /// What was settled, and by which transaction.
    async fn settled(&self) -> Vec<(B256, B256)> {
        let filter = json!([{ "fromBlock": "0x0", "address": self.anvil.contracts.market, "topics": [Market::Settled::SIGNATURE_HASH] }]);
        let logs: Vec<Log> =
            serde_json::from_value(self.anvil.rpc("eth_getLogs", filter).await.expect("logs")).expect("logs");
        let of = |log: &Log| Some((Market::Settled::decode_log(&log.inner).ok()?.id, log.transaction_hash?));
        logs.iter().filter_map(of).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster with Freehold's CRDs (KUBECONFIG)"]
async fn killed_at_every_point_a_batch_pays_each_lease_once() {
    let site = Site::new("batch").await;
    site.anvil.mint(TENANT, 10 * TOKENS).await.expect("mint");
    site.anvil.automine(true).await.expect("a block each");
    let approve = Erc20::approveCall { spender: site.anvil.contracts.market, amount: U256::from(10 * TOKENS) };
    for from in [TENANT, PROVIDER] {
        site.anvil.send(from, site.anvil.contracts.token, approve.abi_encode()).await.expect("mined");
    }
    let leases = [site.lease(0).await, site.lease(1).await];
    site.anvil.skip(100).await.expect("time passes");
    site.anvil.automine(false).await.expect("automine off");
    site.anvil.mine_every(1).await.expect("a block a second");
    let (first, before) = (site.nonce().await, site.wallet().await);

    let orders = leases.iter().map(|id| id.to_string().into()).collect();
    let goal = Goal::Withdraw { amount: "0.05".into(), block: 0, orders };
    let goal = goals::ensure(&site.ctx, &site.name, goal, None).await.expect("goal").name_any();
    let released =
        async || site.is(&goal, TransactionState::Confirmed).await && site.status().await.in_flight.is_empty();
    let deaths = site.run_until("all", "the withdrawal is confirmed", released).await;
    assert!(deaths >= 7, "died {deaths} times");

    let status = site.goal(&goal).await.status.expect("status");
    let hash: B256 = status.hash.expect("hash").as_str().parse().expect("hash");
    let settled = site.settled().await;
    let once: BTreeSet<(B256, B256)> = leases.iter().map(|id| (*id, hash)).collect();
    assert_eq!((settled.len(), settled.into_iter().collect::<BTreeSet<_>>()), (2, once));
    let named: BTreeSet<B256> = status.settles.iter().map(|id| id.as_str().parse().expect("id")).collect();
    assert_eq!(named, BTreeSet::from(leases), "the status says the same as the chain");
    assert_eq!(site.nonce().await - first, 1, "one transaction");
    // A fifth of 100 s and more at a token an hour is held back.
    let earned = site.wallet().await - before;
    assert!(earned >= 2 * 22_000, "{earned}");
    site.clean().await;
}

//! What RPC endpoints answer, and what the contracts' logs and reverts say.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use alloy::eips::BlockNumberOrTag;
use alloy::primitives::{Address, B256, Bytes as Data, Log as RawLog, LogData};
use alloy::rpc::client::RpcClient;
use alloy::rpc::json_rpc::{RequestPacket, ResponsePacket};
use alloy::rpc::types::Log;
use alloy::sol_types::SolEventInterface;
use alloy::transports::{TransportError, TransportErrorKind, TransportFut};
use freehold_api::Goal;
use freehold_chain::audit::{Auditor, event_of};
use freehold_chain::bindings::market::Market::MarketEvents;
use freehold_chain::goal;
use freehold_chain::index::Index;
use freehold_chain::reader::{self, Mirror, ReaderConfig};
use freehold_chain::revert::explain;
use freehold_chain::rpc::survey::Source;
use freehold_chain::rpc::{self, Depth, Rpc};
use freehold_chain::view::ChainView;
use freehold_core::audit::{Entry, audit};
use freehold_core::order::{OrderSlot, OrderState, order_id};
use tokio::runtime::Runtime;

use crate::bytes::Bytes;

pub const MARKET: Address = Address::repeat_byte(1);
pub const REGISTRY: Address = Address::repeat_byte(2);
pub const TOKEN: Address = Address::repeat_byte(3);
pub const ACCOUNT: Address = Address::repeat_byte(0x11);
/// No message about an endpoint is longer, whatever the endpoint says.
const LONGEST_ERROR: usize = 1024;

thread_local! {
    static RUNTIME: Runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
}

pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    RUNTIME.with(|runtime| runtime.block_on(future))
}

/// Answers requests with bodies in the order in which they are asked, and then no more.
#[derive(Clone)]
struct Script(Arc<Mutex<VecDeque<Vec<u8>>>>);

impl tower::Service<RequestPacket> for Script {
    type Response = ResponsePacket;
    type Error = TransportError;
    type Future = TransportFut<'static>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    /// As the HTTP transport reads a body.
    fn call(&mut self, _: RequestPacket) -> Self::Future {
        let body = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        Box::pin(async move {
            let body = body.ok_or_else(|| TransportErrorKind::custom_str("it says no more"))?;
            serde_json::from_slice(&body)
                .map_err(|error| TransportError::deser_err(error, String::from_utf8_lossy(&body)))
        })
    }
}

pub fn config(rpc: Rpc) -> ReaderConfig {
    ReaderConfig {
        rpc,
        chain_id: 31337,
        market: MARKET,
        registry: REGISTRY,
        token: TOKEN,
        account: ACCOUNT,
        depth: Depth::Blocks(3),
        block_time: Duration::from_secs(2),
        quorum: 1,
        seed: 0,
    }
}

/// Bodies between zero bytes, the first byte chooses who asks.
pub fn rpc(data: &[u8]) {
    let Some((who, bodies)) = data.split_first() else { return };
    let bodies = bodies.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect();
    let client = RpcClient::new(Script(Arc::new(Mutex::new(bodies))), true);
    let rpc = Rpc::over(client).expect("an endpoint");
    block_on(async {
        match who % 3 {
            0 => drop(read_chain(&rpc).await.map_err(|error| short(&error))),
            1 => ask(&rpc).await,
            _ => read_order(rpc).await,
        }
    });
}

fn short(error: &dyn std::fmt::Display) {
    let text = error.to_string();
    let length = text.chars().count();
    assert!(length <= LONGEST_ERROR, "an error of {length} characters: {}", text.chars().take(200).collect::<String>());
}

/// The reader's two looks at a chain, and what is made of what it saw.
pub async fn read_chain(rpc: &Rpc) -> Result<(), reader::Error> {
    let mut mirror = Mirror::new(config(rpc.clone()));
    for _ in 0..2 {
        let Some(head) = rpc.header(BlockNumberOrTag::Latest).await? else { return Ok(()) };
        let confirmed = rpc.header(BlockNumberOrTag::Number(head.block.number.saturating_sub(3))).await?;
        let confirmed = confirmed.map_or(head.block, |header| header.block);
        if mirror.look(Source { rpc: rpc.clone(), head, confirmed }).await? {
            assert_eq!(mirror.head(), Some(head.block), "what was read is what was looked at");
        }
        mirror.view().iter().for_each(judge);
    }
    Ok(())
}

fn judge(view: &ChainView) {
    for order in view.latest.orders.values().chain(view.confirmed.orders.values()) {
        let id = order.id.to_string();
        let _ = (order.accrued(view.latest.block.timestamp), order.rate().hourly());
        for goal in [
            Goal::CancelOrder { order_id: id.as_str().into() },
            Goal::Start { order_id: id.as_str().into() },
            Goal::Reclaim { order_id: id.as_str().into() },
            Goal::Settle { order_id: id.as_str().into() },
        ] {
            if let Ok(status) = goal::status_of(&goal, view, None) {
                let _ = status.verdict();
            }
        }
    }
}

/// Everything else that is asked of an endpoint.
async fn ask(rpc: &Rpc) {
    fn heard<T>(answer: Result<T, rpc::Error>) {
        if let Err(error) = answer {
            short(&error);
            if let Some(data) = error.revert() {
                let _ = explain(data);
            }
        }
    }
    heard(rpc.receipt(B256::ZERO).await);
    heard(rpc.agreed_receipt(B256::ZERO).await);
    heard(rpc.send_raw(b"raw").await);
    heard(rpc.estimate_gas(ACCOUNT, MARKET, Default::default(), b"").await);
    heard(rpc.priority_fee().await);
    heard(rpc.nonce(ACCOUNT, B256::ZERO).await);
    heard(rpc.balance(ACCOUNT, B256::ZERO).await);
    heard(rpc.chain_id().await);
    heard(rpc.code(MARKET, B256::ZERO).await);
    heard(rpc.header(BlockNumberOrTag::Finalized).await);
}

/// The auditor's way: it believes one endpoint, and must survive it.
async fn read_order(rpc: Rpc) {
    let mut auditor = match Auditor::new(rpc, MARKET, 0).await {
        Ok(auditor) => auditor,
        Err(error) => return short(&error),
    };
    match auditor.order(B256::repeat_byte(9)).await {
        Ok(report) => drop(serde_json::to_string(&report).expect("a report is printed")),
        Err(error) => short(&error),
    }
}

/// Logs as topics and data, at ascending blocks.
pub fn logs(data: &[u8]) {
    let mut data = Bytes(data);
    let (mut index, mut entries, mut block, mut time) = (Index::default(), Vec::new(), 0_u64, data.u32().into());
    let slot = slot(&mut data);
    while !data.is_empty() {
        // Topics, then blocks since the last log; the most of them stands for any time at all.
        let shape = data.u8();
        let blocks = u64::from(shape >> 3);
        block = block.saturating_add(blocks);
        time = if blocks == 31 { data.u64() } else { u64::saturating_add(time, 2 * blocks) };
        let topics: Vec<B256> = (0..shape & 7).take(4).map(|_| data.array().into()).collect();
        let length = data.u16();
        let Some(inner) = LogData::new(topics, Data::copy_from_slice(data.take(length.into()))) else { continue };
        if let Ok(event) = MarketEvents::decode_raw_log(inner.topics(), &inner.data)
            && let Some(event) = event_of(event)
        {
            entries.push(Entry { block, time, transaction: B256::ZERO, event });
        }
        index.apply(&Log { inner: RawLog { address: MARKET, data: inner }, ..Log::default() }, block);
        if length == 0 {
            index.rewind(block.saturating_sub(u64::from(shape)));
        }
    }
    for id in index.touched_orders() {
        for at in [0, block / 2, block] {
            let order = index.order(&id, slot.clone(), vec![], at);
            assert_eq!(
                order.is_some(),
                index.orders_at(at).contains(&id),
                "an order stands at a block, or it does not"
            );
        }
    }
    let _ = (index.records(), index.touched_providers());
    let expected = |tenant, salt| order_id(31337, MARKET, tenant, salt);
    if let Some(report) = audit(B256::repeat_byte(9), expected, &entries, &slot) {
        assert_eq!(report.transitions.len(), entries.len());
        drop(serde_json::to_string(&report).expect("a report is printed"));
    }
}

fn slot(data: &mut Bytes<'_>) -> OrderSlot {
    OrderSlot {
        state: OrderState::from_u8(data.u8()).unwrap_or_default(),
        tenant: data.array().into(),
        provider: data.array().into(),
        price: data.u128(),
        deadline: data.u32().into(),
        started_at: data.u32().into(),
        end_at: data.u32().into(),
        ..OrderSlot::default()
    }
}

/// A revert is one sentence, of bounded length unless the contract itself wrote it.
pub fn revert(data: &[u8]) {
    let revert = explain(data);
    assert!(!revert.sentence.is_empty());
    assert!(revert.sentence.chars().count() <= LONGEST_ERROR, "a sentence of {} bytes", revert.sentence.len());
}

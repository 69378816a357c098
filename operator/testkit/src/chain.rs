//! A chain for one test: anvil on a free port, with the contracts deployed.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use alloy::primitives::{Address, B256, U256, Uint, address, keccak256};
use alloy::sol;
use alloy::sol_types::SolCall;
use freehold_core::order::Terms;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

pub const CHAIN_ID: u64 = 31337;

/// Accounts of anvil's own mnemonic, known to everybody: address and key.
pub const ACCOUNTS: [(Address, &str); 5] = [
    (
        address!("f39Fd6e51aad88F6F4ce6aB8827279cffFb92266"),
        "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80",
    ),
    (
        address!("70997970C51812dc3A010C7d01b50e0d17dc79C8"),
        "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d",
    ),
    (
        address!("3C44CdDdB6a900fa2b585dd299e03d12FA4293BC"),
        "0x5de4111afa1a4b94908f83103eb1f1706367c2e68ca870fc3fb9a804cdab365a",
    ),
    (
        address!("90F79bf6EB2c4f870365E785982E1f101E93b906"),
        "0x7c852118294e51e653712a81e05800f419141751be58f605c371e15141b007a6",
    ),
    (
        address!("15d34AAf54267DB7D7c367839AAf71A00a2C6A65"),
        "0x47e179ec197488593b187f80a00eb0da91f1b9d0b13f8733639f19c30a34926a",
    ),
];

sol! {
    interface TestToken {
        function mint(address to, uint256 amount) external;
    }
}

/// Terms that the Market takes, for tests that do not care which.
pub fn terms(token: Address, price: u128, bid_by: u64, spec: &[u8]) -> Terms {
    Terms {
        token,
        maxPrice: price,
        auditReserve: 0,
        bond: 100_000,
        noShowPenalty: 20_000,
        bidBy: Uint::from(bid_by),
        startWindow: Uint::from(300u64),
        duration: Uint::from(3_600u64),
        window: Uint::from(600u64),
        holdbackBps: 2_000,
        class: 0,
        specHash: keccak256(spec),
        rulesHash: B256::ZERO,
        origin: B256::ZERO,
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{what} cannot be run ({source}); `make tools` installs it")]
    Spawn { what: String, source: std::io::Error },
    #[error("anvil ended before it listened")]
    NoPort,
    #[error("contracts/deploy.sh failed: {0}")]
    Deploy(String),
    #[error("the deployment's record cannot be read: {0}")]
    Record(String),
    #[error("anvil does not answer: {0}")]
    Http(#[from] reqwest::Error),
    #[error("{method}: {error}")]
    Rpc { method: String, error: Value },
}

/// Where the contracts are.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Contracts {
    pub market: Address,
    pub provider_registry: Address,
    pub token: Address,
}

/// A running anvil; it ends with this value.
pub struct Anvil {
    pub url: String,
    pub contracts: Contracts,
    http: reqwest::Client,
    _child: Child,
}

fn cache() -> PathBuf {
    let base = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")));
    base.unwrap_or_default().join("freehold")
}

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Installs the TLS provider that every HTTP client here needs, once.
pub fn install_tls() {
    // A second call finds the first one's provider: nothing to do.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

impl Anvil {
    /// Starts anvil and deploys the contracts. Each transaction makes a block;
    /// see [`Anvil::automine`] and [`Anvil::mine_every`].
    pub async fn start() -> Result<Self, Error> {
        install_tls();
        let program = cache().join("bin/anvil");
        let mut child = Command::new(&program)
            .args(["--host", "127.0.0.1", "--port", "0", "--hardfork", "prague", "--slots-in-an-epoch", "1"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| Error::Spawn { what: program.display().to_string(), source })?;
        let url = listening(&mut child).await?;
        let contracts = deploy(&url).await?;
        let http = reqwest::Client::builder().timeout(Duration::from_secs(20)).build()?;
        Ok(Self { url, contracts, http, _child: child })
    }

    pub async fn rpc(&self, method: &str, params: Value) -> Result<Value, Error> {
        let request = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let answer: Value = self.http.post(&self.url).json(&request).send().await?.json().await?;
        match answer.get("error") {
            Some(error) => Err(Error::Rpc { method: method.to_owned(), error: error.clone() }),
            None => Ok(answer.get("result").cloned().unwrap_or_default()),
        }
    }

    /// Whether each transaction makes a block at once.
    pub async fn automine(&self, on: bool) -> Result<(), Error> {
        self.rpc("evm_setAutomine", json!([on])).await.map(|_| ())
    }

    /// A block every so many seconds; 0 stops that.
    pub async fn mine_every(&self, seconds: u64) -> Result<(), Error> {
        self.rpc("evm_setIntervalMining", json!([seconds])).await.map(|_| ())
    }

    pub async fn mine(&self, blocks: u64) -> Result<(), Error> {
        self.rpc("anvil_mine", json!([format!("{blocks:#x}")])).await.map(|_| ())
    }

    /// The next block's time, that many seconds later than it would have been.
    pub async fn skip(&self, seconds: u64) -> Result<(), Error> {
        self.rpc("evm_increaseTime", json!([seconds])).await.map(|_| ())
    }

    /// Replaces the newest blocks by as many empty ones.
    pub async fn reorganise(&self, blocks: u64) -> Result<(), Error> {
        self.rpc("anvil_reorg", json!([blocks, []])).await.map(|_| ())
    }

    /// Sends from one of anvil's own accounts.
    pub async fn send(&self, from: Address, to: Address, data: Vec<u8>) -> Result<B256, Error> {
        let data = alloy::primitives::Bytes::from(data);
        let hash = self.rpc("eth_sendTransaction", json!([{ "from": from, "to": to, "data": data }])).await?;
        serde_json::from_value(hash).map_err(|error| Error::Record(error.to_string()))
    }

    /// Gives an account test tokens.
    pub async fn mint(&self, to: Address, amount: u128) -> Result<(), Error> {
        let call = TestToken::mintCall { to, amount: U256::from(amount) };
        self.send(ACCOUNTS[0].0, self.contracts.token, call.abi_encode()).await.map(|_| ())
    }
}

async fn listening(child: &mut Child) -> Result<String, Error> {
    let stdout = child.stdout.take().ok_or(Error::NoPort)?;
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if let Some(address) = line.trim().strip_prefix("Listening on ") {
            let url = format!("http://{address}");
            // Left unread, a full pipe would stop anvil.
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return Ok(url);
        }
    }
    Err(Error::NoPort)
}

async fn deploy(url: &str) -> Result<Contracts, Error> {
    let record = tempfile::tempdir().map_err(|error| Error::Record(error.to_string()))?;
    let script = repository().join("contracts/deploy.sh");
    let output = Command::new(&script)
        .args([url, ACCOUNTS[0].1])
        .env("DEPLOYMENTS", record.path())
        .output()
        .await
        .map_err(|source| Error::Spawn { what: script.display().to_string(), source })?;
    if !output.status.success() {
        return Err(Error::Deploy(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    let text = tokio::fs::read(record.path().join(format!("{CHAIN_ID}.json")))
        .await
        .map_err(|error| Error::Record(error.to_string()))?;
    serde_json::from_slice(&text).map_err(|error| Error::Record(error.to_string()))
}

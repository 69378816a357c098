//! A key in this process: the development way, and what the signer itself signs with.

use alloy::consensus::SignableTransaction;
use alloy::primitives::{Address, B256};
use alloy::signers::SignerSync;
use alloy::signers::local::PrivateKeySigner;
use async_trait::async_trait;
use freehold_core::access::Claims;

use super::{Error, SignRequest, Signed, Signer, assemble};

pub struct LocalSigner(PrivateKeySigner);

impl LocalSigner {
    /// From 64 hexadecimal digits; white space around them does not matter.
    pub fn from_hex(text: &str) -> Result<Self, Error> {
        text.trim()
            .parse()
            .map(Self)
            .map_err(|error: alloy::signers::local::LocalSignerError| Error::Key { reason: error.to_string() })
    }
}

impl From<PrivateKeySigner> for LocalSigner {
    fn from(key: PrivateKeySigner) -> Self {
        Self(key)
    }
}

impl LocalSigner {
    fn sign(&self, hash: &B256) -> Result<alloy::primitives::Signature, Error> {
        self.0.sign_hash_sync(hash).map_err(|error| Error::Failed(error.to_string()))
    }
}

#[async_trait]
impl Signer for LocalSigner {
    fn address(&self) -> Address {
        self.0.address()
    }

    async fn sign_transaction(&self, request: SignRequest<'_>) -> Result<Signed, Error> {
        let signature = self.sign(&request.transaction.signature_hash())?;
        assemble(request.transaction, signature, self.address())
    }

    async fn sign_access(&self, claims: &Claims, chain_id: u64, market: Address) -> Result<[u8; 65], Error> {
        self.sign(&claims.signing_hash(chain_id, market)).map(|signature| signature.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy::consensus::TxEip1559;
    use freehold_api::Goal;
    use freehold_core::access::{self, Expected, Scope};

    const KEY: &str = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";

    #[test]
    fn keys_are_read_with_and_without_prefix() {
        let with = LocalSigner::from_hex(KEY).map(|s| s.address());
        let without = LocalSigner::from_hex(&format!("{}\n", &KEY[2..])).map(|s| s.address());
        let expected: Address = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266".parse().expect("address");
        assert_eq!(with.expect("key"), expected);
        assert_eq!(without.expect("key"), expected);
        assert!(LocalSigner::from_hex("0x12").is_err());
    }

    #[tokio::test]
    async fn signing_again_gives_the_same_transaction() {
        let signer = LocalSigner::from_hex(KEY).expect("key");
        let goal = Goal::Void { nonce: 3 };
        let transaction =
            TxEip1559 { chain_id: 31337, nonce: 3, gas_limit: 21_000, max_fee_per_gas: 10, ..Default::default() };
        let request = || SignRequest { goal: &goal, stored: None, transaction: transaction.clone() };
        let first = signer.sign_transaction(request()).await.expect("signs");
        assert_eq!(signer.sign_transaction(request()).await.expect("signs"), first);
    }

    #[tokio::test]
    async fn a_gateway_believes_the_token() {
        let signer = LocalSigner::from_hex(KEY).expect("key");
        let market = Address::repeat_byte(7);
        let claims = Claims {
            lease: B256::repeat_byte(1),
            host: "gateway.example".into(),
            scopes: access::scopes(&[Scope::Read]),
            expiry: 1_000,
        };
        let signature = signer.sign_access(&claims, 31337, market).await.expect("signs");
        let header = claims.header(&signature).expect("header");
        let expected = Expected {
            lease: claims.lease,
            host: "gateway.example",
            scope: Scope::Read,
            tenant: signer.address(),
            chain_id: 31337,
            market,
            now: 900,
        };
        assert!(access::verify(&header, &expected).is_ok());
    }
}

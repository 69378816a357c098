//! The way to a signer elsewhere.

use std::path::Path;
use std::sync::Arc;

use freehold_api::account::SignerRef;
use freehold_api::scalars::EvmAddress;
use freehold_chain::signer::{Error, RemoteSigner, Signer, Web3Signer};

use super::runtime::Problem;

/// Asks the signer whose key it holds. `token` is the file of the operator's projected token.
pub async fn connect(
    token: &Path,
    signer: &SignerRef,
    address: Option<&EvmAddress>,
) -> Result<Arc<dyn Signer>, Problem> {
    let found: Result<Arc<dyn Signer>, Error> = match signer {
        SignerRef { secret: None, url: Some(url), web3signer: None } => {
            RemoteSigner::connect(url.as_str(), token).await.map(|signer| Arc::new(signer) as _)
        }
        SignerRef { secret: None, url: None, web3signer: Some(web3signer) } => {
            let address = address.and_then(|text| text.as_str().parse().ok());
            Web3Signer::connect(web3signer.url.as_str(), address).await.map(|signer| Arc::new(signer) as _)
        }
        _ => {
            return Err(Problem::Invalid {
                field: "spec.signerRef",
                reason: "set exactly one of secret, url and web3signer".into(),
            });
        }
    };
    found.map_err(|error| {
        let (reason, remedy) = match &error {
            Error::Unreachable { .. } => ("Unreachable", "Nothing is signed until it answers; what was asked for waits."),
            Error::Unauthorized { .. } => (
                "Unauthorized",
                "Its operator account must be the service account of this operator's pod, and its audience freehold-signer.",
            ),
            Error::Failed(_) | Error::Key { .. } => ("Unusable", "Correct spec.signerRef, or the signer."),
            Error::Refused { .. } => ("Refused", "The signer itself says what it allows."),
        };
        let text = error.to_string();
        let mut letters = text.chars();
        let first = letters.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
        let message = format!("{first}{}", letters.as_str().trim_end_matches('.'));
        Problem::Signer { reason, message, remedy }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_reference_to_nothing_is_told() {
        let problem = connect(Path::new("/nothing"), &SignerRef::default(), None).await.err().expect("refused");
        assert_eq!(problem.reason(), "InvalidSpec");
    }

    #[tokio::test]
    async fn a_missing_token_is_named() {
        freehold_testkit::chain::install_tls();
        let signer = SignerRef { url: Some("http://127.0.0.1:1".into()), ..SignerRef::default() };
        let problem = connect(Path::new("/nothing/token"), &signer, None).await.err().expect("unreachable");
        assert_eq!(problem.reason(), "Unreachable");
        assert!(problem.to_string().contains("/nothing/token"), "{problem}");
    }
}

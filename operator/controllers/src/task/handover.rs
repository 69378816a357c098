//! Hands manifest and inputs to the provider's gateway, as far as it lacks them.

use freehold_core::manifest::Manifest;

use super::gateways::{self, Gateways, Lease};
use super::store::{self, Store};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Gateway(#[from] gateways::Error),
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error(transparent)]
    Manifest(#[from] freehold_core::manifest::Error),
    #[error("the input `{name}` (SHA-256 {sha256}) is not in the tenant's store any more; create the task again")]
    Lost { name: String, sha256: String },
}

pub async fn hand_over(
    gateways: &dyn Gateways,
    lease: &Lease,
    store: &Store,
    namespace: &str,
    manifest: &[u8],
    needs_manifest: bool,
    missing: &[String],
) -> Result<(), Error> {
    if needs_manifest {
        gateways.put_manifest(lease, manifest.to_vec()).await?;
    }
    let parsed = Manifest::parse(manifest)?;
    // A gateway that has just got the manifest has not said yet what else it needs; all that is ours, then.
    let wanted = |name: &String| needs_manifest || missing.contains(name);
    for input in parsed.inputs.iter().filter(|input| input.uri.is_none() && wanted(&input.name)) {
        if !store.has(namespace, &input.sha256) {
            return Err(Error::Lost { name: input.name.clone(), sha256: input.sha256.clone() });
        }
        gateways.upload(lease, &input.sha256, &store.path(namespace, &input.sha256)?).await?;
    }
    Ok(())
}

//! The manifest that the tenant handed over, held against the spec that the
//! chain carries. What passes here is what was bid on. Pure.

use std::collections::BTreeSet;

use freehold_api::lease::ComputeLeaseSpec;
use freehold_core::canonical;
use freehold_core::manifest::{self, Manifest, ManifestInput};
use freehold_core::spec::{self, OrderSpec, SpecInput};

const MAX_ARGS: usize = 64;
const MAX_ARG: usize = 4096;
const MAX_BACKOFF: u32 = 100;

/// Work that is what was ordered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Work {
    pub manifest: Manifest,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the manifest's SHA-256 is {found}, the order names {expected}")]
    Digest { found: String, expected: String },
    #[error(transparent)]
    Manifest(#[from] manifest::Error),
    #[error(transparent)]
    Spec(#[from] spec::Error),
    #[error(transparent)]
    Canonical(#[from] canonical::Error),
    #[error("{field} of the manifest is {found}, the order's spec says {expected}")]
    Differs { field: &'static str, found: String, expected: String },
    #[error("the manifest's {field} `{value}` {rule}")]
    Malformed { field: &'static str, value: String, rule: &'static str },
    #[error("the cluster has no RuntimeClass `{0}`")]
    NoRuntimeClass(String),
}

pub fn validate(lease: &ComputeLeaseSpec, bytes: &[u8], runtime_classes: &[String]) -> Result<Work, Error> {
    let found = canonical::sha256_hex(bytes);
    if found != lease.manifest_sha256.as_str() {
        return Err(Error::Digest { found, expected: lease.manifest_sha256.0.clone() });
    }
    let manifest = Manifest::parse(bytes)?;
    let spec = OrderSpec::parse(lease.spec.as_bytes())?;
    same_as_ordered(&manifest, &spec)?;
    well_formed(&manifest)?;
    if let Some(class) = manifest.runtime_class.as_ref().filter(|class| !runtime_classes.contains(class)) {
        return Err(Error::NoRuntimeClass(class.clone()));
    }
    Ok(Work { manifest })
}

fn same_as_ordered(manifest: &Manifest, spec: &OrderSpec) -> Result<(), Error> {
    same("kind", &manifest.kind, &spec.kind)?;
    same("class", &manifest.class, &spec.class)?;
    same("image", &manifest.image, &spec.image)?;
    same("resources", &manifest.resources, &spec.resources)?;
    same("runtimeClass", &manifest.runtime_class, &spec.require.runtime_class)?;
    let recipe = manifest.recipe.as_ref().map(|recipe| canonical::to_vec("the recipe", recipe)).transpose()?;
    same("recipe", &recipe.as_deref().map(canonical::sha256_hex), &spec.recipe)?;
    same("inputs", &manifest.inputs.iter().map(as_ordered).collect(), &spec.inputs)
}

fn as_ordered(input: &ManifestInput) -> SpecInput {
    SpecInput { name: input.name.clone(), sha256: input.sha256.clone(), size: input.size }
}

fn same<T: PartialEq + std::fmt::Debug>(field: &'static str, found: &T, expected: &T) -> Result<(), Error> {
    if found == expected {
        return Ok(());
    }
    Err(Error::Differs { field, found: format!("{found:?}"), expected: format!("{expected:?}") })
}

/// What reaches a pod is bounded, and names no path of its own.
fn well_formed(manifest: &Manifest) -> Result<(), Error> {
    let malformed =
        |field, value: &str, rule| Err(Error::Malformed { field, value: value.chars().take(80).collect(), rule });
    if !spec::is_pinned(&manifest.image) {
        return malformed("image", &manifest.image, "has to be repository@sha256:…");
    }
    if manifest.args.len() > MAX_ARGS || manifest.args.iter().any(|arg| arg.len() > MAX_ARG) {
        return malformed("args", &manifest.args.len().to_string(), "are more than 64, or longer than 4096 bytes");
    }
    if manifest.backoff_limit > MAX_BACKOFF {
        return malformed("backoffLimit", &manifest.backoff_limit.to_string(), "has to be at most 100");
    }
    if manifest.deadline_seconds == 0 {
        return malformed("deadlineSeconds", "0", "has to be at least 1");
    }
    let mut names = BTreeSet::new();
    for input in &manifest.inputs {
        if !spec::is_input_name(&input.name) || !names.insert(input.name.as_str()) {
            return malformed("input", &input.name, "has to be a name of its own, of a-z, 0-9 and -");
        }
        if !spec::is_file_name(&input.file_name) {
            return malformed("fileName", &input.file_name, "has to be a plain file name");
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "tests/validate.rs"]
mod tests;

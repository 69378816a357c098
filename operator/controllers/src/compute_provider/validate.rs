//! The spec as values that cannot be wrong. Pure.

use freehold_api::provider::ComputeProviderSpec;
use freehold_core::money::{self, Amount};
use freehold_core::units;

use super::policy::Limits;
use super::pricing::{self, PriceList};

/// A bid holds capacity no longer than this.
const LONGEST_VALIDITY: u64 = 300;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Pricing(#[from] pricing::Error),
    #[error("spec.bidding.{field}: {source}")]
    Amount { field: &'static str, source: money::Error },
    #[error("spec.bidding.validity `{0}` has to be a duration such as 1m, and not zero")]
    Validity(String),
}

#[derive(Debug)]
pub struct Offer {
    pub prices: PriceList,
    pub limits: Limits,
}

pub fn validate(spec: &ComputeProviderSpec, decimals: u8) -> Result<Offer, Error> {
    let bidding = &spec.bidding;
    let amount = |field, text: &str| Amount::parse(text, decimals).map_err(|source| Error::Amount { field, source });
    let validity = units::seconds(bidding.validity.as_str()).filter(|seconds| *seconds > 0);
    let validity = validity.ok_or_else(|| Error::Validity(bidding.validity.0.clone()))?;
    Ok(Offer {
        prices: PriceList::parse(&spec.pricing)?,
        limits: Limits {
            max_leases: bidding.max_leases as usize,
            max_bids_per_tenant: bidding.max_bids_per_tenant as usize,
            max_penalty: amount("maxPenalty", bidding.max_penalty.as_str())?,
            max_bond: amount("maxBond", bidding.max_bond.as_str())?,
            validity: validity.min(LONGEST_VALIDITY),
        },
    })
}

#[cfg(test)]
#[path = "tests/validate.rs"]
mod tests;

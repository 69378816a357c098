//! Names that follow from the order's id, so that a lease is found again, never doubled.

use freehold_core::B256;

/// Hexadecimal digits of the id that names carry.
const DIGITS: usize = 20;

pub fn short(order: &B256) -> String {
    let mut digits = hex::encode(order);
    digits.truncate(DIGITS);
    digits
}

/// The ComputeLease.
pub fn lease(order: &B256) -> String {
    format!("lease-{}", short(order))
}

/// The namespace of the work; the fence around the operator knows the prefix.
pub fn namespace(order: &B256) -> String {
    format!("{NAMESPACE_PREFIX}{}", short(order))
}

pub const NAMESPACE_PREFIX: &str = "fh-lease-";

/// The ComputeLease that a pod or Job belongs to, by its order label.
pub fn lease_of_label(order: &str) -> Option<String> {
    let digits = order.get(..DIGITS)?;
    digits.bytes().all(|b| b.is_ascii_hexdigit()).then(|| format!("lease-{digits}"))
}

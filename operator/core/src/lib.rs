//! Freehold's domain: what orders, money, specs, digests and access tokens
//! are. Pure values and functions; no client, no clock, no randomness.

pub mod access;
pub mod audit;
pub mod canonical;
pub mod manifest;
pub mod money;
pub mod order;
pub mod progress;
pub mod record;
pub mod result;
pub mod spec;
pub mod units;
pub mod wire;

pub use alloy_primitives::{Address, B256, U256};

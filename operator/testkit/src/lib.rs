//! What tests of several crates share. Nothing here belongs to a release.

pub mod chain;
pub mod proxy;

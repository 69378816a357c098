//! The gateway and its clients over real sockets, with a fake API server's
//! answers (leases, token reviews, pod logs) and a clock that tests set.

// All of this is tests, helpers too.
#![allow(clippy::unwrap_used, clippy::panic)]

mod cluster;
mod courier;
mod fetching;
mod logs;
mod tenants;
mod uploads;
mod world;

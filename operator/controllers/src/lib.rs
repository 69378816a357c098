//! Freehold's controllers, a folder a kind. Each reads `dereference → validate
//! → plan → build → apply → status`; only the first and the last two hold a
//! client.

pub mod accounts;
pub mod chain_transaction;
pub mod compute_account;
pub mod compute_budget;
pub mod compute_lease;
pub mod compute_provider;
pub mod context;
pub mod crossings;
pub mod goals;
pub mod live;
pub mod metrics;
pub mod news;
pub mod rbac;
pub mod task;

//! The EVM side of Freehold: contract bindings, one consistent reader a chain
//! account ([`view`]), what goals mean on the chain ([`goal`], [`calldata`]),
//! the rules of the outbox and the signer.

pub mod audit;
pub mod bindings;
pub mod calldata;
pub mod failpoint;
pub mod goal;
pub mod index;
pub mod outbox;
pub mod reader;
pub mod revert;
pub mod rpc;
pub mod signer;
pub mod view;

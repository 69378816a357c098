//! The signer over HTTP, with a fake TokenReview: what an operator gets, and what one that was
//! taken over does not get.

#![allow(clippy::panic)] // a test may

mod chain;
mod http;
mod lies;
mod world;

//! Tests of the lifecycle as pure functions, over a small world that stands in
//! for chain, provider and outbox.

mod adoption;
mod choosing;
mod cluster;
mod endings;
mod funding;
mod http;
mod lifecycle;
mod ordering;
mod properties;
mod shown;
mod sweeping;
mod top_up;
mod validation;
mod world;

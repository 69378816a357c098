//! Training and batch inference on libtorch under Freehold's container
//! contract: a task file in, checkpoints, progress and outputs out.
//!
//! Nothing that a run computes reads a clock or draws entropy, so a run that
//! was interrupted and resumed ends with the same bytes as one that was not: on
//! the same machine, the same kind of device and with as many threads. On CUDA
//! cuDNN may add in another order, so that the last digits of a convolutional
//! network can differ.

#[cfg(feature = "torch")]
pub mod artifact;
pub mod batches;
pub mod checkpoint;
pub mod data;
#[cfg(feature = "torch")]
pub mod dataset;
pub mod description;
#[cfg(feature = "torch")]
pub mod device;
pub mod error;
#[cfg(feature = "torch")]
pub mod evaluate;
pub mod evaluation;
#[cfg(feature = "torch")]
pub mod exact;
pub mod files;
#[cfg(feature = "torch")]
pub mod infer;
pub mod memory;
#[cfg(feature = "torch")]
pub mod model;
#[cfg(feature = "torch")]
pub mod optim;
pub mod progress;
pub mod recipe;
pub mod rng;
pub mod schedule;
pub mod summary;
pub mod task;
pub mod tensors;
#[cfg(feature = "torch")]
pub mod train;

pub use error::{Error, Result};

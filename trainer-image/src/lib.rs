//! Training and batch inference on libtorch under Freehold's container
//! contract: a task file in, checkpoints, progress and outputs out.
//!
//! A run is a function of the task, the data and the number of threads:
//! nothing in it reads a clock or draws entropy, so a run that was interrupted
//! and resumed ends with the same bytes as one that was not.

pub mod artifact;
pub mod batches;
pub mod checkpoint;
pub mod data;
pub mod dataset;
pub mod device;
pub mod error;
pub mod evaluate;
pub mod files;
pub mod infer;
pub mod memory;
pub mod model;
pub mod optim;
pub mod progress;
pub mod recipe;
pub mod rng;
pub mod schedule;
pub mod summary;
pub mod task;
pub mod tensors;
pub mod train;

pub use error::{Error, Result};

//! Exact programs on libtorch. What a program means is defined by `freehold_exact`; here it is computed, fast, to the same
//! bits: a training run (`train`) from a task's data (`data`) and recipe (`recipe`, `plan`), in segments whose states are
//! committed to (`checkpoint`, `trace`), so that anybody can compute one of them again (`replay`).

pub mod checkpoint;
pub mod data;
pub mod engine;
pub mod inspect;
mod kernels;
pub mod machine;
pub mod plan;
pub mod quantise;
pub mod recipe;
mod regions;
pub mod replay;
pub mod trace;
pub mod train;
pub mod units;

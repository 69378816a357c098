//! Exact programs on libtorch. What a program means is defined by `freehold_exact`; here it is computed, fast, to the same
//! bits.

mod kernels;
pub mod machine;
pub mod recipe;
mod regions;
pub mod units;

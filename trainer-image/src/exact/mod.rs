//! Exact programs on libtorch. What a program means is defined by `freehold_exact`; here it is computed, fast, to the same
//! bits.

pub mod machine;
pub mod quantise;
pub mod recipe;
pub mod units;

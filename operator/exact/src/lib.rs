//! Integer programs. Results of floating-point training differ between kernels, thread counts and devices, so a
//! stranger's work cannot be checked by equality. Those of a list of operators over integers, whose every intermediate is
//! representable, do not.
//!
//! `op` lists the operators, `element` says what each means, `interpret` computes by that definition, `range` proves that
//! nothing overflows whatever the data are, `commit` makes roots of what was computed and opens them, `descriptor`
//! does so with the program itself. No I/O.

pub mod build;
pub mod commit;
pub mod compile;
pub mod descriptor;
pub mod draw;
pub mod element;
pub mod fixed;
pub mod grad;
pub mod inference;
pub mod interpret;
pub mod model;
pub mod net;
pub mod op;
pub mod optim;
pub mod program;
pub mod range;
pub mod recipe;
mod rows;
pub mod tensor;
#[cfg(any(test, feature = "testkit"))]
pub mod testkit;
pub mod trace;

#[cfg(test)]
mod tests;

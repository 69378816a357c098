mod commit;
mod elements;
mod gradients;
mod maps;
mod programs;
mod random;
mod training;

use std::sync::Arc;

use alloy_primitives::B256;

use crate::build::{Builder, Id};
use crate::element::Context;
use crate::interpret::{self, Inputs};
use crate::op::Op;
use crate::program::{List, Program};
use crate::tensor::Tensor;

pub(crate) use gradients::spoiled;

fn context() -> Context {
    Context { seed: B256::repeat_byte(5), step: 3 }
}

fn tensor(shape: &[usize], values: &[i64]) -> Tensor {
    Tensor::new(shape, values.to_vec()).unwrap()
}

/// What the operator makes of these operands, by the interpreter.
fn compute(op: Op, operands: &[Tensor], shape: &[usize]) -> Result<Tensor, interpret::Error> {
    let mut builder = Builder::new(Program { steps: 10, ..Program::default() }, List::Evaluate);
    let ids: Vec<Id> = operands.iter().map(|one| builder.constant("operand", one.clone()).unwrap()).collect();
    let result = builder.push_as(op, &ids, shape).unwrap();
    evaluate(&builder.finish(&[result]), &[])
}

fn evaluate(program: &Program, data: &[Arc<Tensor>]) -> Result<Tensor, interpret::Error> {
    let inputs = Inputs { state: &[], data, context: context() };
    let results = interpret::run(program, List::Evaluate, &inputs)?;
    Ok(results[0].as_ref().clone())
}

//! The reference interpreter: every element by its rule, one after another, in checked arithmetic. Slow, and right by
//! definition.

use std::sync::Arc;

use crate::element::{self, Context, Read, element};
use crate::op::Op;
use crate::program::{Declared, List, Program};
use crate::tensor::{Tensor, count};

/// What a list is computed from.
#[derive(Clone, Debug)]
pub struct Inputs<'a> {
    pub state: &'a [Arc<Tensor>],
    pub data: &'a [Arc<Tensor>],
    pub context: Context,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("{kind} `{name}` {why}")]
    Input { kind: &'static str, name: String, why: String },
    #[error("operator {node} (`{op}`), element {place}: {source}")]
    Element { node: usize, op: &'static str, place: usize, source: element::Error },
}

struct Slices<'a>(&'a [&'a [i64]]);

impl Read for Slices<'_> {
    fn at(&mut self, operand: usize, place: usize) -> i64 {
        self.0[operand][place]
    }
}

/// That state or data are what the program declares: number, shape and range.
pub fn check_inputs(kind: &'static str, declared: &[Declared], given: &[Arc<Tensor>]) -> Result<(), Error> {
    if declared.len() != given.len() {
        let why = format!("is one of {} tensors, {} are given", declared.len(), given.len());
        let name = declared.first().map_or_else(String::new, |one| one.name.clone());
        return Err(Error::Input { kind, name, why });
    }
    for (declared, tensor) in declared.iter().zip(given) {
        let refuse = |why| Error::Input { kind, name: declared.name.clone(), why };
        if declared.shape != tensor.shape() {
            return Err(refuse(format!("has shape {:?}, {:?} is given", declared.shape, tensor.shape())));
        }
        let outside = |value: &&i64| !(declared.low..=declared.high).contains(*value);
        if let Some(value) = tensor.values().iter().find(outside) {
            return Err(refuse(format!("holds {value}; it is from {} to {}", declared.low, declared.high)));
        }
    }
    Ok(())
}

/// The values of every node of the list. The program has passed its check.
pub fn trace(program: &Program, list: List, inputs: &Inputs<'_>) -> Result<Vec<Arc<Tensor>>, Error> {
    if list != List::Init {
        check_inputs("state", &program.state, inputs.state)?;
    }
    check_inputs("data", &program.data, inputs.data)?;
    let graph = program.list(list);
    let mut values: Vec<Arc<Tensor>> = Vec::with_capacity(graph.nodes.len());
    for (at, node) in graph.nodes.iter().enumerate() {
        let source = match node.op {
            Op::State { index } => Some(inputs.state[index].clone()),
            Op::Data { index } => Some(inputs.data[index].clone()),
            Op::Constant { index } => Some(Arc::new(program.constants[index].values.clone())),
            _ => None,
        };
        if let Some(source) = source {
            values.push(source);
            continue;
        }
        let operands: Vec<&Tensor> = node.of.iter().map(|of| values[*of].as_ref()).collect();
        let shapes: Vec<&[usize]> = operands.iter().map(|operand| operand.shape()).collect();
        let slices: Vec<&[i64]> = operands.iter().map(|operand| operand.values()).collect();
        let one = |place| {
            element(&node.op, &shapes, &node.shape, place, &inputs.context, &mut Slices(&slices))
                .map_err(|source| Error::Element { node: at, op: node.op.name(), place, source })
        };
        let result: Vec<i64> = (0..count(&node.shape)).map(one).collect::<Result<_, _>>()?;
        let made = Tensor::new(node.shape.clone(), result).map_err(|error| Error::Input {
            kind: "operator",
            name: at.to_string(),
            why: error.to_string(),
        })?;
        values.push(Arc::new(made));
    }
    Ok(values)
}

/// The list's results.
pub fn run(program: &Program, list: List, inputs: &Inputs<'_>) -> Result<Vec<Arc<Tensor>>, Error> {
    let values = trace(program, list, inputs)?;
    Ok(program.list(list).results.iter().map(|result| values[*result].clone()).collect())
}

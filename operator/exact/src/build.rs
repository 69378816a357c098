//! Makes a list operator by operator: shapes are inferred, widths are the narrowest that the proven range allows, and what
//! could leave its range is refused where it is written.

use crate::op::Op;
use crate::program::{Constant, Declared, List, Node, Program, Refusal};
use crate::range::Range;
use crate::tensor::{Tensor, Width};

/// A node of the list that is being made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(pub usize);

#[derive(Debug)]
pub struct Builder {
    program: Program,
    list: List,
    ranges: Vec<Range>,
}

impl Builder {
    pub fn new(program: Program, list: List) -> Self {
        Self { program, list, ranges: Vec::new() }
    }

    pub fn program(&self) -> &Program {
        &self.program
    }

    pub fn shape(&self, id: Id) -> &[usize] {
        &self.program.list(self.list).nodes[id.0].shape
    }

    pub fn range(&self, id: Id) -> Range {
        self.ranges[id.0]
    }

    /// An operator whose operands say what shape it has.
    pub fn push(&mut self, op: Op, of: &[Id]) -> Result<Id, Refusal> {
        let shapes: Vec<&[usize]> = of.iter().map(|id| self.shape(*id)).collect();
        let shape = match op.shape(&shapes) {
            Ok(Some(shape)) => shape,
            Ok(None) => return Err(self.refusal(&op, &[], "its shape has to be given".into())),
            Err(why) => return Err(self.refusal(&op, &[], why)),
        };
        self.push_as(op, of, &shape)
    }

    /// An operator with this shape.
    pub fn push_as(&mut self, op: Op, of: &[Id], shape: &[usize]) -> Result<Id, Refusal> {
        let of: Vec<usize> = of.iter().map(|id| id.0).collect();
        let nodes = &mut self.program.list_mut(self.list).nodes;
        let at = nodes.len();
        nodes.push(Node { op: op.clone(), of, shape: shape.to_vec(), width: Width::W64 });
        let checked = self.program.check_node(self.list, at, &self.ranges);
        match checked {
            Ok((range, width)) => {
                self.program.list_mut(self.list).nodes[at].width = width;
                self.ranges.push(range);
                Ok(Id(at))
            }
            Err(why) => {
                self.program.list_mut(self.list).nodes.pop();
                Err(self.refusal(&op, shape, why))
            }
        }
    }

    fn refusal(&self, op: &Op, shape: &[usize], why: String) -> Refusal {
        let node = self.program.list(self.list).nodes.len();
        Refusal::Node { list: self.list, node, op: op.name(), shape: shape.to_vec(), why }
    }

    pub fn state(&mut self, index: usize) -> Result<Id, Refusal> {
        let shape = self.program.state.get(index).map(|one| one.shape.clone()).unwrap_or_default();
        self.push_as(Op::State { index }, &[], &shape)
    }

    pub fn data(&mut self, index: usize) -> Result<Id, Refusal> {
        let shape = self.program.data.get(index).map(|one| one.shape.clone()).unwrap_or_default();
        self.push_as(Op::Data { index }, &[], &shape)
    }

    /// Declares a constant and takes it.
    pub fn constant(&mut self, name: &str, values: Tensor) -> Result<Id, Refusal> {
        let shape = values.shape().to_vec();
        let width = values.interval().map_or(Width::W8, Width::of);
        let index = self.program.constants.len();
        self.program.constants.push(Constant { name: name.into(), width, values });
        self.push_as(Op::Constant { index }, &[], &shape)
    }

    /// Declares a part of the state that is one of `list`'s results, with the range that was proven of it.
    pub fn finish(mut self, results: &[Id]) -> Program {
        self.program.list_mut(self.list).results = results.iter().map(|id| id.0).collect();
        self.program
    }
}

/// A tensor that is given from outside, in the narrowest width that holds its range.
pub fn declare(name: &str, shape: &[usize], low: i64, high: i64) -> Declared {
    let width = Width::of(crate::tensor::Interval::new(low, high));
    Declared { name: name.into(), shape: shape.to_vec(), width, low, high }
}

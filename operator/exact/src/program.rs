//! A program: what it declares, three lists of operators (the first state, a step, an evaluation), and its identity.

use alloy_primitives::B256;
use serde::Serialize;

use crate::commit;
use crate::descriptor;
use crate::op::{self, MAX_ELEMENTS, MAX_RANK, Op};
use crate::range::{self, Range};
use crate::tensor::{Interval, LIMIT, Tensor, Width};

pub const VERSION: u32 = 1;
/// Operators of a list at most.
pub const MAX_NODES: usize = 16_384;
/// Tensors that a program declares at most, of each kind.
pub const MAX_TENSORS: usize = 1_024;

/// A tensor that is given from outside: a part of the state, or of the data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Declared {
    pub name: String,
    pub shape: Vec<usize>,
    pub width: Width,
    /// Every element is from `low` to `high`: asserted of data, proven of the state.
    pub low: i64,
    pub high: i64,
}

impl Declared {
    pub fn interval(&self) -> Interval {
        Interval::new(self.low, self.high)
    }
}

/// A table, or whatever else the recipe fixes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Constant {
    pub name: String,
    pub width: Width,
    pub values: Tensor,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Node {
    #[serde(flatten)]
    pub op: Op,
    /// Numbers of earlier nodes of the list.
    pub of: Vec<usize>,
    pub shape: Vec<usize>,
    pub width: Width,
}

/// Operators in the order in which they are computed; each is named by its number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Graph {
    pub nodes: Vec<Node>,
    pub results: Vec<usize>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    /// Steps of a training; `step` is below it.
    pub steps: u32,
    pub constants: Vec<Constant>,
    pub state: Vec<Declared>,
    pub data: Vec<Declared>,
    /// Its results are the state before the first step.
    pub init: Graph,
    /// Its results are the state after a step.
    pub step: Graph,
    pub evaluate: Graph,
    /// Names of what `evaluate` results in.
    pub metrics: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum List {
    Init,
    Step,
    Evaluate,
}

impl List {
    pub const ALL: [Self; 3] = [Self::Init, Self::Step, Self::Evaluate];

    fn name(self) -> &'static str {
        match self {
            Self::Init => "init",
            Self::Step => "step",
            Self::Evaluate => "evaluate",
        }
    }
}

/// Why a program is not run: where, and what would fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("{list}, operator {node} (`{op}`, shape {shape:?}): {why}", list = list.name())]
    Node { list: List, node: usize, op: &'static str, shape: Vec<usize>, why: String },
    #[error("{kind} `{name}`: {why}")]
    Tensor { kind: &'static str, name: String, why: String },
    #[error("{list}: {why}", list = list.name())]
    List { list: List, why: String },
    #[error("the program {0}")]
    Program(String),
}

/// What the three lists are proven to keep to, node by node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges {
    pub init: Vec<Range>,
    pub step: Vec<Range>,
    pub evaluate: Vec<Range>,
}

impl Ranges {
    pub fn of(&self, list: List) -> &[Range] {
        match list {
            List::Init => &self.init,
            List::Step => &self.step,
            List::Evaluate => &self.evaluate,
        }
    }
}

impl Program {
    pub fn list(&self, list: List) -> &Graph {
        match list {
            List::Init => &self.init,
            List::Step => &self.step,
            List::Evaluate => &self.evaluate,
        }
    }

    pub(crate) fn list_mut(&mut self, list: List) -> &mut Graph {
        match list {
            List::Init => &mut self.init,
            List::Step => &mut self.step,
            List::Evaluate => &mut self.evaluate,
        }
    }

    /// The root of the program's tree: a contract can open any operator of it.
    pub fn id(&self) -> B256 {
        descriptor::id(self)
    }

    /// For people to read.
    pub fn encoded(&self) -> Encoded<'_> {
        let constants = self.constants.iter().map(|constant| EncodedConstant {
            name: &constant.name,
            shape: constant.values.shape(),
            width: constant.width,
            root: commit::tensor_root(&constant.values, constant.width),
        });
        Encoded {
            version: VERSION,
            steps: self.steps,
            constants: constants.collect(),
            state: &self.state,
            data: &self.data,
            init: &self.init,
            step: &self.step,
            evaluate: &self.evaluate,
            metrics: &self.metrics,
        }
    }

    /// That every shape fits and every value is representable, whatever state, data and seed are: or where not.
    pub fn check(&self) -> Result<Ranges, Refusal> {
        self.check_declared()?;
        let of = |list: List| self.check_list(list);
        let ranges = Ranges { init: of(List::Init)?, step: of(List::Step)?, evaluate: of(List::Evaluate)? };
        self.check_state(List::Init, &ranges.init)?;
        self.check_state(List::Step, &ranges.step)?;
        if self.metrics.len() != self.evaluate.results.len() {
            let (names, results) = (self.metrics.len(), self.evaluate.results.len());
            return Err(Refusal::Program(format!("names {names} metrics and evaluates {results}")));
        }
        Ok(ranges)
    }

    fn check_declared(&self) -> Result<(), Refusal> {
        let counts = [self.constants.len(), self.state.len(), self.data.len()];
        if counts.iter().any(|count| *count > MAX_TENSORS) {
            return Err(Refusal::Program(format!("declares {counts:?} tensors; it may have {MAX_TENSORS} of a kind")));
        }
        let kinds = [("state", &self.state), ("data", &self.data)];
        for (kind, declared) in kinds.into_iter().flat_map(|(kind, all)| all.iter().map(move |one| (kind, one))) {
            let refuse = |why| Refusal::Tensor { kind, name: declared.name.clone(), why };
            shape(&declared.shape).map_err(refuse)?;
            if declared.low > declared.high {
                return Err(refuse(format!("low {} is above high {}", declared.low, declared.high)));
            }
            held(declared.interval(), declared.width).map_err(refuse)?;
        }
        for constant in &self.constants {
            let refuse = |why| Refusal::Tensor { kind: "constant", name: constant.name.clone(), why };
            shape(constant.values.shape()).map_err(refuse)?;
            constant.values.interval().map_or(Ok(()), |values| held(values, constant.width)).map_err(refuse)?;
        }
        Ok(())
    }

    fn check_list(&self, list: List) -> Result<Vec<Range>, Refusal> {
        let graph = self.list(list);
        if graph.nodes.len() > MAX_NODES {
            let why = format!("has {} operators; it may have {MAX_NODES}", graph.nodes.len());
            return Err(Refusal::List { list, why });
        }
        let mut ranges: Vec<Range> = Vec::with_capacity(graph.nodes.len());
        for (at, node) in graph.nodes.iter().enumerate() {
            let refuse = |why| Refusal::Node { list, node: at, op: node.op.name(), shape: node.shape.clone(), why };
            let (range, width) = self.check_node(list, at, &ranges).map_err(refuse)?;
            if width != node.width {
                let (fits, bits) = (width.bits(), node.width.bits());
                return Err(refuse(format!("values take {fits} bits and {bits} are declared")));
            }
            ranges.push(range);
        }
        match graph.results.iter().find(|result| **result >= graph.nodes.len()) {
            Some(result) => Err(Refusal::List { list, why: format!("results in operator {result}, which it has not") }),
            None => Ok(ranges),
        }
    }

    /// What is proven of the node, and its width: a source's is declared, others have the narrowest.
    pub(crate) fn check_node(&self, list: List, at: usize, ranges: &[Range]) -> Result<(Range, Width), String> {
        let nodes = &self.list(list).nodes;
        let node = &nodes[at];
        shape(&node.shape)?;
        if let Some(later) = node.of.iter().find(|of| **of >= at) {
            return Err(format!("takes the result of operator {later}, which does not come before it"));
        }
        let shapes: Vec<&[usize]> = node.of.iter().map(|of| nodes[*of].shape.as_slice()).collect();
        node.op.check(&shapes, &node.shape)?;
        if node.op.reads_rows() {
            let mut operands = node.of.iter().map(|of| &nodes[*of]);
            operands.try_for_each(|operand| op::check_row(&operand.shape, operand.width.bytes()))?;
        }
        let source = self.source(list, &node.op)?;
        if let Some((shape, _)) = source.as_ref().filter(|(shape, _)| *shape != node.shape) {
            return Err(format!("what is declared has shape {shape:?}"));
        }
        let range = range::of(self, self.list(list), at, ranges)?;
        if range.values.magnitude() >= LIMIT.into() {
            return Err(format!("values take {} bits; they have to be below 2^52", range.values.bits()));
        }
        Ok((range, source.map_or_else(|| Width::of(range.values), |(_, width)| width)))
    }

    /// Shape and width of what a source gives.
    fn source(&self, list: List, op: &Op) -> Result<Option<(Vec<usize>, Width)>, String> {
        let declared = |one: &'_ Declared| (one.shape.clone(), one.width);
        let (kind, index, found) = match *op {
            Op::State { .. } if list == List::Init => return Err("there is no state yet".into()),
            Op::State { index } => ("state", index, self.state.get(index).map(declared)),
            Op::Data { index } => ("data", index, self.data.get(index).map(declared)),
            Op::Constant { index } => {
                let constant = self.constants.get(index);
                ("constant", index, constant.map(|one| (one.values.shape().to_vec(), one.width)))
            }
            _ => return Ok(None),
        };
        found.map(Some).ok_or_else(|| format!("there is no {kind} {index}"))
    }

    /// The list gives the whole state, each part within what is declared: by induction it always is.
    fn check_state(&self, list: List, ranges: &[Range]) -> Result<(), Refusal> {
        let graph = self.list(list);
        if graph.results.len() != self.state.len() {
            let why = format!("results in {} tensors, the state has {}", graph.results.len(), self.state.len());
            return Err(Refusal::List { list, why });
        }
        for (result, declared) in graph.results.iter().zip(&self.state) {
            let node = &graph.nodes[*result];
            let refuse =
                |why| Refusal::Node { list, node: *result, op: node.op.name(), shape: node.shape.clone(), why };
            if node.shape != declared.shape {
                return Err(refuse(format!("state `{}` has shape {:?}", declared.name, declared.shape)));
            }
            let values = ranges[*result].values;
            if !declared.interval().contains(values) {
                let (low, high) = (values.low, values.high);
                return Err(refuse(format!(
                    "from {low} to {high}, state `{}` leaves its range of {} to {}: clamp it",
                    declared.name, declared.low, declared.high
                )));
            }
        }
        Ok(())
    }
}

fn shape(shape: &[usize]) -> Result<(), String> {
    let elements =
        shape.iter().try_fold(1_usize, |all, side| all.checked_mul(*side)).filter(|all| *all <= MAX_ELEMENTS);
    if shape.len() > MAX_RANK {
        return Err(format!("has {} dimensions; it may have {MAX_RANK}", shape.len()));
    }
    match elements {
        None => Err(format!("shape {shape:?} has more than {MAX_ELEMENTS} elements")),
        Some(0) => Err(format!("shape {shape:?} has no elements")),
        Some(_) => Ok(()),
    }
}

fn held(values: Interval, width: Width) -> Result<(), String> {
    if values.magnitude() >= LIMIT.into() {
        return Err(format!("values take {} bits; they have to be below 2^52", values.bits()));
    }
    if !width.interval().contains(values) {
        let fits = Width::of(values).bits();
        return Err(format!(
            "from {} to {}, values do not fit into {} bits: declare {fits}",
            values.low,
            values.high,
            width.bits()
        ));
    }
    Ok(())
}

/// As it is shown: constants stand as their roots.
#[derive(Debug, Serialize)]
pub struct Encoded<'a> {
    version: u32,
    steps: u32,
    constants: Vec<EncodedConstant<'a>>,
    state: &'a [Declared],
    data: &'a [Declared],
    init: &'a Graph,
    step: &'a Graph,
    evaluate: &'a Graph,
    metrics: &'a [String],
}

#[derive(Debug, Serialize)]
struct EncodedConstant<'a> {
    name: &'a str,
    shape: &'a [usize],
    width: Width,
    root: B256,
}

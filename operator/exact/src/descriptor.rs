//! A program as a tree that a contract can open: a header of what it declares, and a leaf for each operator of its three
//! lists that says everything the operator's rule needs. SHA-256, each use under a tag of its own; the tree is filled up
//! with zeros to a power of two, as those of `commit` are. Codes and fields are those of
//! `contracts/src/types/CourtTypes.sol`.

use alloy_primitives::{B256, I256, U256};
use alloy_sol_types::{SolValue, sol};
use sha2::{Digest, Sha256};

use crate::commit;
use crate::op::{Op, Window};
use crate::program::{self, Declared, Graph, List, Program, VERSION};
use crate::tensor::Width;

/// Of a branch, as in `commit`; the others follow on the tags there.
const BRANCH: u8 = 1;
const OPERATOR: u8 = 4;
const HEADER: u8 = 5;
const PROGRAM: u8 = 6;

sol! {
    /// How a tensor is laid out: bits of an element, and its shape.
    #[derive(Debug, PartialEq, Eq)]
    struct Form {
        uint8 bits;
        uint64[] shape;
    }

    /// An operator. A source has one form, that of what it stands for, and a constant its root.
    #[derive(Debug, PartialEq, Eq)]
    struct Descriptor {
        uint8 list;
        uint32 number;
        uint8 op;
        int256[] attributes;
        bytes32 root;
        uint32[] operands;
        Form[] forms;
        Form result;
    }

    struct DeclaredTensor {
        string name;
        Form form;
        int64 low;
        int64 high;
    }

    struct DeclaredConstant {
        string name;
        Form form;
        bytes32 root;
    }

    /// What a program declares besides its operators.
    struct Header {
        uint32 version;
        uint32 steps;
        DeclaredTensor[] state;
        DeclaredTensor[] data;
        DeclaredConstant[] constants;
        uint32[][] results;
        string[] metrics;
    }
}

/// One operator's leaf, and what leads from it to the program's id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    pub header: B256,
    /// Operators of the three lists.
    pub counts: [u32; 3],
    /// The encoded [`Descriptor`].
    pub descriptor: Vec<u8>,
    /// Siblings, the leaf's first.
    pub path: Vec<B256>,
}

/// The tree, its header and counts.
struct Tree {
    header: B256,
    counts: [u32; 3],
    layers: Vec<Vec<B256>>,
}

impl Tree {
    fn of(program: &Program) -> Self {
        let numbered =
            List::ALL.into_iter().flat_map(|list| (0..program.list(list).nodes.len()).map(move |n| (list, n)));
        let leaves = numbered.map(|(list, number)| hash(OPERATOR, &[&encoded(program, list, number)])).collect();
        Self {
            header: hash(HEADER, &[&header(program).abi_encode()]),
            counts: List::ALL.map(|list| word(program.list(list).nodes.len())),
            layers: layers(leaves),
        }
    }

    fn id(&self) -> B256 {
        let counts = self.counts.map(|count| U256::from(count).to_be_bytes::<32>()).concat();
        let top = self.layers.last().and_then(|layer| layer.first()).copied().unwrap_or_default();
        hash(PROGRAM, &[self.header.as_slice(), &counts, top.as_slice()])
    }
}

/// The program's identity.
pub fn id(program: &Program) -> B256 {
    Tree::of(program).id()
}

/// Of an operator that the program has.
pub fn open(program: &Program, list: List, number: usize) -> Option<Opening> {
    program.list(list).nodes.get(number)?;
    let tree = Tree::of(program);
    let before = List::ALL.into_iter().take_while(|other| *other != list);
    let leaf = number + before.map(|other| program.list(other).nodes.len()).sum::<usize>();
    let below = &tree.layers[..tree.layers.len() - 1];
    let path = below.iter().enumerate().map(|(level, layer)| layer[(leaf >> level) ^ 1]).collect();
    Some(Opening { header: tree.header, counts: tree.counts, descriptor: encoded(program, list, number), path })
}

fn hash(tag: u8, parts: &[&[u8]]) -> B256 {
    let mut hasher = Sha256::new_with_prefix([tag]);
    parts.iter().for_each(|part| hasher.update(part));
    B256::from_slice(&hasher.finalize())
}

/// All layers, leaves first.
fn layers(mut layer: Vec<B256>) -> Vec<Vec<B256>> {
    layer.resize(layer.len().max(1).next_power_of_two(), B256::ZERO);
    let mut layers = vec![layer];
    while let Some(below) = layers.last().filter(|layer| layer.len() > 1) {
        let above = below.chunks(2).map(|pair| hash(BRANCH, &[pair[0].as_slice(), pair[1].as_slice()])).collect();
        layers.push(above);
    }
    layers
}

fn encoded(program: &Program, list: List, number: usize) -> Vec<u8> {
    descriptor(program, list, number).abi_encode()
}

/// What the leaf of this operator says.
pub fn descriptor(program: &Program, list: List, number: usize) -> Descriptor {
    let nodes = &program.list(list).nodes;
    let node = &nodes[number];
    let result = form(&node.shape, node.width);
    let (is_source, root) = match node.op {
        Op::State { .. } | Op::Data { .. } => (true, B256::ZERO),
        Op::Constant { index } => (true, program.constants.get(index).map_or(B256::ZERO, root)),
        _ => (false, B256::ZERO),
    };
    let operand = |of: &usize| nodes.get(*of).map_or_else(|| form(&[], Width::W8), |one| form(&one.shape, one.width));
    Descriptor {
        list: code_of_list(list),
        number: word(number),
        op: code(&node.op),
        attributes: attributes(&node.op),
        root,
        operands: node.of.iter().map(|of| word(*of)).collect(),
        forms: if is_source { vec![result.clone()] } else { node.of.iter().map(operand).collect() },
        result,
    }
}

fn header(program: &Program) -> Header {
    let declared = |all: &[Declared]| all.iter().map(declared_tensor).collect();
    let constants = program.constants.iter().map(|one| DeclaredConstant {
        name: one.name.clone(),
        form: form(one.values.shape(), one.width),
        root: root(one),
    });
    let results = |graph: &Graph| graph.results.iter().map(|result| word(*result)).collect();
    Header {
        version: VERSION,
        steps: program.steps,
        state: declared(&program.state),
        data: declared(&program.data),
        constants: constants.collect(),
        results: List::ALL.into_iter().map(|list| results(program.list(list))).collect(),
        metrics: program.metrics.clone(),
    }
}

fn declared_tensor(one: &Declared) -> DeclaredTensor {
    DeclaredTensor { name: one.name.clone(), form: form(&one.shape, one.width), low: one.low, high: one.high }
}

fn root(constant: &program::Constant) -> B256 {
    commit::tensor_root(&constant.values, constant.width)
}

fn form(shape: &[usize], width: Width) -> Form {
    Form { bits: width.bits(), shape: shape.iter().map(|side| *side as u64).collect() }
}

/// Numbers of operators are far below this: `MAX_NODES`.
fn word(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn code_of_list(list: List) -> u8 {
    match list {
        List::Init => 0,
        List::Step => 1,
        List::Evaluate => 2,
    }
}

/// The operator's number in the contract's list.
fn code(op: &Op) -> u8 {
    match op {
        Op::State { .. } => 0,
        Op::Data { .. } => 1,
        Op::Constant { .. } => 2,
        Op::Step => 3,
        Op::Matmul => 4,
        Op::Transpose { .. } => 5,
        Op::Reshape => 6,
        Op::Broadcast => 7,
        Op::Slice { .. } => 8,
        Op::Pad { .. } => 9,
        Op::Im2col(_) => 10,
        Op::Col2im(_) => 11,
        Op::Gather => 12,
        Op::Add => 13,
        Op::Sub => 14,
        Op::Mul => 15,
        Op::Clamp { .. } => 16,
        Op::Less => 17,
        Op::Equal => 18,
        Op::Select => 19,
        Op::Relu => 20,
        Op::Sign => 21,
        Op::Shift { .. } => 22,
        Op::ShiftBy => 23,
        Op::Div => 24,
        Op::Isqrt => 25,
        Op::Max => 26,
        Op::Sum => 27,
        Op::Argmax => 28,
        Op::Rowexp => 29,
        Op::Quant => 30,
        Op::Table => 31,
        Op::Sample { .. } => 32,
        Op::Random { .. } => 33,
    }
}

/// What the operator was given, in the order of its definition.
fn attributes(op: &Op) -> Vec<I256> {
    let sizes = |sizes: &[usize]| sizes.iter().map(|size| I256::from_raw(U256::from(*size))).collect();
    let signed = |value: &i64| I256::try_from(*value).unwrap_or_default();
    match op {
        Op::State { index } | Op::Data { index } | Op::Constant { index } => sizes(&[*index]),
        Op::Transpose { order } => sizes(order),
        Op::Slice { dimension, start } => sizes(&[*dimension, *start]),
        Op::Pad { dimension, before } => sizes(&[*dimension, *before]),
        Op::Im2col(window) | Op::Col2im(window) => {
            let Window { kernel: [high, wide], stride, padding } = *window;
            sizes(&[high, wide, stride, padding])
        }
        Op::Clamp { low, high } => [low, high].map(signed).to_vec(),
        Op::Shift { by } => vec![signed(by)],
        Op::Sample { rows } => vec![I256::from_raw(U256::from(*rows))],
        Op::Random { stream, bits } => [U256::from(*stream), U256::from(*bits)].map(I256::from_raw).to_vec(),
        Op::Step | Op::Matmul | Op::Reshape | Op::Broadcast | Op::Gather => Vec::new(),
        Op::Add | Op::Sub | Op::Mul | Op::Less | Op::Equal | Op::Select | Op::Relu | Op::Sign => Vec::new(),
        Op::ShiftBy | Op::Div | Op::Isqrt | Op::Max | Op::Sum | Op::Argmax | Op::Rowexp | Op::Quant | Op::Table => {
            Vec::new()
        }
    }
}

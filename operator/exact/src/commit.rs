//! Roots of tensors and states, and openings of their parts. SHA-256, each use under a tag of its own.
//!
//! A tensor's rows are written in its width, little-endian two's complement, each cut into chunks of at most 4 KiB; a
//! chunk is a leaf. Trees are filled up with zeros to a power of two. The root binds width and shape, too.

use alloy_primitives::B256;
use sha2::{Digest, Sha256};

use crate::tensor::{Tensor, Width, row_length};

/// The unit of opening.
pub const CHUNK: usize = 4_096;

const LEAF: u8 = 0;
const NODE: u8 = 1;
const TENSOR: u8 = 2;
const STATE: u8 = 3;
/// After the tags of `descriptor`.
const DATA: u8 = 7;

fn hash(tag: u8, parts: &[&[u8]]) -> B256 {
    let mut hasher = Sha256::new_with_prefix([tag]);
    parts.iter().for_each(|part| hasher.update(part));
    B256::from_slice(&hasher.finalize())
}

/// All layers, leaves first.
fn layers(leaves: Vec<B256>) -> Vec<Vec<B256>> {
    let mut layer = leaves;
    layer.resize(layer.len().max(1).next_power_of_two(), B256::ZERO);
    let mut layers = vec![layer];
    while let Some(below) = layers.last().filter(|layer| layer.len() > 1) {
        let above = below.chunks(2).map(|pair| hash(NODE, &[pair[0].as_slice(), pair[1].as_slice()])).collect();
        layers.push(above);
    }
    layers
}

fn top(layers: &[Vec<B256>]) -> B256 {
    layers.last().and_then(|layer| layer.first()).copied().unwrap_or_default()
}

/// Elements of one chunk of a row.
pub fn chunk_length(shape: &[usize], width: Width) -> usize {
    row_length(shape).min(CHUNK / width.bytes())
}

/// Bytes of each chunk, in order.
pub fn chunks(tensor: &Tensor, width: Width) -> impl Iterator<Item = Vec<u8>> {
    let length = chunk_length(tensor.shape(), width).max(1);
    let rows = tensor.values().chunks(row_length(tensor.shape()).max(1));
    let write =
        move |chunk: &[i64]| chunk.iter().flat_map(|value| value.to_le_bytes()[..width.bytes()].to_vec()).collect();
    rows.flat_map(move |row| row.chunks(length)).map(write)
}

fn leaves(tensor: &Tensor, width: Width) -> Vec<B256> {
    chunks(tensor, width).map(|chunk| hash(LEAF, &[&chunk])).collect()
}

fn bind(shape: &[usize], width: Width, root: B256) -> B256 {
    let sides: Vec<u8> = shape.iter().flat_map(|side| (*side as u64).to_be_bytes()).collect();
    hash(TENSOR, &[&[width.bits()], &sides, root.as_slice()])
}

pub fn tensor_root(tensor: &Tensor, width: Width) -> B256 {
    bind(tensor.shape(), width, top(&layers(leaves(tensor, width))))
}

/// Of a state before step `step`, from the roots of its tensors in the program's order.
pub fn state_root(step: u32, tensors: &[B256]) -> B256 {
    let count = tensors.len() as u64;
    let root = top(&layers(tensors.to_vec()));
    hash(STATE, &[&step.to_be_bytes(), &count.to_be_bytes(), root.as_slice()])
}

/// Of the data that a program declares, from the roots of its tensors in the program's order.
pub fn data_root(tensors: &[B256]) -> B256 {
    let count = tensors.len() as u64;
    hash(DATA, &[&count.to_be_bytes(), top(&layers(tensors.to_vec())).as_slice()])
}

/// A chunk, and what leads from it to the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    pub chunk: Vec<u8>,
    pub path: Vec<B256>,
}

/// Of the chunk that holds the element at `place`.
pub fn open(tensor: &Tensor, width: Width, place: usize) -> Opening {
    let (leaf, _) = position(tensor.shape(), width, place);
    let layers = layers(leaves(tensor, width));
    let below = &layers[..layers.len() - 1];
    let path = below.iter().enumerate().map(|(level, layer)| layer[(leaf >> level) ^ 1]).collect();
    Opening { chunk: chunks(tensor, width).nth(leaf).unwrap_or_default(), path }
}

/// Which chunk an element is in, and where in it.
pub fn position(shape: &[usize], width: Width, place: usize) -> (usize, usize) {
    let (row, length) = (row_length(shape).max(1), chunk_length(shape, width).max(1));
    let (of_row, in_row) = (place / row, place % row);
    (of_row * row.div_ceil(length) + in_row / length, in_row % length)
}

/// The element at `place` of the tensor with this root, if the opening is of it.
pub fn opened(root: B256, shape: &[usize], width: Width, place: usize, opening: &Opening) -> Option<i64> {
    let (leaf, at) = position(shape, width, place);
    let mut above = hash(LEAF, &[&opening.chunk]);
    for (level, sibling) in opening.path.iter().enumerate() {
        let right = leaf.checked_shr(u32::try_from(level).ok()?)? & 1 == 1;
        let (left, right) = if right { (sibling, &above) } else { (&above, sibling) };
        above = hash(NODE, &[left.as_slice(), right.as_slice()]);
    }
    let is_whole = leaf.checked_shr(u32::try_from(opening.path.len()).ok()?)? == 0;
    if !is_whole || bind(shape, width, above) != root {
        return None;
    }
    let bytes = opening.chunk.get(at * width.bytes()..(at + 1) * width.bytes())?;
    let fill = if bytes.last()? & 0x80 == 0 { 0 } else { 0xFF };
    let mut value = [fill; 8];
    value[..bytes.len()].copy_from_slice(bytes);
    Some(i64::from_le_bytes(value))
}

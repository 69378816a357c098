//! Named tensors to and from safetensors files.
//!
//! A file's metadata has the single key `freehold`: the format keeps metadata
//! in a hash map, and only one key gives the same bytes on every write.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Read;
use std::path::Path;

pub use safetensors::Dtype;
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::files;

#[cfg(feature = "torch")]
mod libtorch;
#[cfg(feature = "torch")]
pub use libtorch::copy_of;

const KEY: &str = "freehold";
/// Longest header that is read; a hundred thousand tensors fit.
const MAX_HEADER: u64 = 16 << 20;

/// A tensor's values as they lie in a file.
#[derive(Clone, Debug)]
pub struct Stored {
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

impl Stored {
    pub fn of_vector(values: &[f32]) -> Self {
        Self { shape: vec![values.len()], bytes: values.iter().flat_map(|value| value.to_le_bytes()).collect() }
    }

    pub fn to_vector(&self) -> Vec<f32> {
        self.bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
    }
}

pub type Named = BTreeMap<String, Stored>;

/// SHA-256 over names, shapes and values.
pub fn digest(tensors: &Named) -> String {
    let mut hasher = Sha256::new();
    for (name, stored) in tensors {
        hasher.update(format!("{name}{:?}", stored.shape));
        hasher.update(&stored.bytes);
    }
    files::hex(&hasher.finalize())
}

pub fn write(path: &Path, tensors: &Named, metadata: String) -> Result<()> {
    write_kinds(path, tensors.iter().map(|(name, stored)| (name.as_str(), Dtype::F32, stored)), metadata)
}

/// The same of any kinds of numbers.
pub fn write_kinds<'a>(
    path: &Path,
    tensors: impl Iterator<Item = (&'a str, Dtype, &'a Stored)>,
    metadata: String,
) -> Result<()> {
    let views = tensors
        .map(|(name, kind, stored)| Ok((name, TensorView::new(kind, stored.shape.clone(), &stored.bytes)?)))
        .collect::<std::result::Result<Vec<_>, safetensors::SafeTensorError>>()
        .map_err(|error| unwritable(path, error))?;
    files::write_atomically(path, |growing| {
        safetensors::serialize_to_file(views, Some(HashMap::from([(KEY.to_owned(), metadata)])), growing)
            .map_err(|error| unwritable(path, error))
    })
}

fn unwritable(path: &Path, error: safetensors::SafeTensorError) -> Error {
    Error::Io { action: "write", path: path.to_path_buf(), source: std::io::Error::other(error) }
}

/// All tensors of a file, with the metadata if it is one of ours. An error is
/// a sentence on what is wrong with the file.
pub fn read(path: &Path) -> std::result::Result<(Named, Option<String>), String> {
    let metadata = read_metadata(path)?;
    Ok((read_kinds(path, |_| Some(Dtype::F32))?, metadata))
}

/// All tensors of a file, each of the kind of numbers that `kind` says, where it says one.
pub fn read_kinds(path: &Path, kind: impl Fn(&str) -> Option<Dtype>) -> std::result::Result<Named, String> {
    let buffer = std::fs::read(path).map_err(|error| error.to_string())?;
    let file = SafeTensors::deserialize(&buffer).map_err(|error| error.to_string())?;
    let mut tensors = Named::new();
    for (name, view) in file.iter() {
        if let Some(kind) = kind(name).filter(|kind| *kind != view.dtype()) {
            return Err(format!("tensor `{name}` is {:?}, not {kind:?}", view.dtype()));
        }
        tensors.insert(name.to_owned(), Stored { shape: view.shape().to_vec(), bytes: view.data().to_vec() });
    }
    Ok(tensors)
}

/// Our metadata, without reading the tensors.
pub fn read_metadata(path: &Path) -> std::result::Result<Option<String>, String> {
    let mut file = File::open(path).map_err(|error| error.to_string())?;
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(|_| "it is too short".to_owned())?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER {
        return Err("its header is too long".into());
    }
    let mut header = Vec::new();
    file.take(length).read_to_end(&mut header).map_err(|error| error.to_string())?;
    let header: serde_json::Value = serde_json::from_slice(&header).map_err(|_| "its header is no JSON".to_owned())?;
    Ok(header["__metadata__"][KEY].as_str().map(str::to_owned))
}

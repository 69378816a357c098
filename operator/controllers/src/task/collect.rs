//! Brings results and checkpoints into the tenant's store, and looks whether
//! what was delivered can be used.

use std::io::Read;
use std::path::Path;

use freehold_core::B256;
use freehold_core::result::{self, ResultFile};
use freehold_core::wire::CheckpointNote;

use super::gateways::{self, Gateways, Lease};
use super::observed::Delivery;
use super::store::{self, Store};

/// Largest file that is taken of a stranger.
const MAX_FILE: u64 = 64 << 30;
/// Largest header of a safetensors file that is read.
const MAX_HEADER: u64 = 16 << 20;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Gateway(#[from] gateways::Error),
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// Fetches `result.json` and every file that it names.
pub async fn collect(
    gateways: &dyn Gateways,
    lease: &Lease,
    store: &Store,
    namespace: &str,
    result_hash: &B256,
) -> Result<(), Error> {
    let digest = hex::encode(result_hash);
    if !store.has(namespace, &digest) {
        let limit = u64::try_from(result::MAX_BYTES).unwrap_or(u64::MAX);
        gateways.download(lease, &digest, limit, &store.destination(namespace, &digest)?).await?;
    }
    let bytes = store.get(namespace, &digest)?.unwrap_or_default();
    // What cannot be read is judged by `inspect`.
    let Ok(file) = ResultFile::parse(&bytes) else { return Ok(()) };
    for output in file.outputs.iter().filter(|o| o.size <= MAX_FILE && !store.has(namespace, &o.sha256)) {
        gateways.download(lease, &output.sha256, output.size, &store.destination(namespace, &output.sha256)?).await?;
    }
    Ok(())
}

/// Fetches a checkpoint and remembers it as the newest.
pub async fn save_checkpoint(
    gateways: &dyn Gateways,
    lease: &Lease,
    store: &Store,
    namespace: &str,
    uid: &str,
    note: &CheckpointNote,
) -> Result<(), Error> {
    if !store.has(namespace, &note.sha256) {
        let to = store.destination(namespace, &note.sha256)?;
        gateways.download(lease, &note.sha256, note.size.min(MAX_FILE), &to).await?;
    }
    store.remember_checkpoint(namespace, uid, note)?;
    Ok(())
}

/// What the store holds of a delivered result, and whether it is what was asked for.
pub fn inspect(store: &Store, namespace: &str, result_hash: Option<&B256>, expected: Option<&str>) -> Delivery {
    let Some(hash) = result_hash else { return Delivery::Missing };
    let Ok(Some(bytes)) = store.get(namespace, &hex::encode(hash)) else { return Delivery::Missing };
    let file = match ResultFile::parse(&bytes) {
        Ok(file) => file,
        Err(error) => return Delivery::Bad(error.to_string()),
    };
    if let Some(huge) = file.outputs.iter().find(|o| o.size > MAX_FILE) {
        return Delivery::Bad(format!("`{}` is {} bytes long, more than is taken", huge.name, huge.size));
    }
    if file.outputs.is_empty() {
        return Delivery::Bad("it names no output".into());
    }
    if let Some(name) = expected.filter(|name| !file.outputs.iter().any(|o| o.name == *name)) {
        return Delivery::Bad(format!("it names no `{name}`"));
    }
    if file.outputs.iter().any(|o| store.size(namespace, &o.sha256).is_none()) {
        return Delivery::Missing;
    }
    let flaw = file.outputs.iter().find_map(|output| {
        let path = store.path(namespace, &output.sha256).ok()?;
        flaw(&output.name, &path, output.size).map(|why| format!("`{}` {why}", output.name))
    });
    flaw.map_or(Delivery::Good(file), Delivery::Bad)
}

/// What is wrong with a file of a known form.
fn flaw(name: &str, path: &Path, size: u64) -> Option<String> {
    let found = match std::fs::metadata(path) {
        Ok(meta) => meta.len(),
        Err(error) => return Some(format!("cannot be read: {error}")),
    };
    if found != size {
        return Some(format!("is {found} bytes long, the result says {size}"));
    }
    match name.rsplit('.').next() {
        Some("safetensors") => std::fs::File::open(path)
            .map_err(|error| format!("cannot be read: {error}"))
            .and_then(|file| safetensors(file, size))
            .err(),
        Some("csv" | "jsonl") => first_line(path).err(),
        Some("npy") => magic(path, b"\x93NUMPY").err(),
        _ => None,
    }
}

/// Reads the header alone: eight bytes of length, JSON, then tensors that fill the rest of the file.
pub fn safetensors(mut file: impl Read, size: u64) -> Result<(), String> {
    let cannot = |e: std::io::Error| format!("cannot be read: {e}");
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(|_| "is too short for a safetensors file".to_owned())?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER || length.saturating_add(8) > size {
        return Err(format!("has a safetensors header of {length} bytes"));
    }
    let mut header = Vec::new();
    file.take(length).read_to_end(&mut header).map_err(cannot)?;
    let tensors: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&header)
        .map_err(|e| format!("has no readable safetensors header: {:.200}", e.to_string()))?;
    let ends = tensors.iter().filter(|(name, _)| *name != "__metadata__").map(|(name, tensor)| {
        tensor
            .pointer("/data_offsets/1")
            .and_then(serde_json::Value::as_u64)
            .ok_or_else(|| format!("says nothing of where tensor `{name:.80}` ends"))
    });
    let end = ends.collect::<Result<Vec<_>, _>>()?.into_iter().max().ok_or("holds no tensor")?;
    if (8 + length).checked_add(end) != Some(size) {
        return Err(format!("holds {} bytes of tensors, its header says {end}", size - 8 - length));
    }
    Ok(())
}

fn first_line(path: &Path) -> Result<(), String> {
    let mut start = Vec::new();
    let file = std::fs::File::open(path).map_err(|e| format!("cannot be read: {e}"))?;
    file.take(4096).read_to_end(&mut start).map_err(|e| format!("cannot be read: {e}"))?;
    match start.iter().any(|b| !b.is_ascii_whitespace()) {
        true => Ok(()),
        false => Err("is empty".into()),
    }
}

fn magic(path: &Path, expected: &[u8]) -> Result<(), String> {
    let mut start = Vec::new();
    let file = std::fs::File::open(path).map_err(|e| format!("cannot be read: {e}"))?;
    file.take(expected.len() as u64).read_to_end(&mut start).map_err(|e| format!("cannot be read: {e}"))?;
    if start == expected { Ok(()) } else { Err("is no NPY file".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use freehold_core::canonical;
    use freehold_core::result::OutputFile;
    use rstest::rstest;

    fn model(tensors: &[u8]) -> Vec<u8> {
        let header = format!(
            r#"{{"__metadata__":{{"a":"b"}},"w":{{"dtype":"U8","shape":[{n}],"data_offsets":[0,{n}]}}}}"#,
            n = tensors.len()
        );
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), tensors].concat()
    }

    fn ending(end: u64) -> Vec<u8> {
        let header = format!(r#"{{"w":{{"dtype":"U8","shape":[1],"data_offsets":[0,{end}]}}}}"#);
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat()
    }

    fn deliver(store: &Store, name: &str, bytes: &[u8]) -> B256 {
        let sha256 = store.put("ns", bytes).expect("stores");
        let file = ResultFile {
            outputs: vec![OutputFile { name: name.into(), sha256, size: bytes.len() as u64 }],
            ..ResultFile::default()
        };
        let bytes = file.to_bytes().expect("result");
        store.put("ns", &bytes).expect("stores");
        canonical::sha256(&bytes)
    }

    #[rstest]
    #[case("model.safetensors", model(&[1, 2, 3]), None)]
    #[case("model.safetensors", model(&[1, 2, 3])[..40].to_vec(), Some("safetensors header"))]
    #[case("model.safetensors", [model(&[1, 2, 3]), vec![0; 4]].concat(), Some("its header says 3"))]
    #[case("model.safetensors", vec![1, 2], Some("too short"))]
    #[case("model.safetensors", ending(u64::MAX), Some("its header says 18446744073709551615"))]
    #[case("model.safetensors", model(&[])[..].to_vec(), None)]
    #[case("predictions.csv", b"label\n3\n".to_vec(), None)]
    #[case("predictions.csv", b" \n".to_vec(), Some("is empty"))]
    #[case("predictions.npy", b"\x93NUMPY\x01".to_vec(), None)]
    #[case("predictions.npy", b"label\n".to_vec(), Some("no NPY"))]
    #[case("notes.txt", Vec::new(), None)]
    fn what_does_not_load_is_bad(#[case] name: &str, #[case] bytes: Vec<u8>, #[case] flaw: Option<&str>) {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::new(folder.path());
        let hash = deliver(&store, name, &bytes);
        match (inspect(&store, "ns", Some(&hash), Some(name)), flaw) {
            (Delivery::Good(file), None) => assert_eq!(file.outputs[0].name, name),
            (Delivery::Bad(why), Some(flaw)) => assert!(why.contains(flaw), "{why}"),
            (found, _) => panic!("{found:?}"),
        }
    }

    #[test]
    fn what_is_not_held_is_missing_and_what_was_not_asked_for_is_bad() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::new(folder.path());
        assert_eq!(inspect(&store, "ns", None, None), Delivery::Missing);
        let hash = deliver(&store, "notes.txt", b"hello");
        assert_eq!(inspect(&store, "other", Some(&hash), None), Delivery::Missing);
        assert_eq!(
            inspect(&store, "ns", Some(&hash), Some("model.safetensors")),
            Delivery::Bad("it names no `model.safetensors`".into())
        );
        let sha256 = canonical::sha256_hex(b"hello");
        std::fs::remove_file(store.path("ns", &sha256).expect("path")).expect("removes");
        assert_eq!(inspect(&store, "ns", Some(&hash), None), Delivery::Missing);
    }
}

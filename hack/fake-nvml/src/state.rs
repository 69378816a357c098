//! What the library answers from: a profile (which GPUs there are) and the faults a test has injected,
//! read again whenever the state file changes.

use std::collections::BTreeMap;
use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use serde::{Deserialize, Serialize};

/// Names the state file; without it the file `state.json` beside the library is read.
pub const STATE_VARIABLE: &str = "FREEHOLD_FAKE_NVML_STATE";
pub const DEFAULT_PROFILE: &str = "two-h100";

/// The state file. A missing file means the default profile without faults.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct State {
    #[serde(default = "default_profile")]
    pub profile: String,
    /// Gives another set of UUIDs, so that two nodes with one profile differ.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub seed: String,
    /// By GPU index (`0`), or GPU and slice index (`0:3`).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub devices: BTreeMap<String, Faults>,
    /// Each event set delivers each of them once, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub xids: Vec<Xid>,
    /// The id that was given out last, also where its event has been cleared.
    #[serde(default)]
    pub last_xid: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Faults {
    pub lost: bool,
    pub uncorrected_ecc: u64,
    pub memory_used: u64,
    pub utilization: u32,
    pub processes: Vec<Process>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Process {
    pub pid: u32,
    #[serde(default)]
    pub memory: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Xid {
    /// Grows from one event to the next and is never used again.
    pub id: u64,
    pub device: usize,
    pub code: u64,
}

impl Default for State {
    fn default() -> Self {
        Self {
            profile: default_profile(),
            seed: String::new(),
            devices: BTreeMap::new(),
            xids: Vec::new(),
            last_xid: 0,
        }
    }
}

fn default_profile() -> String {
    DEFAULT_PROFILE.into()
}

#[derive(Clone, Debug, Deserialize)]
pub struct Profile {
    pub driver: String,
    pub nvml: String,
    pub cuda: i32,
    pub gpus: Vec<Gpu>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Gpu {
    pub name: String,
    pub uuid: String,
    pub bus_id: String,
    pub pci_device_id: u32,
    pub memory_bytes: u64,
    pub compute_capability: (i32, i32),
    /// Generation and width.
    pub pcie: Option<(u32, u32)>,
    pub nv_links: Option<u32>,
    /// The raw value of ECC's state: a profile may hold one that no enum knows.
    pub ecc: u32,
    pub mig: Option<Mig>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mig {
    pub profile: String,
    pub memory_bytes: u64,
    pub multiprocessors: u32,
    pub slices: Vec<Slice>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Slice {
    pub uuid: String,
    pub gpu_instance: u32,
    pub compute_instance: u32,
}

/// A profile with its faults: all that one call sees.
#[derive(Debug)]
pub struct World {
    pub profile: Profile,
    pub state: State,
}

impl World {
    pub fn faults(&self, gpu: usize, slice: Option<usize>) -> Faults {
        let key = match slice {
            Some(slice) => format!("{gpu}:{slice}"),
            None => gpu.to_string(),
        };
        self.state.devices.get(&key).cloned().unwrap_or_default()
    }
}

/// The world as the state file has it now; `Err` says why the file cannot be used.
pub fn current() -> Result<Arc<World>, String> {
    type Stamp = Option<(u64, i64, i64, u64)>;
    static KNOWN: Mutex<Option<(PathBuf, Stamp, Arc<World>)>> = Mutex::new(None);

    let path = state_file();
    let stamp = std::fs::metadata(&path).ok().map(|m| (m.ino(), m.mtime(), m.mtime_nsec(), m.size()));
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((known_path, known_stamp, world)) = known.as_ref()
        && *known_path == path
        && *known_stamp == stamp
    {
        return Ok(world.clone());
    }
    let world = Arc::new(read(&path)?);
    *known = Some((path, stamp, world.clone()));
    Ok(world)
}

fn read(path: &Path) -> Result<World, String> {
    let state = match std::fs::read(path) {
        Ok(bytes) => {
            serde_json::from_slice(&bytes).map_err(|e| format!("{} is not a state file: {e}", path.display()))?
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => State::default(),
        Err(e) => return Err(format!("{} cannot be read: {e}", path.display())),
    };
    resolve(state)
}

fn resolve(state: State) -> Result<World, String> {
    let profiles: BTreeMap<String, Profile> =
        serde_json::from_str(include_str!("../profiles.json")).map_err(|e| e.to_string())?;
    let mut profile = profiles.get(&state.profile).cloned().ok_or_else(|| {
        let names: Vec<_> = profiles.keys().map(String::as_str).collect();
        format!("profile {:?} is unknown; known are {}", state.profile, names.join(", "))
    })?;
    for gpu in &mut profile.gpus {
        gpu.uuid = seeded(&gpu.uuid, &state.seed);
        for slice in gpu.mig.iter_mut().flat_map(|mig| &mut mig.slices) {
            slice.uuid = seeded(&slice.uuid, &state.seed);
        }
    }
    Ok(World { profile, state })
}

/// `GPU-xxxxxxxx-…` with its first group replaced by a hash (FNV-1a) of the seed.
fn seeded(uuid: &str, seed: &str) -> String {
    match (seed, uuid.get(..4), uuid.get(12..)) {
        ("", ..) | (_, None, _) | (_, _, None) => uuid.to_owned(),
        (seed, Some(kind), Some(rest)) => {
            let hash =
                seed.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
            format!("{kind}{hash:08x}{rest}")
        }
    }
}

fn state_file() -> PathBuf {
    std::env::var_os(STATE_VARIABLE).map_or_else(beside_the_library, PathBuf::from)
}

/// So each copy of the library has a state of its own.
fn beside_the_library() -> PathBuf {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let mut info = std::mem::MaybeUninit::<libc::Dl_info>::zeroed();
        // SAFETY: dladdr only reads the address and fills `info`; its name lives as long as the library.
        let library = unsafe {
            let address = beside_the_library as *const libc::c_void;
            match libc::dladdr(address, info.as_mut_ptr()) {
                0 => None,
                _ => Some(CStr::from_ptr(info.assume_init().dli_fname)),
            }
        };
        let library = library.map(|name| Path::new(OsStr::from_bytes(name.to_bytes())));
        library.and_then(Path::parent).unwrap_or(Path::new(".")).join("state.json")
    })
    .clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uuids(seed: &str) -> Vec<String> {
        let state = State { seed: seed.into(), ..State::default() };
        resolve(state).unwrap().profile.gpus.into_iter().map(|g| g.uuid).collect()
    }

    #[test]
    fn uuids_are_stable_and_differ_by_seed() {
        assert_eq!(uuids("")[0], "GPU-3a1f6c52-88d4-4c1e-9b07-52e0d9c4f101");
        assert_eq!(uuids("node-b"), uuids("node-b"));
        assert_ne!(uuids("node-b"), uuids("node-c"));
        assert_eq!(uuids("node-b")[0].len(), uuids("")[0].len());
    }

    #[test]
    fn an_unknown_profile_is_named() {
        let state = State { profile: "h900".into(), ..State::default() };
        let error = resolve(state).unwrap_err();
        assert!(error.contains("\"h900\"") && error.contains("four-t4"), "{error}");
    }
}

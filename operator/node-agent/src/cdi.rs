//! The CDI spec (Container Device Interface) by which containerd puts a device's files into a container.
//!
//! containerd reads the file again when it changes. It fills in type and numbers of a device node from the
//! node's own file system, so all that stands here are paths.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::nvml::Device;

const KIND: &str = "freehold.dev/gpu";
const FILE: &str = "freehold.dev-gpu.json";
/// The first version with `hostPath`.
const VERSION: &str = "0.5.0";

/// What every GPU program opens besides its own device.
const CONTROL_NODES: [&str; 3] = ["nvidiactl", "nvidia-uvm", "nvidia-uvm-tools"];
/// What a CUDA program loads from the driver; the rest is in its image.
const LIBRARIES: [&str; 4] =
    ["libcuda.so.1", "libnvidia-ml.so.1", "libnvidia-ptxjitcompiler.so.1", "libnvidia-nvvm.so.4"];
/// Where the loader of Debian and Ubuntu images looks without a cache.
const LIBRARY_FOLDER: &str = match cfg!(target_arch = "aarch64") {
    true => "/usr/lib/aarch64-linux-gnu",
    false => "/usr/lib/x86_64-linux-gnu",
};

pub fn qualified(uuid: &str) -> String {
    format!("{KIND}={uuid}")
}

#[derive(Debug, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    cdi_version: &'static str,
    kind: &'static str,
    devices: Vec<CdiDevice>,
    /// For every container that gets any of the devices.
    #[serde(skip_serializing_if = "Edits::is_empty")]
    container_edits: Edits,
}

#[derive(Debug, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
struct CdiDevice {
    name: String,
    container_edits: Edits,
}

#[derive(Debug, Default, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
struct Edits {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    device_nodes: Vec<Node>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    mounts: Vec<Mount>,
}

impl Edits {
    fn is_empty(&self) -> bool {
        self.device_nodes.is_empty() && self.mounts.is_empty()
    }
}

#[derive(Debug, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
struct Node {
    path: String,
    host_path: PathBuf,
    permissions: &'static str,
}

#[derive(Debug, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
struct Mount {
    host_path: PathBuf,
    container_path: String,
    options: [&'static str; 4],
}

/// The driver's files on this node, by the paths that the runtime sees them under.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DriverFiles {
    pub dev_root: PathBuf,
    pub control_nodes: Vec<&'static str>,
    /// Name and path of each.
    pub libraries: Vec<(&'static str, PathBuf)>,
    /// Minor numbers of MIG capabilities by name (`gpu0/gi1/access`).
    pub capabilities: BTreeMap<String, u32>,
}

impl DriverFiles {
    /// Looks for them. Libraries lie beside NVML's, and count only if CUDA's own is among them.
    pub fn find(dev_root: &Path, nvml_library: &Path) -> Self {
        let folder = nvml_library.parent().filter(|folder| folder.is_absolute());
        let library = |name: &'static str| Some((name, folder?.join(name))).filter(|(_, path)| path.exists());
        let mut libraries: Vec<_> = LIBRARIES.into_iter().filter_map(library).collect();
        if !libraries.iter().any(|(name, _)| *name == LIBRARIES[0]) {
            libraries.clear();
        }
        let minors = std::fs::read_to_string("/proc/driver/nvidia-caps/mig-minors").unwrap_or_default();
        Self {
            dev_root: dev_root.to_owned(),
            control_nodes: CONTROL_NODES.into_iter().filter(|name| dev_root.join(name).exists()).collect(),
            libraries,
            capabilities: mig_minors(&minors),
        }
    }

    fn node(&self, name: &str) -> Node {
        Node { path: format!("/dev/{name}"), host_path: self.dev_root.join(name), permissions: "rw" }
    }
}

/// Lines such as `gpu0/gi7/ci0/access 67`.
fn mig_minors(text: &str) -> BTreeMap<String, u32> {
    let pair = |line: &str| {
        let (name, minor) = line.split_once(' ')?;
        Some((name.to_owned(), minor.trim().parse().ok()?))
    };
    text.lines().filter_map(pair).collect()
}

pub fn spec(devices: &[Device], driver: &DriverFiles) -> Spec {
    let device = |device: &Device| {
        let device_nodes = nodes(device, driver);
        let container_edits = Edits { device_nodes, ..Edits::default() };
        // A device without a file would make the whole spec invalid.
        (!container_edits.is_empty()).then(|| CdiDevice { name: device.uuid.clone(), container_edits })
    };
    let mount = |(name, path): &(&str, PathBuf)| Mount {
        host_path: path.clone(),
        container_path: format!("{LIBRARY_FOLDER}/{name}"),
        options: ["ro", "nosuid", "nodev", "bind"],
    };
    Spec {
        cdi_version: VERSION,
        kind: KIND,
        devices: devices.iter().filter_map(device).collect(),
        container_edits: Edits {
            device_nodes: driver.control_nodes.iter().map(|name| driver.node(name)).collect(),
            mounts: driver.libraries.iter().map(mount).collect(),
        },
    }
}

/// The GPU's file; for a slice also the two that open its instances.
fn nodes(device: &Device, driver: &DriverFiles) -> Vec<Node> {
    let Some(minor) = device.minor else { return Vec::new() };
    let mut nodes = vec![driver.node(&format!("nvidia{minor}"))];
    if let Some(slice) = &device.mig
        && let (Some(gi), Some(ci)) = (slice.gpu_instance, slice.compute_instance)
    {
        let names = [format!("gpu{minor}/gi{gi}/access"), format!("gpu{minor}/gi{gi}/ci{ci}/access")];
        let minors = names.iter().filter_map(|name| driver.capabilities.get(name));
        nodes.extend(minors.map(|minor| driver.node(&format!("nvidia-caps/nvidia-cap{minor}"))));
    }
    nodes
}

#[derive(Debug, thiserror::Error)]
#[error("CDI spec {} cannot be written: {source}; is the CDI folder mounted writable?", path.display())]
pub struct Error {
    path: PathBuf,
    source: std::io::Error,
}

/// Readers see the old file or the new one. An unchanged one is left alone.
pub fn write(folder: &Path, spec: &Spec) -> Result<(), Error> {
    let path = folder.join(FILE);
    let written = serde_json::to_vec_pretty(spec).map_err(std::io::Error::from).and_then(|text| {
        if std::fs::read(&path).is_ok_and(|old| old == text) {
            return Ok(());
        }
        // Not `.json`: the runtime would read a half-written one.
        let fresh = folder.join(format!(".{FILE}.new"));
        let mut file = std::fs::File::create(&fresh)?;
        file.write_all(&text)?;
        file.sync_all()?;
        std::fs::rename(&fresh, &path)
    });
    written.map_err(|source| Error { path, source })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::nvml::Slice;

    fn gpu(uuid: &str, minor: u32) -> Device {
        Device { uuid: uuid.into(), minor: Some(minor), ..Device::default() }
    }

    fn driver() -> DriverFiles {
        DriverFiles { dev_root: "/host/dev".into(), ..DriverFiles::default() }
    }

    fn node(name: &str) -> serde_json::Value {
        json!({ "path": format!("/dev/{name}"), "hostPath": format!("/host/dev/{name}"), "permissions": "rw" })
    }

    #[test]
    fn each_gpu_has_its_own_file_and_no_other() {
        let spec = spec(&[gpu("GPU-a", 0), gpu("GPU-b", 3)], &driver());
        let expected = json!({
            "cdiVersion": "0.5.0",
            "kind": "freehold.dev/gpu",
            "devices": [
                { "name": "GPU-a", "containerEdits": { "deviceNodes": [node("nvidia0")] } },
                { "name": "GPU-b", "containerEdits": { "deviceNodes": [node("nvidia3")] } },
            ],
        });
        assert_eq!(serde_json::to_value(spec).unwrap(), expected);
    }

    #[test]
    fn a_device_without_a_file_is_left_out() {
        let spec = spec(&[Device { minor: None, ..gpu("GPU-a", 0) }], &driver());
        assert!(spec.devices.is_empty());
    }

    #[test]
    fn a_slice_opens_its_own_instances() {
        let minors = "config 1\ngpu0/gi7/access 66\ngpu0/gi7/ci0/access 67\ngpu0/gi8/access 75\n";
        let driver = DriverFiles { capabilities: mig_minors(minors), ..driver() };
        let slice = Slice { gpu_instance: Some(7), compute_instance: Some(0), ..Slice::default() };
        let spec = spec(&[Device { mig: Some(slice), ..gpu("MIG-a", 0) }], &driver);
        let nodes = serde_json::to_value(&spec.devices[0].container_edits.device_nodes).unwrap();
        assert_eq!(nodes, json!([node("nvidia0"), node("nvidia-caps/nvidia-cap66"), node("nvidia-caps/nvidia-cap67")]));
    }

    #[test]
    fn a_driver_brings_its_control_nodes_and_libraries() {
        let host = tempfile::tempdir().unwrap();
        for name in ["nvidiactl", "nvidia-uvm", "libcuda.so.1", "libnvidia-ml.so.1"] {
            std::fs::write(host.path().join(name), "").unwrap();
        }
        let driver = DriverFiles::find(host.path(), &host.path().join("libnvidia-ml.so.1"));
        let spec = spec(&[gpu("GPU-a", 0)], &driver);
        let nodes: Vec<_> = spec.container_edits.device_nodes.iter().map(|node| node.path.as_str()).collect();
        assert_eq!(nodes, ["/dev/nvidiactl", "/dev/nvidia-uvm"]);
        let mounts: Vec<_> = spec.container_edits.mounts.iter().map(|m| m.container_path.as_str()).collect();
        assert_eq!(mounts, [format!("{LIBRARY_FOLDER}/libcuda.so.1"), format!("{LIBRARY_FOLDER}/libnvidia-ml.so.1")]);
    }

    #[test]
    fn a_lone_nvml_library_is_no_driver() {
        let host = tempfile::tempdir().unwrap();
        std::fs::write(host.path().join("libnvidia-ml.so.1"), "").unwrap();
        let driver = DriverFiles::find(host.path(), &host.path().join("libnvidia-ml.so.1"));
        assert_eq!((driver.libraries, driver.control_nodes), (vec![], vec![]));
    }

    #[test]
    fn the_file_is_replaced_whole_and_only_on_a_change() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        let inode = || std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(&path).unwrap());
        write(folder.path(), &spec(&[gpu("GPU-a", 0)], &driver())).unwrap();
        let first = inode();
        write(folder.path(), &spec(&[gpu("GPU-a", 0)], &driver())).unwrap();
        assert_eq!(inode(), first);
        write(folder.path(), &spec(&[gpu("GPU-b", 0)], &driver())).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("GPU-b") && !text.contains("GPU-a"), "{text}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);

        let error = write(&folder.path().join("absent"), &spec(&[], &driver())).unwrap_err().to_string();
        assert!(error.contains("absent/freehold.dev-gpu.json"), "{error}");
    }
}

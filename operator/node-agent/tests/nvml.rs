//! NVML through the real wrapper: against the fake library, or a driver where FREEHOLD_NVML_LIB names its
//! library. What does not depend on a profile or a fault holds for both.

#![allow(clippy::unwrap_used, clippy::panic)] // a test may

mod fake;

use std::ops::ControlFlow;
use std::path::PathBuf;

use fake::Fake;
use freehold_node_agent::nvml::{Device, Event, Gpus, Inventory, NvmlGpus};

fn load(fake: &Fake) -> NvmlGpus {
    NvmlGpus::load(&fake.library()).unwrap()
}

fn two_h100() -> (NvmlGpus, Fake) {
    let fake = Fake::new("two-h100");
    (load(&fake), fake)
}

fn read(profile: &str) -> Inventory {
    let fake = Fake::new(profile);
    load(&fake).inventory().unwrap()
}

fn models(inventory: &Inventory) -> Vec<&str> {
    inventory.devices.iter().map(|device| device.model.as_str()).collect()
}

/// Whatever the hardware is.
#[test]
fn every_device_has_name_memory_and_a_uuid_of_its_own() {
    let fake = Fake::new("four-t4");
    let library = std::env::var_os("FREEHOLD_NVML_LIB").map_or_else(|| fake.library(), PathBuf::from);
    let inventory = NvmlGpus::load(&library).unwrap().inventory().unwrap();
    assert!(!inventory.devices.is_empty());
    assert!(inventory.silent.is_empty());
    assert!(inventory.driver_version.is_some() && inventory.cuda_version.is_some());
    for device in &inventory.devices {
        assert!(device.uuid.starts_with("GPU-") || device.uuid.starts_with("MIG-"), "{device:?}");
        assert!(device.memory_bytes > 1 << 30 && device.memory_used_bytes <= device.memory_bytes, "{device:?}");
        assert!(!device.model.is_empty() && device.minor.is_some() && device.pci_bus_id.is_some(), "{device:?}");
        assert!(device.compute_capability.as_ref().unwrap().contains('.'), "{device:?}");
        let same = inventory.devices.iter().filter(|other| other.uuid == device.uuid);
        assert_eq!(same.count(), 1, "{device:?}");
    }
}

#[test]
fn two_h100_are_read_whole() {
    let inventory = read("two-h100");
    assert_eq!(inventory.driver_version.as_deref(), Some("580.95.05"));
    assert_eq!(inventory.cuda_version.as_deref(), Some("13.0"));
    assert_eq!(models(&inventory), ["NVIDIA H100 80GB HBM3"; 2]);
    let expected = Device {
        uuid: SECOND.into(),
        index: 1,
        minor: Some(1),
        model: "NVIDIA H100 80GB HBM3".into(),
        memory_bytes: 85_520_809_984,
        compute_capability: Some("9.0".into()),
        pci_bus_id: Some("00000000:2A:00.0".into()),
        pcie: Some("gen5 x16".into()),
        nv_links: Some(18),
        ecc: Some(true),
        utilization: Some(0),
        ..Device::default()
    };
    assert_eq!(inventory.devices[1], expected);
}

#[test]
fn a_gpu_in_mig_mode_is_its_slices() {
    let inventory = read("a100-mig");
    assert_eq!(models(&inventory), ["NVIDIA A100-SXM4-80GB"; 7]);
    for device in &inventory.devices {
        let slice = device.mig.as_ref().unwrap();
        assert_eq!(slice.profile, "1g.10gb");
        assert_eq!(slice.parent, "GPU-81d2e0f6-5b3c-4a97-bd14-6e07a8c35b01");
        assert_eq!((device.index, device.memory_bytes, device.utilization), (0, 10_200_547_328, None));
    }
    let instances: Vec<_> = inventory.devices.iter().map(|d| d.mig.as_ref().unwrap().gpu_instance).collect();
    assert_eq!(instances, (7..14).map(Some).collect::<Vec<_>>());
}

#[test]
fn older_cards_lack_what_they_lack() {
    let inventory = read("four-t4");
    assert_eq!(models(&inventory), ["Tesla T4"; 4]);
    assert_eq!(inventory.devices[0].nv_links, None);
    assert_eq!(inventory.devices[3].minor, Some(3));
}

#[test]
fn an_unknown_model_is_sold_by_its_name() {
    let inventory = read("unknown-model");
    assert_eq!(models(&inventory), ["NVIDIA Z1000 Prototype"]);
    let device = &inventory.devices[0];
    assert_eq!(device.ecc, None, "a value that no enum knows");
    assert_eq!((device.pcie.as_ref(), device.nv_links), (None, None));
    assert_eq!(device.compute_capability.as_deref(), Some("21.7"));
}

#[test]
fn use_and_errors_are_seen_as_they_change() {
    let (gpus, fake) = two_h100();
    assert_eq!(gpus.inventory().unwrap().devices[0].processes, 0);
    fake.control(&["process", "0", "4242", "--memory", "1000"]);
    fake.control(&["memory", "0", "5000"]);
    fake.control(&["utilization", "0", "73"]);
    fake.control(&["ecc", "0", "2"]);
    let device = gpus.inventory().unwrap().devices.remove(0);
    assert_eq!((device.processes, device.memory_used_bytes, device.utilization), (1, 6000, Some(73)));
    assert_eq!(device.uncorrected_ecc_errors, 2);
    fake.control(&["clear"]);
    assert_eq!(gpus.inventory().unwrap().devices[0].uncorrected_ecc_errors, 0);
}

#[test]
fn a_slice_has_processes_of_its_own() {
    let fake = Fake::new("a100-mig");
    fake.control(&["process", "0:3", "4242"]);
    let devices = load(&fake).inventory().unwrap().devices;
    let processes: Vec<_> = devices.iter().map(|device| device.processes).collect();
    assert_eq!(processes, [0, 0, 0, 1, 0, 0, 0]);
}

#[test]
fn a_lost_gpu_is_silent_and_costs_no_other() {
    let (gpus, fake) = two_h100();
    fake.control(&["lose", "0"]);
    let inventory = gpus.inventory().unwrap();
    assert_eq!(inventory.silent.iter().collect::<Vec<_>>(), [&0]);
    assert_eq!(inventory.devices.iter().map(|device| device.index).collect::<Vec<_>>(), [1]);
    fake.control(&["restore", "0"]);
    assert_eq!(gpus.inventory().unwrap().devices.len(), 2);
}

/// Watches until `enough` events have come.
fn watch(gpus: &NvmlGpus, enough: usize, mut heard: impl FnMut(&Option<Event>)) -> Vec<Event> {
    let mut seen = Vec::new();
    let watched = gpus.watch(&mut |event| {
        heard(&event);
        seen.extend(event);
        if seen.len() < enough { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    watched.unwrap();
    seen
}

fn xid(gpu: &str, code: u64) -> Event {
    Event::Xid { gpu: gpu.into(), code: Some(code) }
}

const FIRST: &str = "GPU-3a1f6c52-88d4-4c1e-9b07-52e0d9c4f101";
const SECOND: &str = "GPU-c7e90b14-2d6a-4f83-8a55-0fb2e617d902";

#[test]
fn xids_arrive_with_the_gpu_they_are_about() {
    let (gpus, fake) = two_h100();
    fake.control(&["xid", "1", "79"]);
    fake.control(&["xid", "0", "31"]);
    assert_eq!(watch(&gpus, 2, |_| {}), [xid(SECOND, 79), xid(FIRST, 31)]);
}

#[test]
fn a_gpu_that_goes_is_told_and_watched_again_when_it_is_back() {
    let (gpus, fake) = two_h100();
    // Each step waits until the one before it was seen.
    let (mut step, mut changes) = (0, 0);
    let seen = watch(&gpus, 3, |event| {
        changes += u32::from(*event == Some(Event::Changed));
        let control: &[&str] = match (step, changes, event) {
            (0, 0, None) => &["lose", "0"],
            (1, 1, None) => &["restore", "0"],
            (2, 2, _) => &["xid", "0", "48"],
            _ => return,
        };
        fake.control(control);
        step += 1;
    });
    assert_eq!(seen, [Event::Changed, Event::Changed, xid(FIRST, 48)]);
}

#[test]
fn a_missing_library_is_named() {
    let error = NvmlGpus::load(std::path::Path::new("/nowhere/libnvidia-ml.so.1")).err().unwrap().to_string();
    assert!(error.contains("/nowhere/libnvidia-ml.so.1") && error.contains("--nvml-library"), "{error}");
}

#[test]
fn a_state_file_that_is_wrong_fails_the_library_not_the_process() {
    let fake = Fake::new("two-h100");
    std::fs::write(fake.state(), "{").unwrap();
    assert!(NvmlGpus::load(&fake.library()).is_err());
}

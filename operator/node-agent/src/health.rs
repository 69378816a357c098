//! Which devices are fit for work. Pure: events and readings in, states out.
//!
//! - A critical Xid stays until the GPU was reset: it came back after having been lost, the node was
//!   booted again, or an operator says so (annotation `freehold.dev/reset-health`). A restart of the
//!   agent does not clear it: the GpuNode remembers.
//! - Uncorrected ECC errors are the driver's own count since it was loaded, so they need no memory here.
//! - A lost GPU is well again when NVML reaches it.

use std::collections::{BTreeMap, BTreeSet};

use freehold_api::provider::{DeviceState, GpuDevice};

use crate::nvml::Device;

/// Xids that a faulty program causes; the GPU itself goes on. Every other one needs attention, those that
/// are new to us included. From NVIDIA's Xid catalogue: graphics engine exception, memory page fault, GPU
/// stopped processing, preemptive cleanup, video processor exception, context switch timeout.
const APPLICATION_XIDS: [u64; 6] = [13, 31, 43, 45, 68, 109];

/// An event whose number the driver does not know.
pub const UNKNOWN_XID: u64 = 999;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    Critical,
    Application,
}

pub fn severity(xid: u64) -> Severity {
    if APPLICATION_XIDS.contains(&xid) { Severity::Application } else { Severity::Critical }
}

/// What is held against GPUs. All names are UUIDs of whole GPUs: an Xid condemns every slice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    xids: BTreeMap<String, u64>,
    lost: BTreeSet<String>,
}

/// Whose record an operator has cleared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reset {
    All,
    Gpu(String),
}

impl Reset {
    pub fn parse(text: &str) -> Self {
        if text == "all" { Self::All } else { Self::Gpu(text.to_owned()) }
    }

    pub fn covers(&self, gpu: &str) -> bool {
        match self {
            Self::All => true,
            Self::Gpu(uuid) => uuid == gpu,
        }
    }
}

impl Health {
    /// What an earlier run of the agent has published, on this boot of the node.
    pub fn remembered(devices: &[GpuDevice]) -> Self {
        let gpu = |device: &GpuDevice| device.mig_parent.clone().unwrap_or_else(|| device.uuid.clone());
        let lost = devices.iter().filter(|device| device.state == DeviceState::Lost);
        Self {
            xids: devices.iter().filter_map(|device| Some((gpu(device), device.xid?))).collect(),
            lost: lost.map(gpu).collect(),
        }
    }

    /// Adds what was seen before the record could be read; the newer Xid counts.
    pub fn adopt(&mut self, newer: Self) {
        self.xids.extend(newer.xids);
        self.lost.extend(newer.lost);
    }

    pub fn xid(&mut self, gpu: &str, code: u64) -> Severity {
        let severity = severity(code);
        if severity == Severity::Critical {
            self.xids.insert(gpu.to_owned(), code);
        }
        severity
    }

    /// A GPU that answers again was reset meanwhile, which ends what its Xids were about.
    pub fn observe(&mut self, devices: &[Device]) {
        for device in devices {
            if device.lost {
                self.lost.insert(device.gpu().to_owned());
            } else if self.lost.remove(device.gpu()) {
                self.xids.remove(device.gpu());
            }
        }
    }

    pub fn reset(&mut self, reset: &Reset) {
        self.xids.retain(|gpu, _| !reset.covers(gpu));
        self.lost.retain(|gpu| !reset.covers(gpu));
    }

    pub fn newest_xid(&self, device: &Device) -> Option<u64> {
        self.xids.get(device.gpu()).copied()
    }

    /// The worst that holds.
    pub fn state(&self, device: &Device) -> DeviceState {
        if device.lost {
            DeviceState::Lost
        } else if self.newest_xid(device).is_some() {
            DeviceState::XidError
        } else if device.uncorrected_ecc_errors > 0 {
            DeviceState::EccError
        } else {
            DeviceState::Healthy
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nvml::Slice;

    fn gpu(uuid: &str) -> Device {
        Device { uuid: uuid.into(), ..Device::default() }
    }

    fn slice(uuid: &str, parent: &str) -> Device {
        Device { mig: Some(Slice { parent: parent.into(), ..Slice::default() }), ..gpu(uuid) }
    }

    #[test]
    fn a_faulty_program_does_not_condemn_the_gpu() {
        let mut health = Health::default();
        for code in APPLICATION_XIDS {
            assert_eq!(health.xid("GPU-a", code), Severity::Application);
        }
        assert_eq!(health.state(&gpu("GPU-a")), DeviceState::Healthy);
    }

    #[test]
    fn critical_and_unknown_xids_condemn_it_and_no_other() {
        for code in [48, 63, 74, 79, 94, 95, 119, UNKNOWN_XID, 4321] {
            let mut health = Health::default();
            assert_eq!(health.xid("GPU-a", code), Severity::Critical);
            assert_eq!(health.state(&gpu("GPU-a")), DeviceState::XidError);
            assert_eq!(health.newest_xid(&gpu("GPU-a")), Some(code));
            assert_eq!(health.state(&gpu("GPU-b")), DeviceState::Healthy);
        }
    }

    #[test]
    fn an_application_xid_does_not_hide_an_earlier_critical_one() {
        let mut health = Health::default();
        health.xid("GPU-a", 79);
        health.xid("GPU-a", 31);
        assert_eq!(health.newest_xid(&gpu("GPU-a")), Some(79));
    }

    #[test]
    fn an_xid_condemns_every_slice() {
        let mut health = Health::default();
        health.xid("GPU-a", 79);
        assert_eq!(health.state(&slice("MIG-1", "GPU-a")), DeviceState::XidError);
        assert_eq!(health.state(&slice("MIG-2", "GPU-b")), DeviceState::Healthy);
    }

    #[test]
    fn an_xid_stays_until_the_gpu_was_reset() {
        let mut health = Health::default();
        health.xid("GPU-a", 79);
        health.observe(&[gpu("GPU-a")]);
        assert_eq!(health.state(&gpu("GPU-a")), DeviceState::XidError);

        let lost = Device { lost: true, ..gpu("GPU-a") };
        health.observe(std::slice::from_ref(&lost));
        assert_eq!(health.state(&lost), DeviceState::Lost);
        health.observe(&[gpu("GPU-a")]);
        assert_eq!(health.state(&gpu("GPU-a")), DeviceState::Healthy);
    }

    #[test]
    fn an_operator_clears_one_gpu_or_all() {
        let mut health = Health::default();
        health.xid("GPU-a", 79);
        health.xid("GPU-b", 48);
        health.reset(&Reset::parse("GPU-a"));
        assert_eq!(health.state(&gpu("GPU-a")), DeviceState::Healthy);
        assert_eq!(health.state(&gpu("GPU-b")), DeviceState::XidError);
        health.reset(&Reset::parse("all"));
        assert_eq!(health, Health::default());
    }

    #[test]
    fn ecc_errors_last_as_long_as_the_driver_counts_them() {
        let health = Health::default();
        let faulty = Device { uncorrected_ecc_errors: 1, ..gpu("GPU-a") };
        assert_eq!(health.state(&faulty), DeviceState::EccError);
        assert_eq!(health.state(&gpu("GPU-a")), DeviceState::Healthy);
    }

    #[test]
    fn a_restarted_agent_remembers_what_it_published() {
        let published = [
            GpuDevice { uuid: "GPU-a".into(), xid: Some(79), state: DeviceState::XidError, ..GpuDevice::default() },
            GpuDevice {
                uuid: "MIG-1".into(),
                mig_parent: Some("GPU-b".into()),
                state: DeviceState::Lost,
                xid: Some(48),
                ..GpuDevice::default()
            },
        ];
        let mut health = Health::remembered(&published);
        assert_eq!(health.state(&gpu("GPU-a")), DeviceState::XidError);
        health.observe(&[slice("MIG-1", "GPU-b")]);
        assert_eq!(health.state(&slice("MIG-1", "GPU-b")), DeviceState::Healthy);
    }
}

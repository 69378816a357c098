//! Handles, and the GPU or slice behind one.

use std::sync::Arc;

use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlReturn_enum_NVML_ERROR_GPU_IS_LOST};

use crate::state::{Faults, Gpu, Mig, Slice, World};
use crate::{Answer, INVALID, NOT_FOUND, NOT_SUPPORTED, world};

/// A GPU, or a MIG slice of one. NVML's opaque handle carries both indices, so there is nothing to free.
pub struct Found {
    pub world: Arc<World>,
    pub gpu: usize,
    pub slice: Option<usize>,
}

pub fn handle(gpu: usize, slice: Option<usize>) -> nvmlDevice_t {
    std::ptr::without_provenance_mut((gpu + 1) | slice.map_or(0, |slice| (slice + 1) << 16))
}

fn indices(device: nvmlDevice_t) -> Option<(usize, Option<usize>)> {
    let address = device.addr();
    Some(((address & 0xffff).checked_sub(1)?, (address >> 16).checked_sub(1)))
}

pub fn find(device: nvmlDevice_t) -> Answer<Found> {
    let (gpu, slice) = indices(device).ok_or(INVALID)?;
    let found = Found { world: world()?, gpu, slice };
    found.gpu()?;
    if slice.is_some() {
        found.slice()?;
    }
    if found.world.faults(gpu, None).lost {
        return Err(nvmlReturn_enum_NVML_ERROR_GPU_IS_LOST);
    }
    Ok(found)
}

impl Found {
    pub fn gpu(&self) -> Answer<&Gpu> {
        self.world.profile.gpus.get(self.gpu).ok_or(INVALID)
    }

    pub fn mig(&self) -> Answer<&Mig> {
        self.gpu()?.mig.as_ref().ok_or(NOT_SUPPORTED)
    }

    pub fn slice(&self) -> Answer<&Slice> {
        let index = self.slice.ok_or(INVALID)?;
        self.mig()?.slices.get(index).ok_or(NOT_FOUND)
    }

    /// What a MIG slice cannot be asked.
    pub fn whole(&self) -> Answer<&Gpu> {
        if self.slice.is_some() { Err(NOT_SUPPORTED) } else { self.gpu() }
    }

    pub fn faults(&self) -> Faults {
        self.world.faults(self.gpu, self.slice)
    }

    pub fn uuid(&self) -> Answer<String> {
        Ok(if self.slice.is_some() { self.slice()?.uuid.clone() } else { self.gpu()?.uuid.clone() })
    }

    pub fn name(&self) -> Answer<String> {
        let gpu = self.gpu()?;
        Ok(match (&gpu.mig, self.slice) {
            (Some(mig), Some(_)) => format!("{} MIG {}", gpu.name, mig.profile),
            _ => gpu.name.clone(),
        })
    }

    /// Total and used. A process counts with its memory.
    pub fn memory(&self) -> Answer<(u64, u64)> {
        let total = match self.slice {
            Some(_) => self.mig()?.memory_bytes,
            None => self.gpu()?.memory_bytes,
        };
        let faults = self.faults();
        let used = faults.memory_used + faults.processes.iter().map(|p| p.memory).sum::<u64>();
        Ok((total, used.min(total)))
    }
}

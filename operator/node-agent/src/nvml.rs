//! What NVML says, as a plain value. One GPU, or one property, that cannot be read never costs the others.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enum_wrappers::device::{EccCounter, MemoryError};
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device as Handle, EventSet, Nvml};

/// NVML's own limit; older cards have fewer links.
const MAX_NV_LINKS: u32 = 18;
/// How long one wait for an event takes at most.
const WAIT_MS: u32 = 1_000;

/// A whole GPU, or a MIG slice of one. A GPU that is cut into slices is not listed itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    pub uuid: String,
    /// Of the GPU, in NVML's order.
    pub index: u32,
    /// Of the device file `nvidia<minor>`.
    pub minor: Option<u32>,
    pub model: String,
    pub memory_bytes: u64,
    pub memory_used_bytes: u64,
    pub compute_capability: Option<String>,
    pub pci_bus_id: Option<String>,
    pub pcie: Option<String>,
    pub nv_links: Option<u32>,
    pub mig: Option<Slice>,
    pub ecc: Option<bool>,
    pub uncorrected_ecc_errors: u64,
    pub processes: u32,
    pub utilization: Option<u32>,
    /// NVML knew it and cannot reach it now.
    pub lost: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slice {
    /// UUID of the GPU.
    pub parent: String,
    /// Such as `1g.10gb`.
    pub profile: String,
    pub gpu_instance: Option<u32>,
    pub compute_instance: Option<u32>,
}

impl Device {
    /// UUID of the GPU that it is, or is a part of.
    pub fn gpu(&self) -> &str {
        self.mig.as_ref().map_or(&self.uuid, |slice| &slice.parent)
    }
}

/// One reading of all GPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    pub driver_version: Option<String>,
    pub cuda_version: Option<String>,
    pub devices: Vec<Device>,
    /// Indices of GPUs that answer, those without a single slice included.
    pub reached: BTreeSet<u32>,
    /// Indices of GPUs that NVML counts but cannot reach.
    pub silent: BTreeSet<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Something went wrong on a GPU. The driver may not know its number either.
    Xid { gpu: String, code: Option<u64> },
    /// A GPU has stopped answering, or answers again.
    Changed,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("NVML library {library} cannot be used: {source}; install the driver, or set --nvml-library")]
    Library { library: String, source: NvmlError },
    #[error("NVML cannot count the GPUs: {0}")]
    Count(NvmlError),
    #[error("NVML cannot watch for events: {0}")]
    Events(NvmlError),
}

/// Everything the agent asks of a vendor's library. Calls may block.
pub trait Gpus: Send + Sync + 'static {
    fn inventory(&self) -> Result<Inventory, Error>;

    /// Tells each event as it comes, and None about once a second, until told to break.
    fn watch(&self, tell: &mut dyn FnMut(Option<Event>) -> ControlFlow<()>) -> Result<(), Error>;
}

pub struct NvmlGpus(Nvml);

impl NvmlGpus {
    pub fn load(library: &Path) -> Result<Self, Error> {
        let nvml = Nvml::builder().lib_path(OsStr::new(library)).init();
        let nvml = nvml.map_err(|source| Error::Library { library: library.display().to_string(), source })?;
        Ok(Self(nvml))
    }
}

impl Gpus for NvmlGpus {
    fn inventory(&self) -> Result<Inventory, Error> {
        let mut inventory = Inventory {
            driver_version: self.0.sys_driver_version().ok(),
            cuda_version: self.0.sys_cuda_driver_version().ok().map(cuda_version),
            ..Inventory::default()
        };
        for index in 0..self.0.device_count().map_err(Error::Count)? {
            match self.0.device_by_index(index).and_then(|gpu| read_gpu(index, &gpu)) {
                Ok(devices) => {
                    inventory.reached.insert(index);
                    inventory.devices.extend(devices);
                }
                Err(error) => {
                    tracing::debug!(index, %error, "GPU does not answer");
                    inventory.silent.insert(index);
                }
            }
        }
        Ok(inventory)
    }

    fn watch(&self, tell: &mut dyn FnMut(Option<Event>) -> ControlFlow<()>) -> Result<(), Error> {
        loop {
            let gpus = self.reachable()?;
            let (set, names) = self.subscribe(&gpus)?;
            while self.reachable()? == gpus {
                if tell(next(&set, &names)?).is_break() {
                    return Ok(());
                }
            }
            if tell(Some(Event::Changed)).is_break() {
                return Ok(());
            }
        }
    }
}

/// None after a quiet second.
fn next(set: &EventSet<'_>, names: &[(usize, String)]) -> Result<Option<Event>, Error> {
    match set.wait(WAIT_MS) {
        Ok(event) => {
            let code = match event.event_data {
                Some(XidError::Value(code)) => Some(code),
                _ => None,
            };
            Ok(Some(Event::Xid { gpu: name_of(&event.device, names), code }))
        }
        Err(NvmlError::Timeout) => Ok(None),
        // A lost GPU fails the wait at once, and again at once: the others are still waited for.
        Err(NvmlError::GpuLost) => {
            std::thread::sleep(Duration::from_millis(WAIT_MS.into()));
            Ok(None)
        }
        Err(error) => Err(Error::Events(error)),
    }
}

impl NvmlGpus {
    /// Index and UUID of each GPU that answers.
    fn reachable(&self) -> Result<Vec<(u32, String)>, Error> {
        let count = self.0.device_count().map_err(Error::Count)?;
        let uuid = |index| self.0.device_by_index(index).and_then(|gpu| gpu.uuid()).ok();
        Ok((0..count).filter_map(|index| Some((index, uuid(index)?))).collect())
    }

    /// An event set for Xids of all GPUs that have them, and the UUID behind each handle: a GPU that is
    /// lost by the time its event arrives cannot be asked any more.
    fn subscribe(&self, gpus: &[(u32, String)]) -> Result<(EventSet<'_>, Vec<(usize, String)>), Error> {
        let mut refused = BTreeSet::new();
        'again: loop {
            let mut set = self.0.create_event_set().map_err(Error::Events)?;
            let mut names = Vec::new();
            for (index, uuid) in gpus.iter().filter(|(index, _)| !refused.contains(index)) {
                let registered = self.0.device_by_index(*index).map(|gpu| {
                    let set = gpu.register_events(EventTypes::CRITICAL_XID_ERROR, set);
                    (address(&gpu), set.map_err(|e| e.error))
                });
                match registered {
                    Ok((address, Ok(same))) => {
                        set = same;
                        names.push((address, uuid.clone()));
                    }
                    // The set is gone with the one refusal.
                    Ok((_, Err(error))) | Err(error) => {
                        tracing::warn!(%uuid, %error, "GPU has no Xid events");
                        refused.insert(*index);
                        continue 'again;
                    }
                }
            }
            return Ok((set, names));
        }
    }
}

/// NVML's handle of a GPU as a number, to compare.
fn address(gpu: &Handle<'_>) -> usize {
    // SAFETY: the pointer is compared, never followed.
    #[expect(unsafe_code, reason = "the wrapper compares no handles")]
    let handle = unsafe { gpu.handle() };
    handle.addr()
}

fn name_of(gpu: &Handle<'_>, names: &[(usize, String)]) -> String {
    let known = names.iter().find(|(known, _)| *known == address(gpu));
    known.map_or_else(|| gpu.uuid().unwrap_or_default(), |(_, uuid)| uuid.clone())
}

fn cuda_version(version: i32) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}

/// The GPU, or its slices. Fails only if the GPU cannot be reached, or has no name.
fn read_gpu(index: u32, gpu: &Handle<'_>) -> Result<Vec<Device>, NvmlError> {
    let mut whole = Device { index, uuid: gpu.uuid()?, model: gpu.name()?, ..Device::default() };
    read_properties(gpu, &mut whole)?;
    // A card without MIG answers with an error.
    if !gpu.mig_mode().is_ok_and(|mode| mode.current == 1) {
        read_use(gpu, &mut whole)?;
        return Ok(vec![whole]);
    }
    let places = gpu.mig_device_count().unwrap_or(0);
    let slices = (0..places).filter_map(|place| gpu.mig_device_by_index(place).ok());
    slices.map(|slice| read_slice(&whole, &slice)).collect()
}

/// None for what this card does not tell. That it is lost is told.
fn optional<T>(answer: Result<T, NvmlError>) -> Result<Option<T>, NvmlError> {
    match answer {
        Err(NvmlError::GpuLost) => Err(NvmlError::GpuLost),
        answer => Ok(answer.ok()),
    }
}

fn read_properties(gpu: &Handle<'_>, device: &mut Device) -> Result<(), NvmlError> {
    device.minor = optional(gpu.minor_number())?;
    device.pci_bus_id = optional(gpu.pci_info())?.map(|pci| pci.bus_id);
    device.compute_capability = optional(gpu.cuda_compute_capability())?.map(|c| format!("{}.{}", c.major, c.minor));
    // The best the link can be: an idle card slows it down.
    let generation = optional(gpu.max_pcie_link_gen())?;
    let width = optional(gpu.max_pcie_link_width())?;
    device.pcie = generation.zip(width).map(|(generation, width)| format!("gen{generation} x{width}"));
    device.nv_links = active_nv_links(gpu);
    device.ecc = optional(gpu.is_ecc_enabled())?.map(|ecc| ecc.currently_enabled);
    let errors = gpu.total_ecc_errors(MemoryError::Uncorrected, EccCounter::Volatile);
    device.uncorrected_ecc_errors = optional(errors)?.unwrap_or(0);
    Ok(())
}

/// None if the card has none at all.
fn active_nv_links(gpu: &Handle<'_>) -> Option<u32> {
    let states = (0..MAX_NV_LINKS).map_while(|link| gpu.link_wrapper_for(link).is_active().ok());
    let states: Vec<bool> = states.collect();
    (!states.is_empty()).then(|| states.iter().map(|active| u32::from(*active)).sum())
}

/// What changes from one reading to the next, for GPUs and slices alike.
fn read_use(handle: &Handle<'_>, device: &mut Device) -> Result<(), NvmlError> {
    if let Some(memory) = optional(handle.memory_info())? {
        device.memory_bytes = memory.total;
        device.memory_used_bytes = memory.used;
    }
    let compute = optional(handle.running_compute_processes_count())?.unwrap_or(0);
    let graphics = optional(handle.running_graphics_processes_count())?.unwrap_or(0);
    device.processes = compute.saturating_add(graphics);
    device.utilization = optional(handle.utilization_rates())?.map(|rates| rates.gpu.min(100));
    Ok(())
}

fn read_slice(gpu: &Device, handle: &Handle<'_>) -> Result<Device, NvmlError> {
    let slice = Slice {
        parent: gpu.uuid.clone(),
        profile: profile(handle)?,
        gpu_instance: instance(handle, Instance::Gpu),
        compute_instance: instance(handle, Instance::Compute),
    };
    // NVLink belongs to the GPU as a whole, and MIG turns it off.
    let mut device = Device { uuid: handle.uuid()?, nv_links: None, mig: Some(slice), ..gpu.clone() };
    read_use(handle, &mut device)?;
    Ok(device)
}

/// `NVIDIA A100-SXM4-80GB MIG 1g.10gb` names it; a driver that does not is asked for the sizes.
fn profile(slice: &Handle<'_>) -> Result<String, NvmlError> {
    if let Some((_, profile)) = slice.name()?.rsplit_once(" MIG ") {
        return Ok(profile.to_owned());
    }
    let sizes = slice.attributes()?;
    Ok(format!("{}g.{}gb", sizes.gpu_instance_slice_count, sizes.memory_size_mb.div_ceil(1024)))
}

enum Instance {
    Gpu,
    Compute,
}

/// The numbers by which the driver names a slice's capabilities.
fn instance(slice: &Handle<'_>, kind: Instance) -> Option<u32> {
    let lib = slice.nvml().lib();
    let ask = match kind {
        Instance::Gpu => lib.nvmlDeviceGetGpuInstanceId.as_ref(),
        Instance::Compute => lib.nvmlDeviceGetComputeInstanceId.as_ref(),
    };
    let mut id = 0;
    // SAFETY: the handle lives as long as the library, and `id` is written to only.
    #[expect(unsafe_code, reason = "not wrapped by nvml-wrapper")]
    let result = unsafe { ask.ok()?(slice.handle(), &mut id) };
    (result == 0).then_some(id)
}

//! A stand-in for NVIDIA's `libnvidia-ml.so.1`: the part of NVML's C interface that the node agent and
//! `nvml-wrapper` use, answering from a profile and from faults that a test injects while it runs.
//! For development and tests alone. `gpuctl` beside it edits the state.
//!
//! Where the real library answers with an error, so does this one: MIG slices have no utilisation, a
//! lost GPU has no handle, an older card has no NVLink.

#![allow(non_snake_case)] // the names are NVML's
#![allow(clippy::missing_safety_doc)] // every function: pointers as NVML's documentation asks

mod device;
mod events;
pub mod state;

use std::ffi::{CStr, c_char, c_int, c_uint, c_ulonglong};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use nvml_wrapper_sys::bindings::*;

use device::{Found, find, handle};
use state::{Gpu, World};

type Answer<T> = Result<T, nvmlReturn_t>;

const INVALID: nvmlReturn_t = nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT;
const NOT_FOUND: nvmlReturn_t = nvmlReturn_enum_NVML_ERROR_NOT_FOUND;
const NOT_SUPPORTED: nvmlReturn_t = nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED;
const TOO_SMALL: nvmlReturn_t = nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE;

/// Calls of init less calls of shutdown.
static USERS: AtomicUsize = AtomicUsize::new(0);

fn answer(ask: impl FnOnce() -> Answer<()>) -> nvmlReturn_t {
    if USERS.load(Ordering::SeqCst) == 0 {
        return nvmlReturn_enum_NVML_ERROR_UNINITIALIZED;
    }
    ask().err().unwrap_or(nvmlReturn_enum_NVML_SUCCESS)
}

fn world() -> Answer<Arc<World>> {
    state::current().map_err(|why| {
        eprintln!("fake-nvml: {why}");
        nvmlReturn_enum_NVML_ERROR_UNKNOWN
    })
}

/// Writes through a caller's pointer, which NVML allows to be null only by returning an error.
unsafe fn put<T>(out: *mut T, value: T) -> Answer<()> {
    if out.is_null() {
        return Err(INVALID);
    }
    // SAFETY: not null, and the caller promises a writable T.
    unsafe { out.write(value) };
    Ok(())
}

unsafe fn put_text(out: *mut c_char, length: c_uint, text: &str) -> Answer<()> {
    if out.is_null() {
        return Err(INVALID);
    }
    if text.len() >= length as usize {
        return Err(TOO_SMALL);
    }
    // SAFETY: the caller promises `length` writable bytes, and the text with its zero fits.
    unsafe {
        std::ptr::copy_nonoverlapping(text.as_ptr().cast(), out, text.len());
        out.add(text.len()).write(0);
    }
    Ok(())
}

/// `nvmlReturn_t name(nvmlDevice_t device, T *out)`, by far the most frequent form.
macro_rules! query {
    ($($name:ident -> $out:ty = $value:expr;)*) => {$(
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(device: nvmlDevice_t, out: *mut $out) -> nvmlReturn_t {
            answer(|| {
                let value: fn(&Found) -> Answer<$out> = $value;
                let value = value(&find(device)?)?;
                unsafe { put(out, value) }
            })
        }
    )*};
}

/// `nvmlReturn_t name(…, char *text, unsigned length)`.
macro_rules! text {
    ($($name:ident($($argument:ident: $type:ty)?) = $value:expr;)*) => {$(
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(
            $($argument: $type,)? text: *mut c_char, length: c_uint,
        ) -> nvmlReturn_t {
            answer(|| {
                let value: String = $value?;
                unsafe { put_text(text, length, &value) }
            })
        }
    )*};
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlInit_v2() -> nvmlReturn_t {
    if let Err(error) = world() {
        return error;
    }
    USERS.fetch_add(1, Ordering::SeqCst);
    nvmlReturn_enum_NVML_SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlInitWithFlags(_flags: c_uint) -> nvmlReturn_t {
    unsafe { nvmlInit_v2() }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlShutdown() -> nvmlReturn_t {
    answer(|| {
        USERS.fetch_sub(1, Ordering::SeqCst);
        Ok(())
    })
}

text! {
    nvmlSystemGetDriverVersion() = world().map(|w| w.profile.driver.clone());
    nvmlSystemGetNVMLVersion() = world().map(|w| w.profile.nvml.clone());
    nvmlDeviceGetName(device: nvmlDevice_t) = find(device)?.name();
    nvmlDeviceGetUUID(device: nvmlDevice_t) = find(device)?.uuid();
    nvmlDeviceGetSerial(device: nvmlDevice_t) = find(device)?.whole().map(|_| format!("{:013}", 1_320_000_000 + device.addr()));
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetCudaDriverVersion_v2(version: *mut c_int) -> nvmlReturn_t {
    answer(|| unsafe { put(version, world()?.profile.cuda) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCount_v2(count: *mut c_uint) -> nvmlReturn_t {
    answer(|| unsafe { put(count, world()?.profile.gpus.len() as c_uint) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByIndex_v2(index: c_uint, device: *mut nvmlDevice_t) -> nvmlReturn_t {
    answer(|| {
        let wanted = handle(index as usize, None);
        find(wanted)?;
        unsafe { put(device, wanted) }
    })
}

/// The first GPU or slice that fits, unless it is lost.
fn by(fits: impl Fn(&Found) -> Answer<bool>) -> Answer<nvmlDevice_t> {
    let world = world()?;
    for (gpu, it) in world.profile.gpus.iter().enumerate() {
        let slices = it.mig.as_ref().map_or(0, |mig| mig.slices.len());
        for slice in std::iter::once(None).chain((0..slices).map(Some)) {
            if fits(&Found { world: world.clone(), gpu, slice })? {
                let wanted = handle(gpu, slice);
                return find(wanted).map(|_| wanted);
            }
        }
    }
    Err(NOT_FOUND)
}

unsafe fn text_of<'a>(text: *const c_char) -> Answer<&'a str> {
    if text.is_null() {
        return Err(INVALID);
    }
    // SAFETY: the caller promises a C string.
    unsafe { CStr::from_ptr(text) }.to_str().map_err(|_| INVALID)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByUUID(uuid: *const c_char, device: *mut nvmlDevice_t) -> nvmlReturn_t {
    answer(|| unsafe {
        let wanted = text_of(uuid)?;
        put(device, by(|found| Ok(found.uuid()? == wanted))?)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByPciBusId_v2(
    bus_id: *const c_char,
    device: *mut nvmlDevice_t,
) -> nvmlReturn_t {
    answer(|| unsafe {
        let wanted = text_of(bus_id)?;
        put(device, by(|found| Ok(found.gpu()?.bus_id.eq_ignore_ascii_case(wanted)))?)
    })
}

query! {
    nvmlDeviceGetIndex -> c_uint = |d| Ok(d.slice.unwrap_or(d.gpu) as c_uint);
    nvmlDeviceGetMinorNumber -> c_uint = |d| d.whole().map(|_| d.gpu as c_uint);
    nvmlDeviceGetPciInfo_v3 -> nvmlPciInfo_t = |d| pci_info(d.gpu()?);
    nvmlDeviceGetUtilizationRates -> nvmlUtilization_t = |d| {
        d.whole()?;
        Ok(nvmlUtilization_t { gpu: d.faults().utilization.min(100), memory: 0 })
    };
    nvmlDeviceGetMemoryInfo -> nvmlMemory_t = |d| {
        let (total, used) = d.memory()?;
        Ok(nvmlMemory_t { total, used, free: total - used })
    };
    nvmlDeviceGetCurrPcieLinkGeneration -> c_uint = |d| Ok(d.whole()?.pcie.ok_or(NOT_SUPPORTED)?.0);
    nvmlDeviceGetCurrPcieLinkWidth -> c_uint = |d| Ok(d.whole()?.pcie.ok_or(NOT_SUPPORTED)?.1);
    nvmlDeviceGetMaxPcieLinkGeneration -> c_uint = |d| Ok(d.whole()?.pcie.ok_or(NOT_SUPPORTED)?.0);
    nvmlDeviceGetMaxPcieLinkWidth -> c_uint = |d| Ok(d.whole()?.pcie.ok_or(NOT_SUPPORTED)?.1);
    nvmlDeviceGetMaxMigDeviceCount -> c_uint = |d| Ok(if d.whole()?.mig.is_some() { 7 } else { 0 });
    nvmlDeviceIsMigDeviceHandle -> c_uint = |d| Ok(d.slice.is_some().into());
    nvmlDeviceGetDeviceHandleFromMigDeviceHandle -> nvmlDevice_t = |d| d.slice().map(|_| handle(d.gpu, None));
    nvmlDeviceGetGpuInstanceId -> c_uint = |d| Ok(d.slice()?.gpu_instance);
    nvmlDeviceGetComputeInstanceId -> c_uint = |d| Ok(d.slice()?.compute_instance);
    nvmlDeviceGetAttributes_v2 -> nvmlDeviceAttributes_t = |d| attributes(d);
    nvmlDeviceGetSupportedEventTypes -> c_ulonglong = |d| d.whole().map(|_| events::SUPPORTED);
}

/// Copies a text into a fixed field; what is too long is cut, and the last byte stays zero.
fn field<const N: usize>(text: &str) -> [c_char; N] {
    let mut field = [0; N];
    for (to, from) in field[..N - 1].iter_mut().zip(text.bytes()) {
        *to = from as c_char;
    }
    field
}

/// `DDDDDDDD:BB:dd.f`
fn pci_info(gpu: &Gpu) -> Answer<nvmlPciInfo_t> {
    let part = |range| {
        let text = gpu.bus_id.get(range).ok_or(INVALID)?;
        u32::from_str_radix(text, 16).map_err(|_| INVALID)
    };
    Ok(nvmlPciInfo_t {
        busIdLegacy: field(gpu.bus_id.get(4..).ok_or(INVALID)?),
        domain: part(0..8)?,
        bus: part(9..11)?,
        device: part(12..14)?,
        pciDeviceId: gpu.pci_device_id,
        pciSubSystemId: 0,
        busId: field(&gpu.bus_id),
    })
}

fn attributes(device: &Found) -> Answer<nvmlDeviceAttributes_t> {
    device.slice()?;
    let mig = device.mig()?;
    Ok(nvmlDeviceAttributes_t {
        multiprocessorCount: mig.multiprocessors,
        sharedCopyEngineCount: 1,
        sharedDecoderCount: 0,
        sharedEncoderCount: 0,
        sharedJpegCount: 0,
        sharedOfaCount: 0,
        gpuInstanceSliceCount: 1,
        computeInstanceSliceCount: 1,
        memorySizeMB: mig.memory_bytes >> 20,
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMemoryInfo_v2(device: nvmlDevice_t, out: *mut nvmlMemory_v2_t) -> nvmlReturn_t {
    const VERSION: u32 = size_of::<nvmlMemory_v2_t>() as u32 | 2 << 24;
    answer(|| unsafe {
        if out.is_null() {
            return Err(INVALID);
        }
        if (*out).version != VERSION {
            return Err(nvmlReturn_enum_NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
        }
        let (total, used) = find(device)?.memory()?;
        put(out, nvmlMemory_v2_t { version: VERSION, total, reserved: 0, free: total - used, used })
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCudaComputeCapability(
    device: nvmlDevice_t,
    major: *mut c_int,
    minor: *mut c_int,
) -> nvmlReturn_t {
    answer(|| unsafe {
        let capability = find(device)?.gpu()?.compute_capability;
        put(major, capability.0)?;
        put(minor, capability.1)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMigMode(
    device: nvmlDevice_t,
    current: *mut c_uint,
    pending: *mut c_uint,
) -> nvmlReturn_t {
    answer(|| unsafe {
        let found = find(device)?;
        // Cards before Ampere answer so, and those of this library that have no slices stand for them.
        found.whole()?.mig.as_ref().ok_or(NOT_SUPPORTED)?;
        put(current, NVML_DEVICE_MIG_ENABLE)?;
        put(pending, NVML_DEVICE_MIG_ENABLE)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMigDeviceHandleByIndex(
    device: nvmlDevice_t,
    index: c_uint,
    slice: *mut nvmlDevice_t,
) -> nvmlReturn_t {
    answer(|| unsafe {
        let parent = find(device)?;
        parent.whole()?;
        parent.mig()?;
        let wanted = handle(parent.gpu, Some(index as usize));
        find(wanted)?;
        put(slice, wanted)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetEccMode(
    device: nvmlDevice_t,
    current: *mut nvmlEnableState_t,
    pending: *mut nvmlEnableState_t,
) -> nvmlReturn_t {
    answer(|| unsafe {
        let ecc = find(device)?.whole()?.ecc;
        put(current, ecc)?;
        put(pending, ecc)
    })
}

/// Corrected errors are always none.
fn ecc_errors(device: nvmlDevice_t, kind: nvmlMemoryErrorType_t) -> Answer<u64> {
    let found = find(device)?;
    found.whole()?;
    let uncorrected = kind == nvmlMemoryErrorType_enum_NVML_MEMORY_ERROR_TYPE_UNCORRECTED;
    Ok(if uncorrected { found.faults().uncorrected_ecc } else { 0 })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetTotalEccErrors(
    device: nvmlDevice_t,
    kind: nvmlMemoryErrorType_t,
    _counter: nvmlEccCounterType_t,
    count: *mut c_ulonglong,
) -> nvmlReturn_t {
    answer(|| unsafe { put(count, ecc_errors(device, kind)?) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMemoryErrorCounter(
    device: nvmlDevice_t,
    kind: nvmlMemoryErrorType_t,
    _counter: nvmlEccCounterType_t,
    location: nvmlMemoryLocation_t,
    count: *mut c_ulonglong,
) -> nvmlReturn_t {
    answer(|| unsafe {
        let errors = ecc_errors(device, kind)?;
        let in_memory = location == nvmlMemoryLocation_enum_NVML_MEMORY_LOCATION_DEVICE_MEMORY;
        put(count, if in_memory { errors } else { 0 })
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetNvLinkState(
    device: nvmlDevice_t,
    link: c_uint,
    active: *mut nvmlEnableState_t,
) -> nvmlReturn_t {
    answer(|| unsafe {
        let links = find(device)?.whole()?.nv_links.ok_or(NOT_SUPPORTED)?;
        if link >= NVML_NVLINK_MAX_LINKS {
            return Err(INVALID);
        }
        put(active, (link < links).into())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetComputeRunningProcesses_v3(
    device: nvmlDevice_t,
    count: *mut c_uint,
    list: *mut nvmlProcessInfo_t,
) -> nvmlReturn_t {
    answer(|| unsafe {
        let found = find(device)?;
        let processes = found.faults().processes;
        if count.is_null() {
            return Err(INVALID);
        }
        let room = *count as usize;
        put(count, processes.len() as c_uint)?;
        if processes.is_empty() {
            return Ok(());
        }
        if list.is_null() || room < processes.len() {
            return Err(TOO_SMALL);
        }
        let (gi, ci) = match found.slice {
            Some(_) => (found.slice()?.gpu_instance, found.slice()?.compute_instance),
            None => (u32::MAX, u32::MAX),
        };
        for (i, process) in processes.iter().enumerate() {
            list.add(i).write(nvmlProcessInfo_t {
                pid: process.pid,
                usedGpuMemory: process.memory,
                gpuInstanceId: gi,
                computeInstanceId: ci,
            });
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetGraphicsRunningProcesses_v3(
    device: nvmlDevice_t,
    count: *mut c_uint,
    _list: *mut nvmlProcessInfo_t,
) -> nvmlReturn_t {
    answer(|| unsafe { find(device).and_then(|_| put(count, 0)) })
}

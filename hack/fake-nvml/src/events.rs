//! Event sets. A set delivers every Xid of the state file once, those from before it was made included:
//! the driver would forget those, but then a test would have to know when its agent was ready.

use std::ffi::{c_uint, c_ulonglong};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nvml_wrapper_sys::bindings::*;

use crate::device::{find, handle};
use crate::{Answer, INVALID, answer, put, world};

const XID: c_ulonglong = nvmlEventTypeXidCriticalError as c_ulonglong;
pub const SUPPORTED: c_ulonglong =
    XID | nvmlEventTypeSingleBitEccError as c_ulonglong | nvmlEventTypeDoubleBitEccError as c_ulonglong;

/// How often a waiting set looks at the state file.
const LOOK: Duration = Duration::from_millis(20);

#[derive(Default)]
struct Set {
    /// GPUs whose Xids are wanted.
    gpus: Vec<usize>,
    /// The newest Xid delivered.
    newest: u64,
}

/// SAFETY: `set` comes from nvmlEventSetCreate and has not been freed.
unsafe fn set_of<'a>(set: nvmlEventSet_t) -> Answer<&'a Mutex<Set>> {
    unsafe { set.cast::<Mutex<Set>>().as_ref() }.ok_or(INVALID)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlEventSetCreate(set: *mut nvmlEventSet_t) -> nvmlReturn_t {
    answer(|| {
        if set.is_null() {
            return Err(INVALID);
        }
        unsafe { put(set, Box::into_raw(Box::<Mutex<Set>>::default()).cast()) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlEventSetFree(set: nvmlEventSet_t) -> nvmlReturn_t {
    answer(|| {
        if set.is_null() {
            return Err(INVALID);
        }
        // SAFETY: made by nvmlEventSetCreate; the caller does not use it again.
        drop(unsafe { Box::from_raw(set.cast::<Mutex<Set>>()) });
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceRegisterEvents(
    device: nvmlDevice_t,
    types: c_ulonglong,
    set: nvmlEventSet_t,
) -> nvmlReturn_t {
    answer(|| {
        let found = find(device)?;
        found.whole()?;
        if types & !SUPPORTED != 0 {
            return Err(nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED);
        }
        if types & XID != 0 {
            let set = unsafe { set_of(set)? };
            set.lock().unwrap_or_else(PoisonError::into_inner).gpus.push(found.gpu);
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlEventSetWait_v2(
    set: nvmlEventSet_t,
    data: *mut nvmlEventData_t,
    timeout_ms: c_uint,
) -> nvmlReturn_t {
    answer(|| {
        let set = unsafe { set_of(set)? };
        let end = Instant::now() + Duration::from_millis(timeout_ms.into());
        loop {
            if let Some(event) = next(set)? {
                return unsafe { put(data, event) };
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(nvmlReturn_enum_NVML_ERROR_TIMEOUT);
            }
            std::thread::sleep(left.min(LOOK));
        }
    })
}

fn next(set: &Mutex<Set>) -> Answer<Option<nvmlEventData_t>> {
    let world = world()?;
    let mut set = set.lock().unwrap_or_else(PoisonError::into_inner);
    let event = world.state.xids.iter().find(|x| x.id > set.newest && set.gpus.contains(&x.device));
    let Some(event) = event else { return Ok(None) };
    set.newest = event.id;
    Ok(Some(nvmlEventData_t {
        device: handle(event.device, None),
        eventType: XID,
        eventData: event.code,
        gpuInstanceId: u32::MAX,
        computeInstanceId: u32::MAX,
    }))
}

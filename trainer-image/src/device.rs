//! Where the arithmetic happens: chosen when the process starts, so that one
//! binary serves the CPU image and the CUDA image.

use std::ffi::CStr;

use clap::ValueEnum;
use tch::{Cuda, Device};

use crate::error::{Error, Result};
use crate::memory::Side;
use crate::task::Resources;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Choice {
    /// CUDA where there is a device, else the CPU.
    #[default]
    Auto,
    Cpu,
    Cuda,
}

/// What became of libtorch's CUDA part.
#[derive(Clone, Debug, PartialEq)]
enum Part {
    Loaded,
    Absent,
    /// It is there and does not load, for this reason.
    Broken(String),
}

/// Chooses the device, and tells the log which one: what computes is what is paid for.
pub fn choose(choice: Choice, resources: Resources, say: &mut dyn FnMut(String)) -> Result<Device> {
    let part = if choice == Choice::Cpu { Part::Absent } else { load_cuda() };
    if part == Part::Loaded && Cuda::is_available() {
        // Its search among algorithms would make two runs differ.
        Cuda::cudnn_set_benchmark(false);
        say("computing on CUDA device 0".into());
        return Ok(Device::Cuda(0));
    }
    let why = match &part {
        Part::Broken(reason) => format!("libtorch_cuda.so does not load: {reason}"),
        Part::Loaded => "libtorch finds no CUDA device; is there a driver, and is it new enough for CUDA 13?".into(),
        Part::Absent => "this libtorch has no CUDA part".into(),
    };
    match choice {
        Choice::Cuda => Err(Error::Unavailable(format!(
            "--device cuda was asked for, but {why}; use the CUDA image on a node with a GPU, or --device auto"
        ))),
        // To train for days on the CPU of a leased GPU is worse than to fail.
        Choice::Auto if part != Part::Absent && resources.asks_for_gpu() => {
            Err(Error::Unavailable(format!("the task was given a GPU, but {why}; --device cpu goes on without it")))
        }
        Choice::Auto | Choice::Cpu => {
            say(on_the_cpu(choice, resources));
            Ok(Device::Cpu)
        }
    }
}

/// Whose memory it computes in.
pub fn side(device: Device) -> Side {
    if device.is_cuda() { Side::Gpu } else { Side::Cpu }
}

fn on_the_cpu(choice: Choice, resources: Resources) -> String {
    if choice == Choice::Auto && resources.asks_for_gpu() {
        return "computing on the CPU, although the task was given a GPU: this image's libtorch has no CUDA part; \
                use the CUDA image"
            .into();
    }
    format!("computing on the CPU with {} threads", tch::get_num_threads())
}

/// libtorch registers its CUDA part when that library is loaded. The binary
/// does not link to it, since then the CPU image would need it too.
#[allow(unsafe_code)]
fn load_cuda() -> Part {
    // SAFETY: the name is a terminated string; libtorch's own initialisers are
    // what runs, and the handle is meant to live as long as the process.
    let handle = unsafe { libc::dlopen(c"libtorch_cuda.so".as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
    if handle.is_null() { part_of(&load_error()) } else { Part::Loaded }
}

/// Why the last `dlopen` failed.
#[allow(unsafe_code)]
fn load_error() -> String {
    // SAFETY: after a failed dlopen the pointer is null or a terminated string,
    // which is copied before anything else loads a library.
    unsafe {
        let text = libc::dlerror();
        if text.is_null() { String::new() } else { CStr::from_ptr(text).to_string_lossy().into_owned() }
    }
}

/// Absent only if the library itself is not found, rather than one that it needs.
fn part_of(reason: &str) -> Part {
    match reason {
        "libtorch_cuda.so: cannot open shared object file: No such file or directory" => Part::Absent,
        reason => Part::Broken(reason.into()),
    }
}

/// Sets libtorch's threads: OMP_NUM_THREADS, else the task's CPU limit, else
/// libtorch's own choice, which is the node's cores and too many in a pod.
pub fn set_threads(resources: Resources) {
    let variable = std::env::var("OMP_NUM_THREADS").ok().and_then(|text| text.parse::<i32>().ok());
    let limit = i32::try_from(resources.cpu_millis / 1000).ok().filter(|_| resources.cpu_millis > 0);
    if let Some(threads) = variable.filter(|threads| *threads > 0).or(limit) {
        tch::set_num_threads(threads.max(1));
    }
}

pub fn name(device: Device) -> &'static str {
    if device.is_cuda() { "cuda" } else { "cpu" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cuda_part_that_lacks_a_library_is_broken_rather_than_absent() {
        let missing = |name: &str| format!("{name}: cannot open shared object file: No such file or directory");
        assert_eq!(part_of(&missing("libtorch_cuda.so")), Part::Absent);
        assert_eq!(part_of(&missing("libcudnn.so.9")), Part::Broken(missing("libcudnn.so.9")));
    }
}

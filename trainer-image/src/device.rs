//! Where the arithmetic happens: chosen when the process starts, so that one
//! binary serves the CPU image and the CUDA image.

use clap::ValueEnum;
use tch::{Cuda, Device};

use crate::error::{Error, Result};
use crate::task::Resources;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Choice {
    /// CUDA where there is a device, else the CPU.
    #[default]
    Auto,
    Cpu,
    Cuda,
}

pub fn choose(choice: Choice, resources: Resources) -> Result<Device> {
    let loaded = choice != Choice::Cpu && load_cuda();
    if loaded && Cuda::is_available() {
        // Its search among algorithms would make two runs differ.
        Cuda::cudnn_set_benchmark(false);
        return Ok(Device::Cuda(0));
    }
    match choice {
        Choice::Cuda => Err(Error::Unavailable(
            "--device cuda was asked for, but libtorch finds no CUDA device: use the CUDA image on a node with a \
             GPU, or --device auto"
                .into(),
        )),
        // To train for days on the CPU of a leased GPU is worse than to fail.
        Choice::Auto if loaded && resources.asks_for_gpu() => Err(Error::Unavailable(
            "the task was given a GPU, but libtorch cannot use it: is the driver too old for CUDA 13? --device cpu \
             goes on without it"
                .into(),
        )),
        Choice::Auto | Choice::Cpu => Ok(Device::Cpu),
    }
}

/// libtorch registers its CUDA part when that library is loaded. The binary
/// does not link to it, since then the CPU image would need it too. Says
/// whether there is one.
#[allow(unsafe_code)]
fn load_cuda() -> bool {
    // SAFETY: the name is a terminated string; libtorch's own initialisers are
    // what runs, and the handle is meant to live as long as the process.
    let handle = unsafe { libc::dlopen(c"libtorch_cuda.so".as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
    !handle.is_null()
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

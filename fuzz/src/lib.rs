//! Freehold's readers of strangers' bytes, each as a function that a fuzzer can call. A function calls what
//! production calls and asserts what must hold of every input; `make fuzz` looks for inputs that break it, and the
//! ordinary tests replay the ones that once did.

#[cfg(feature = "operator")]
mod chain;
#[cfg(feature = "operator")]
mod gateway;
#[cfg(feature = "operator")]
mod node;
#[cfg(feature = "operator")]
mod orders;
#[cfg(feature = "operator")]
mod schema;
#[cfg(feature = "operator")]
mod signer;
#[cfg(feature = "trainer")]
mod trainer;
#[cfg(feature = "operator")]
mod values;

pub mod bytes;
pub mod seeds;

/// One parser under test.
#[derive(Clone, Copy)]
pub struct Target {
    pub name: &'static str,
    /// What it reads, and of whom.
    pub reads: &'static str,
    /// Bytes of the longest input that is tried.
    pub longest: usize,
    pub run: fn(&[u8]),
}

impl Target {
    /// Bytes that an input may make its reader ask for, beside a multiple of its own length.
    pub fn room(&self) -> usize {
        match self.name {
            // The library reserves address space for as many columns as a file claims, and touches none of it. What
            // is touched libFuzzer bounds.
            "parquet" => 1 << 40,
            _ => 64 << 20,
        }
    }
}

/// All parsers of the halves that are built in.
pub const TARGETS: &[Target] = &[
    #[cfg(feature = "operator")]
    Target { name: "task", reads: "a tenant's TrainingTask or InferenceTask", longest: 8192, run: orders::task },
    #[cfg(feature = "operator")]
    Target { name: "spec", reads: "the spec of a stranger's order", longest: 1100, run: orders::spec },
    #[cfg(feature = "operator")]
    Target { name: "manifest", reads: "the manifest that a tenant hands over", longest: 8192, run: orders::manifest },
    #[cfg(feature = "operator")]
    Target { name: "token", reads: "the wallet-signed token of a call", longest: 2200, run: gateway::token },
    #[cfg(feature = "operator")]
    Target { name: "range", reads: "headers and queries of a call", longest: 256, run: gateway::range },
    #[cfg(feature = "operator")]
    Target { name: "address", reads: "addresses in a task or a registration", longest: 512, run: gateway::address },
    #[cfg(feature = "operator")]
    Target { name: "progress", reads: "lines that a trainer writes", longest: 16384, run: gateway::progress },
    #[cfg(feature = "operator")]
    Target { name: "report", reads: "a gateway's report of a lease", longest: 8192, run: gateway::report },
    #[cfg(feature = "operator")]
    Target { name: "result", reads: "result.json and metrics.json", longest: 8192, run: gateway::result },
    #[cfg(feature = "operator")]
    Target { name: "model", reads: "a delivered model's header", longest: 8192, run: orders::model },
    #[cfg(feature = "operator")]
    Target { name: "rpc", reads: "answers of an RPC endpoint", longest: 65536, run: chain::rpc },
    #[cfg(feature = "operator")]
    Target { name: "logs", reads: "events of the contracts, and an audit of them", longest: 16384, run: chain::logs },
    #[cfg(feature = "operator")]
    Target { name: "revert", reads: "revert data", longest: 2048, run: chain::revert },
    #[cfg(feature = "operator")]
    Target { name: "signatures", reads: "answers of a signer", longest: 8192, run: signer::answers },
    #[cfg(feature = "operator")]
    Target { name: "signer", reads: "requests to the signer", longest: 16384, run: signer::requests },
    #[cfg(feature = "operator")]
    Target { name: "values", reads: "amounts, durations, quantities, patterns", longest: 256, run: values::values },
    #[cfg(feature = "operator")]
    Target { name: "nvml", reads: "what a vendor's library says", longest: 4096, run: node::nvml },
    #[cfg(feature = "trainer")]
    Target { name: "recipe", reads: "task.json, as the trainer reads it", longest: 8192, run: trainer::recipe },
    #[cfg(feature = "trainer")]
    Target { name: "tensors", reads: "a checkpoint or a model", longest: 8192, run: trainer::tensors },
    #[cfg(feature = "trainer")]
    Target { name: "csv", reads: "a table as CSV", longest: 4096, run: trainer::csv },
    #[cfg(feature = "trainer")]
    Target { name: "arrays", reads: "a table as NPY or NPZ", longest: 4096, run: trainer::arrays },
    #[cfg(feature = "trainer")]
    Target { name: "parquet", reads: "a table as Parquet", longest: 8192, run: trainer::parquet },
];

pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

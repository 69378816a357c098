//! A copy of the fake NVML library with a state of its own (the library reads `state.json` beside it).

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

pub struct Fake(TempDir);

impl Fake {
    pub fn new(profile: &str) -> Self {
        let fake = Self(tempfile::tempdir().unwrap());
        // Cargo builds the library for this test (a dev-dependency) and puts it beside it.
        let built = std::env::current_exe().unwrap().with_file_name("libfake_nvml.so");
        std::fs::copy(&built, fake.library()).unwrap_or_else(|e| panic!("{}: {e}", built.display()));
        fake.control(&["profile", profile]);
        fake
    }

    pub fn library(&self) -> PathBuf {
        self.0.path().join("libnvidia-ml.so.1")
    }

    pub fn state(&self) -> PathBuf {
        self.0.path().join("state.json")
    }

    /// The command that a developer uses as well.
    pub fn control(&self, arguments: &[&str]) {
        let gpuctl = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../hack/fake-nvml/gpuctl");
        let done = Command::new(gpuctl).arg("--state").arg(self.state()).args(arguments).status().unwrap();
        assert!(done.success(), "gpuctl {arguments:?}");
    }
}

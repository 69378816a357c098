//! Whether the container runtime gives GPUs to containers that were given none.
//!
//! NVIDIA's runtime reads `NVIDIA_VISIBLE_DEVICES`, which any image can set, and by default obeys it. Nothing but a
//! container that tries can tell. So the agent's pod has a second container, as confined as a tenant's, that asks for all
//! devices, looks at what it got and leaves word in a folder that both share.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use freehold_api::conditions::{Claim, types};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::stop_on_signal;

const VARIABLE: &str = "NVIDIA_VISIBLE_DEVICES";
/// Devices are given to a container when it is made: to ask again, it has to be made again, as after a change of the
/// runtime's configuration. The kubelet starts one that has run for ten minutes anew without a delay.
const LIFE: Duration = Duration::from_secs(11 * 60);
/// A word this old is none: nobody has been able to try for a while.
const FRESH: Duration = Duration::from_secs(20 * 60);

/// Asks the container runtime for all GPUs, and tells the agent which it got.
#[derive(Clone, Debug, clap::Args)]
pub struct ProbeArgs {
    /// File that the agent reads.
    #[arg(long, env = "FREEHOLD_ISOLATION_REPORT")]
    pub report: PathBuf,
    /// Folder of the container's device files.
    #[arg(long, default_value = "/dev")]
    pub dev: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{VARIABLE} is {0:?} in this container, so it asks for nothing: it must be `all`")]
    NotAsking(String),
    #[error("{path} cannot be read: {source}")]
    Look { path: PathBuf, source: std::io::Error },
    #[error("{path} cannot be written: {source}")]
    Write { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Signals(#[from] crate::Error),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Report {
    devices: BTreeSet<String>,
}

/// Looks once, and ends after a while so that the next container looks.
pub async fn probe(args: ProbeArgs) -> Result<(), Error> {
    let asked = std::env::var(VARIABLE).unwrap_or_default();
    if asked != "all" {
        return Err(Error::NotAsking(asked));
    }
    let report = Report { devices: gpu_files(&args.dev)? };
    tracing::info!(devices = ?report.devices, "seen without having been given any");
    write(&args.report, &report)?;
    let stop = CancellationToken::new();
    stop_on_signal(stop.clone())?;
    tokio::select! {
        () = stop.cancelled() => {}
        () = tokio::time::sleep(LIFE) => {}
    }
    Ok(())
}

/// Files through which a program reaches a GPU: NVIDIA's (`nvidia0`, `nvidiactl`, `nvidia-uvm`, `nvidia-caps`), the
/// kernel's (`dri`), AMD's (`kfd`), Windows' (`dxg`).
fn gpu_files(dev: &Path) -> Result<BTreeSet<String>, Error> {
    let failed = |source| Error::Look { path: dev.to_owned(), source };
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(dev).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
        if name.starts_with("nvidia") || ["dri", "kfd", "dxg"].contains(&name.as_str()) {
            found.insert(name);
        }
    }
    Ok(found)
}

/// In one step: the agent never reads half of it.
fn write(path: &Path, report: &Report) -> Result<(), Error> {
    let fresh = path.with_extension("new");
    let text = serde_json::to_vec(report).map_err(std::io::Error::from);
    let written = text.and_then(|text| std::fs::write(&fresh, text)).and_then(|()| std::fs::rename(&fresh, path));
    written.map_err(|source| Error::Write { path: path.to_owned(), source })
}

/// What is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Isolation {
    Verified,
    /// A container that was given none saw these.
    Breached(Vec<String>),
    /// Nobody has tried, and why.
    NotProbed(String),
}

impl Isolation {
    /// The probe's last word.
    pub fn read(report: &Path, now: SystemTime) -> Self {
        let read = || {
            // What was written "later" was written before the clock was set back, nobody knows when.
            let at = std::fs::metadata(report)?.modified()?;
            let age = now.duration_since(at).ok().filter(|age| *age <= FRESH);
            Ok((age, std::fs::read(report)?))
        };
        match read() {
            Err(error) if std::io::Error::kind(&error) == ErrorKind::NotFound => {
                Self::NotProbed("the container isolation-probe of the agent's pod has not told anything yet".into())
            }
            Err(error) => Self::NotProbed(format!("{} cannot be read: {error}", report.display())),
            Ok((None, _)) => Self::NotProbed(
                "what the container isolation-probe of the agent's pod has told is old: see why it does not run".into(),
            ),
            Ok((Some(_), text)) => match serde_json::from_slice::<Report>(&text) {
                Ok(report) if report.devices.is_empty() => Self::Verified,
                Ok(report) => Self::Breached(report.devices.into_iter().take(16).collect()),
                Err(error) => Self::NotProbed(format!("{} holds no report: {error}", report.display())),
            },
        }
    }

    pub fn claim(&self) -> Claim {
        match self {
            Self::Verified => Claim::yes(
                types::ISOLATION_VERIFIED,
                "Verified",
                "a container that set NVIDIA_VISIBLE_DEVICES=all, and was given no GPU, saw none",
            ),
            Self::Breached(devices) => Claim::no(
                types::ISOLATION_VERIFIED,
                "VariableHonoured",
                format!(
                    "a container that set {VARIABLE}=all, and was given no GPU, saw {} in /dev: any image could; set \
                     accept-nvidia-visible-devices-envvar-when-unprivileged = false in the NVIDIA runtime's config.toml, \
                     or make runc the default runtime",
                    devices.join(", ")
                ),
            ),
            Self::NotProbed(why) => Claim::unknown(types::ISOLATION_VERIFIED, "NotProbed", why),
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use tempfile::TempDir;

    use super::*;

    fn folder(files: &[&str]) -> TempDir {
        let folder = TempDir::new().unwrap();
        files.iter().for_each(|name| std::fs::write(folder.path().join(name), b"").unwrap());
        folder
    }

    #[test]
    fn what_leads_to_a_gpu_is_told_and_what_every_container_has_is_not() {
        let dev = folder(&["null", "zero", "full", "random", "urandom", "tty", "console", "fuse", "ptmx"]);
        assert!(gpu_files(dev.path()).unwrap().is_empty());
        for name in ["nvidia0", "nvidiactl", "nvidia-uvm", "dri", "kfd"] {
            std::fs::write(dev.path().join(name), b"").unwrap();
        }
        assert_eq!(
            Vec::from_iter(gpu_files(dev.path()).unwrap()),
            ["dri", "kfd", "nvidia-uvm", "nvidia0", "nvidiactl"]
        );
    }

    #[rstest]
    #[case::nothing_seen(&[], Isolation::Verified)]
    #[case::a_device_seen(&["nvidia0"], Isolation::Breached(vec!["nvidia0".into()]))]
    fn a_report_is_believed_while_it_is_fresh(#[case] devices: &[&str], #[case] expected: Isolation) {
        let folder = folder(&[]);
        let path = folder.path().join("report");
        let devices = devices.iter().map(ToString::to_string).collect();
        write(&path, &Report { devices }).unwrap();
        let at = std::fs::metadata(&path).unwrap().modified().unwrap();
        assert_eq!(Isolation::read(&path, at), expected);
        assert_eq!(Isolation::read(&path, at + FRESH), expected);
        for then in [at + FRESH + Duration::from_secs(1), at - Duration::from_secs(1)] {
            assert!(matches!(Isolation::read(&path, then), Isolation::NotProbed(_)));
        }
    }

    #[rstest]
    #[case("")]
    #[case("{}")]
    #[case(r#"{"devices":"none"}"#)]
    #[case(r#"{"devices":[],"verified":true}"#)]
    fn what_is_no_report_shows_nothing(#[case] text: &str) {
        let folder = folder(&[]);
        let path = folder.path().join("report");
        assert!(
            matches!(Isolation::read(&path, SystemTime::now()), Isolation::NotProbed(why) if why.contains("not told"))
        );
        std::fs::write(&path, text).unwrap();
        assert!(
            matches!(Isolation::read(&path, SystemTime::now()), Isolation::NotProbed(why) if why.contains("no report"))
        );
    }

    #[tokio::test]
    async fn a_probe_that_asks_for_nothing_says_so_instead_of_vouching() {
        let folder = folder(&[]);
        let args = ProbeArgs { report: folder.path().join("report"), dev: folder.path().to_owned() };
        assert!(matches!(probe(args.clone()).await, Err(Error::NotAsking(_))));
        assert!(!args.report.exists());
    }
}

//! Places where a test may end the process, as a crash would. Inert unless
//! `FREEHOLD_FAILPOINTS` names a folder. There the test lists the points that
//! are `armed`, a name a line, or `all`; the process adds to `struck` what ended
//! it, each point once, and to `seen` the points that it passed.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex};

struct Points {
    folder: PathBuf,
    /// Points that this process has passed.
    passed: Mutex<BTreeSet<String>>,
    /// Held from the decision to die to the end: a second thread must not write that it struck as well.
    dying: Mutex<()>,
}

static POINTS: LazyLock<Option<Points>> = LazyLock::new(|| {
    let folder = std::env::var_os("FREEHOLD_FAILPOINTS")?.into();
    Some(Points { folder, passed: Mutex::default(), dying: Mutex::default() })
});

impl Points {
    fn pass(&self, name: &str) {
        let new = self.passed.lock().is_ok_and(|mut passed| passed.insert(name.to_owned()));
        if new && !names(&self.folder.join("seen")).contains(name) {
            // Without it a test knows of one point less: it cannot hide a death.
            let _ = add(&self.folder.join("seen"), name);
        }
        let _dying = self.dying.lock();
        if self.strikes(name) && add(&self.folder.join("struck"), name).is_ok() {
            tracing::warn!(failpoint = name, "ending the process, as FREEHOLD_FAILPOINTS asks");
            std::process::abort();
        }
    }

    fn strikes(&self, name: &str) -> bool {
        let armed = names(&self.folder.join("armed"));
        (armed.contains(name) || armed.contains("all")) && !names(&self.folder.join("struck")).contains(name)
    }
}

fn names(file: &Path) -> BTreeSet<String> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect()
}

fn add(file: &Path, name: &str) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(file)?;
    writeln!(file, "{name}")?;
    file.sync_all()
}

/// Ends the process here, if a test asked for it.
pub fn failpoint(name: &str) {
    if let Some(points) = POINTS.as_ref() {
        points.pass(name);
    }
}

/// A call to something outside, with a point before it and one behind its answer: whatever is awaited through this is
/// a place to die at.
pub async fn crossing<F: Future>(name: impl FnOnce() -> String, call: F) -> F::Output {
    if POINTS.is_none() {
        return call.await;
    }
    let name = name();
    failpoint(&format!("{name}.asked"));
    let answer = call.await;
    failpoint(&format!("{name}.answered"));
    answer
}

//! Places where a test may end the process, as a crash would. Inert unless
//! `FREEHOLD_FAILPOINT` names points (separated by commas, or `all`) and
//! `FREEHOLD_FAILPOINT_STATE` a file that remembers where it happened already:
//! each point ends the process once.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;
use std::sync::OnceLock;

struct Points {
    named: BTreeSet<String>,
    state: PathBuf,
}

impl Points {
    fn from_env() -> Option<Self> {
        let named = std::env::var("FREEHOLD_FAILPOINT").ok()?;
        let state = std::env::var_os("FREEHOLD_FAILPOINT_STATE")?.into();
        Some(Self { named: named.split(',').map(|name| name.trim().to_owned()).collect(), state })
    }

    fn strikes(&self, name: &str) -> bool {
        let named = self.named.contains(name) || self.named.contains("all");
        named && !std::fs::read_to_string(&self.state).unwrap_or_default().lines().any(|line| line == name)
    }

    /// Whether the point is now known to have struck; without that it would strike for ever.
    fn remember(&self, name: &str) -> bool {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&self.state);
        file.and_then(|mut file| writeln!(file, "{name}").and_then(|()| file.sync_all())).is_ok()
    }
}

/// Ends the process here, if a test asked for it.
pub fn failpoint(name: &str) {
    static POINTS: OnceLock<Option<Points>> = OnceLock::new();
    let Some(points) = POINTS.get_or_init(Points::from_env) else { return };
    if points.strikes(name) && points.remember(name) {
        tracing::warn!(failpoint = name, "ending the process, as FREEHOLD_FAILPOINT asks");
        std::process::abort();
    }
}

//! How the sidecar knows that the trainer has ended.
//!
//! At a pod's deletion it is told to stop at the same moment as the trainer,
//! and must serve on until the trainer's last checkpoint is written. The API
//! server cannot tell it when: a pod's status is only written after all its
//! containers have stopped. So the pod's containers share a process namespace
//! (`shareProcessNamespace`, which the `restricted` profile allows), and the
//! sidecar waits until no process but the pod's first and its own is left.
//! Where they share none, it goes by the files: see [`super::watch`].
//!
//! In a shared namespace a program could look into another's memory and files
//! by way of `/proc`; [`hide`] forbids that for the courier, which holds a token.

use rustix::process::{DumpableBehavior, set_dumpable_behavior};

/// Looks at the pod's other processes.
pub trait Processes: Send + Sync {
    /// Whether any is left; nothing if they cannot be seen.
    fn others(&self) -> Option<bool>;
}

pub struct SharedNamespace;

impl Processes for SharedNamespace {
    fn others(&self) -> Option<bool> {
        let own = std::process::id();
        // In a namespace of its own a container's program is the first process; in a shared one the pod's is.
        if own == 1 {
            return None;
        }
        let listed = std::fs::read_dir("/proc").ok()?;
        let ids = listed.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        Some(ids.filter(|id| *id != 1 && *id != own).any(alive))
    }
}

/// Ended processes that nobody has asked about yet do not count.
fn alive(id: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    // The program's name, in parentheses, may hold anything: the state follows the last one.
    stat.rsplit_once(')')
        .and_then(|(_, rest)| rest.trim_start().chars().next())
        .is_some_and(|s| !matches!(s, 'Z' | 'X'))
}

/// Keeps other processes of the same user out of this one's memory, environment and files.
pub fn hide() {
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "other processes of the pod may look into this one");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_lives_until_it_ends() {
        let mut child = std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        assert!(alive(child.id()));
        drop(child.stdin.take());
        // Ended, not yet waited for: a zombie at the latest when wait() can return at once.
        while child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        assert!(!alive(child.id()));
        assert!(!alive(u32::MAX));
    }
}

//! The decision log: a line of JSON a decision, to stdout and to a file that only grows. The
//! file is written through to the disk before anything is signed; from it a new process
//! learns what the period has spent.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use freehold_chain::signer::wire::Refusal;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::policy::{Decision, Request};
use crate::state::State;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the journal at {path} cannot be opened: {source}")]
    Open { path: PathBuf, source: std::io::Error },
    #[error("the journal at {path} cannot be written: {source}")]
    Write { path: PathBuf, source: std::io::Error },
    #[error(
        "line {line} of the journal at {path} cannot be read ({reason}): what was spent is not known. \
         Restore the file, or move it away to begin with an unspent period"
    )]
    Line { path: PathBuf, line: usize, reason: String },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    Signed,
    Refused,
}

/// A decision, as it is logged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub time: Timestamp,
    /// User name of whoever asked.
    pub caller: String,
    /// Name of the goal, or `access`.
    pub goal: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<u64>,
    /// Order id, as far as the request is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<String>,
    /// The contract, or the gateway's host.
    pub to: String,
    pub decision: Verdict,
    /// What counts, where it was signed.
    #[serde(flatten)]
    pub counts: Option<Decision>,
    /// The rule that it breaks.
    #[serde(flatten)]
    pub refusal: Option<Refusal>,
}

impl Entry {
    pub fn new(caller: &str, request: Request<'_>, outcome: &Result<Decision, Refusal>, now: u64) -> Self {
        let (goal, nonce, order, to) = match request {
            Request::Transaction(asked) => {
                let to = asked.transaction.to.to().map(ToString::to_string).unwrap_or_default();
                let order = asked.goal.order_id().map(|id| short(id.as_str(), 66));
                (asked.goal.name(), Some(asked.transaction.nonce), order, to)
            }
            Request::Access(asked) => {
                ("access", None, Some(asked.claims.lease.to_string()), short(&asked.claims.host, 259))
            }
        };
        Self {
            time: Timestamp::from_second(i64::try_from(now).unwrap_or(0)).unwrap_or_default(),
            caller: caller.to_owned(),
            goal: goal.to_owned(),
            nonce,
            order,
            to,
            decision: if outcome.is_ok() { Verdict::Signed } else { Verdict::Refused },
            counts: outcome.as_ref().ok().cloned(),
            refusal: outcome.as_ref().err().cloned(),
        }
    }
}

/// What a request says may be long.
fn short(text: &str, longest: usize) -> String {
    text.chars().take(longest).collect()
}

pub struct Journal {
    path: PathBuf,
    file: File,
    /// Bytes that are whole lines; whatever a failed write left behind them is not one.
    whole: u64,
}

impl Journal {
    /// The journal, and what was signed according to it.
    pub fn open(path: &Path) -> Result<(Self, State), Error> {
        let open = |source| Error::Open { path: path.to_owned(), source };
        let file = OpenOptions::new().read(true).append(true).create(true).open(path).map_err(open)?;
        let mut reader = BufReader::new(file);
        let (mut state, mut whole, mut text) = (State::default(), 0, Vec::new());
        for line in 1.. {
            text.clear();
            let read = reader.read_until(b'\n', &mut text).map_err(open)?;
            // A line without its end was torn by a crash. It was not on the disk, so nothing was signed for it.
            if !text.ends_with(b"\n") {
                break;
            }
            let entry: Entry = serde_json::from_slice(&text).map_err(|error| Error::Line {
                path: path.to_owned(),
                line,
                reason: error.to_string(),
            })?;
            if let Some(decision) = &entry.counts {
                state.record(decision, u64::try_from(entry.time.as_second()).unwrap_or(0));
            }
            whole += read as u64;
        }
        let mut journal = Self { path: path.to_owned(), file: reader.into_inner(), whole };
        journal.cut().map_err(open)?;
        Ok((journal, state))
    }

    /// Returns once the line is on the disk.
    pub fn append(&mut self, entry: &Entry) -> Result<(), Error> {
        let line = serde_json::to_vec(entry).map_err(std::io::Error::from).and_then(|mut line| {
            line.push(b'\n');
            self.write(&line).map(|()| line)
        });
        let line = line.map_err(|source| Error::Write { path: self.path.clone(), source })?;
        // Who reads the log of the container may be gone; the file counts.
        let _ = std::io::stdout().lock().write_all(&line);
        Ok(())
    }

    fn write(&mut self, line: &[u8]) -> std::io::Result<()> {
        self.cut()?;
        self.file.write_all(line)?;
        self.file.sync_data()?;
        self.whole += line.len() as u64;
        Ok(())
    }

    /// Takes away what an interrupted write left.
    fn cut(&mut self) -> std::io::Result<()> {
        if self.file.seek(SeekFrom::End(0))? != self.whole {
            self.file.set_len(self.whole)?;
        }
        Ok(())
    }
}

#[cfg(test)]
impl Journal {
    /// A journal on a volume that takes no more.
    pub fn unwritable(path: &Path) -> Self {
        Self { path: path.to_owned(), file: File::open(path).expect("file"), whole: 0 }
    }
}

#[cfg(test)]
mod tests {
    use alloy::primitives::B256;

    use super::*;
    use crate::state::Charge;

    fn entry(n: u8, at: i64) -> Entry {
        let charge = |amount| Charge { key: format!("order/{n}"), amount };
        let decision = Decision { hash: B256::repeat_byte(n), spend: Some(charge(5)), fee: Some(charge(7)) };
        Entry {
            time: Timestamp::from_second(at).expect("time"),
            caller: "operator".into(),
            goal: "placeOrder".into(),
            nonce: Some(u64::from(n)),
            order: None,
            to: "market".into(),
            decision: Verdict::Signed,
            counts: Some(decision),
            refusal: None,
        }
    }

    fn spent(state: &State) -> u128 {
        state.tokens.sum_with(&Charge { key: "new".into(), amount: 0 }, 0)
    }

    #[test]
    fn what_was_spent_survives_a_restart_and_a_torn_line() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("journal.jsonl");
        let (mut journal, state) = Journal::open(&path).expect("new");
        assert_eq!(spent(&state), 0);
        journal.append(&entry(1, 100)).expect("written");
        journal.append(&entry(2, 101)).expect("written");
        drop(journal);
        let whole = std::fs::read(&path).expect("file");
        let mut torn = whole.clone();
        torn.extend_from_slice(&serde_json::to_vec(&entry(3, 102)).expect("line")[..40]);
        std::fs::write(&path, &torn).expect("torn");

        let (mut journal, state) = Journal::open(&path).expect("survives");
        assert_eq!(spent(&state), 10);
        assert!(state.knows(&B256::repeat_byte(2)) && !state.knows(&B256::repeat_byte(3)));
        journal.append(&entry(4, 103)).expect("written");
        let (_, state) = Journal::open(&path).expect("whole lines only");
        assert_eq!(spent(&state), 15);
    }

    #[test]
    fn a_line_that_was_tampered_with_is_not_passed_over() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("journal.jsonl");
        std::fs::write(&path, "{}\n").expect("file");
        let error = Journal::open(&path).err().expect("refused").to_string();
        assert!(error.contains("line 1"), "{error}");
    }

    #[test]
    fn a_refusal_is_a_line_too() {
        let mut refused = entry(1, 1);
        (refused.decision, refused.counts) = (Verdict::Refused, None);
        refused.refusal = Some(Refusal::new("spend", 5, 4));
        let text = serde_json::to_string(&refused).expect("line");
        assert!(text.contains(r#""decision":"refused""#) && text.contains(r#""rule":"spend""#), "{text}");
        assert_eq!(serde_json::from_str::<Entry>(&text).expect("entry"), refused);
    }
}

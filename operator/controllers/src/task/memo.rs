//! Answers of slow questions, kept for a few seconds.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

/// Most answers that are kept; beyond it the oldest go.
const MOST: usize = 4096;

pub struct Memo<K, V> {
    answers: Mutex<BTreeMap<K, (Timestamp, V)>>,
}

impl<K, V> Default for Memo<K, V> {
    fn default() -> Self {
        Self { answers: Mutex::new(BTreeMap::new()) }
    }
}

impl<K: Ord + Clone, V: Clone> Memo<K, V> {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<K, (Timestamp, V)>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer, if it is younger than `seconds`, and when it was given.
    pub fn get(&self, key: &K, now: Timestamp, seconds: i64) -> Option<(Timestamp, V)> {
        let found = self.lock().get(key).cloned()?;
        (now.as_second() - found.0.as_second() < seconds).then_some(found)
    }

    pub fn put(&self, key: K, now: Timestamp, value: V) {
        let mut answers = self.lock();
        answers.insert(key, (now, value));
        if answers.len() > MOST {
            let oldest = answers.iter().min_by_key(|(_, (at, _))| *at).map(|(key, _)| key.clone());
            oldest.map(|key| answers.remove(&key));
        }
    }

    pub fn forget(&self, key: &K) {
        self.lock().remove(key);
    }
}

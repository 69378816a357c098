//! Bounds on what goes on at a time, in all and for each of those who share.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

type Held<K> = Arc<Mutex<HashMap<K, usize>>>;

/// So that one lease, or one pod, cannot take every place.
pub struct Slots<K> {
    held: Held<K>,
    total: usize,
    each: usize,
}

/// A place, for as long as it lives.
pub struct Slot<K: Eq + Hash> {
    held: Held<K>,
    key: K,
}

impl<K: Eq + Hash + Clone> Slots<K> {
    pub fn new(total: usize, each: usize) -> Self {
        Self { held: Held::default(), total, each }
    }

    pub fn take(&self, key: K) -> Option<Slot<K>> {
        let mut held = lock(&self.held);
        let mine = held.get(&key).copied().unwrap_or_default();
        if mine >= self.each || held.values().sum::<usize>() >= self.total {
            return None;
        }
        held.insert(key.clone(), mine + 1);
        Some(Slot { held: self.held.clone(), key })
    }
}

impl<K: Eq + Hash> Drop for Slot<K> {
    fn drop(&mut self) {
        let mut held = lock(&self.held);
        if let Some(count) = held.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.key);
            }
        }
    }
}

fn lock<K>(held: &Held<K>) -> MutexGuard<'_, HashMap<K, usize>> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_takes_every_place() {
        let slots = Slots::new(3, 2);
        let first = slots.take("a").unwrap();
        let _second = slots.take("a").unwrap();
        assert!(slots.take("a").is_none());
        let _third = slots.take("b").unwrap();
        assert!(slots.take("c").is_none());
        drop(first);
        assert!(slots.take("c").is_some());
        assert!(slots.take("a").is_some());
    }
}

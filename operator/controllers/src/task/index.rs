//! A small in-memory index over a watch: objects are boiled down to what
//! reconcilers ask for, so that thousands of them cost little.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use futures::{Stream, StreamExt};
use kube::ResourceExt;
use kube::runtime::watcher::{self, Event};
use tokio::sync::watch;

struct Inner<V> {
    entries: BTreeMap<String, (String, V)>,
    groups: BTreeMap<String, BTreeSet<String>>,
    /// Written by this process and not yet seen in the watch: a relist must not lose them.
    fresh: BTreeSet<String>,
    /// What a relist has brought so far.
    listed: BTreeSet<String>,
}

/// Values by object name, in groups.
pub struct Index<V> {
    inner: RwLock<Inner<V>>,
    ready: watch::Sender<bool>,
    changes: watch::Sender<u64>,
}

impl<V: Clone> Default for Index<V> {
    fn default() -> Self {
        let inner = Inner {
            entries: BTreeMap::new(),
            groups: BTreeMap::new(),
            fresh: BTreeSet::new(),
            listed: BTreeSet::new(),
        };
        Self { inner: RwLock::new(inner), ready: watch::Sender::new(false), changes: watch::Sender::new(0) }
    }
}

impl<V: Clone> Index<V> {
    fn read(&self) -> RwLockReadGuard<'_, Inner<V>> {
        self.inner.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner<V>> {
        self.inner.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub fn get(&self, name: &str) -> Option<V> {
        self.read().entries.get(name).map(|(_, value)| value.clone())
    }

    pub fn names(&self) -> Vec<String> {
        self.read().entries.keys().cloned().collect()
    }

    pub fn group(&self, group: &str) -> Vec<V> {
        let inner = self.read();
        let names = inner.groups.get(group).into_iter().flatten();
        names.filter_map(|name| inner.entries.get(name).map(|(_, value)| value.clone())).collect()
    }

    /// Something of every entry that has it.
    pub fn filter_map<T>(&self, pick: impl Fn(&V) -> Option<T>) -> Vec<T> {
        self.read().entries.values().filter_map(|(_, value)| pick(value)).collect()
    }

    /// Puts in what this process has just written, ahead of the watch.
    pub fn insert_fresh(&self, name: &str, group: &str, value: V) {
        let mut inner = self.write();
        inner.fresh.insert(name.to_owned());
        inner.put(name, group, value);
    }

    pub fn remove(&self, name: &str) {
        let mut inner = self.write();
        inner.fresh.remove(name);
        inner.discard(name);
    }

    /// Waits for the first whole list.
    pub async fn ready(&self) {
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = self.ready.subscribe().wait_for(|ready| *ready).await;
    }

    /// Wakes after each change.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Keeps the index true to a watch for as long as it is polled. `read` names group and value.
    pub async fn follow<K: ResourceExt>(
        &self,
        events: impl Stream<Item = Result<Event<K>, watcher::Error>>,
        read: impl Fn(&K) -> Option<(String, V)>,
    ) {
        let mut events = std::pin::pin!(events);
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => self.apply(event, &read),
                Err(error) => {
                    tracing::warn!(%error, kind = std::any::type_name::<K>(), "the watch failed and is being repeated")
                }
            }
        }
    }

    pub fn apply<K: ResourceExt>(&self, event: Event<K>, read: impl Fn(&K) -> Option<(String, V)>) {
        let mut inner = self.write();
        match event {
            Event::Init => inner.listed.clear(),
            Event::InitApply(object) => {
                inner.listed.insert(key(&object));
                inner.take(&object, read);
            }
            Event::InitDone => {
                inner.forget_unlisted();
                self.ready.send_replace(true);
            }
            Event::Apply(object) => inner.take(&object, read),
            Event::Delete(object) => {
                let name = key(&object);
                inner.fresh.remove(&name);
                inner.discard(&name);
            }
        }
        drop(inner);
        self.changes.send_modify(|n| *n = n.wrapping_add(1));
    }
}

impl<V> Inner<V> {
    fn take<K: ResourceExt>(&mut self, object: &K, read: impl Fn(&K) -> Option<(String, V)>) {
        let name = key(object);
        self.fresh.remove(&name);
        match read(object) {
            Some((group, value)) => self.put(&name, &group, value),
            None => self.discard(&name),
        }
    }

    fn put(&mut self, name: &str, group: &str, value: V) {
        self.discard(name);
        self.groups.entry(group.to_owned()).or_default().insert(name.to_owned());
        self.entries.insert(name.to_owned(), (group.to_owned(), value));
    }

    fn discard(&mut self, name: &str) {
        let Some((group, _)) = self.entries.remove(name) else { return };
        if let Some(names) = self.groups.get_mut(&group) {
            names.remove(name);
            if names.is_empty() {
                self.groups.remove(&group);
            }
        }
    }

    fn forget_unlisted(&mut self) {
        let gone: Vec<String> = self
            .entries
            .keys()
            .filter(|name| !self.listed.contains(*name) && !self.fresh.contains(*name))
            .cloned()
            .collect();
        for name in gone {
            self.discard(&name);
        }
        self.listed.clear();
    }
}

fn key(object: &impl ResourceExt) -> String {
    match object.namespace() {
        Some(namespace) => format!("{namespace}/{}", object.name_any()),
        None => object.name_any(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::api::ObjectMeta;

    fn map(name: &str, group: &str) -> ConfigMap {
        let labels = [("group".to_owned(), group.to_owned())].into();
        ConfigMap {
            metadata: ObjectMeta {
                name: Some(name.into()),
                namespace: Some("ns".into()),
                labels: Some(labels),
                ..ObjectMeta::default()
            },
            ..ConfigMap::default()
        }
    }

    fn read(map: &ConfigMap) -> Option<(String, String)> {
        let group = map.labels().get("group")?.clone();
        (group != "ignored").then(|| (group, map.name_any()))
    }

    #[test]
    fn follows_lists_and_changes() {
        let index = Index::<String>::default();
        for event in [Event::Init, Event::InitApply(map("a", "x")), Event::InitApply(map("b", "x")), Event::InitDone] {
            index.apply(event, read);
        }
        assert_eq!(index.group("x"), ["a", "b"]);
        index.apply(Event::Apply(map("a", "y")), read);
        index.apply(Event::Delete(map("b", "x")), read);
        assert_eq!((index.group("x"), index.group("y")), (vec![], vec!["a".to_owned()]));
        index.apply(Event::Apply(map("a", "ignored")), read);
        assert_eq!(index.get("ns/a"), None);
    }

    #[test]
    fn a_relist_keeps_what_was_just_written_and_nothing_else_that_is_gone() {
        let index = Index::<String>::default();
        for event in [Event::Init, Event::InitApply(map("old", "x")), Event::InitDone] {
            index.apply(event, read);
        }
        index.insert_fresh("ns/new", "x", "new".into());
        for event in [Event::Init, Event::InitDone] {
            index.apply(event, read);
        }
        assert_eq!(index.group("x"), ["new"], "the list was older than the write");
        index.apply(Event::Apply(map("new", "x")), read);
        for event in [Event::Init, Event::InitDone] {
            index.apply(event, read);
        }
        assert!(index.group("x").is_empty(), "seen in the watch, then gone from the list");
    }

    #[tokio::test]
    async fn ready_after_the_first_list() {
        let index = Index::<String>::default();
        assert!(!*index.ready.borrow());
        index.apply(Event::<ConfigMap>::Init, read);
        index.apply(Event::<ConfigMap>::InitDone, read);
        index.ready().await;
    }
}

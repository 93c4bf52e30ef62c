//! loom's types instead of the standard library's, and a table instead of quick_cache's.

use std::collections::HashMap;
use std::hash::Hash;

pub(crate) use loom::sync::{Condvar, Mutex, MutexGuard, atomic};

/// The interface of quick_cache's, with one lock and unlimited size.
#[derive(Debug)]
pub(crate) struct Cache<K, V>(Mutex<HashMap<K, V>>);

impl<K: Copy + Eq + Hash, V: Clone> Cache<K, V> {
    pub(crate) fn new(_max: usize) -> Self {
        Self(Mutex::default())
    }

    pub(crate) fn get(&self, key: &K) -> Option<V> {
        self.0.lock().unwrap().get(key).cloned()
    }

    pub(crate) fn insert(&self, key: K, value: V) {
        self.0.lock().unwrap().insert(key, value);
    }

    pub(crate) fn get_or_insert_with<E>(&self, key: &K, make: impl FnOnce() -> Result<V, E>) -> Result<V, E> {
        let mut all = self.0.lock().unwrap();
        if let Some(value) = all.get(key) {
            return Ok(value.clone());
        }
        let value = make()?;
        all.insert(*key, value.clone());
        Ok(value)
    }
}

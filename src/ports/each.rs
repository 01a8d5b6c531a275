use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
};

/// What a store said of many that it was asked about at once. What stands in neither of the two there is not.
#[derive(Debug)]
pub struct Each<K, V> {
    pub found: HashMap<K, V>,
    /// Of these nobody can tell now: what is stored of them is damaged. It says nothing about the others.
    pub unsure: HashSet<K>,
}

impl<K, V> Default for Each<K, V> {
    fn default() -> Self {
        Self { found: HashMap::new(), unsure: HashSet::new() }
    }
}

impl<K: Eq + Hash, V: Clone> Each<K, V> {
    /// `None`: nobody can tell. `Some(None)`: there is none.
    pub fn said(&self, key: &K) -> Option<Option<V>> {
        (!self.unsure.contains(key)).then(|| self.found.get(key).cloned())
    }
}

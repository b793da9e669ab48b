//! Things of a tenant that have a name: found by it, numbered while they are there.
use super::tenants::TenantIndex;
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use std::hash::BuildHasher;

/// Something that has its place in a table by whose it is and what it is called.
pub trait Named {
    /// Both; they never change.
    fn name(&self) -> (TenantIndex, &str);
}

/// The table. A number is given out again once its holder is gone: who keeps one across turns looks it up anew.
pub struct NamedTable<T> {
    list: Vec<Option<T>>,
    free: Vec<u32>,
    index: HashTable<u32>,
    hasher: RandomState,
}

impl<T> Default for NamedTable<T> {
    fn default() -> NamedTable<T> {
        let (list, free) = (Vec::new(), Vec::new());
        NamedTable { list, free, index: HashTable::new(), hasher: RandomState::default() }
    }
}

impl<T: Named> NamedTable<T> {
    /// Finds what is there.
    pub fn find(&self, tenant: TenantIndex, name: &str) -> Option<u32> {
        let hash = self.hasher.hash_one((tenant, name));
        let is_it = |at: &u32| self.get(*at).is_some_and(|held| held.name() == (tenant, name));
        self.index.find(hash, is_it).copied()
    }

    /// Adds what was not there.
    pub fn insert(&mut self, value: T) -> u32 {
        let (tenant, name) = value.name();
        debug_assert!(self.find(tenant, name).is_none(), "{name} of tenant {tenant} is inserted once");
        let hash = self.hasher.hash_one((tenant, name));
        let at = match self.free.pop() {
            Some(at) => {
                self.list[at as usize] = Some(value);
                at
            }
            None => {
                self.list.push(Some(value));
                (self.list.len() - 1) as u32
            }
        };
        let NamedTable { list, index, hasher, .. } = self;
        index.insert_unique(hash, at, |at| list[*at as usize].as_ref().map_or(0, |held| hasher.hash_one(held.name())));
        at
    }

    /// Takes it out.
    pub fn remove(&mut self, at: u32) -> Option<T> {
        let value = self.list.get_mut(at as usize)?.take()?;
        let hash = self.hasher.hash_one(value.name());
        if let Ok(entry) = self.index.find_entry(hash, |candidate| *candidate == at) {
            entry.remove();
        }
        self.free.push(at);
        Some(value)
    }

    /// By number.
    pub fn get(&self, at: u32) -> Option<&T> {
        self.list.get(at as usize)?.as_ref()
    }

    /// By number.
    pub fn get_mut(&mut self, at: u32) -> Option<&mut T> {
        self.list.get_mut(at as usize)?.as_mut()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.list.iter().flatten()
    }
}

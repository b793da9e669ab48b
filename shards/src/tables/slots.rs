//! A slab whose keys tell a slot's tenants apart.
use crate::key::ConnKey;

/// Values in numbered slots; a freed slot is given out again under a new generation.
#[derive(Debug)]
pub struct Slots<T> {
    entries: Vec<Entry<T>>,
    free: Vec<u32>,
    len: usize,
}

#[derive(Debug)]
struct Entry<T> {
    generation: u32,
    value: Option<T>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Slots { entries: Vec::new(), free: Vec::new(), len: 0 }
    }
}

impl<T> Slots<T> {
    /// Puts a value into a free slot.
    pub fn insert(&mut self, value: T) -> ConnKey {
        self.len += 1;
        if let Some(slot) = self.free.pop() {
            let entry = &mut self.entries[slot as usize];
            debug_assert!(entry.value.is_none(), "slot {slot} was on the free list while in use");
            entry.value = Some(value);
            return ConnKey { slot, generation: entry.generation };
        }
        let slot = self.entries.len() as u32;
        self.entries.push(Entry { generation: 1, value: Some(value) });
        ConnKey { slot, generation: 1 }
    }

    /// Takes the value out; later uses of the key find nothing.
    pub fn remove(&mut self, key: ConnKey) -> Option<T> {
        let entry = self.entries.get_mut(key.slot as usize)?;
        if entry.generation != key.generation {
            return None;
        }
        let value = entry.value.take()?;
        entry.generation = entry.generation.wrapping_add(1);
        self.free.push(key.slot);
        self.len -= 1;
        Some(value)
    }

    /// The value under a key, unless it is gone.
    pub fn get(&self, key: ConnKey) -> Option<&T> {
        let entry = self.entries.get(key.slot as usize)?;
        if entry.generation == key.generation { entry.value.as_ref() } else { None }
    }

    /// The value under a key, unless it is gone.
    pub fn get_mut(&mut self, key: ConnKey) -> Option<&mut T> {
        let entry = self.entries.get_mut(key.slot as usize)?;
        if entry.generation == key.generation { entry.value.as_mut() } else { None }
    }

    /// Whoever is in the slot now: for tables that are kept in step and hold bare slots.
    pub fn at_mut(&mut self, slot: u32) -> Option<(ConnKey, &mut T)> {
        let entry = self.entries.get_mut(slot as usize)?;
        let key = ConnKey { slot, generation: entry.generation };
        entry.value.as_mut().map(|value| (key, value))
    }

    /// The key of whoever is in the slot now.
    pub fn key_at(&self, slot: u32) -> Option<ConnKey> {
        let entry = self.entries.get(slot as usize)?;
        entry.value.is_some().then_some(ConnKey { slot, generation: entry.generation })
    }

    /// Whoever is in the slot now.
    pub fn at(&self, slot: u32) -> Option<&T> {
        self.entries.get(slot as usize)?.value.as_ref()
    }

    /// Every value, to be changed.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.entries.iter_mut().filter_map(|entry| entry.value.as_mut())
    }

    /// Values held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Every key in use.
    pub fn keys(&self) -> Vec<ConnKey> {
        let used = self.entries.iter().enumerate().filter(|(_, entry)| entry.value.is_some());
        used.map(|(slot, entry)| ConnKey { slot: slot as u32, generation: entry.generation }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_key_does_not_reach_the_next_tenant() {
        let mut slots = Slots::default();
        let first = slots.insert("first");
        assert_eq!(slots.remove(first), Some("first"));
        let second = slots.insert("second");
        assert_eq!(second.slot, first.slot);
        assert_eq!(slots.get(first), None);
        assert_eq!(slots.remove(first), None);
        assert_eq!(slots.get(second), Some(&"second"));
        assert_eq!((slots.len(), slots.keys()), (1, vec![second]));
    }
}

//! Users with a connection on this shard, their home.
use super::mail::UserMail;
use super::tenants::TenantIndex;
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use std::hash::BuildHasher;

/// Index of a user; valid while the user has a connection.
pub type UserIndex = u32;

/// One user.
#[derive(Debug)]
pub struct User {
    /// Whose user.
    pub tenant: TenantIndex,
    /// The id, as in the token.
    pub name: Box<str>,
    /// Slots of the user's connections.
    pub connections: Vec<u32>,
    /// The user's mail, while the queue or acknowledgements are on.
    pub mail: Option<Box<UserMail>>,
}

/// The table.
#[derive(Default)]
pub struct Users {
    list: Vec<Option<User>>,
    free: Vec<UserIndex>,
    index: HashTable<UserIndex>,
    hasher: RandomState,
}

impl Users {
    /// Finds a user that is online.
    pub fn find(&self, tenant: TenantIndex, name: &str) -> Option<UserIndex> {
        let hash = self.hasher.hash_one((tenant, name));
        self.index.find(hash, |at| matches(&self.list, *at, tenant, name)).copied()
    }

    /// Adds a user who was not online.
    pub fn insert(&mut self, tenant: TenantIndex, name: Box<str>) -> UserIndex {
        debug_assert!(self.find(tenant, &name).is_none(), "a user is inserted once");
        let hash = self.hasher.hash_one((tenant, &*name));
        let user = User { tenant, name, connections: Vec::with_capacity(1), mail: None };
        let at = match self.free.pop() {
            Some(at) => {
                self.list[at as usize] = Some(user);
                at
            }
            None => {
                self.list.push(Some(user));
                (self.list.len() - 1) as UserIndex
            }
        };
        let Users { list, index, hasher, .. } = self;
        index.insert_unique(hash, at, |at| match &list[*at as usize] {
            Some(user) => hasher.hash_one((user.tenant, &*user.name)),
            None => 0,
        });
        at
    }

    /// Forgets a user whose last connection went.
    pub fn remove(&mut self, at: UserIndex) -> Option<User> {
        let user = self.list.get_mut(at as usize).and_then(Option::take)?;
        let hash = self.hasher.hash_one((user.tenant, &*user.name));
        if let Ok(entry) = self.index.find_entry(hash, |candidate| *candidate == at) {
            entry.remove();
        }
        self.free.push(at);
        Some(user)
    }

    /// By index.
    pub fn get(&self, at: UserIndex) -> Option<&User> {
        self.list.get(at as usize)?.as_ref()
    }

    /// By index.
    pub fn get_mut(&mut self, at: UserIndex) -> Option<&mut User> {
        self.list.get_mut(at as usize)?.as_mut()
    }
}

fn matches(list: &[Option<User>], at: UserIndex, tenant: TenantIndex, name: &str) -> bool {
    list[at as usize].as_ref().is_some_and(|user| user.tenant == tenant && &*user.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_id_in_two_tenants_is_two_users() {
        let mut users = Users::default();
        let ana = users.insert(0, "ana".into());
        let other_ana = users.insert(1, "ana".into());
        assert_ne!(ana, other_ana);
        users.remove(ana);
        assert_eq!(users.find(0, "ana"), None);
        assert_eq!(users.find(1, "ana"), Some(other_ana));
        let bo = users.insert(0, "bo".into());
        assert_eq!(users.find(0, "bo"), Some(bo));
    }
}

//! Users with a connection on this shard, their home.
use super::mail::UserMail;
use super::named::{Named, NamedTable};
use super::tenants::TenantIndex;

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

impl User {
    /// One who is about to get the first connection.
    pub fn new(tenant: TenantIndex, name: Box<str>) -> User {
        User { tenant, name, connections: Vec::with_capacity(1), mail: None }
    }
}

impl Named for User {
    fn name(&self) -> (TenantIndex, &str) {
        (self.tenant, &self.name)
    }
}

/// The table: users that are online.
pub type Users = NamedTable<User>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_id_in_two_tenants_is_two_users() {
        let mut users = Users::default();
        let ana = users.insert(User::new(0, "ana".into()));
        let other_ana = users.insert(User::new(1, "ana".into()));
        assert_ne!(ana, other_ana);
        users.remove(ana);
        assert_eq!(users.find(0, "ana"), None);
        assert_eq!(users.find(1, "ana"), Some(other_ana));
        let bo = users.insert(User::new(0, "bo".into()));
        assert_eq!(users.find(0, "bo"), Some(bo));
    }
}

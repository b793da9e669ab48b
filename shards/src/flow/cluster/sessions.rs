//! Which connections there are, for whoever reads the keys of contract §12.1, and for those who ask where a user is. No delivery
//! depends on it.
use crate::effect::Effects;
use crate::key::ConnKey;
use crate::mesh::message::GatherId;
use crate::shard::Shard;
use crate::tables::gathers::GatherKind;
use foldhash::fast::RandomState;
use hashbrown::HashSet;
use protocol::clock::Now;
use protocol::cluster::wire::ParcelKind;
use protocol::cluster::{ClusterRequest, Session, Topic};
use protocol::ids::TenantId;
use protocol::limits;
use protocol::publish::receipt::SessionRow;

/// What the bridge is yet to be told.
#[derive(Default)]
pub(crate) struct Sessions {
    /// New, or with other channels, in this turn.
    changed: HashSet<ConnKey, RandomState>,
    /// To be told again, a page a turn.
    to_refresh: Vec<ConnKey>,
}

impl Sessions {
    /// Whether there is another page to tell.
    pub(crate) fn is_refreshing(&self) -> bool {
        !self.to_refresh.is_empty()
    }
}

impl Shard {
    /// A connection is new, or has other channels: told once at the end of the turn, however often it changed.
    pub(crate) fn session_changed(&mut self, key: ConnKey) {
        if self.config.cluster.is_some() {
            self.sessions.changed.insert(key);
        }
    }

    /// A connection is about to be gone; it still has its channels.
    pub(crate) fn session_ended(&mut self, key: ConnKey, effects: &mut Effects) {
        if self.config.cluster.is_none() {
            return;
        }
        self.sessions.changed.remove(&key);
        let Some(session) = self.session(key) else { return };
        let is_last = self.connections_of(&session.tenant, &session.user).len() == 1;
        self.ask_bridge(ClusterRequest::SessionEnded { session: Box::new(session), is_last }, effects);
    }

    /// All are told again, for keys do not last.
    pub(super) fn refresh_sessions(&mut self) {
        self.sessions.to_refresh = self.connections.keys();
    }

    /// At the end of a turn: what changed, and a page of what is to be told again.
    pub(crate) fn tell_sessions(&mut self, effects: &mut Effects) {
        if !self.sessions.changed.is_empty() {
            for key in std::mem::take(&mut self.sessions.changed) {
                if !self.is_unadmitted(key)
                    && let Some(session) = self.session(key)
                {
                    self.ask_bridge(ClusterRequest::SessionChanged(Box::new(session)), effects);
                }
            }
        }
        let from = self.sessions.to_refresh.len().saturating_sub(limits::CLUSTER_SESSION_PAGE);
        let keys = self.sessions.to_refresh.split_off(from);
        let admitted = keys.into_iter().filter(|key| !self.is_unadmitted(*key));
        let page: Vec<Session> = admitted.filter_map(|key| self.session(key)).collect();
        if !page.is_empty() {
            self.ask_bridge(ClusterRequest::SessionPage(page), effects);
        }
    }

    fn session(&self, key: ConnKey) -> Option<Session> {
        let live = self.live(key)?;
        let name = |at: u32| Some(self.channels.get(at)?.name.clone());
        Some(Session {
            connection: live.id,
            tenant: self.tenants.get(live.tenant).name.clone(),
            user: self.users.get(live.user)?.name.clone(),
            connected_at_unix_s: live.opened_at_unix_s,
            channels: live.subscriptions.iter().filter_map(|held| name(held.channel)).collect(),
        })
    }

    // --- Where a user is ---------------------------------------------------------------------------------------------

    /// Asks the nodes that have a connection of a user, which are those that listen to its topic.
    pub(crate) fn ask_others(&mut self, gather: GatherId, tenant: &TenantId, user: &str, effects: &mut Effects) {
        let (ticket, tenant, user) = (self.ticket(gather), tenant.clone(), Box::from(user));
        let topic = Topic::User(tenant.clone(), Box::clone(&user));
        self.expect_parcels(gather, 1);
        self.send_parcel_to(topic, None, ParcelKind::Question { ticket, tenant, user }, effects);
    }

    /// Another node's connections of a user who was asked for.
    pub(super) fn gather_sessions(&mut self, now: Now, id: GatherId, sessions: Vec<SessionRow>, effects: &mut Effects) {
        let Some(gather) = self.gathers.get_mut(id) else { return };
        gather.missing -= 1;
        if let GatherKind::UserSessions { rows, .. } = &mut gather.kind {
            rows.extend(sessions);
        }
        self.answer_if_complete(now, id, effects);
    }
}

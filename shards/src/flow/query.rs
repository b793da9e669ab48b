//! Questions that other shards ask, answered from this shard's tables.
use crate::effect::{Effect, Effects};
use crate::mesh::message::{Answer, Message, Question, ReplyTo, TenantRow};
use crate::shard::Shard;
use crate::tables::tenants::Tenant;
use protocol::clock::Now;
use protocol::ids::TenantId;
use protocol::publish::receipt::{SessionRow, TenantStats};

impl Shard {
    /// Answers a question, or passes it to the flow it belongs to.
    pub(crate) fn asked(&mut self, now: Now, reply: ReplyTo, question: Question, effects: &mut Effects) {
        let answer = match question {
            Question::Channels(tenant) => Answer::Channels(self.channels_of(&tenant)),
            Question::Channel(tenant, name) => Answer::Channel(self.subscribers_of(&tenant, &name)),
            Question::UserSubscriptions(tenant, user) => self.subscriptions_of(&tenant, &user),
            Question::UserSessions(tenant, user) => Answer::UserSessions(self.sessions_of(&tenant, &user)),
            Question::Tenants(None) => Answer::Tenants(self.tenants.iter().map(row).collect()),
            Question::Tenants(Some(tenant)) => {
                let found = self.tenants.find(tenant.as_str());
                Answer::Tenants(found.map(|at| row(self.tenants.get(at))).into_iter().collect())
            }
            Question::Disconnect(tenant, user) => {
                let receipt = self.disconnect(now, &tenant, &user, effects);
                return self.report(now, Some(reply), receipt, effects);
            }
            Question::Revoke(revocation) => return self.revoke(now, reply, revocation, effects),
            Question::Template(write) => return self.write_template(now, reply, *write, effects),
        };
        self.send_answer(now, reply, answer, effects);
    }

    pub(crate) fn send_answer(&mut self, now: Now, reply: ReplyTo, answer: Answer, effects: &mut Effects) {
        if reply.shard == self.me {
            self.gather_answer(now, reply.gather, answer, effects);
        } else {
            let message = Message::Answer { gather: reply.gather, answer: Box::new(answer) };
            effects.push(Effect::Send { to: reply.shard, message });
        }
    }

    fn channels_of(&self, tenant: &TenantId) -> Vec<(Box<str>, u64)> {
        let Some(tenant) = self.tenants.find(tenant.as_str()) else { return Vec::new() };
        self.channels.of_tenant(tenant).map(|channel| (channel.name.clone(), channel.members.len() as u64)).collect()
    }

    fn subscribers_of(&self, tenant: &TenantId, name: &str) -> u64 {
        let Some(tenant) = self.tenants.find(tenant.as_str()) else { return 0 };
        let found = self.channels.find(tenant, name).and_then(|at| self.channels.get(at));
        found.map_or(0, |channel| channel.members.len() as u64)
    }

    pub(crate) fn connections_of(&self, tenant: &TenantId, user: &str) -> &[u32] {
        let found = self.tenants.find(tenant.as_str()).and_then(|tenant| self.users.find(tenant, user));
        found.and_then(|at| self.users.get(at)).map_or(&[], |user| &user.connections)
    }

    fn subscriptions_of(&self, tenant: &TenantId, user: &str) -> Answer {
        let slots = self.connections_of(tenant, user);
        let mut names: Vec<Box<str>> = Vec::new();
        for slot in slots {
            let Some(live) = self.connections.at(*slot).and_then(|connection| connection.live()) else { continue };
            names.extend(
                live.subscriptions.iter().filter_map(|held| Some(self.channels.get(held.channel)?.name.clone())),
            );
        }
        names.sort_unstable();
        names.dedup();
        Answer::UserSubscriptions(slots.len() as u64, names)
    }

    pub(crate) fn sessions_of(&self, tenant: &TenantId, user: &str) -> Vec<SessionRow> {
        let lives = self
            .connections_of(tenant, user)
            .iter()
            .filter_map(|slot| self.connections.at(*slot).and_then(|connection| connection.live()));
        let row = |live: &crate::conn::live::Live| SessionRow {
            connection_id: live.id,
            server_id: self.config.server_id.clone(),
            connected_at_unix_s: live.opened_at_unix_s,
            channels: live
                .subscriptions
                .iter()
                .filter_map(|held| Some(self.channels.get(held.channel)?.name.clone()))
                .collect(),
        };
        lives.map(row).collect()
    }
}

fn row(tenant: &Tenant) -> TenantRow {
    TenantRow {
        tenant: tenant.name.clone(),
        connections: tenant.members.len() as u64,
        users: tenant.users,
        connections_ever: tenant.connections_ever,
        sent: tenant.sent,
        delivered: tenant.delivered,
    }
}

impl TenantRow {
    /// The four counters of contract §1.8.
    pub fn stats(&self) -> TenantStats {
        TenantStats {
            active_connections: self.connections,
            total_connections: self.connections_ever,
            messages_sent: self.sent,
            messages_delivered: self.delivered,
        }
    }
}

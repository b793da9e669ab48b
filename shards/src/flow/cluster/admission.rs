//! Limits of users and tenants hold for the cluster: a connection that its node would admit is answered when Redis has found
//! room for it, too.
//!
//! It is registered meanwhile, as one that the other nodes have yet to hear of, and is not told to them as a session. Who is
//! refused goes as one that closed at once: mail that came for it in between is in its mailbox, and what is not kept was
//! counted as delivered, as for anybody who leaves before it is read.
use crate::effect::Effects;
use crate::flow::connect::{over_tenant_limit, over_user_limit};
use crate::key::ConnKey;
use crate::shard::Shard;
use protocol::clock::Now;
use protocol::cluster::{Admission, AdmissionRequest, AdmissionTicket, ClusterRequest};

impl Shard {
    /// Asks for room, if there is a limit; whether the connection has to wait for the answer.
    pub(crate) fn awaits_admission(&mut self, now: Now, key: ConnKey, effects: &mut Effects) -> bool {
        let Some(live) = self.live(key) else { return false };
        let tenant = self.tenants.get(live.tenant);
        let Some(allowance) = &tenant.allowance else { return false };
        let (connections_max, connections_per_user_max) =
            (allowance.limits.connections_max, allowance.limits.connections_per_user_max);
        if connections_max == 0 && connections_per_user_max == 0 {
            return false;
        }
        let Some(user) = self.users.get(live.user) else { return false };
        let request = AdmissionRequest {
            ticket: AdmissionTicket { shard: self.me.0, slot: key.slot, generation: key.generation },
            connection: live.id,
            tenant: tenant.name.clone(),
            user: user.name.clone(),
            connections_max,
            connections_per_user_max,
        };
        self.admissions.ask(key, now.mono_ms());
        self.ask_bridge(ClusterRequest::Admit(Box::new(request)), effects);
        true
    }

    /// The cluster's word. It may come too late: for one that has gone, or that the node has let in.
    pub(super) fn admission_told(
        &mut self,
        now: Now,
        ticket: AdmissionTicket,
        admission: Admission,
        effects: &mut Effects,
    ) {
        let key = ConnKey { slot: ticket.slot, generation: ticket.generation };
        if !self.is_unadmitted(key) {
            return;
        }
        match admission {
            Admission::Granted => {
                self.metrics().admissions_granted.add(1);
                self.admitted(now, key, effects);
            }
            Admission::Unknown => self.admitted_by_own_counts(now, key, effects),
            Admission::UserIsFull(_) | Admission::TenantIsFull(_) => self.unadmitted(now, key, admission, effects),
        }
    }

    /// Who has waited long enough is let in: the node had room for it.
    pub(crate) fn admissions_due(&mut self, now: Now, effects: &mut Effects) {
        while let Some(key) = self.admissions.expire(now.mono_ms()) {
            if self.is_unadmitted(key) {
                self.admitted_by_own_counts(now, key, effects);
            }
        }
    }

    fn admitted_by_own_counts(&mut self, now: Now, key: ConnKey, effects: &mut Effects) {
        self.metrics().admissions_by_own_counts.add(1);
        self.admitted(now, key, effects);
    }

    fn admitted(&mut self, now: Now, key: ConnKey, effects: &mut Effects) {
        self.session_changed(key);
        self.go_on_if(now, key, |awaits| awaits.admission = false, effects);
    }

    /// As a connection that the node itself refuses.
    fn unadmitted(&mut self, now: Now, key: ConnKey, admission: Admission, effects: &mut Effects) {
        let Some(live) = self.live(key) else { return };
        let (tenant, user, transport) = (live.tenant, live.user, live.transport);
        let entry = self.tenants.get(tenant);
        let limits = entry.allowance.as_ref().map(|allowance| allowance.limits).unwrap_or_default();
        let refusal = match admission {
            Admission::TenantIsFull(held) => over_tenant_limit(entry.name.as_str(), held, limits.connections_max),
            Admission::UserIsFull(held) => {
                let user = self.users.get(user).map_or("", |user| &user.name);
                over_user_limit(user, held, limits.connections_per_user_max)
            }
            Admission::Granted | Admission::Unknown => return,
        };
        let Some(welcome) = self.take_held(key) else { return };
        self.metrics().admissions_refused.add(1);
        self.metrics().refused.add(1);
        self.tenants.get_mut(tenant).connections_ever -= 1;
        self.unregister(now, key, effects);
        self.drop_frames(key, transport);
        self.refuse_over_limit(now, key, &welcome.asker(), &refusal, effects);
    }
}

//! A client goes on with another token: `Refresh`. What the token says replaces what the last one said, nothing else of the
//! connection changes; a token that does not hold changes nothing.
use crate::conn::live::Permit;
use crate::effect::Effects;
use crate::key::ConnKey;
use crate::shard::Shard;
use protocol::auth::token::Claims;
use protocol::client::command::Secret;
use protocol::client::event::{self, ErrorCode};
use protocol::clock::Now;
use protocol::limits;

/// Why is not for strangers, as at the door.
const INVALID: &str = "Invalid token";

/// When a connection with such a token ends, in seconds since the Unix epoch: with the token, or with the leeway for one
/// that was accepted within it.
pub(super) fn end_of(claims: &Claims, now: Now) -> u64 {
    match claims.expires_at_unix_s {
        past if past <= now.unix_seconds() => past.saturating_add(limits::TOKEN_LEEWAY_SECONDS),
        ahead => ahead,
    }
}

impl Shard {
    /// Checks the token and answers `refreshed`, followed by `unsubscribed` if there are channels that it does not let the
    /// client listen to; or `error`, and the connection goes on as it was.
    pub(crate) fn refresh(&mut self, now: Now, key: ConnKey, token: &Secret, effects: &mut Effects) {
        match self.renewal(now, key, token) {
            Ok(claims) => self.renew(now, key, claims, effects),
            Err(message) => self.say(now, key, |out| event::write_error(out, ErrorCode::InvalidToken, message)),
        }
    }

    /// The claims of a token for the same user of the same tenant.
    fn renewal(&self, now: Now, key: ConnKey, token: &Secret) -> Result<Claims, &'static str> {
        let live = self.live(key).ok_or(INVALID)?;
        let claims = self.config.verifier.verify(&token.0, now.unix_seconds()).map_err(|error| {
            tracing::debug!(reason = %error, "token of a refresh refused");
            INVALID
        })?;
        let tenant = self.tenant_of(&claims).ok_or(INVALID)?;
        let is_user = self.users.get(live.user).is_some_and(|user| user.name == claims.user);
        if !is_user || tenant != self.tenants.get(live.tenant).name {
            return Err("Token is of another user");
        }
        if self.is_revoked(&tenant, &claims) {
            self.metrics().token_refused.add(1);
            return Err(INVALID);
        }
        Ok(claims)
    }

    fn renew(&mut self, now: Now, key: ConnKey, claims: Claims, effects: &mut Effects) {
        let expires_at_unix_s = end_of(&claims, now);
        let Claims { roles, issued_at_unix_s, id, channels, .. } = claims;
        self.forget_token_id(key);
        let Some(live) = self.live_mut(key) else { return };
        live.roles = roles;
        live.expires_at_unix_s = expires_at_unix_s;
        live.issued_at_unix_s = issued_at_unix_s.unwrap_or(0);
        live.permit = Permit::of(id, channels);
        self.note_token_id(key);
        self.schedule_live(now, key);
        self.say(now, key, |out| event::write_refreshed(out, expires_at_unix_s));
        let lost = self.forbidden_subscriptions(key);
        if lost.is_empty() {
            return;
        }
        for name in &lost {
            self.end_subscription(now, key, name, effects);
        }
        let names: Vec<&str> = lost.iter().map(|name| &**name).collect();
        self.say(now, key, |out| event::write_unsubscribed(out, &names));
    }

    /// The channels of a connection that its token does not let it listen to.
    fn forbidden_subscriptions(&self, key: ConnKey) -> Vec<Box<str>> {
        let Some(live) = self.live(key) else { return Vec::new() };
        let names = live.subscriptions.iter().filter_map(|held| Some(&self.channels.get(held.channel)?.name));
        names.filter(|name| !live.permits(name)).cloned().collect()
    }

    // --- Which connection has which token ----------------------------------------------------------------------------

    /// A connection has a token, which may have a name to be revoked by.
    pub(crate) fn note_token_id(&mut self, key: ConnKey) {
        let Shard { connections, token_ids, .. } = self;
        let live = connections.get(key).and_then(|connection| connection.live());
        if let Some(live) = live
            && let Some(id) = live.token_id()
        {
            token_ids.enter(live.tenant, id, key.slot);
        }
    }

    /// It is about to have another, or none.
    pub(crate) fn forget_token_id(&mut self, key: ConnKey) {
        let Shard { connections, token_ids, .. } = self;
        let live = connections.get(key).and_then(|connection| connection.live());
        if let Some(live) = live
            && let Some(id) = live.token_id()
        {
            token_ids.leave(live.tenant, id, key.slot);
        }
    }
}

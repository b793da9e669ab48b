//! Who talks to the node: clients that dial and ask, and publishers that come over a link.
use super::{SECRET, World};
use crate::client::{Client, ClientId};
use protocol::auth::token::{MintClaims, mint_hs256};
use protocol::cluster::wire::Claim;
use protocol::ids::TenantId;
use protocol::json;
use protocol::notification::{Content, Priority, Source, Target};
use shards::guest::Submission;
use std::net::{IpAddr, Ipv4Addr};

impl World {
    /// A token for a user that is good for an hour from now.
    pub(crate) fn token(&self, user: &str, roles: &[&str], tenant: Option<&str>) -> String {
        let claims = MintClaims {
            sub: user.into(),
            exp: self.now().unix_seconds() + 3_600,
            iat: self.now().unix_seconds(),
            roles: roles.iter().map(|role| (*role).into()).collect(),
            tenant_id: tenant.map(Into::into),
            ..MintClaims::default()
        };
        mint_hs256(SECRET, &claims)
    }

    /// A token that says just this, but for the times that are missing.
    pub(crate) fn sign(&self, claims: MintClaims) -> String {
        let now_s = self.now().unix_seconds();
        let or = |given: u64, default: u64| if given == 0 { default } else { given };
        let (exp, iat) = (or(claims.exp, now_s + 3_600), or(claims.iat, now_s));
        mint_hs256(SECRET, &MintClaims { exp, iat, ..claims })
    }

    /// Opens a socket to a shard drawn from the seed.
    pub(crate) fn dial(&mut self) -> ClientId {
        let shard = self.rng.usize(0..self.shards.len());
        self.dial_to(shard)
    }

    /// Opens a socket to this shard.
    pub(crate) fn dial_to(&mut self, shard: usize) -> ClientId {
        let now = self.now();
        let id = self.clients.len();
        let key = self.shards[shard].accepted(now, IpAddr::V4(Ipv4Addr::LOCALHOST)).expect("the node has room");
        self.clients.push(Client::new(shard, key));
        self.sockets.insert((shard as u8, key), id);
        id
    }

    /// Dials and asks for a WebSocket.
    pub(crate) fn websocket(&mut self, user: &str) -> ClientId {
        let token = self.token(user, &[], None);
        let id = self.websocket_as(&token);
        self.users.push((id, user.to_owned()));
        id
    }

    pub(crate) fn websocket_as(&mut self, token: &str) -> ClientId {
        let id = self.dial();
        self.clients[id].send(format!(
            "GET /ws?token={token} HTTP/1.1\r\nhost: world\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        ));
        id
    }

    /// Dials and asks for an SSE stream.
    pub(crate) fn sse(&mut self, user: &str, channels: &str) -> ClientId {
        let token = self.token(user, &[], None);
        let id = self.sse_as(&token, channels);
        self.users.push((id, user.to_owned()));
        id
    }

    pub(crate) fn sse_as(&mut self, token: &str, channels: &str) -> ClientId {
        let id = self.dial();
        self.clients[id].send(format!(
            "GET /sse?channels={channels} HTTP/1.1\r\nhost: world\r\nauthorization: Bearer {token}\r\n\r\n"
        ));
        id
    }

    /// Every client that ever connected as this user.
    pub(crate) fn user_clients(&self, user: &str) -> Vec<ClientId> {
        self.users.iter().filter(|(_, of)| of == user).map(|(id, _)| *id).collect()
    }

    pub(crate) fn get(&mut self, client: ClientId, path: &str) {
        self.clients[client].send(format!("GET {path} HTTP/1.1\r\nhost: world\r\n\r\n"));
    }

    /// Sends a POST on a connection that is kept.
    pub(crate) fn post(&mut self, client: ClientId, path: &str, body: &str) {
        let len = body.len();
        self.clients[client].send(format!(
            "POST {path} HTTP/1.1\r\nhost: world\r\ncontent-type: application/json\r\ncontent-length: {len}\r\n\r\n{body}"
        ));
    }

    /// Sends a POST of a tenant.
    pub(crate) fn post_as(&mut self, client: ClientId, tenant: &str, path: &str, body: &str) {
        let len = body.len();
        self.clients[client].send(format!(
            "POST {path} HTTP/1.1\r\nhost: world\r\nx-tenant-id: {tenant}\r\ncontent-type: application/json\r\n\
             content-length: {len}\r\n\r\n{body}"
        ));
    }

    /// For how long it has read what comes over its link, if it does.
    pub(crate) fn reading_ms(&self) -> Option<u64> {
        self.reads_since_us.map(|since_us| (self.now_us - since_us) / 1_000)
    }

    /// A publish to a user that comes over a link: nobody is answered.
    pub(crate) fn submit(&mut self, user: &str, n: usize) {
        self.submit_to(TenantId::default_tenant().as_str(), Target::User(user.into()), n);
    }

    /// A publish that comes over a link.
    pub(crate) fn submit_to(&mut self, tenant: &str, target: Target, n: usize) {
        let reads_since_us = self.reads_since_us.expect("what a node hears it reads");
        let claimed = match &target {
            Target::User(user) => user.clone(),
            _ => "".into(),
        };
        let submission = Submission {
            tenant: TenantId::parse(tenant).expect("a tenant's name"),
            target,
            content: Content {
                event_type: "e".into(),
                payload: json::compact(&n.to_string(), 0).expect("a number is flat"),
                priority: Priority::Normal,
                ttl: None,
                correlation_id: None,
                audience: None,
            },
            source: Source::Redis("c".into()),
            claim: self.bridge.map(|_| Claim { reads_since_us, ..Claim::of(b"c", claimed.as_bytes(), n as u32) }),
        };
        self.call(0, |shard, now, effects| shard.publish(now, submission, effects));
    }
}

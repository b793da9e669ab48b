//! Nothing that one tenant does is seen by another: two worlds with the same seed, one of which has an intruder, and every
//! byte that the others' clients and backends get is the same in both, but for ids and times.
use crate::client::ClientId;
use crate::seeds::for_each_seed;
use crate::world::World;
use shards::config::{AckRules, QueueRules};
use shards::tenant_limits::{TenantLimits, TenantRules};
use std::collections::HashMap;

/// The same names are used by all of them.
const TENANTS: [&str; 3] = ["alpha", "bravo", "default"];
const USERS: [&str; 3] = ["ana", "ben", "carol"];
const CHANNELS: [&str; 4] = ["orders", "news", "a.b", "x"];

/// A tenant's clients and its backend, and the dice that say what they do next. What they do depends on nothing else, so it
/// is the same in both worlds.
struct Actor {
    tenant: &'static str,
    dice: fastrand::Rng,
    backend: ClientId,
    clients: Vec<ClientId>,
    /// Whose names, ids and clients it tries as well.
    prey: Vec<&'static str>,
}

impl Actor {
    fn new(world: &mut World, tenant: &'static str, seed: u64, prey: &[&'static str]) -> Actor {
        let backend = world.dial();
        let prey = prey.to_vec();
        Actor { tenant, dice: fastrand::Rng::with_seed(seed), backend, clients: Vec::new(), prey }
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.dice.usize(0..of.len())]
    }

    /// A name, perhaps one that is meant to lead elsewhere.
    fn name(&mut self, of: &[&str]) -> String {
        let name = self.one(of);
        match self.prey.is_empty() || self.dice.u8(0..4) > 0 {
            true => name.to_owned(),
            false => format!("{}:{name}", self.prey[self.dice.usize(0..self.prey.len())]),
        }
    }

    fn request(&self, world: &mut World, method: &str, path: &str, body: &str) {
        let (tenant, len) = (self.tenant, body.len());
        world.clients[self.backend].send(format!(
            "{method} {path} HTTP/1.1\r\nhost: world\r\nx-tenant-id: {tenant}\r\ncontent-type: application/json\r\n\
             content-length: {len}\r\n\r\n{body}"
        ));
    }

    fn publish(&mut self, world: &mut World, n: usize) {
        let (user, channel, other) = (self.name(&USERS), self.name(&CHANNELS), self.name(&CHANNELS));
        let (path, target) = match self.dice.u8(0..8) {
            0 | 1 => ("send", format!(r#""target_user_id":"{user}""#)),
            2 => ("send-to-users", format!(r#""target_user_ids":["{user}","carol"]"#)),
            3 => ("broadcast", r#""priority":"High""#.to_owned()),
            4 => ("broadcast", r#""audience":{"type":"Users","value":["ana"]}"#.to_owned()),
            5 => ("broadcast", format!(r#""audience":{{"type":"Channels","value":["{channel}"]}}"#)),
            6 => ("channel", format!(r#""channel":"{channel}""#)),
            _ => ("channels", format!(r#""channels":["{channel}","{other}"]"#)),
        };
        let content = match self.dice.u8(0..4) {
            0 => format!(r#""template_id":"{}","variables":{{"n":{n}}}"#, self.name(&["t1", "t2"])),
            _ => format!(r#""event_type":"e","payload":"{} {n}""#, self.tenant),
        };
        self.request(world, "POST", &format!("/api/v1/notifications/{path}"), &format!("{{{target},{content}}}"));
    }

    fn batch(&mut self, world: &mut World, n: usize) {
        let user = self.name(&USERS);
        let item = format!(
            r#"{{"target":{{"type":"user","value":"{user}"}},"event_type":"e","payload":"{} {n}"}}"#,
            self.tenant
        );
        let body = format!(r#"{{"notifications":[{item},{item}]}}"#);
        self.request(world, "POST", "/api/v1/notifications/batch", &body);
    }

    fn look(&mut self, world: &mut World) {
        let (user, channel, template) = (self.name(&USERS), self.name(&CHANNELS), self.name(&["t1", "t2"]));
        let tenant = match self.prey.is_empty() {
            true => self.tenant,
            false => self.one(&TENANTS),
        };
        let path = match self.dice.u8(0..9) {
            0 => "channels".to_owned(),
            1 => format!("channels/{channel}"),
            2 => format!("users/{user}/subscriptions"),
            3 => "templates".to_owned(),
            4 => format!("templates/{template}"),
            5 => "tenants".to_owned(),
            6 => format!("tenants/{tenant}"),
            7 => "cluster/status".to_owned(),
            _ => format!("cluster/users/{user}"),
        };
        self.request(world, "GET", &format!("/api/v1/{path}"), "");
    }

    fn write_template(&mut self, world: &mut World, n: usize) {
        let id = self.name(&["t1", "t2"]);
        match self.dice.u8(0..4) {
            0 | 1 => {
                let body = format!(
                    r#"{{"id":"{id}","name":"n","event_type":"e","payload_template":"{} {{{{n}}}}"}}"#,
                    self.tenant
                );
                self.request(world, "POST", "/api/v1/templates", &body);
            }
            2 => self.request(world, "PUT", &format!("/api/v1/templates/{id}"), &format!(r#"{{"name":"n{n}"}}"#)),
            _ => self.request(world, "DELETE", &format!("/api/v1/templates/{id}"), ""),
        }
    }

    fn connect(&mut self, world: &mut World) {
        let user = self.name(&USERS);
        let token = world.token(&user, &["role"], Some(self.tenant));
        let client = match self.dice.bool() {
            true => world.websocket_as(&token),
            false => {
                // Without chunks, whose lengths would tell of the lengths of times.
                let id = world.dial();
                let channels = self.one(&["orders", "news,x", "orders,news,a.b,x", "bravo:orders"]);
                world.clients[id].send(format!("GET /sse?channels={channels}&token={token} HTTP/1.0\r\n\r\n"));
                id
            }
        };
        self.clients.push(client);
    }

    /// Says something over a WebSocket. Nobody reads what is said over SSE.
    fn speak(&mut self, world: &mut World, spied: &[ClientId]) {
        if self.clients.is_empty() {
            return;
        }
        let at = self.dice.usize(0..self.clients.len());
        let channel = self.name(&CHANNELS);
        let text = match self.dice.u8(0..5) {
            0 | 1 => format!(r#"{{"type":"Subscribe","payload":{{"channels":["{channel}","x"]}}}}"#),
            2 => format!(r#"{{"type":"Unsubscribe","payload":{{"channels":["{channel}"]}}}}"#),
            3 => {
                let whose: &[ClientId] = if spied.is_empty() { &self.clients } else { spied };
                let whose = whose[self.dice.usize(0..whose.len())];
                let heard = world.clients[whose].text();
                let Some(id) = heard.rsplit(r#""id":""#).next().and_then(|rest| rest.get(..36)) else { return };
                format!(r#"{{"type":"Ack","payload":{{"notification_id":"{id}"}}}}"#)
            }
            _ => r#"{"type":"Ping"}"#.to_owned(),
        };
        world.clients[self.clients[at]].say(&text);
    }

    fn act(&mut self, world: &mut World, n: usize, spied: &[ClientId]) {
        match self.dice.u8(0..16) {
            0..=2 => self.connect(world),
            3..=6 => self.publish(world, n),
            7 => self.batch(world, n),
            8..=10 => self.look(world),
            11 => self.write_template(world, n),
            12 if !self.clients.is_empty() => {
                let at = self.dice.usize(0..self.clients.len());
                world.clients[self.clients[at]].hang_up = true;
            }
            _ => self.speak(world, spied),
        }
    }
}

/// What a client has heard, without ids and times.
fn transcript(world: &World, client: ClientId, ids: &mut HashMap<String, usize>) -> String {
    let text = world.clients[client].text();
    let is_websocket = text.starts_with("HTTP/1.1 101");
    let text = match is_websocket {
        true => world.clients[client].frames().into_iter().map(|(first, text)| format!("{first:x} {text}\n")).collect(),
        false => text,
    };
    let mut out = String::new();
    for line in text.lines() {
        let begins = |head: &str| line.get(..head.len()).is_some_and(|start| start.eq_ignore_ascii_case(head));
        if begins("date:") || begins("content-length:") || begins("retry:") {
            continue;
        }
        out.push_str(&without_ids_and_times(line, ids));
        out.push('\n');
    }
    out
}

fn without_ids_and_times(line: &str, ids: &mut HashMap<String, usize>) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some(next) = rest.chars().next() {
        let is_uuid = rest.get(..36).is_some_and(|id| uuid::Uuid::try_parse(id).is_ok());
        if is_uuid {
            let count = ids.len();
            let number = *ids.entry(rest[..36].to_owned()).or_insert(count);
            out.push_str(&format!("#{number}"));
            rest = &rest[36..];
        } else if rest.starts_with("2026-01-") && rest.contains('Z') {
            out.push_str("then");
            rest = &rest[rest.find('Z').map_or(0, |at| at + 1)..];
        } else if let Some(after) = rest.strip_prefix(r#""connected_at":"#) {
            out.push_str("then");
            rest = after.trim_start_matches(|c: char| c.is_ascii_digit());
        } else {
            out.push(next);
            rest = &rest[next.len_utf8()..];
        }
    }
    out
}

/// What everybody but the intruder hears of a world, with it or without. `disguise` is the tenant as whom it acts.
fn heard(seed: u64, intruder: Option<&'static str>, disguise: &'static str) -> Vec<String> {
    let limits = TenantLimits { connections_max: 6, connections_per_user_max: 3, subscriptions_max: 3 };
    let mut world = World::with_config(seed, 1 + seed as usize % 3, |config| {
        config.tenancy = true;
        config.tenant_rules = Some(TenantRules { default_limits: limits, ..TenantRules::default() });
        config.templates_kept = seed.is_multiple_of(2);
        // Longer than everything takes, so that nothing is said because time has passed.
        (config.heartbeat_interval_ms, config.connection_timeout_ms) = (3_000_000, 12_000_000);
        if seed % 4 < 2 {
            config.queue = Some(QueueRules { ttl_ms: 3_600_000 });
        }
        if seed % 3 < 2 {
            config.ack = Some(AckRules { timeout_ms: 3_600_000, is_recorded: seed.is_multiple_of(3) });
        }
    });
    world.settle();
    let victims: Vec<&'static str> = TENANTS.into_iter().filter(|tenant| *tenant != who(seed)).collect();
    let mut actors: Vec<Actor> = victims
        .iter()
        .enumerate()
        .map(|(at, tenant)| Actor::new(&mut world, tenant, seed * 7 + at as u64, &[]))
        .collect();
    let mut intruder = intruder.map(|_| Actor::new(&mut world, disguise, seed * 7 + 5, &victims));
    for n in 0..60 {
        let spied: Vec<ClientId> = actors.iter().flat_map(|actor| &actor.clients).copied().collect();
        for _ in 0..2 {
            if let Some(intruder) = &mut intruder {
                intruder.act(&mut world, n, &spied);
                let rounds = world.rng.usize(0..4);
                world.run(rounds);
            }
        }
        actors[n % 2].act(&mut world, n, &[]);
        if let Some(intruder) = &mut intruder {
            intruder.act(&mut world, n, &spied);
        }
        world.settle();
    }
    let mut ids = HashMap::new();
    let everybody = actors.iter().flat_map(|actor| actor.clients.iter().chain([&actor.backend]));
    everybody.map(|client| transcript(&world, *client, &mut ids)).collect()
}

/// Who intrudes.
fn who(seed: u64) -> &'static str {
    TENANTS[seed as usize % TENANTS.len()]
}

#[test]
fn what_a_tenant_does_changes_no_byte_of_what_others_hear() {
    let mut notifications = 0;
    for_each_seed(36, |seed| {
        let (alone, beside) = (heard(seed, None, who(seed)), heard(seed, Some(who(seed)), who(seed)));
        for (at, (alone, beside)) in alone.iter().zip(&beside).enumerate() {
            assert_eq!(alone, beside, "seed {seed}: {at}");
        }
        notifications += alone.iter().map(|text| text.matches(r#""metadata":"#).count()).sum::<usize>();
    });
    assert!(notifications > 0, "there was something to hear");
}

/// The comparison finds who acts as one of them.
#[test]
fn an_intruder_with_another_tenants_key_is_seen() {
    let seen = (0..20).filter(|seed| {
        let victim = TENANTS[(*seed as usize + 1) % TENANTS.len()];
        heard(*seed, None, victim) != heard(*seed, Some(who(*seed)), victim)
    });
    assert_eq!(seen.count(), 20);
}

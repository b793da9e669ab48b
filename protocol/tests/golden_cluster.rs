//! What nodes say to each other, byte for byte (contract §12.2 and `protocol::cluster::wire`), and that it is understood.
#[path = "golden_cluster/random.rs"]
mod random;

use protocol::auth::revocation::{Revocation, Revoked};
use protocol::clock::Now;
use protocol::cluster::GatherTicket;
use protocol::cluster::wire::{Bundle, Bundled, Claim, Hello, Parcel, ParcelKind, Plain, Published};
use protocol::frame::{EventName, Frame};
use protocol::ids::{ConnectionId, NotificationId, TenantId};
use protocol::json;
use protocol::limits;
use protocol::notification::{Audience, Content, Priority, Publication, Source, Target};
use protocol::publish::receipt::{Receipt, SessionRow};
use protocol::store::Position;
use protocol::stream::StreamSeq;
use std::sync::Arc;
use uuid::Uuid;

const ID: NotificationId = NotificationId(Uuid::from_u128(0x550e8400_e29b_41d4_a716_446655440000));
const MESSAGE: &str =
    r#"{"type":"notification","id":"550e8400-e29b-41d4-a716-446655440000","payload":"x","metadata":{}}"#;
const ESCAPED: &str =
    r#"{\"type\":\"notification\",\"id\":\"550e8400-e29b-41d4-a716-446655440000\",\"payload\":\"x\",\"metadata\":{}}"#;
const TICKET: GatherTicket = GatherTicket { shard: 1, slot: 22, generation: 333 };

fn acme() -> TenantId {
    TenantId::parse("acme").expect("a name")
}

fn published() -> Published {
    Published {
        id: ID,
        tenant: acme(),
        priority: Priority::High,
        expires_at_unix_ms: Some(1_767_323_045_123),
        stream: StreamSeq { epoch: 7, seq: 9 },
        ticket: Some(TICKET),
        message: MESSAGE.into(),
    }
}

/// Without anything that may be absent.
fn bare() -> Published {
    Published {
        priority: Priority::Normal,
        expires_at_unix_ms: None,
        stream: StreamSeq::default(),
        ticket: None,
        ..published()
    }
}

fn revoked(revoked: Revoked, ticket: Option<GatherTicket>) -> ParcelKind {
    let revocation = Arc::new(Revocation { tenant: acme(), revoked, until_unix_s: 1_767_326_645 });
    ParcelKind::Revoked { revocation, ticket }
}

fn names(names: &[&str]) -> Vec<Box<str>> {
    names.iter().map(|name| Box::from(*name)).collect()
}

fn publication(target: Target, audience: Option<Audience>, published: Published) -> ParcelKind {
    ParcelKind::Publication { target, audience, published }
}

fn bundled(target: Target, audience: Option<Audience>, expires_at_unix_ms: Option<u64>) -> Bundled {
    Bundled { target, audience, published: Published { expires_at_unix_ms, ..bare() } }
}

/// One of each kind, as they stand in a bundle; `MESSAGE` is the message.
const BUNDLED: &str = concat!(
    r#"{"kind":"user","tenant_id":"acme","user_id":"u\"1","priority":"Normal","expires_at_unix_ms":1767323045123,"message":MESSAGE},"#,
    r#"{"kind":"channel","tenant_id":"acme","priority":"Normal","channel":"orders","message":MESSAGE},"#,
    r#"{"kind":"users","tenant_id":"acme","priority":"Normal","users":["u1","u2"],"message":MESSAGE},"#,
    r#"{"kind":"channels","tenant_id":"acme","priority":"Normal","channels":["orders","a b"],"message":MESSAGE},"#,
    r#"{"kind":"broadcast","tenant_id":"acme","priority":"Normal","audience":{"type":"Roles","value":["admin"]},"message":MESSAGE},"#,
    r#"{"kind":"broadcast","tenant_id":"acme","priority":"Normal","message":MESSAGE}"#
);

fn hello() -> Hello {
    Hello {
        server_id: "n1".into(),
        connections: 1_000,
        users: 900,
        started_unix_ms: 1_767_323_045_123,
        reading_ms: Some(70_000),
        first_read: Some(Claim::new(0xab, 3)),
        version: "1.0.0".into(),
    }
}

fn sessions() -> Vec<SessionRow> {
    let row = |channels| SessionRow {
        connection_id: ConnectionId(Uuid::from_u128(1)),
        server_id: "n1".into(),
        connected_at_unix_s: 1_767_323_045,
        channels,
    };
    vec![row(names(&["orders"])), row(Vec::new())]
}

fn from_n1(kind: ParcelKind) -> Parcel {
    Parcel { from_server: "n1".into(), to_server: None, kind }
}

/// What `encode` appends, which must leave alone what is already there.
fn encoded(parcel: &Parcel) -> String {
    let mut out = b"before ".to_vec();
    parcel.encode(&mut out).expect("within its bounds");
    let text = String::from_utf8(out).expect("a parcel is text");
    text.strip_prefix("before ").expect("a writer only appends").to_owned()
}

#[test]
fn every_kind_has_its_bytes_and_is_understood() {
    let common = r#""priority":"High","expires_at_unix_ms":1767323045123,"stream":[7,9],"gather":[1,22,333]"#;
    let user = |ara: &str| {
        format!(
            r#"{{"user_id":"u1","tenant_id":"acme","connection_id":null,"payload":"{ESCAPED}","from_server":"n1","to_server":null,"ara":{{{ara}}}}}"#
        )
    };
    let several = |ara: &str| {
        format!(
            r#"{{"user_id":"","tenant_id":"acme","connection_id":null,"payload":"{ESCAPED}","from_server":"n1","to_server":"","ara":{{{ara}}}}}"#
        )
    };
    let word = |user: &str, tenant: &str, ara: &str| {
        format!(
            r#"{{"user_id":"{user}","tenant_id":"{tenant}","connection_id":null,"payload":"","from_server":"n1","to_server":"","ara":{{{ara}}}}}"#
        )
    };
    let hint = |before| ParcelKind::Hint {
        user: "u1".into(),
        published: published(),
        position: Position(1_767_323_045_123, 1),
        before,
        attempt: 1,
    };
    let rows = [
        (
            publication(Target::User("u1".into()), None, published()),
            user(&format!(r#""kind":"user",{common}"#)),
        ),
        (publication(Target::User("u1".into()), None, bare()), user(r#""kind":"user","priority":"Normal""#)),
        (
            publication(Target::Users(names(&["u1", "ü\"2", ""]).into()), None, bare()),
            several(r#""kind":"users","priority":"Normal","users":["u1","ü\"2",""]"#),
        ),
        (
            publication(Target::Channel("orders".into()), None, published()),
            several(&format!(r#""kind":"channel",{common},"channel":"orders""#)),
        ),
        (
            publication(Target::Channels(names(&["orders", "a b"]).into()), None, published()),
            several(&format!(r#""kind":"channels",{common},"channels":["orders","a b"]"#)),
        ),
        (publication(Target::Broadcast, None, published()), several(&format!(r#""kind":"broadcast",{common}"#))),
        (
            publication(Target::Broadcast, Some(Audience::Roles(names(&["admin"]))), bare()),
            several(r#""kind":"broadcast","priority":"Normal","audience":{"type":"Roles","value":["admin"]}"#),
        ),
        (
            publication(Target::Broadcast, Some(Audience::All), bare()),
            several(r#""kind":"broadcast","priority":"Normal","audience":{"type":"All"}"#),
        ),
        (
            hint(Some(Position(1_767_323_045_122, 0))),
            user(&format!(
                r#""kind":"hint",{common},"position":[1767323045123,1],"before":[1767323045122,0],"attempt":1"#
            )),
        ),
        (hint(None), user(&format!(r#""kind":"hint",{common},"position":[1767323045123,1],"attempt":1"#))),
        (
            ParcelKind::Receipt {
                ticket: TICKET,
                receipt: Receipt { delivered_to: 3, failed: 2, queued: 1, unkept: u64::MAX },
            },
            word("", "", r#""kind":"receipt","gather":[1,22,333],"delivered_to":3,"failed":2,"queued":1,"unkept":18446744073709551615"#),
        ),
        (
            ParcelKind::Hello(hello()),
            word("", "", r#""kind":"hello","connections":1000,"users":900,"started_unix_ms":1767323045123,"reading_ms":70000,"first_read":"000000000000000000000000000000ab-3","version":"1.0.0""#),
        ),
        (
            ParcelKind::Hello(Hello { reading_ms: None, first_read: None, ..hello() }),
            word("", "", r#""kind":"hello","connections":1000,"users":900,"started_unix_ms":1767323045123,"version":"1.0.0""#),
        ),
        (ParcelKind::Bye, word("", "", r#""kind":"bye""#)),
        (
            ParcelKind::Stored(vec![Claim::new(0xab, 0), Claim::new(u128::MAX, 12)]),
            word("", "", r#""kind":"stored","claims":["000000000000000000000000000000ab-0","ffffffffffffffffffffffffffffffff-12"]"#),
        ),
        (
            ParcelKind::Template { tenant: acme(), id: "welcome:1".into() },
            word("", "acme", r#""kind":"template","id":"welcome:1""#),
        ),
        (
            ParcelKind::Fence { id: ID, partitions: vec![7, 0, 15] },
            word("", "", r#""kind":"fence","id":"550e8400-e29b-41d4-a716-446655440000","partitions":[7,0,15]"#),
        ),
        (
            ParcelKind::Bundle(vec![
                bundled(Target::User("u\"1".into()), None, Some(1_767_323_045_123)),
                bundled(Target::Channel("orders".into()), None, None),
                bundled(Target::Users(names(&["u1", "u2"]).into()), None, None),
                bundled(Target::Channels(names(&["orders", "a b"]).into()), None, None),
                bundled(Target::Broadcast, Some(Audience::Roles(names(&["admin"]))), None),
                bundled(Target::Broadcast, None, None),
            ]),
            word("", "", &format!(r#""kind":"bundle","publications":[{BUNDLED}]"#).replace("MESSAGE", MESSAGE)),
        ),
        (ParcelKind::Bundle(Vec::new()), word("", "", r#""kind":"bundle","publications":[]"#)),
        (ParcelKind::Canary(42), word("", "", r#""kind":"canary","number":42"#)),
        (
            ParcelKind::Question { ticket: TICKET, tenant: acme(), user: "u1".into() },
            word("u1", "acme", r#""kind":"question","gather":[1,22,333]"#),
        ),
        (
            ParcelKind::Disconnect { ticket: TICKET, tenant: acme(), user: "u1".into() },
            word("u1", "acme", r#""kind":"disconnect","gather":[1,22,333]"#),
        ),
        (
            revoked(Revoked::Token { id: "t\"1".into() }, Some(TICKET)),
            word("", "acme", r#""kind":"revoked","jti":"t\"1","until":1767326645,"gather":[1,22,333]"#),
        ),
        (
            revoked(Revoked::User { user: "u1".into(), before_unix_s: 1_767_323_045 }, None),
            word("u1", "acme", r#""kind":"revoked","before":1767323045,"until":1767326645"#),
        ),
        (
            ParcelKind::Answer { ticket: TICKET, tenant: acme(), user: "u1".into(), sessions: sessions() },
            word(
                "u1",
                "acme",
                concat!(
                    r#""kind":"answer","gather":[1,22,333],"sessions":["#,
                    r#"{"connection_id":"00000000-0000-0000-0000-000000000001","connected_at":1767323045,"channels":["orders"]},"#,
                    r#"{"connection_id":"00000000-0000-0000-0000-000000000001","connected_at":1767323045,"channels":[]}]"#
                ),
            ),
        ),
        (
            ParcelKind::Plain(Plain {
                tenant: TenantId::default_tenant(),
                user: "u1".into(),
                event: EventName::Heartbeat,
                id: None,
                message: r#"{"type":"heartbeat"}"#.into(),
            }),
            r#"{"user_id":"u1","tenant_id":"default","connection_id":null,"payload":"{\"type\":\"heartbeat\"}","from_server":"n1","to_server":null}"#.to_owned(),
        ),
    ];
    for (kind, expected) in rows {
        let mut parcel = from_n1(kind);
        assert_eq!(encoded(&parcel), expected);
        assert_eq!(Parcel::decode(expected.as_bytes()), Ok(parcel.clone()), "{expected}");

        parcel.to_server = Some("n2".into());
        let text = encoded(&parcel);
        assert!(text.contains(r#","from_server":"n1","to_server":"n2""#), "{text}");
        assert_eq!(Parcel::decode(text.as_bytes()), Ok(parcel));
    }
}

/// A publication as a node has accepted it.
fn accepted(target: Target, audience: Option<Audience>, expires_at_us: Option<u64>, message: &str) -> Publication {
    Publication {
        id: ID,
        tenant: acme(),
        target,
        audience,
        priority: Priority::Normal,
        expires_at_us,
        accepted_at_us: 0,
        frame: Frame::new(EventName::Notification, Some(ID), message.as_bytes()),
    }
}

#[test]
fn a_bundle_is_put_together_from_publications() {
    let now = Now { mono_us: 5_000_000, unix_ns: 1_767_323_045_123_456_789 };
    let all = [
        accepted(Target::User("u1".into()), Some(Audience::All), Some(now.mono_us + 1_000), MESSAGE),
        accepted(Target::Broadcast, Some(Audience::All), None, MESSAGE),
    ];
    let of = |one: &Publication| match publication_of(one, now) {
        ParcelKind::Publication { target, published, .. } => {
            Bundled { audience: one.audience.clone().filter(|_| target == Target::Broadcast), target, published }
        }
        other => panic!("{other:?}"),
    };
    let mut bundle = Bundle::new("n1");
    for _ in 0..2 {
        assert!(all.iter().all(|one| bundle.push(now, one)));
        assert_eq!(bundle.publications(), 2);
        let text = bundle.send(|bytes| String::from_utf8(bytes.to_vec()).expect("a parcel is text"));
        assert_eq!(bundle.publications(), 0);
        assert_eq!(text, encoded(&from_n1(ParcelKind::Bundle(all.iter().map(of).collect()))));
        assert!(bundle.is_own(text.as_bytes()) && !Bundle::new("n2").is_own(text.as_bytes()));
        assert!(!bundle.is_own(encoded(&from_n1(ParcelKind::Bye)).as_bytes()));
    }
}

#[test]
fn a_bundle_that_is_full_is_as_it_was() {
    let sized = |bytes: usize| {
        let message = MESSAGE.replacen("x", &"x".repeat(bytes), 1);
        accepted(Target::Broadcast, None, None, &message)
    };
    let mut bundle = Bundle::new("n1");
    assert!(!bundle.push(Now::default(), &sized(limits::CLUSTER_BUNDLE_BYTES_MAX)), "by itself");
    assert!(!bundle.push(Now::default(), &sized(limits::CLUSTER_BUNDLE_BYTES_MAX - 100)), "with what belongs to it");
    let half = sized(limits::CLUSTER_BUNDLE_BYTES_MAX / 2);
    assert!(bundle.push(Now::default(), &half) && !bundle.push(Now::default(), &half));
    let text = bundle.send(<[u8]>::to_vec);
    let Ok(ParcelKind::Bundle(all)) = Parcel::decode(&text).map(|parcel| parcel.kind) else { panic!("{text:?}") };
    assert_eq!(all.len(), 1);
    assert!(bundle.push(Now::default(), &half), "there is room again");
}

#[test]
fn a_bundle_takes_nothing_that_would_make_it_unreadable() {
    let nested = |depth: usize| {
        let payload = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let message = MESSAGE.replacen(r#""payload":"#, &format!(r#""payload":{payload},"rest":"#), 1);
        accepted(Target::Broadcast, None, None, &message)
    };
    let mut bundle = Bundle::new("n1");
    let mut taken = 0;
    for depth in 1..limits::JSON_DEPTH_MAX {
        let one = nested(depth);
        assert!(Parcel::decode(encoded(&from_n1(publication_of(&one, Now::default()))).as_bytes()).is_ok(), "{depth}");
        taken += usize::from(bundle.push(Now::default(), &one));
    }
    let text = bundle.send(<[u8]>::to_vec);
    let parcel = Parcel::decode(&text).expect("what is in it is as deep as a bundle lets it be");
    let ParcelKind::Bundle(all) = parcel.kind else { panic!("no bundle") };
    assert_eq!(all.len(), taken);
    assert_eq!(taken, limits::JSON_DEPTH_MAX - 5, "the deepest go by themselves");
}

#[test]
fn the_originals_own_message_is_forwarded_as_it_came() {
    let plain = |payload: &str| {
        let mut text = br#"{"to_server":null,"from_server":"host:1","connection_id":"any","tenant_id":"acme","user_id":"u1","payload":"#.to_vec();
        json::write_string(&mut text, payload);
        text.push(b'}');
        let parcel = Parcel::decode(&text).unwrap_or_else(|error| panic!("{payload}: {error}"));
        assert!(parcel.is_for("n1"));
        match parcel.kind {
            ParcelKind::Plain(plain) => plain,
            other => panic!("{other:?}"),
        }
    };
    let rows = [
        (MESSAGE, EventName::Notification, Some(ID)),
        (r#"{"type":"heartbeat"}"#, EventName::Heartbeat, None),
        (r#"{"type":"error","code":"X","message":"m"}"#, EventName::Error, None),
        (r#"{"type":"shutdown","reason":"r","reconnect_after_seconds":5}"#, EventName::Message, None),
        (r#"{"type":"subscribed","payload":["a b"]}"#, EventName::Message, None),
        (r#"{"type":"unsubscribed","payload":[]}"#, EventName::Message, None),
        (r#"{"type":"pong"}"#, EventName::Message, None),
        (r#"{"type":"acked","notification_id":"550e8400-e29b-41d4-a716-446655440000"}"#, EventName::Message, None),
    ];
    for (message, event, id) in rows {
        let plain = plain(message);
        assert_eq!((plain.event, plain.id), (event, id), "{message}");
        assert_eq!((plain.tenant.as_str(), &*plain.user, &*plain.message), ("acme", "u1", message));
        assert_eq!(plain.to_frame().json(), message.as_bytes());
    }
    assert_eq!(&*plain("{\n \"type\" : \"pong\" }").message, r#"{"type":"pong"}"#, "on one line, for SSE");
}

#[test]
fn a_node_looks_at_what_others_say_to_it() {
    let addressed = |from: &str, to: Option<&str>| {
        let parcel = Parcel { from_server: from.into(), to_server: to.map(Box::from), kind: ParcelKind::Bye };
        parcel.is_for("n1")
    };
    assert!(addressed("n2", None) && addressed("n2", Some("n1")));
    assert!(!addressed("n1", None) && !addressed("n1", Some("n1")), "its own");
    assert!(!addressed("n2", Some("n3")) && !addressed("n2", Some("")), "for somebody else");
    let everybody = br#"{"user_id":"","tenant_id":"","payload":"","from_server":"n2","ara":{"kind":"bye","later":{}}}"#;
    assert!(Parcel::decode(everybody).expect("absent is null").is_for("n1"));
    let nobody =
        br#"{"user_id":"u","tenant_id":"t","payload":"{\"type\":\"pong\"}","from_server":"n2","to_server":""}"#;
    assert!(!Parcel::decode(nobody).expect("as the original reads it").is_for("n1"));
}

#[test]
fn who_waits_is_known_from_outside() {
    let rows = [
        (publication(Target::Broadcast, None, published()), Some(TICKET)),
        (publication(Target::Broadcast, None, bare()), None),
        (ParcelKind::Question { ticket: TICKET, tenant: acme(), user: "u".into() }, Some(TICKET)),
        (ParcelKind::Disconnect { ticket: TICKET, tenant: acme(), user: "u".into() }, Some(TICKET)),
        (revoked(Revoked::Token { id: "t".into() }, Some(TICKET)), Some(TICKET)),
        (revoked(Revoked::Token { id: "t".into() }, None), None),
        (ParcelKind::Receipt { ticket: TICKET, receipt: Receipt::default() }, None),
        (ParcelKind::Canary(1), None),
    ];
    for (kind, ticket) in rows {
        assert_eq!(from_n1(kind).ticket(), ticket);
    }
}

#[test]
fn a_publication_crosses_from_one_clock_to_another() {
    let content = Content {
        event_type: "e".into(),
        payload: json::compact(r#"{"a":[1.50,"}}"]}"#, 0).expect("shallow"),
        priority: Priority::Critical,
        ttl: Some(60),
        correlation_id: None,
        audience: None,
    };
    let here = Now { mono_us: 5_000_000, unix_ns: 1_767_323_045_123_456_789 };
    let accepted = |expires_at_us| Publication {
        id: ID,
        tenant: acme(),
        target: Target::Broadcast,
        audience: None,
        priority: content.priority,
        expires_at_us,
        accepted_at_us: here.mono_us,
        frame: Frame::notification(ID, here.unix_ns, &Source::Http, &content),
    };
    let crossed = |expires_at_us, there| {
        let publication = accepted(expires_at_us);
        let parcel = from_n1(publication_of(&publication, here));
        let Ok(Parcel { kind: ParcelKind::Publication { target, audience, published }, .. }) =
            Parcel::decode(encoded(&parcel).as_bytes())
        else {
            panic!("a publication is decoded as one");
        };
        let other = published.into_publication(target, audience, there);
        assert_eq!((other.id, &other.tenant, other.priority), (ID, &acme(), Priority::Critical));
        assert_eq!(other.accepted_at_us, there.mono_us);
        assert_eq!(other.frame.websocket(), publication.frame.websocket());
        assert_eq!(other.frame.sse_block(), publication.frame.sse_block());
        other.expires_at_us
    };
    let there = |later_ms: u64| Now { mono_us: 77, unix_ns: here.unix_ns + later_ms * 1_000_000 };
    assert_eq!(crossed(None, there(0)), None);
    // A millisecond is the wire's unit, and it is rounded up.
    assert_eq!(crossed(Some(here.mono_us + 60_000_000), there(0)), Some(77 + 60_000_544));
    assert_eq!(crossed(Some(here.mono_us + 60_000_000), there(59_000)), Some(77 + 1_000_544));
    assert_eq!(crossed(Some(here.mono_us + 60_000_000), there(61_000)), Some(77), "it has expired");
    assert_eq!(crossed(Some(0), there(0)), Some(77 + 544), "over already: at most a millisecond is added");
    let forever = Published { expires_at_unix_ms: Some(u64::MAX), ..published() };
    assert_eq!(
        forever.into_publication(Target::Broadcast, None, Now { mono_us: u64::MAX, unix_ns: 0 }).expires_at_us,
        Some(u64::MAX)
    );
}

fn publication_of(publication: &Publication, now: Now) -> ParcelKind {
    ParcelKind::Publication {
        target: publication.target.clone(),
        audience: publication.audience.clone(),
        published: Published::of(publication, StreamSeq::default(), None, now),
    }
}

#[test]
fn what_no_receiver_would_take_is_not_sent() {
    let many = |n: usize| -> Box<[Box<str>]> { (0..n).map(|n| n.to_string().into_boxed_str()).collect() };
    let claims = |n: usize| ParcelKind::Stored(vec![Claim::new(1, 2); n]);
    let answer = |n: usize| ParcelKind::Answer {
        ticket: TICKET,
        tenant: acme(),
        user: "u".into(),
        sessions: vec![sessions().remove(0); n],
    };
    let users = |n| publication(Target::Users(many(n)), None, bare());
    let channels = |n| publication(Target::Channels(many(n)), None, bare());
    let rows: [(&dyn Fn(usize) -> ParcelKind, usize); 4] = [
        (&users, limits::PUBLISH_USERS_MAX),
        (&channels, limits::PUBLISH_CHANNELS_MAX),
        (&claims, limits::CLUSTER_CLAIMS_MAX),
        (&answer, limits::CLUSTER_SESSIONS_MAX),
    ];
    for (kind, len_max) in rows {
        let full = from_n1(kind(len_max));
        assert_eq!(Parcel::decode(encoded(&full).as_bytes()), Ok(full));
        let mut out = b"before".to_vec();
        let refused = from_n1(kind(len_max + 1)).encode(&mut out).expect_err("one too many");
        assert_eq!((refused.label(), &*out), ("too_many", &b"before"[..]));
    }
    let long = "\"".repeat(limits::CLUSTER_PARCEL_BYTES_MAX / 2);
    let mut out = b"before".to_vec();
    let refused =
        from_n1(publication(Target::Broadcast, None, Published { message: long.into(), ..bare() })).encode(&mut out);
    assert_eq!(refused.expect_err("each quote takes two bytes").label(), "too_long");
    assert_eq!(out, b"before");
}

/// Random parcels of every kind, with texts that need escapes.
#[test]
fn parcels_come_back() {
    let mut rng = fastrand::Rng::with_seed(12);
    let mut kinds = [0_u32; 14];
    for _ in 0..4_000 {
        let at = rng.usize(0..kinds.len());
        kinds[at] += 1;
        let parcel = Parcel {
            from_server: "n1".into(),
            to_server: rng.bool().then(|| "n2".into()),
            kind: random::random_kind(at, &mut rng),
        };
        let text = encoded(&parcel);
        assert_eq!(Parcel::decode(text.as_bytes()), Ok(parcel), "{text}");
    }
    assert!(kinds.iter().all(|count| *count > 100), "{kinds:?}");
}

//! Parcels of every kind with whatever may be in them.
use super::*;

fn random_text(rng: &mut fastrand::Rng) -> Box<str> {
    let pieces = ["a", "\"", "\\", "\n", "é", "😀", "\u{1}", ":", "}", "\u{7f}", "user"];
    (0..rng.usize(0..8)).map(|_| *rng.choice(&pieces).expect("a piece")).collect::<String>().into()
}

fn random_ticket(rng: &mut fastrand::Rng) -> GatherTicket {
    GatherTicket { shard: rng.u8(..), slot: rng.u32(..), generation: rng.u32(..) }
}

fn random_published(rng: &mut fastrand::Rng) -> Published {
    let id = NotificationId(Uuid::from_u128(rng.u128(..)));
    let content = Content {
        event_type: random_text(rng),
        payload: json::compact("[{}]", 0).expect("shallow"),
        priority: *rng.choice(&[Priority::Low, Priority::Normal, Priority::High, Priority::Critical]).expect("four"),
        ttl: None,
        correlation_id: Some(random_text(rng)),
        audience: None,
    };
    let frame = Frame::notification(id, rng.u64(..) >> 1, &Source::Redis(random_text(rng)), &content);
    Published {
        id,
        tenant: acme(),
        priority: content.priority,
        expires_at_unix_ms: rng.bool().then(|| rng.u64(..)),
        stream: StreamSeq { epoch: rng.u64(0..2), seq: rng.u64(..) },
        ticket: rng.bool().then(|| random_ticket(rng)),
        message: std::str::from_utf8(frame.json()).expect("JSON").into(),
    }
}

pub(super) fn random_kind(at: usize, rng: &mut fastrand::Rng) -> ParcelKind {
    let numbered = |rng: &mut fastrand::Rng| -> Vec<Box<str>> {
        (0..rng.usize(0..5)).map(|n| format!("{n}{}", random_text(rng)).into()).collect()
    };
    let (ticket, user) = (random_ticket(rng), random_text(rng));
    match at {
        0 => publication(Target::User(user), None, random_published(rng)),
        1 => publication(Target::Users(numbered(rng).into()), None, random_published(rng)),
        2 => publication(Target::Channels(numbered(rng).into()), None, random_published(rng)),
        3 => {
            let audience = [
                None,
                Some(Audience::All),
                Some(Audience::Users(numbered(rng))),
                Some(Audience::Channels(numbered(rng))),
            ];
            publication(Target::Broadcast, audience[rng.usize(0..4)].clone(), random_published(rng))
        }
        4 => ParcelKind::Hint {
            user,
            published: random_published(rng),
            position: Position(rng.u64(..), rng.u64(..)),
            before: rng.bool().then(|| Position(rng.u64(..), rng.u64(..))),
            attempt: rng.u32(..),
        },
        5 => ParcelKind::Receipt {
            ticket,
            receipt: Receipt {
                delivered_to: rng.u64(..),
                failed: rng.u64(..),
                queued: rng.u64(..),
                unkept: rng.u64(..),
            },
        },
        6 => {
            let reading_ms = rng.bool().then(|| rng.u64(..));
            let first_read = rng.bool().then(|| Claim::new(rng.u128(..), rng.u32(..)));
            ParcelKind::Hello(Hello { connections: rng.u64(..), users: rng.u64(..), reading_ms, first_read, ..hello() })
        }
        7 => ParcelKind::Stored((0..rng.usize(0..5)).map(|_| Claim::new(rng.u128(..), rng.u32(..))).collect()),
        8 => ParcelKind::Template { tenant: acme(), id: random_text(rng) },
        9 => ParcelKind::Question { ticket, tenant: acme(), user },
        10 => ParcelKind::Disconnect { ticket, tenant: acme(), user },
        11 => revoked(Revoked::Token { id: user }, rng.bool().then_some(ticket)),
        12 => revoked(Revoked::User { user, before_unix_s: rng.u64(..) }, rng.bool().then_some(ticket)),
        _ => {
            let row = |rng: &mut fastrand::Rng| SessionRow {
                connection_id: ConnectionId(Uuid::from_u128(rng.u128(..))),
                server_id: "n1".into(),
                connected_at_unix_s: rng.u64(..),
                channels: numbered(rng),
            };
            let sessions = (0..rng.usize(0..4)).map(|_| row(rng)).collect();
            ParcelKind::Answer { ticket, tenant: acme(), user, sessions }
        }
    }
}

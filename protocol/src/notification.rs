//! What a publisher says, once it has been understood, and what it becomes.
use crate::frame::Frame;
use crate::ids::{NotificationId, TenantId};

/// How urgent a notification is. Spelled on the wire exactly like the variants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub enum Priority {
    /// After everything else.
    Low,
    /// The default.
    #[default]
    Normal,
    /// Before `Normal` and `Low` when a connection has a backlog.
    High,
    /// As `High`.
    Critical,
}

impl Priority {
    /// The wire text.
    pub fn as_str(self) -> &'static str {
        match self {
            Priority::Low => "Low",
            Priority::Normal => "Normal",
            Priority::High => "High",
            Priority::Critical => "Critical",
        }
    }

    /// Whether it goes before the others when a connection has a backlog.
    pub fn is_urgent(self) -> bool {
        self >= Priority::High
    }

    /// The priority in the metadata of a kept event (contract §5); [`Priority::Normal`] where none is found.
    ///
    /// The metadata come last, and inside of a JSON string a quote never stands without its backslash: so the last member
    /// of this name is theirs.
    pub fn of_event(event: &[u8]) -> Priority {
        const MEMBER: &[u8] = br#","priority":""#;
        let at = event.windows(MEMBER.len()).rposition(|window| window == MEMBER);
        let value = at.map_or(&[][..], |at| &event[at + MEMBER.len()..]);
        [Priority::Low, Priority::High, Priority::Critical]
            .into_iter()
            .find(|priority| {
                value.strip_prefix(priority.as_str().as_bytes()).is_some_and(|rest| rest.starts_with(b"\""))
            })
            .unwrap_or_default()
    }
}

/// Narrows a broadcast (C-1): a connection must match, or it is not a recipient.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "type", content = "value")]
pub enum Audience {
    /// Everybody.
    All,
    /// Connections whose token carries one of these roles.
    Roles(Vec<Box<str>>),
    /// Connections of these users.
    Users(Vec<Box<str>>),
    /// Connections subscribed to one of these channels.
    Channels(Vec<Box<str>>),
}

/// Whom a notification is for, inside one tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// All connections of a user.
    User(Box<str>),
    /// All connections of these users; each user once.
    Users(Box<[Box<str>]>),
    /// Every connection of the tenant.
    Broadcast,
    /// Subscribers of a channel.
    Channel(Box<str>),
    /// Subscribers of any of these channels; each connection once.
    Channels(Box<[Box<str>]>),
}

/// The five kinds of [`Target`]: the label `target` of `ara_messages_sent_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TargetKind {
    /// One user.
    User,
    /// Several users.
    Users,
    /// Everybody in the tenant.
    Broadcast,
    /// One channel.
    Channel,
    /// Several channels.
    Channels,
}

impl TargetKind {
    /// All five, in the order of their discriminants.
    pub const ALL: [TargetKind; 5] =
        [TargetKind::User, TargetKind::Users, TargetKind::Broadcast, TargetKind::Channel, TargetKind::Channels];

    /// The wire and label text.
    pub fn as_str(self) -> &'static str {
        match self {
            TargetKind::User => "user",
            TargetKind::Users => "users",
            TargetKind::Broadcast => "broadcast",
            TargetKind::Channel => "channel",
            TargetKind::Channels => "channels",
        }
    }
}

impl Target {
    /// Which kind of target this is.
    pub fn kind(&self) -> TargetKind {
        match self {
            Target::User(_) => TargetKind::User,
            Target::Users(_) => TargetKind::Users,
            Target::Broadcast => TargetKind::Broadcast,
            Target::Channel(_) => TargetKind::Channel,
            Target::Channels(_) => TargetKind::Channels,
        }
    }

    /// Whether a name in it has a `:`, which none has while tenants are kept apart (C-8): a stored key of one tenant could
    /// be read as another's.
    pub fn has_colon(&self) -> bool {
        match self {
            Target::User(name) | Target::Channel(name) => name.contains(':'),
            Target::Users(names) | Target::Channels(names) => names.iter().any(|name| name.contains(':')),
            Target::Broadcast => false,
        }
    }
}

/// A publisher's JSON value, kept exactly (C-2): key order, number text and duplicate keys as given, insignificant
/// white space gone, so it holds no raw newline and fits an SSE `data:` line. Made by [`crate::json::compact`] only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload(pub(crate) Box<str>);

impl Payload {
    /// The JSON text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Everything of a notification that its publisher decides, after templates are rendered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// Free text, may be empty.
    pub event_type: Box<str>,
    /// The publisher's value.
    pub payload: Payload,
    /// Urgency.
    pub priority: Priority,
    /// Seconds the notification is worth delivering; 0 is already over.
    pub ttl: Option<u32>,
    /// Echoed in the metadata.
    pub correlation_id: Option<Box<str>>,
    /// Only from REST broadcasts; echoed in the metadata.
    pub audience: Option<Audience>,
}

/// Where a publish came in: `metadata.source`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The REST API: `http-api`.
    Http,
    /// A Redis channel: `redis:{channel}`.
    Redis(Box<str>),
}

/// A publish that was accepted: identified, encoded once, ready to be shared by every shard that has recipients.
#[derive(Debug)]
pub struct Publication {
    /// Given at acceptance.
    pub id: NotificationId,
    /// Whose it is; no other tenant's connection may see it.
    pub tenant: TenantId,
    /// For whom.
    pub target: Target,
    /// Narrows a broadcast.
    pub audience: Option<Audience>,
    /// Urgency.
    pub priority: Priority,
    /// When it stops being worth delivering, on the monotonic clock of this process, in microseconds.
    pub expires_at_us: Option<u64>,
    /// When it was accepted, on the monotonic clock of this process, in microseconds.
    pub accepted_at_us: u64,
    /// Its bytes for either transport.
    pub frame: Frame,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Frame;
    use crate::json;

    #[test]
    fn the_priority_of_a_kept_event_is_that_of_its_metadata() {
        use Priority::{Critical, High, Low, Normal};
        let payloads = [r#""plain""#, r#"{"a":1,"priority":"Critical"}"#, r#"{"a":",\"priority\":\"Low\","}"#];
        for (priority, payload) in
            [Low, Normal, High, Critical].into_iter().flat_map(|it| payloads.map(|payload| (it, payload)))
        {
            let audience = Audience::Roles(vec![r#","priority":"Low""#.into()]);
            let content = Content {
                event_type: r#","priority":"Low""#.into(),
                payload: json::compact(payload, 9).unwrap(),
                priority,
                ttl: Some(9),
                correlation_id: Some(r#","priority":"High""#.into()),
                audience: Some(audience),
            };
            let frame = Frame::notification(NotificationId::NIL, 0, &Source::Redis("r".into()), &content);
            assert_eq!(Priority::of_event(&frame.event()), priority, "{payload}");
        }
        for foreign in [&b""[..], b"{}", br#"{"metadata":{"a":1,"priority":"Highest"}}"#, br#"{,"priority":"Hi"#] {
            assert_eq!(Priority::of_event(foreign), Normal);
        }
    }
}

//! The keys of one prefix in a Redis Cluster: sixteen partitions, each in one slot (`docs/decisions/0009-redis-cluster.md`).
//!
//! A script may touch keys of one slot only. So a partition has a prefix of its own, with a hash tag behind the one that
//! is configured, and below it everything that stands below the prefix on an ordinary server: `ara:queue:{11}:default:u1`
//! where that has `ara:queue:default:u1`, and `ara:queue:{11}:users`, one for each partition.
//!
//! The tags are the least numbers whose slots lie in the first, the second, … sixteenth of all slots, so that masters with
//! equal shares of the slots have equal shares of the partitions. A user's partition is the sixteenth in which the slot of
//! the scoped key is: `CLUSTER KEYSLOT acme:u1`, divided by 1024. All nodes must agree on both, for ever.
use crate::redis::mailbox::keys::scoped;
use crate::redis::topology::slots::{SLOTS, slot_of};
use protocol::ids::TenantId;
use protocol::limits;

/// Partitions of a prefix.
pub const PARTITIONS: usize = limits::CLUSTER_PARTITIONS_MAX;
const _: () = assert!(PARTITIONS == 16);

/// The hash tag of each partition.
const TAGS: [u8; PARTITIONS] = [10, 3, 61, 43, 11, 2, 60, 42, 12, 1, 63, 41, 13, 0, 62, 40];

/// The partition of what is not partitioned: the keys of sessions, and the place where nodes meet.
const MEETING: usize = 8;

/// The prefix of one partition, below [`PARTITIONS`].
pub fn prefix_of(prefix: &str, partition: usize) -> String {
    format!("{prefix}:{{{}}}", TAGS[partition % PARTITIONS])
}

/// A prefix whose keys are all in one slot, the same for every prefix: what is said there is on one master.
pub fn meeting(prefix: &str) -> String {
    prefix_of(prefix, MEETING)
}

/// The partition of a user's mail and acknowledgements.
pub fn partition_of(tenant: &TenantId, user: &str) -> usize {
    usize::from(slot_of(&scoped(tenant, user))) / (usize::from(SLOTS) / PARTITIONS)
}

/// Whether a prefix can be partitioned: a brace of its own would take the place of the tags.
pub fn is_prefix(prefix: &str) -> bool {
    !prefix.contains(['{', '}'])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::acks::Acks;
    use crate::redis::commands::{Command, Words};
    use crate::redis::mailbox::Mailboxes;
    use protocol::clock::Now;
    use protocol::cluster::wire::Claim;
    use protocol::ids::{ConnectionId, NotificationId, uuid_v7};
    use protocol::store::{Mail, Position};
    use protocol::stream::StreamSeq;

    #[test]
    fn each_partition_is_in_its_sixteenth_of_the_slots_whatever_the_prefix() {
        for prefix in ["ara:queue", "ara:ack", "", "é"] {
            for partition in 0..PARTITIONS {
                let key = format!("{}:default:a{{b}}c", prefix_of(prefix, partition));
                assert_eq!(usize::from(slot_of(key.as_bytes())) / 1_024, partition, "{key}");
            }
        }
        assert_eq!(prefix_of("ara:queue", 10), "ara:queue:{63}");
        assert_eq!(meeting("ara:cluster:sessions"), "ara:cluster:sessions:{12}");
        assert!(is_prefix("ara:queue") && !is_prefix("{ara}:queue") && !is_prefix("ara}"));
    }

    #[test]
    fn users_are_spread_evenly_and_found_again() {
        let default = TenantId::default_tenant();
        let mut counts = [0_usize; PARTITIONS];
        (0..16_000).for_each(|n| counts[partition_of(&default, &format!("user-{n}"))] += 1);
        assert!(counts.iter().all(|count| (850..1_150).contains(count)), "{counts:?}");
        let acme = TenantId::parse("acme").unwrap();
        assert_eq!(partition_of(&acme, "u1"), usize::from(slot_of(b"acme:u1")) / 1_024);
        assert_eq!(partition_of(&default, "u1"), usize::from(slot_of(b"u1")) / 1_024);
    }

    /// The keys of a command lie in the slot of its partition.
    fn assert_slot(partition: usize, command: Command<'_>) {
        let Words::Script { keys, script, .. } = command.words else { panic!("a plain command") };
        for key in keys {
            assert_eq!(slot_of(key), slot_of(prefix_of("", partition).as_bytes()), "{}: {key:?}", script.name());
        }
    }

    #[test]
    fn what_one_script_touches_lies_in_one_slot() {
        let tenant = TenantId::default_tenant();
        let id = NotificationId(uuid_v7(1, [0; 10]));
        let connection = ConnectionId(uuid_v7(2, [0; 10]));
        let now = Now::default();
        let mail = Mail {
            id,
            event: std::sync::Arc::from(&b"{}"[..]),
            queued_at_unix_ns: 0,
            expires_at_unix_ns: 1,
            attempts: 0,
            stream: StreamSeq::default(),
        };
        for user in ["ana", "a{b}c", "{}", "}{", "{ara}"] {
            let partition = partition_of(&tenant, user);
            let mailboxes = Mailboxes::new(&prefix_of("ara:queue", partition), 10, 60);
            let acks = Acks::new(&prefix_of("ara:ack", partition), 60);
            let check = |command: Command<'_>| assert_slot(partition, command);
            let claim = Some(Claim::new(7, 1));
            mailboxes.enqueue(&tenant, user, std::slice::from_ref(&mail), claim, now, check);
            mailboxes.read(&tenant, user, None, 1, 1, check);
            mailboxes.begin(&tenant, user, &[Position(1, 0)], check);
            mailboxes.remove(&tenant, user, &[Position(1, 0)], crate::redis::mailbox::Removal::Expired, check);
            mailboxes.sweep(user.as_bytes(), now, check);
            mailboxes.stats(check);
            acks.track(id, &tenant, user, connection, now, check);
            acks.acknowledge(id, &tenant, user, now, crate::redis::acks::Late::Taken, check);
            acks.expire(now, 1, check);
            acks.stats(check);
        }
    }
}

//! What this node says to clients of others while no other node is known to be there. No socket, no clock.
//!
//! A node that begins must hear it, so it is said all the same; but a parcel and a PUBLISH for each publication, which nobody
//! hears, costs a third of what the node could do. So they wait a moment for each other and go together, to the topic that every node
//! listens to before it lets a client in. Each place has its own bundle: where nodes meet, and each partition of a Redis
//! Cluster. Whoever says anything else there sends the bundle first, so the order of a place is kept.
use protocol::clock::Now;
use protocol::cluster::wire::Bundle;
use protocol::limits;
use protocol::notification::Publication;

/// What waits in each place.
pub(super) struct Bundles {
    places: Vec<Waiting>,
}

struct Waiting {
    bundle: Bundle,
    /// When it is to be sent, if there is something in it.
    due_us: Option<u64>,
}

impl Bundles {
    /// Nothing waits. Beside the place where nodes meet there are so many partitions.
    pub(super) fn new(server_id: &str, partitions: usize) -> Bundles {
        let waiting = || Waiting { bundle: Bundle::new(server_id), due_us: None };
        Bundles { places: (0..=partitions).map(|_| waiting()).collect() }
    }

    /// Lets a publication wait, if there is room for it.
    pub(super) fn push(&mut self, now: Now, partition: Option<usize>, publication: &Publication) -> bool {
        let Some(waiting) = self.places.get_mut(index(partition)) else { return false };
        let is_taken = waiting.bundle.push(now, publication);
        if is_taken {
            waiting.due_us.get_or_insert(now.mono_us + limits::CLUSTER_BUNDLE_WAIT_US);
        }
        is_taken
    }

    /// Whether these bytes, from whichever place, are a bundle of this node's own.
    pub(super) fn is_own(&self, payload: &[u8]) -> bool {
        self.places.first().is_some_and(|waiting| waiting.bundle.is_own(payload))
    }

    /// When what waits in a place is to be sent.
    pub(super) fn due_us(&self, partition: Option<usize>) -> Option<u64> {
        self.places.get(index(partition)).and_then(|waiting| waiting.due_us)
    }

    /// Gives what waits in a place to somebody, with the number of publications; nothing waits there then.
    pub(super) fn send(&mut self, partition: Option<usize>, send: impl FnOnce(&[u8], usize)) {
        if let Some(waiting) = self.places.get_mut(index(partition))
            && waiting.due_us.take().is_some()
        {
            let publications = waiting.bundle.publications();
            waiting.bundle.send(|bytes| send(bytes, publications));
        }
    }
}

fn index(partition: Option<usize>) -> usize {
    partition.map_or(0, |nth| nth + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::cluster::wire::{Bundled, Parcel, ParcelKind};
    use protocol::frame::{EventName, Frame};
    use protocol::ids::{NotificationId, TenantId, uuid_v7};
    use protocol::notification::{Priority, Target};

    fn publication(number: u8) -> Publication {
        let id = NotificationId(uuid_v7(u64::from(number), [0; 10]));
        let message = format!(r#"{{"type":"notification","id":"{}","payload":1,"metadata":{{}}}}"#, id.0);
        Publication {
            id,
            tenant: TenantId::default_tenant(),
            target: Target::Channel(number.to_string().into()),
            audience: None,
            priority: Priority::Normal,
            expires_at_us: None,
            accepted_at_us: 0,
            frame: Frame::new(EventName::Notification, Some(id), message.as_bytes()),
        }
    }

    fn numbers(bytes: &[u8]) -> Vec<u8> {
        let ParcelKind::Bundle(all) = Parcel::decode(bytes).unwrap().kind else { panic!("no bundle") };
        let number = |one: Bundled| match one.target {
            Target::Channel(number) => number.parse().unwrap(),
            other => panic!("{other:?}"),
        };
        all.into_iter().map(number).collect()
    }

    fn sent(bundles: &mut Bundles, partition: Option<usize>) -> Option<Vec<u8>> {
        let mut sent = None;
        bundles.send(partition, |bytes, publications| {
            sent = Some(numbers(bytes));
            assert_eq!(sent.as_ref().map(Vec::len), Some(publications));
        });
        sent
    }

    #[test]
    fn each_place_has_its_own_and_it_is_due_by_its_first() {
        let at = |mono_us| Now { mono_us, unix_ns: 0 };
        let mut bundles = Bundles::new("n1", 2);
        for (number, partition) in [(1, None), (2, Some(1)), (3, None), (4, Some(1))] {
            assert!(bundles.push(at(10 * u64::from(number)), partition, &publication(number)));
        }
        let due_us = [None, Some(0), Some(1)].map(|place| bundles.due_us(place));
        let wait_us = limits::CLUSTER_BUNDLE_WAIT_US;
        assert_eq!(due_us, [Some(10 + wait_us), None, Some(20 + wait_us)]);
        assert_eq!(sent(&mut bundles, None), Some(vec![1, 3]));
        assert_eq!((sent(&mut bundles, None), sent(&mut bundles, Some(0)), bundles.due_us(None)), (None, None, None));
        assert!(bundles.push(at(50), None, &publication(5)));
        assert_eq!(sent(&mut bundles, Some(1)), Some(vec![2, 4]));
        assert_eq!(sent(&mut bundles, None), Some(vec![5]));
    }
}

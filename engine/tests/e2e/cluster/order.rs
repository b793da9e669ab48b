//! Mail by Redis has its order also when one node has heard what another has not.
use super::mail::{Class, Ear, Hearer, await_hellos, mail_node, publish_number};
use crate::support::process::await_that;
use crate::support::redis::{Redis, Resp};

/// The connections over which nodes read what is published: two patterns and the node's canary each.
fn readers(client: &mut Resp) -> Vec<String> {
    let list = client.call(&[b"CLIENT", b"LIST"]);
    let reader = |line: &str| Some(line.split_once("id=")?.1.split_once(' ')?.0.to_owned());
    list.lines().filter(|line| line.contains(" psub=2 ")).filter_map(reader).collect()
}

/// The subscription of one node breaks, and a piece for each user is published before it is back: the other node has it. Who would
/// keep it for this user or that is back before anybody says so, and hears the next one: it is kept behind the first.
fn one_misses_what_the_other_holds(class: Class) {
    let redis = Redis::start();
    let nodes = ["a", "b"].map(|name| mail_node(&redis, name, class, &[]));
    let users: Vec<String> = (0..8).map(|n| format!("u{n}")).collect();
    let mut client = redis.client();
    for nth in 0..2 {
        // Both have read for long enough.
        await_hellos(&redis, 2, 4);
        await_that("both nodes to read", || (readers(&mut client).len() == 2).then_some(()));
        let reader = readers(&mut client).swap_remove(nth);
        client.call(&[b"MULTI"]);
        client.call(&[b"CLIENT", b"KILL", b"ID", reader.as_bytes()]);
        users.iter().for_each(|user| publish_number(&mut client, user, 2 * nth as u64));
        client.call(&[b"EXEC"]);
        await_that("it to read again", || (readers(&mut client).len() == 2).then_some(()));
        users.iter().for_each(|user| publish_number(&mut client, user, 2 * nth as u64 + 1));
    }
    for (n, user) in users.iter().enumerate() {
        let (mut hearer, mut ear) = (Hearer::connect(&nodes[n % 2], user, class), Ear::default());
        assert_eq!([(); 4].map(|()| hearer.hear(&mut ear)), [0, 1, 2, 3], "{user}");
    }
}

#[test]
fn who_misses_something_keeps_what_follows_behind_it_written() {
    one_misses_what_the_other_holds(Class::Written);
}

#[test]
fn who_misses_something_keeps_what_follows_behind_it_acknowledged() {
    one_misses_what_the_other_holds(Class::Acknowledged);
}

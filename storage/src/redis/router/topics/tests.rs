use super::*;

/// A server that confirms what it is told, and notes of what it told us.
struct Scene {
    topics: Topics,
    /// Said and not confirmed: kind and name.
    said: VecDeque<(bool, String)>,
    told: Vec<String>,
}

impl Scene {
    fn new() -> Scene {
        Scene { topics: Topics::new(1_000), said: VecDeque::new(), told: Vec::new() }
    }

    fn up() -> Scene {
        let mut scene = Scene::new();
        scene.topics.up();
        scene.say(64);
        assert_eq!(scene.take(), ["resumed"]);
        scene
    }

    /// Says what there is to say, and shows it.
    fn say(&mut self, asked_max: usize) -> String {
        let mut shown = Vec::new();
        let Scene { topics, said, told } = self;
        while let Some((subscribe, names)) = topics.next_batch(asked_max, &mut |event| note(told, event)) {
            for name in names {
                let name = String::from_utf8(name.to_vec()).unwrap();
                shown.push(format!("{}{name}", if subscribe { '+' } else { '-' }));
                said.push_back((subscribe, name));
            }
        }
        shown.join(" ")
    }

    fn confirm(&mut self) {
        let (subscribed, name) = self.said.pop_front().unwrap();
        let Scene { topics, told, .. } = self;
        assert!(topics.confirmed(subscribed, name.as_bytes(), &mut |event| note(told, event)));
    }

    fn take(&mut self) -> Vec<String> {
        std::mem::take(&mut self.told)
    }
}

fn note(told: &mut Vec<String>, event: Told<'_>) {
    told.push(match event {
        Told::Watching(name) => String::from_utf8(name.to_vec()).unwrap(),
        Told::Resumed => "resumed".to_owned(),
    });
}

#[test]
fn a_topic_is_said_confirmed_and_left() {
    let mut scene = Scene::up();
    assert_eq!(scene.topics.watch(b"a"), Watch::Later);
    assert!(!scene.topics.listens(b"a"));
    assert_eq!(scene.say(64), "+a");
    assert!(scene.topics.listens(b"a"), "Redis may count it");
    assert_eq!(scene.topics.watch(b"a"), Watch::Later);
    scene.confirm();
    assert_eq!(scene.take(), ["a"]);
    assert_eq!(scene.topics.watch(b"a"), Watch::Listening);
    scene.topics.unwatch(b"a");
    assert_eq!(scene.say(64), "-a");
    scene.confirm();
    assert_eq!((scene.take().len(), scene.topics.len()), (0, 0));
}

#[test]
fn whoever_leaves_and_comes_back_is_told_of_the_last_word_only() {
    let mut scene = Scene::up();
    scene.topics.watch(b"a");
    scene.say(64);
    scene.topics.unwatch(b"a");
    scene.say(64);
    assert_eq!(scene.topics.watch(b"a"), Watch::Later);
    assert_eq!(scene.say(64), "+a");
    scene.confirm();
    scene.confirm();
    assert_eq!(scene.take(), [""; 0], "between the first and the last word nobody listens");
    scene.confirm();
    assert_eq!(scene.take(), ["a"]);
}

#[test]
fn a_change_of_mind_before_it_was_said_costs_no_word() {
    let mut scene = Scene::up();
    scene.topics.watch(b"a");
    scene.topics.unwatch(b"a");
    scene.topics.watch(b"b");
    assert_eq!(scene.say(64), "+b");
    scene.confirm();
    scene.topics.unwatch(b"b");
    assert_eq!(scene.topics.watch(b"b"), Watch::Listening);
    assert_eq!((scene.say(64), scene.topics.len()), (String::new(), 1));
}

#[test]
fn words_of_both_kinds_keep_their_order() {
    let mut scene = Scene::up();
    for name in [b"a", b"b"] {
        scene.topics.watch(name);
        scene.say(64);
        scene.confirm();
    }
    scene.topics.watch(b"c");
    scene.topics.unwatch(b"a");
    scene.topics.watch(b"d");
    scene.topics.unwatch(b"b");
    assert_eq!(scene.say(64), "+c -a +d -b");
}

#[test]
fn after_a_loss_what_is_wanted_is_said_again_in_pieces_and_newer_wishes_first() {
    let mut scene = Scene::new();
    let names: Vec<String> = (0..700).map(|n| format!("t{n}")).collect();
    for name in &names {
        assert_eq!(scene.topics.watch(name.as_bytes()), Watch::Later);
    }
    for round in 0..2 {
        scene.topics.up();
        scene.topics.watch(b"new");
        let first = scene.say(300);
        assert_eq!(first.split(' ').count(), 300, "no more than may be unconfirmed");
        assert!(first.starts_with("+new "), "round {round}");
        let mut confirmed = 0;
        while !scene.said.is_empty() {
            scene.confirm();
            confirmed += 1;
            scene.say(300);
        }
        assert_eq!(confirmed, 701);
        let told = scene.take();
        assert_eq!((told.len(), &*told[701]), (702, "resumed"));
        scene.topics.down();
        assert!(!scene.topics.listens(b"t1"));
    }
    // What is left while there is no link is not said again.
    for name in &names {
        scene.topics.unwatch(name.as_bytes());
    }
    scene.topics.up();
    assert_eq!(scene.say(300), "+new");
}

#[test]
fn a_loss_forgets_what_was_on_its_way() {
    let mut scene = Scene::up();
    scene.topics.watch(b"a");
    scene.topics.watch(b"b");
    scene.say(64);
    scene.topics.unwatch(b"a");
    scene.topics.down();
    scene.said.clear();
    scene.topics.up();
    assert_eq!(scene.say(64), "+b");
    scene.confirm();
    assert_eq!((scene.take(), scene.topics.len()), (vec!["b".to_owned(), "resumed".to_owned()], 1));
}

#[test]
fn a_refusal_is_as_good_as_a_confirmation() {
    let mut scene = Scene::up();
    scene.topics.watch(b"a");
    scene.topics.watch(b"b");
    scene.say(64);
    let Scene { topics, told, .. } = &mut scene;
    topics.refused(2, &mut |event| note(told, event));
    assert_eq!(scene.take(), ["a", "b"]);
}

#[test]
fn there_are_so_many_and_no_more() {
    let mut topics = Topics::new(2);
    assert_eq!((topics.watch(b"a"), topics.watch(b"b")), (Watch::Later, Watch::Later));
    assert_eq!(topics.watch(b"c"), Watch::TooMany);
    assert_eq!(topics.watch(b"a"), Watch::Later);
    topics.unwatch(b"a");
    assert_eq!(topics.watch(b"c"), Watch::Later);
}

#[test]
fn a_walk_shows_all_that_stay_whatever_comes_and_goes() {
    let mut topics = Topics::new(1_000);
    for n in 0..100 {
        topics.watch(format!("stays{n}").as_bytes());
        topics.watch(format!("goes{n}").as_bytes());
    }
    let mut cursor = Cursor::new();
    let mut seen = std::collections::BTreeSet::new();
    let mut round = 0;
    while topics.page(&mut cursor, 7, |name| _ = seen.insert(name.to_vec())) {
        for n in [round * 5, round * 5 + 1, 99 - round] {
            topics.unwatch(format!("goes{n}").as_bytes());
        }
        topics.watch(format!("new{round}").as_bytes());
        round += 1;
    }
    for n in 0..100 {
        assert!(seen.contains(format!("stays{n}").as_bytes()), "{n}");
    }
}

//! Many users in one thread: they come, go in three ways, and write down what they heard.
use super::books::{Account, End, Reception, Visit};
use super::client::{Client, Heard};
use super::stage::{Phase, Stage};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// How a user behaves until everybody gathers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Habit {
    /// Always there; comes back at once when the server goes.
    Stays,
    /// There for up to so many ms, away for up to as many, over and over.
    Flaps { ms_max: u64 },
    /// Comes when everybody gathers.
    Away,
}

/// How long anybody who finds no server waits before the next try: the price of asking.
const RETRY: Duration = Duration::from_millis(20);

/// How long the kernel's answer to a poll is waited for when nobody has anything to do.
const GLANCE: Duration = Duration::from_millis(20);

/// An open connection and what it was.
#[derive(Debug)]
struct Presence {
    client: Client,
    opened: Instant,
    is_open: bool,
    is_closing: bool,
    /// Whether what is owed was acknowledged here.
    is_settled: bool,
    highest: Option<usize>,
    /// When it leaves, and when it stops reading before that.
    leaves: Option<(Instant, End)>,
    deaf_from: Option<Instant>,
}

#[derive(Debug)]
struct User {
    number: usize,
    habit: Habit,
    account: Account,
    here: Option<Presence>,
    comes: Instant,
    /// Sockets that the user forgot: open, and nobody reads them.
    silent: Vec<(Presence, Instant)>,
    /// What was read and whose acknowledgement was not confirmed yet.
    owed: BTreeSet<String>,
    /// The highest number read.
    last_read: Option<usize>,
    gathered: bool,
}

/// The users of one thread.
#[derive(Debug)]
pub(crate) struct Crowd<'a> {
    stage: &'a Stage,
    users: Vec<User>,
    random: fastrand::Rng,
    refused: usize,
}

impl<'a> Crowd<'a> {
    pub(crate) fn new(stage: &'a Stage, users: &[(usize, Habit)], seed: u64) -> Crowd<'a> {
        let comes = Instant::now();
        let user = |&(number, habit): &(usize, Habit)| User {
            number,
            habit,
            account: Account::default(),
            here: None,
            comes,
            silent: Vec::new(),
            owed: BTreeSet::new(),
            last_read: None,
            gathered: false,
        };
        let users = users.iter().map(user).collect();
        Crowd { stage, users, random: fastrand::Rng::with_seed(seed), refused: 0 }
    }

    /// Lives until everybody has heard the last word and owes nothing, or until the stage gives up.
    pub(crate) fn live(mut self) -> BTreeMap<usize, Account> {
        loop {
            let phase = self.stage.phase();
            let now = Instant::now();
            for user in &mut self.users {
                user.act(self.stage, phase, now, &mut self.random);
            }
            let done = phase == Phase::LastWord && self.users.iter().all(|user| user.is_done(self.stage));
            if done || self.stage.is_given_up() {
                break;
            }
            self.wait();
            for user in &mut self.users {
                self.refused += usize::from(user.listen(self.stage, phase, &mut self.random));
            }
        }
        if self.refused > 0 {
            eprintln!("{} handshakes were refused", self.refused);
        }
        self.users.into_iter().map(User::leave_for_good).collect()
    }

    /// Until something can be read or written, or a little while has passed.
    fn wait(&self) {
        let now = Instant::now();
        let open = self.users.iter().filter_map(|user| user.here.as_ref());
        let mut fds: Vec<PollFd<'_>> = open
            .filter(|here| !here.is_deaf(now))
            .map(|here| {
                let mut flags = PollFlags::IN;
                flags.set(PollFlags::OUT, here.client.wants_to_write());
                PollFd::from_borrowed_fd(here.client.fd(), flags)
            })
            .collect();
        let next = self.users.iter().filter_map(|user| user.next_act()).min();
        let glance = next.map_or(GLANCE, |next| next.saturating_duration_since(now).min(GLANCE));
        let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(glance.subsec_nanos()) };
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("poll: {error}"),
        }
    }
}

impl Presence {
    fn is_deaf(&self, now: Instant) -> bool {
        self.deaf_from.is_some_and(|from| from <= now)
    }

    fn into_visit(self, end: End) -> Visit {
        let Presence { client, opened, highest, .. } = self;
        drop(client);
        Visit { opened, ended: Instant::now(), end, highest }
    }
}

impl User {
    fn act(&mut self, stage: &Stage, phase: Phase, now: Instant, random: &mut fastrand::Rng) {
        let gathering = phase != Phase::Run;
        let over: Vec<Presence> =
            self.silent.extract_if(.., |(_, until)| gathering || *until <= now).map(|s| s.0).collect();
        for presence in over {
            self.cut(presence, End::Silence);
        }
        if gathering && let Some(here) = self.here.as_mut().filter(|here| !here.is_deaf(now)) {
            (here.leaves, here.deaf_from) = (None, None);
        }
        match self.here.as_ref() {
            None => {
                let stays_away = self.habit == Habit::Away && !gathering;
                if self.comes <= now && !stays_away {
                    self.come(stage.port, gathering, now, random);
                }
            }
            Some(here) => {
                if let Some((at, end)) = here.leaves
                    && at <= now
                {
                    self.leave(end, now, random);
                }
            }
        }
        let stays = |here: &Presence| here.is_open && !here.is_closing && here.leaves.is_none();
        if gathering && !self.gathered && self.here.as_ref().is_some_and(stays) {
            self.gathered = true;
            stage.gathered();
        }
        if phase == Phase::LastWord
            && let Some(here) = self.here.as_mut().filter(|here| here.is_open && !here.is_settled)
        {
            // What was left to come again, and what was said and never confirmed.
            here.is_settled = true;
            self.owed.iter().for_each(|id| here.client.acknowledge(id));
        }
    }

    /// Whether the last word was heard and everything is acknowledged.
    fn is_done(&self, stage: &Stage) -> bool {
        self.owed.is_empty() && self.last_read >= stage.last_word(self.number)
    }

    /// When something is to be done without having been heard of.
    fn next_act(&self) -> Option<Instant> {
        let leaves = match &self.here {
            Some(here) => here.leaves.map(|(at, _)| here.deaf_from.filter(|from| *from > Instant::now()).unwrap_or(at)),
            None => Some(self.comes),
        };
        self.silent.iter().map(|(_, until)| *until).chain(leaves).min()
    }

    fn leave_for_good(mut self) -> (usize, Account) {
        if let Some(here) = self.here.take().filter(|here| here.is_open) {
            self.account.visits.push(here.into_visit(End::Close));
        }
        self.account.visits.sort_by_key(|visit| visit.opened);
        (self.number, self.account)
    }

    fn come(&mut self, port: u16, gathering: bool, now: Instant, random: &mut fastrand::Rng) {
        let Some(client) = Client::dial(port, self.number) else {
            self.comes = now + RETRY;
            return;
        };
        let mut here = Presence {
            client,
            opened: now,
            is_open: false,
            is_closing: false,
            is_settled: false,
            highest: None,
            leaves: None,
            deaf_from: None,
        };
        if let Habit::Flaps { ms_max } = self.habit
            && !gathering
        {
            let end = [End::Close, End::Reset, End::Silence][random.usize(..3)];
            let at = now + Duration::from_millis(random.u64(ms_max / 5..ms_max));
            here.leaves = Some((at, end));
            let deaf = Duration::from_millis(random.u64(..40));
            here.deaf_from = (end == End::Reset).then(|| at.checked_sub(deaf).unwrap_or(at));
        }
        self.here = Some(here);
    }

    fn leave(&mut self, end: End, now: Instant, random: &mut fastrand::Rng) {
        let Habit::Flaps { ms_max } = self.habit else { return };
        self.comes = now + Duration::from_millis(random.u64(ms_max / 5..ms_max));
        let Some(mut here) = self.here.take() else { return };
        match end {
            End::Close | End::Server => {
                here.client.close();
                (here.is_closing, here.leaves) = (true, None);
                self.here = Some(here);
            }
            End::Reset => self.cut(here, End::Reset),
            End::Silence => {
                here.client.fall_silent();
                self.silent.push((here, now + Duration::from_millis(random.u64(ms_max..ms_max * 5))));
            }
        }
    }

    /// Resets; what the kernel had goes into the books as unread. The last look and the reset follow each other.
    fn cut(&mut self, mut here: Presence, end: End) {
        let mut heard = Vec::new();
        here.client.fall_silent();
        here.client.will_reset();
        here.client.read(&mut heard);
        let mut visit = here.into_visit(end);
        for heard in heard {
            if let Heard::Notification { n, .. } = heard {
                visit.highest = visit.highest.max(Some(n));
                self.account.unread.insert(n);
            }
        }
        self.account.visits.push(visit);
    }

    /// Reads what came; true when the handshake was refused.
    fn listen(&mut self, stage: &Stage, phase: Phase, random: &mut fastrand::Rng) -> bool {
        let now = Instant::now();
        let Some(mut here) = self.here.take() else { return false };
        if here.is_deaf(now) {
            self.here = Some(here);
            return false;
        }
        here.client.write();
        let (mut heard, mut refused) = (Vec::new(), false);
        let ended = here.client.read(&mut heard);
        for heard in heard {
            match heard {
                Heard::Open => here.is_open = true,
                Heard::Refused => refused = true,
                Heard::Notification { id, n, attempt } => {
                    here.highest = here.highest.max(Some(n));
                    self.last_read = self.last_read.max(Some(n));
                    self.account.receptions.push(Reception { n, attempt, at: now });
                    if stage.acknowledges {
                        // Some are left to come again; in the end all are acknowledged.
                        if !here.is_closing && (phase != Phase::Run || random.u8(..8) > 0) {
                            here.client.acknowledge(&id);
                        }
                        self.owed.insert(id);
                    }
                }
                Heard::Acked(id) | Heard::InvalidAck(id) => {
                    self.owed.remove(&id);
                }
            }
        }
        if ended || refused {
            if here.is_open {
                let end = if here.is_closing { End::Close } else { End::Server };
                self.account.visits.push(here.into_visit(end));
            }
            self.comes = self.comes.max(now + RETRY);
        } else {
            self.here = Some(here);
        }
        refused
    }
}

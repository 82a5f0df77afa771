//! Which task worker is given which task, and when.
//!
//! Short tasks are to cost no switch between processes each, so several are handed over together, and none of
//! them is kept for long from somebody who could begin it. In this order, once a turn:
//!
//! 1. **Taken back.** What lies behind a task that its task worker has been at for 5 ms; and, if another has
//!    nothing to do, everything of a hand whose oldest task for any of them has waited there for 5 ms. The word of
//!    `claim` decides who has each of them.
//! 2. **Along.** Who was handed tasks and has begun none is given more, as many as are done in 0.1 ms by what
//!    its last ones took: nobody is woken for them. What was once taken back is not given along, since the last
//!    ones say nothing of it.
//! 3. **To each that has none**, one, and others along in the same way.
//! 4. **Ahead.** Whose hands are not empty are given one more each in turn, as long as they take 2 ms together,
//!    128 at most.
//! 5. **To the absent.** Who has not seen yet that something was taken back may be stopped: it is given one of what
//!    is left, if it has none.
//!
//! What follows from 1 to 3, and is tested: no task that any of them may run waits for longer than 5 ms, and one
//! turn, while one of them has nothing to do all that time. A turn comes every millisecond while tasks are ahead.
//!
//! Times are arguments, in ms of the reactor's clock.

use super::{
    hand::{AHEAD, Hand},
    link::Link,
    places::Place,
    tasks::{Desk, State},
};
use crate::{
    control::Role as Kind,
    id::ConnId,
    wire::event::{DETACHED, EventHeader, EventKind},
};

impl Desk {
    /// Takes back what task workers keep waiting. `places` are those of the task workers.
    pub(super) fn look_after(&mut self, places: &[Place], links: &mut [Option<Link>], now: u64) {
        if !self.is_ahead() {
            return;
        }
        let mut holders = places
            .iter()
            .filter_map(|place| links[place.current?].as_ref());
        let somebody_idles = holders.any(|link| link.hand.is_empty());
        for link in links.iter_mut().flatten() {
            let for_any = |id| self.task(id).is_some_and(|task| task.is_for_any());
            let kept = somebody_idles && link.hand.left_waiting(now).any(for_any);
            if kept || link.hand.is_held_up(now) {
                self.recall(link);
            }
        }
    }

    /// Gives waiting tasks to task workers. `false`: nothing has changed since the last time.
    pub(super) fn assign(
        &mut self,
        places: &[Place],
        links: &mut [Option<Link>],
        now: u64,
    ) -> bool {
        if !std::mem::take(&mut self.due) {
            return false;
        }
        self.hand_to_each(places, links, now, |hand| !hand.is_empty());
        self.hand_to_each(places, links, now, |hand| {
            hand.is_empty() && !hand.is_absent()
        });
        self.hand_ahead(places, links, now);
        self.hand_to_each(places, links, now, |hand| hand.is_empty());
        true
    }

    /// Takes back what a task worker has ahead, and is not about to begin.
    pub(super) fn recall(&mut self, link: &mut Link) {
        if link.kind != Kind::TaskWorker {
            return;
        }
        for (header, data) in link.recall() {
            // One that has ended meanwhile is forgotten.
            if let Some(task) = self.task_mut(header.aux) {
                task.taken_back = true;
                self.put_back(header.aux, None, data);
            }
        }
        self.due = true;
    }

    /// A task worker is done with a task, and goes on with the next that it has.
    pub(super) fn handed_back(&mut self, link: &mut Link, id: u64, took: u16) {
        self.due = true;
        if let Some(next) = link.hand.done(id, took) {
            self.set_state(next, State::Running);
        }
    }

    /// To each of these one task if it has none, and what goes along.
    fn hand_to_each(
        &mut self,
        places: &[Place],
        links: &mut [Option<Link>],
        now: u64,
        these: impl Fn(&Hand) -> bool,
    ) {
        for (task_worker, place) in places.iter().enumerate() {
            let link = place.current.and_then(|index| links[index].as_mut());
            let Some(link) = link.filter(|link| these(&link.hand)) else {
                continue;
            };
            let mut takes = link.hand.is_empty();
            while (takes || self.goes_along(task_worker, link)) && self.hand(task_worker, link, now)
            {
                takes = false;
            }
        }
    }

    /// To those that are at work, one each in turn.
    fn hand_ahead(&mut self, places: &[Place], links: &mut [Option<Link>], now: u64) {
        for count in 1..AHEAD {
            if self.queued() == 0 {
                break;
            }
            let mut goes_on = false;
            for (task_worker, place) in places.iter().enumerate() {
                let Some(link) = place.current.and_then(|index| links[index].as_mut()) else {
                    continue;
                };
                goes_on |= link.hand.len() > count;
                if link.hand.len() == count && link.hand.takes_more() {
                    goes_on |= self.hand(task_worker, link, now);
                }
            }
            if !goes_on {
                break;
            }
        }
    }

    /// Whether the next task goes along with those that a task worker is about to begin.
    fn goes_along(&mut self, task_worker: usize, link: &Link) -> bool {
        link.hand.takes_along()
            && self
                .next_for(task_worker)
                .is_some_and(|task| !task.taken_back)
    }

    /// Hands the next task to a task worker. `false`: there is none for it, or no room.
    fn hand(&mut self, task_worker: usize, link: &mut Link, now: u64) -> bool {
        let is_first = link.hand.is_empty();
        // What lies in the arena would have to stay there until it was read.
        let most = match is_first {
            true => usize::MAX,
            false => link.inline_limit(),
        };
        let Some((id, data)) = self.dequeue(task_worker, most) else {
            return false;
        };
        let Some(task) = self.task(id) else {
            return false;
        };
        let header = EventHeader {
            flags: if task.is_detached() { DETACHED } else { 0 },
            origin: task.from.0,
            attempts: task.attempts,
            aux: id,
            ..EventHeader::new(EventKind::Task, ConnId::from_u64(0))
        };
        match link.push(header, &[&data]) {
            Ok(seq) => {
                link.hand.push(seq, id, now);
                if !is_first {
                    self.set_state(id, State::Ahead(link.incarnation));
                }
                true
            }
            Err(_) => {
                // There is room when it has read something.
                self.put_back(id, None, data);
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::{HashMap, VecDeque},
        sync::Arc,
    };

    use gannet_shm::{Consumer, Region};
    use rustix::event::{EventfdFlags, eventfd};

    use super::*;
    use crate::{
        claim::Claim,
        id::WorkerId,
        layout::{CONTROL_KIND, Dimensions, WORKER_KIND},
        master::{hand::PATIENCE, link::Attachment, tasks::NewTask},
        settings::Settings,
        wire::{HEADER, command::TASK_TIME},
    };

    /// A desk and its task workers, with real rings and claims, and a clock that goes when it is told.
    struct Office {
        desk: Desk,
        places: Vec<Place>,
        links: Vec<Option<Link>>,
        clerks: Vec<Clerk>,
        /// Microseconds.
        now: u64,
        /// When those came that nobody has begun.
        came: HashMap<u64, u64>,
        /// By task: who has begun it.
        began: HashMap<u64, usize>,
        /// In the order in which they were begun.
        order: Vec<u64>,
        /// By task worker: since when it has had nothing.
        idle_since: Vec<Option<u64>>,
    }

    /// The other end: a task worker, whose tasks take the time that they name.
    struct Clerk {
        events: Consumer,
        claim: Claim,
        recalled: u64,
        /// Handed over and not begun: event, task, how long.
        hand: VecDeque<(u64, u64, u64)>,
        /// Event, task, how long, until when.
        running: Option<(u64, u64, u64, u64)>,
        /// What it was given since the beginning.
        given: usize,
    }

    impl Office {
        fn with(task_workers: usize) -> Self {
            let settings = Settings {
                workers: 0,
                task_workers,
                ..Settings::default()
            };
            let dimensions = Dimensions::SMALLEST;
            let control =
                Region::create("control", CONTROL_KIND, dimensions.control_len()).unwrap();
            let mut office = Office {
                desk: Desk::new(control, dimensions, &settings),
                places: Vec::new(),
                links: Vec::new(),
                clerks: Vec::new(),
                now: 1_000_000,
                came: HashMap::new(),
                began: HashMap::new(),
                order: Vec::new(),
                idle_since: vec![Some(0); task_workers],
            };
            for place in 0..task_workers {
                let region =
                    Region::create("worker", WORKER_KIND, dimensions.worker_len()).unwrap();
                let attachment = Attachment {
                    worker: WorkerId(place as u16),
                    kind: Kind::TaskWorker,
                    incarnation: 1 + place as u64,
                    region: region.clone(),
                    bell: eventfd(0, EventfdFlags::CLOEXEC).unwrap(),
                };
                let link = Link::attach(0, dimensions, attachment, None, 1 << 20, Arc::default());
                office.links.push(Some(link));
                let mut holder = Place::default();
                holder.current = Some(place);
                office.places.push(holder);
                office.clerks.push(Clerk {
                    events: Consumer::attach(region.clone(), dimensions.event_ring(0)),
                    claim: Claim::attach(region, dimensions),
                    recalled: 0,
                    hand: Default::default(),
                    running: None,
                    given: 0,
                });
            }
            office
        }

        /// So many tasks come, each of which takes so many microseconds. Returns their numbers.
        fn submit(&mut self, target: u16, count: usize, takes: u64) -> Vec<u64> {
            let submit = |_| {
                let id = self.desk.next_id();
                let task = NewTask {
                    from: WorkerId(9),
                    incarnation: 99,
                    token: None,
                    deadline: 0,
                };
                assert!(
                    self.desk
                        .submit(id, target, task, takes.to_le_bytes().to_vec())
                );
                self.came.insert(id, self.now);
                id
            };
            let ids = (0..count).map(submit).collect();
            self.turn();
            ids
        }

        /// All task workers know that tasks are short.
        fn get_used_to_short_tasks(&mut self) {
            for target in 0..self.clerks.len() as u16 {
                self.submit(target, 200, SHORT);
            }
            self.go_on_until_all_is_done();
            self.clerks.iter_mut().for_each(|clerk| clerk.given = 0);
        }

        fn go_on_until_all_is_done(&mut self) {
            let end = self.now + 60_000_000;
            while !self.desk.is_empty() {
                assert!(self.now < end, "{} tasks are left", self.desk.waiting());
                self.go_on(STEP);
            }
        }

        /// Time goes by.
        fn go_on(&mut self, micros: u64) {
            let end = self.now + micros;
            while self.now < end {
                let until = self.now + STEP;
                let mut somebody_is_done = false;
                for place in 0..self.clerks.len() {
                    for (seq, task, took) in self.work(place, until) {
                        let link = self.links[place].as_mut().unwrap();
                        let took = (took * 1_000 / TASK_TIME).min(u64::from(u16::MAX));
                        self.desk.handed_back(link, task, took as u16);
                        link.finish(seq);
                        self.desk.end(task);
                        somebody_is_done |= link.hand.is_empty();
                    }
                }
                self.now = until;
                // Who has more to do does not ring for each result, but the reactor looks every millisecond.
                if somebody_is_done || self.now.is_multiple_of(1_000) {
                    self.turn();
                }
                self.check_that_nobody_is_kept_waiting();
            }
        }

        /// What a task worker has done by then.
        fn work(&mut self, place: usize, until: u64) -> Vec<(u64, u64, u64)> {
            let clerk = &mut self.clerks[place];
            while let Some(record) = clerk.events.next() {
                let header: [u8; HEADER] = record.array(0).unwrap();
                let header = EventHeader::decode(&header).unwrap();
                let takes = u64::from_le_bytes(record.array(HEADER).unwrap());
                clerk.hand.push_back((header.seq, header.aux, takes));
                clerk.given += 1;
            }
            clerk.events.commit();
            let (mut time, mut done) = (self.now, Vec::new());
            loop {
                if let Some((seq, task, takes, end)) = clerk.running {
                    if end > until {
                        return done;
                    }
                    time = end;
                    clerk.running = None;
                    done.push((seq, task, takes));
                }
                let Some((seq, task, takes)) = clerk.hand.pop_front() else {
                    return done;
                };
                if clerk.claim.begin(seq, &mut clerk.recalled) {
                    assert_eq!(self.began.insert(task, place), None, "it ran twice");
                    self.came.remove(&task);
                    self.order.push(task);
                    clerk.running = Some((seq, task, takes, time + takes));
                }
            }
        }

        /// The end of a turn of the reactor.
        fn turn(&mut self) {
            let now = self.now / 1_000;
            self.desk.look_after(&self.places, &mut self.links, now);
            self.desk.assign(&self.places, &mut self.links, now);
            for (place, link) in self.links.iter_mut().flatten().enumerate() {
                link.publish();
                let since = self.idle_since[place].unwrap_or(self.now);
                self.idle_since[place] = link.hand.is_empty().then_some(since);
            }
        }

        /// What the module promises, at any time.
        fn check_that_nobody_is_kept_waiting(&self) {
            let Some(idle_since) = self.idle_since.iter().flatten().min() else {
                return;
            };
            for (id, came) in &self.came {
                if self.desk.task(*id).is_some_and(|task| task.is_for_any()) {
                    let both = self.now - came.max(idle_since);
                    assert!(
                        both <= (PATIENCE + 2) * 1_000,
                        "task {id} has waited for {both} us beside an idle task worker"
                    );
                }
            }
        }

        fn woken(&self) -> usize {
            self.clerks.iter().filter(|clerk| clerk.given > 0).count()
        }
    }

    #[test]
    fn a_burst_of_short_tasks_wakes_one() {
        let mut office = Office::with(3);
        office.get_used_to_short_tasks();
        let ids = office.submit(u16::MAX, 50, SHORT);
        office.go_on_until_all_is_done();
        assert_eq!(office.woken(), 1);
        assert!(office.order.ends_with(&ids), "in their order");
        // More than is done in 0.1 ms wakes more.
        office.submit(u16::MAX, 100, SHORT);
        office.go_on_until_all_is_done();
        assert_eq!(office.woken(), 2);
    }

    #[test]
    fn more_go_along_with_what_is_about_to_begin() {
        let mut office = Office::with(2);
        office.get_used_to_short_tasks();
        for _ in 0..20 {
            office.submit(u16::MAX, 1, SHORT);
        }
        office.go_on(STEP);
        assert_eq!((office.woken(), office.clerks[0].given), (1, 20));
    }

    #[test]
    fn long_tasks_go_to_all_that_have_nothing() {
        let mut office = Office::with(4);
        // Nothing is known of them yet.
        let began = office.now;
        office.submit(u16::MAX, 4, 10_000);
        office.go_on_until_all_is_done();
        assert_eq!(office.woken(), 4);
        assert!(office.now - began <= 10_000 + STEP);
        // Now it is known that they are long.
        for count in [4, 40] {
            let began = office.now;
            office.submit(u16::MAX, count, 10_000);
            office.go_on_until_all_is_done();
            let rounds = count as u64 / 4;
            assert!(office.now - began <= rounds * (10_000 + STEP), "{count}");
        }
    }

    #[test]
    fn what_lies_behind_a_task_that_takes_its_time_goes_to_another() {
        let mut office = Office::with(2);
        office.get_used_to_short_tasks();
        let began = office.now;
        let long = office.submit(u16::MAX, 1, 50_000);
        let short = office.submit(u16::MAX, 49, SHORT);
        office.go_on(STEP);
        assert_eq!(office.woken(), 1, "they were expected to be short");
        office.go_on((PATIENCE + 1) * 1_000);
        assert_eq!(office.woken(), 2);
        assert!(short.iter().all(|id| office.began.get(id) == Some(&1)));
        assert_eq!(office.began.get(&long[0]), Some(&0));
        office.go_on_until_all_is_done();
        assert!(office.now - began <= 50_000 + STEP);
    }

    #[test]
    fn what_lies_behind_a_long_task_comes_in_its_turn_at_one_that_is_never_idle() {
        let mut office = Office::with(2);
        office.get_used_to_short_tasks();
        office.submit(1, 30, 1_000);
        office.go_on_until_all_is_done();
        office.submit(0, 1, 1_000_000);
        office.submit(1, 1, 1_000);
        office.go_on(STEP);
        let short = office.submit(u16::MAX, 5, SHORT);
        assert!(
            office.links[0]
                .as_ref()
                .is_some_and(|link| link.hand.len() > 1)
        );
        office.submit(1, 100, 1_000);
        office.go_on(20_000);
        assert!(short.iter().all(|id| office.began.get(id) == Some(&1)));
    }

    #[test]
    fn short_tasks_that_turn_out_to_be_long_go_to_all() {
        for takes in [100, 1_000, 4_900, 5_100, 20_000] {
            let mut office = Office::with(4);
            office.get_used_to_short_tasks();
            let began = office.now;
            office.submit(u16::MAX, 60, takes);
            office.go_on_until_all_is_done();
            let best = 60 * takes / 4;
            let took = office.now - began;
            assert!(
                took <= best + best / 4 + 4 * PATIENCE * 1_000,
                "{takes}: {took}"
            );
        }
    }

    #[test]
    fn all_that_are_at_work_have_something_ahead_but_not_for_long() {
        let mut office = Office::with(2);
        office.get_used_to_short_tasks();
        office.submit(0, 1, 3_000);
        office.submit(1, 1, 3_000);
        office.go_on(STEP);
        office.submit(u16::MAX, 10, SHORT);
        let ahead =
            |office: &Office, place: usize| office.links[place].as_ref().unwrap().hand.len();
        assert_eq!([ahead(&office, 0), ahead(&office, 1)], [6, 6]);
        office.go_on_until_all_is_done();
        // When it is known that a task takes 1 ms, there is one ahead of the two that are done in 2 ms.
        office.submit(u16::MAX, 100, 1_000);
        office.go_on(30_000);
        assert_eq!([ahead(&office, 0), ahead(&office, 1)], [2, 2]);
    }

    #[test]
    fn what_is_meant_for_one_stays_with_it_in_order() {
        let mut office = Office::with(3);
        office.get_used_to_short_tasks();
        let mine = office.submit(1, 40, 4_000);
        office.go_on_until_all_is_done();
        assert!(mine.iter().all(|id| office.began[id] == 1));
        assert!(office.order.ends_with(&mine));
        assert_eq!(office.woken(), 1);
    }

    #[test]
    fn a_task_worker_that_does_not_begin_loses_what_it_was_given() {
        let mut office = Office::with(2);
        office.get_used_to_short_tasks();
        let ids = office.submit(u16::MAX, 10, SHORT);
        // As if it were stopped: it does not even read.
        let first = office.clerks.remove(0);
        for _ in 0..=PATIENCE + 1 {
            office.now += 1_000;
            office.turn();
        }
        office.clerks.insert(0, first);
        office.work(1, office.now + STEP);
        assert!(ids.iter().all(|id| office.began.get(id) == Some(&1)));
        office.go_on(STEP);
        assert_eq!(office.clerks[0].given, 10, "it reads them");
        assert!(office.order.ends_with(&ids), "and has begun none");
    }

    /// The check of every step is the test.
    #[test]
    fn nobody_is_kept_waiting_while_somebody_has_nothing_to_do() {
        let mut random = 7_u64;
        let mut draw = |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below
        };
        for task_workers in 1..=4 {
            let mut office = Office::with(task_workers);
            let mut submitted = 0;
            for _ in 0..300 {
                let target = match draw(4) {
                    0 => draw(task_workers as u64) as u16,
                    _ => u16::MAX,
                };
                let takes = [1, 10, 100, 1_000, 4_500, 8_000][draw(6) as usize];
                let most = [1, 5, 60][draw(3) as usize];
                let count = 1 + draw(most);
                let ids = office.submit(target, count as usize, 1 + draw(takes));
                submitted += ids.len();
                office.go_on(STEP * (1 + draw(200)));
            }
            office.go_on_until_all_is_done();
            assert_eq!(office.began.len(), submitted, "each has run");
        }
    }

    /// The clock goes in such steps (microseconds).
    const STEP: u64 = 50;
    /// 50 such tasks are done in 0.1 ms, and 100 are not.
    const SHORT: u64 = 2;
}

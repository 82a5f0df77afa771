//! The tasks of the server, and the queues in which they wait. What comes of them stands in `desk`, who is
//! given which in `handing`.
//!
//! | state | where | goes on to |
//! |---|---|---|
//! | **queued** | in a queue | running: a task worker has nothing else; ahead: all are at work |
//! | **ahead** | in the ring of a task worker, behind the one that it runs | running: it was begun; queued: it was taken back |
//! | **running** | at a task worker | queued: that died |
//!
//! From all of them it ends, when its time is up or (awaited tasks) its submitter is gone. Queues are in
//! the order in which the tasks came: what goes back takes its old place.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasherDefault, Hasher},
    sync::Arc,
};

use gannet_shm::Region;

use crate::{
    admission::Admission, id::WorkerId, layout::Dimensions, settings::Settings,
    wire::event::TaskFailure,
};

/// The tasks of the server.
pub(super) struct Desk {
    tasks: HashMap<u64, Task, ByNumber>,
    /// Awaited tasks by the token of who awaits them.
    tokens: HashMap<u64, u64, ByNumber>,
    /// The shared queue, then one for each task worker: when they came, and their numbers.
    queues: Vec<VecDeque<(u64, u64)>>,
    /// Tasks that have come.
    came: u64,
    /// Tasks in queues.
    queued: usize,
    /// Tasks ahead.
    ahead: usize,
    /// Bytes of both.
    waiting_bytes: usize,
    /// There may be tasks for task workers.
    pub(super) due: bool,
    admission: Admission,
    /// What was last said.
    crowded: bool,
    max_waiting: usize,
    max_bytes: usize,
    first_place: usize,
}

pub(super) struct Task {
    pub(super) from: WorkerId,
    pub(super) incarnation: u64,
    /// Of who awaits it; detached tasks have none.
    pub(super) token: Option<u64>,
    /// ms; 0: none.
    pub(super) deadline: u64,
    pub(super) attempts: u8,
    /// It was taken back from a task worker that kept it waiting.
    pub(super) taken_back: bool,
    queue: usize,
    came: u64,
    state: State,
    len: usize,
}

pub(super) enum State {
    Queued(Vec<u8>),
    /// In the hand of the task worker of this incarnation.
    Ahead(u64),
    Running,
}

/// A task that is over.
pub(super) struct Ended {
    pub(super) task: Task,
    /// Who may still begin it.
    pub(super) ahead_at: Option<u64>,
}

impl Desk {
    pub(super) fn new(control: Arc<Region>, dimensions: Dimensions, settings: &Settings) -> Self {
        let admission = Admission::attach(control, dimensions, settings);
        admission.set_crowded(false);
        Desk {
            tasks: HashMap::default(),
            tokens: HashMap::default(),
            queues: vec![VecDeque::new(); 1 + settings.task_workers],
            came: 0,
            queued: 0,
            ahead: 0,
            waiting_bytes: 0,
            due: false,
            admission,
            crowded: false,
            max_waiting: settings.task_queue,
            max_bytes: settings.task_queue_bytes,
            first_place: settings.workers,
        }
    }

    /// No task waits or runs.
    pub(super) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Task workers are at work, and have more to do: they are looked at soon.
    pub(super) fn is_ahead(&self) -> bool {
        self.ahead > 0
    }

    /// Tasks in queues.
    pub(super) fn queued(&self) -> usize {
        self.queued
    }

    /// Tasks that no task worker has begun.
    pub(super) fn waiting(&self) -> usize {
        self.queued + self.ahead
    }

    /// The places of the task workers.
    pub(super) fn places(&self) -> std::ops::Range<usize> {
        self.first_place..self.first_place + self.queues.len() - 1
    }

    pub(super) fn task(&self, id: u64) -> Option<&Task> {
        self.tasks.get(&id)
    }

    pub(super) fn task_mut(&mut self, id: u64) -> Option<&mut Task> {
        self.tasks.get_mut(&id)
    }

    /// Tasks of which this is true.
    pub(super) fn all(&self, which: impl Fn(&Task) -> bool) -> Vec<u64> {
        let tasks = self.tasks.iter().filter(|(_, task)| which(task));
        tasks.map(|(&id, _)| id).collect()
    }

    /// Why a task cannot be done, and what belongs to that. `target`: its task worker, or `u16::MAX`.
    pub(super) fn objection(&self, target: u16) -> Option<(TaskFailure, Vec<u8>)> {
        let task_workers = self.queues.len() - 1;
        if task_workers == 0 {
            Some((TaskFailure::NoTaskWorkers, Vec::new()))
        } else if target != u16::MAX && usize::from(target) >= task_workers {
            Some((TaskFailure::NoSuchWorker, target.to_le_bytes().to_vec()))
        } else {
            None
        }
    }

    /// Why there is no room for a task of so many bytes.
    pub(super) fn shortage(&self, len: usize) -> Option<(TaskFailure, Vec<u8>)> {
        let full = self.waiting() >= self.max_waiting || self.waiting_bytes + len > self.max_bytes;
        let limit = (self.max_waiting as u64).to_le_bytes();
        full.then(|| (TaskFailure::QueueFull, limit.to_vec()))
    }

    /// The number of a new task.
    pub(super) fn next_id(&self) -> u64 {
        self.admission.next_task()
    }

    /// Takes a task in, for the task worker `target` or (`u16::MAX`) any. `false`: there is one with this
    /// number.
    pub(super) fn submit(&mut self, id: u64, target: u16, task: NewTask, data: Vec<u8>) -> bool {
        if self.tasks.contains_key(&id) {
            return false;
        }
        let NewTask {
            from,
            incarnation,
            token,
            deadline,
        } = task;
        if let Some(token) = token {
            self.tokens.insert(token, id);
        }
        self.came += 1;
        let queue = match target {
            u16::MAX => 0,
            target => 1 + usize::from(target),
        };
        self.queues[queue].push_back((self.came, id));
        let len = data.len();
        self.queued += 1;
        self.waiting_bytes += len;
        let task = Task {
            from,
            incarnation,
            token,
            deadline,
            attempts: 0,
            taken_back: false,
            queue,
            came: self.came,
            state: State::Queued(data),
            len,
        };
        self.tasks.insert(id, task);
        self.due = true;
        self.look_at_room();
        true
    }

    /// Moves a task on, and counts it where it is then.
    pub(super) fn set_state(&mut self, id: u64, state: State) -> Option<State> {
        let task = self.tasks.get_mut(&id)?;
        let len = task.len;
        let before = std::mem::replace(&mut task.state, state);
        let after = &task.state;
        self.queued += usize::from(after.is_queued());
        self.queued -= usize::from(before.is_queued());
        self.ahead += usize::from(after.is_ahead());
        self.ahead -= usize::from(before.is_ahead());
        self.waiting_bytes += if after.is_waiting() { len } else { 0 };
        self.waiting_bytes -= if before.is_waiting() { len } else { 0 };
        self.look_at_room();
        Some(before)
    }

    /// Puts a task back where it belongs in its queue, after so many attempts if that is known.
    pub(super) fn put_back(&mut self, id: u64, attempts: Option<u8>, data: Vec<u8>) {
        let Some(task) = self.tasks.get_mut(&id) else {
            return;
        };
        task.attempts = attempts.unwrap_or(task.attempts);
        let came = task.came;
        let queue = &mut self.queues[task.queue];
        let place = queue.partition_point(|&(other, _)| other < came);
        queue.insert(place, (came, id));
        self.set_state(id, State::Queued(data));
        self.due = true;
    }

    /// Takes the next task for a task worker out of its queue, if it is no longer than `most`.
    pub(super) fn dequeue(&mut self, task_worker: usize, most: usize) -> Option<(u64, Vec<u8>)> {
        let (queue, id) = self.front(task_worker)?;
        if self.task(id)?.len > most {
            return None;
        }
        self.queues[queue].pop_front();
        match self.set_state(id, State::Running)? {
            State::Queued(data) => Some((id, data)),
            _ => None,
        }
    }

    /// The next task for a task worker.
    pub(super) fn next_for(&mut self, task_worker: usize) -> Option<&Task> {
        let (_, id) = self.front(task_worker)?;
        self.task(id)
    }

    /// The queue that is a task worker's next, and the task in front.
    fn front(&mut self, task_worker: usize) -> Option<(usize, u64)> {
        loop {
            let came = |queue: &VecDeque<(u64, u64)>| queue.front().map(|&(came, _)| came);
            let (own, shared) = (&self.queues[1 + task_worker], &self.queues[0]);
            let own_first =
                came(own).is_some_and(|own| came(shared).is_none_or(|shared| own < shared));
            let queue = if own_first { 1 + task_worker } else { 0 };
            let &(_, id) = self.queues[queue].front()?;
            if self.tasks.contains_key(&id) {
                return Some((queue, id));
            }
            // It was cancelled while it waited.
            self.queues[queue].pop_front();
        }
    }

    /// Forgets a task. One that is ahead has to be recalled.
    pub(super) fn end(&mut self, id: u64) -> Option<Ended> {
        let before = self.set_state(id, State::Running)?;
        let task = self.tasks.remove(&id)?;
        if let Some(token) = task.token {
            self.tokens.remove(&token);
        }
        if before.is_queued() {
            // Its number stays in the queue; with a busy task worker that could be for long.
            let queue = &mut self.queues[task.queue];
            if queue.len() > 2 * self.queued + SPARE_NUMBERS {
                queue.retain(|(_, id)| self.tasks.contains_key(id));
            }
        }
        let ahead_at = match before {
            State::Ahead(incarnation) => Some(incarnation),
            _ => None,
        };
        Some(Ended { task, ahead_at })
    }

    /// As [`Desk::end`], by the token of who awaits it.
    pub(super) fn cancel(&mut self, token: u64) -> Option<Ended> {
        let id = self.tokens.remove(&token)?;
        self.end(id)
    }

    /// Says whether submitters are to ask first, when that has changed.
    fn look_at_room(&mut self) {
        let crowded =
            2 * self.waiting() > self.max_waiting || 2 * self.waiting_bytes > self.max_bytes;
        if crowded != self.crowded {
            self.crowded = crowded;
            self.admission.set_crowded(crowded);
        }
    }
}

/// What is known of a task that comes.
pub(super) struct NewTask {
    pub(super) from: WorkerId,
    pub(super) incarnation: u64,
    pub(super) token: Option<u64>,
    pub(super) deadline: u64,
}

impl Task {
    pub(super) fn is_detached(&self) -> bool {
        self.token.is_none()
    }

    /// Any task worker may run it.
    pub(super) fn is_for_any(&self) -> bool {
        self.queue == 0
    }
}

impl State {
    fn is_queued(&self) -> bool {
        matches!(self, State::Queued(_))
    }

    fn is_ahead(&self) -> bool {
        matches!(self, State::Ahead(_))
    }

    fn is_waiting(&self) -> bool {
        !matches!(self, State::Running)
    }
}

/// For numbers that the server itself has given: they need no protection against who would choose them.
#[derive(Default)]
pub(super) struct NumberHasher(u64);

type ByNumber = BuildHasherDefault<NumberHasher>;

impl Hasher for NumberHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(self.0 ^ u64::from(byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        // Tables look at the highest and at the lowest bits.
        let spread = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = spread ^ (spread >> 32);
    }
}

/// Numbers of tasks that have ended which a queue may hold, beside as many as wait.
const SPARE_NUMBERS: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::CONTROL_KIND;

    fn desk(task_queue: usize, task_queue_bytes: usize) -> (Desk, Admission) {
        let settings = Settings {
            task_workers: 2,
            task_queue,
            task_queue_bytes,
            ..Settings::default()
        };
        let region =
            Region::create("control", CONTROL_KIND, Dimensions::SMALLEST.control_len()).unwrap();
        let desk = Desk::new(region.clone(), Dimensions::SMALLEST, &settings);
        (
            desk,
            Admission::attach(region, Dimensions::SMALLEST, &settings),
        )
    }

    fn submit(desk: &mut Desk, target: u16, len: usize) -> u64 {
        let (id, task) = (
            desk.next_id(),
            NewTask {
                from: WorkerId(0),
                incarnation: 1,
                token: None,
                deadline: 0,
            },
        );
        assert!(desk.submit(id, target, task, vec![0; len]));
        id
    }

    #[test]
    fn it_is_crowded_while_half_of_the_tasks_or_bytes_wait() {
        let (mut desk, admission) = desk(100, 1_000);
        let ids: Vec<u64> = (0..50).map(|_| submit(&mut desk, u16::MAX, 1)).collect();
        assert!(!admission.is_crowded());
        submit(&mut desk, u16::MAX, 1);
        assert!(admission.is_crowded());
        assert_eq!(desk.dequeue(0, 1).map(|(id, _)| id), Some(ids[0]));
        assert!(!admission.is_crowded(), "what runs does not wait");
        desk.set_state(ids[0], State::Ahead(1));
        assert!(admission.is_crowded(), "what is ahead does");
        desk.put_back(ids[0], None, vec![0]);
        assert!(admission.is_crowded());
        ids.iter().for_each(|&id| drop(desk.end(id)));
        assert!(!admission.is_crowded());
        submit(&mut desk, u16::MAX, 500);
        assert!(admission.is_crowded(), "501 bytes");
    }

    #[test]
    fn what_goes_back_takes_its_old_place() {
        let (mut desk, _) = desk(100, 1_000);
        // Numbers are drawn by several submitters, and come in any order.
        let task = |token| NewTask {
            from: WorkerId(0),
            incarnation: 1,
            token,
            deadline: 0,
        };
        for id in [7, 3, 5] {
            assert!(desk.submit(id, u16::MAX, task(None), vec![id as u8]));
        }
        assert!(
            !desk.submit(3, u16::MAX, task(None), Vec::new()),
            "it is there"
        );
        let first = desk.dequeue(0, 9).unwrap();
        let second = desk.dequeue(1, 9).unwrap();
        assert_eq!((first.0, second.0), (7, 3));
        desk.put_back(second.0, Some(1), second.1);
        desk.put_back(first.0, None, first.1);
        let order: Vec<u64> = std::iter::from_fn(|| desk.dequeue(0, 9))
            .map(|(id, _)| id)
            .collect();
        assert_eq!(order, [7, 3, 5]);
        assert_eq!(desk.task(3).map(|task| task.attempts), Some(1));
    }

    #[test]
    fn a_task_for_one_task_worker_comes_in_its_turn() {
        let (mut desk, _) = desk(100, 1_000);
        let all = [submit(&mut desk, u16::MAX, 1), submit(&mut desk, 1, 1)];
        let last = submit(&mut desk, u16::MAX, 1);
        let mut next = |task_worker| desk.dequeue(task_worker, 9).map(|(id, _)| id);
        assert_eq!(
            [next(1), next(0), next(0)],
            [Some(all[0]), Some(last), None]
        );
        assert_eq!(next(1), Some(all[1]));
    }

    #[test]
    fn numbers_of_tasks_that_have_ended_do_not_pile_up() {
        let (mut desk, _) = desk(10_000, 1_000_000);
        for _ in 0..20_000 {
            let id = submit(&mut desk, u16::MAX, 1);
            assert!(desk.end(id).is_some());
            assert!(desk.queues[0].len() <= SPARE_NUMBERS + 1);
        }
        assert!(desk.is_empty());
        assert_eq!((desk.waiting(), desk.waiting_bytes), (0, 0));
    }
}

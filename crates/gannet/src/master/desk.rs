//! Tasks: from the workers that submit them to the task workers that run them, and back.
//!
//! The desk is at reactor 0. A task waits in the shared queue, or in that of the task worker it is
//! meant for, until that worker is free; a task worker runs one task at a time.
//!
//! | state | where | goes on to |
//! |---|---|---|
//! | **queued** | in a queue | running: a task worker has nothing else; ahead: all are at work |
//! | **ahead** | in the ring of a task worker, behind the one that it runs | running: it was begun; queued: it was taken back |
//! | **running** | at a task worker | queued: that died |
//!
//! From all of them it ends, when its time is up or (awaited tasks) its submitter is gone. Queues are in
//! the order of the numbers: what goes back takes its old place.
//!
//! Tasks are handed ahead so that short ones cost no switch between processes each. None of them is
//! kept for long from somebody who could begin it: a task worker gets as many as take it 2 ms, and if
//! it stays at one for 5 ms, all behind it are taken back (see `claim`), and no more come while it does. What is ahead counts
//! as waiting.
//!
//! Limits: `task_queue` tasks and `task_queue_bytes` bytes wait; beyond that a task is refused.

use std::collections::{HashMap, VecDeque};

use super::{hand::AHEAD, reactor::Reactor};
use crate::{
    control::Role as Kind,
    id::{ConnId, WorkerId},
    layout::ReactorCounter,
    settings::Settings,
    wire::{
        self, HEADER,
        command::{CommandHeader, DETACHED as SUBMIT_DETACHED, FAILED as TASK_FAILED},
        event::{DETACHED, EventHeader, EventKind, FAILED, TaskFailure},
    },
};

/// The tasks of the server.
pub(super) struct Desk {
    last_id: u64,
    tasks: HashMap<u64, Task>,
    /// Awaited tasks by the token of who awaits them.
    tokens: HashMap<u64, u64>,
    /// The shared queue, then one for each task worker.
    queues: Vec<VecDeque<u64>>,
    /// Tasks in queues.
    queued: usize,
    /// Tasks ahead.
    ahead: usize,
    /// Bytes of both.
    waiting_bytes: usize,
    /// There may be tasks for task workers.
    due: bool,
    max_waiting: usize,
    max_bytes: usize,
    first_place: usize,
}

struct Task {
    from: WorkerId,
    incarnation: u64,
    token: u64,
    detached: bool,
    queue: usize,
    state: State,
    len: usize,
    attempts: u8,
    /// ms; 0: none.
    deadline: u64,
}

enum State {
    Queued(Vec<u8>),
    /// In the hand of the task worker of this incarnation.
    Ahead(u64),
    Running,
}

/// A task that is over.
struct Ended {
    task: Task,
    /// Who may still begin it.
    ahead_at: Option<u64>,
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

impl Desk {
    /// A task worker may still be at a task of an earlier master: no number is given twice.
    pub(super) fn new(settings: &Settings, generation: u64) -> Self {
        Desk {
            last_id: generation << GENERATION_SHIFT,
            tasks: HashMap::new(),
            tokens: HashMap::new(),
            queues: vec![VecDeque::new(); 1 + settings.task_workers],
            queued: 0,
            ahead: 0,
            waiting_bytes: 0,
            due: false,
            max_waiting: settings.task_queue,
            max_bytes: settings.task_queue_bytes,
            first_place: settings.workers,
        }
    }

    /// No task waits or runs.
    pub(super) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    fn refusal(&self, target: u16, len: usize) -> Option<(TaskFailure, Vec<u8>)> {
        let task_workers = self.queues.len() - 1;
        if task_workers == 0 {
            Some((TaskFailure::NoTaskWorkers, Vec::new()))
        } else if target != u16::MAX && usize::from(target) >= task_workers {
            Some((TaskFailure::NoSuchWorker, target.to_le_bytes().to_vec()))
        } else if self.waiting() >= self.max_waiting || self.waiting_bytes + len > self.max_bytes {
            Some((
                TaskFailure::QueueFull,
                (self.max_waiting as u64).to_le_bytes().to_vec(),
            ))
        } else {
            None
        }
    }

    /// Task workers are at work, and have more to do: they are looked at soon.
    pub(super) fn is_ahead(&self) -> bool {
        self.ahead > 0
    }

    fn waiting(&self) -> usize {
        self.queued + self.ahead
    }

    /// Moves a task on, and counts it where it is then.
    fn set_state(&mut self, id: u64, state: State) -> Option<State> {
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
        Some(before)
    }

    /// Puts a task where it belongs in its queue.
    fn enqueue(&mut self, id: u64, data: Vec<u8>) {
        let Some(task) = self.tasks.get(&id) else {
            return;
        };
        let queue = &mut self.queues[task.queue];
        match queue.back() {
            Some(&last) if last > id => {
                let place = queue.partition_point(|&other| other < id);
                queue.insert(place, id);
            }
            _ => queue.push_back(id),
        }
        self.set_state(id, State::Queued(data));
        self.due = true;
    }

    /// Takes the next task for a task worker out of its queue, if it is no longer than `most`.
    fn dequeue(&mut self, task_worker: usize, most: usize) -> Option<(u64, Vec<u8>)> {
        loop {
            let own = self.queues[1 + task_worker].front();
            let shared = self.queues[0].front();
            let own = own.copied().unwrap_or(u64::MAX);
            let shared = shared.copied().unwrap_or(u64::MAX);
            let queue = if own < shared { 1 + task_worker } else { 0 };
            let id = *self.queues[queue].front()?;
            let task = self.tasks.get(&id);
            if task.is_some_and(|task| task.len > most) {
                return None;
            }
            self.queues[queue].pop_front();
            // What was cancelled while it waited is no longer among the tasks.
            if let Some(State::Queued(data)) = self.set_state(id, State::Running) {
                return Some((id, data));
            }
        }
    }

    /// Forgets a task. One that is ahead has to be recalled.
    fn end(&mut self, id: u64) -> Option<Ended> {
        let before = self.set_state(id, State::Running)?;
        let task = self.tasks.remove(&id)?;
        self.tokens.remove(&task.token);
        if before.is_queued() {
            // Its number stays in the queue; with a busy task worker that could be for long.
            let queue = &mut self.queues[task.queue];
            if queue.len() > 2 * self.queued + SPARE_NUMBERS {
                queue.retain(|id| self.tasks.contains_key(id));
            }
        }
        let ahead_at = match before {
            State::Ahead(incarnation) => Some(incarnation),
            _ => None,
        };
        Some(Ended { task, ahead_at })
    }
}

impl Reactor {
    pub(super) fn desk_submit(&mut self, index: usize, command: &CommandHeader, payload: &[u8]) {
        let now = self.clock.now;
        let Some(link) = self.links[index].as_ref() else {
            return;
        };
        let (from, incarnation) = (link.worker, link.incarnation);
        let Some(desk) = self.desk.as_mut() else {
            return;
        };
        let Some((timeout, data)) = payload.split_at_checked(4) else {
            return;
        };
        let timeout = u64::from(wire::u32_at(timeout, 0));
        let detached = command.has(SUBMIT_DETACHED);
        if let Some((failure, detail)) = desk.refusal(command.code, data.len()) {
            self.count(ReactorCounter::TasksRejected);
            let payload = [&[failure as u8], &detail[..]].concat();
            return self.post_to(
                incarnation,
                EventKind::TaskResult,
                FAILED,
                command.aux,
                &payload,
            );
        }
        desk.last_id += 1;
        let id = desk.last_id;
        let queue = match command.code {
            u16::MAX => 0,
            target => 1 + usize::from(target),
        };
        let task = Task {
            from,
            incarnation,
            token: command.aux,
            detached,
            queue,
            state: State::Running,
            len: data.len(),
            attempts: 0,
            deadline: if timeout == 0 { 0 } else { now + timeout },
        };
        desk.tasks.insert(id, task);
        if !detached {
            desk.tokens.insert(command.aux, id);
        }
        desk.enqueue(id, data.to_vec());
        self.count(ReactorCounter::TasksSubmitted);
        if detached {
            self.post_to(
                incarnation,
                EventKind::TaskAccepted,
                0,
                command.aux,
                &id.to_le_bytes(),
            );
        }
    }

    /// A task worker has finished a task.
    pub(super) fn desk_done(&mut self, index: usize, command: &CommandHeader, payload: &[u8]) {
        let (id, took, failed) = (command.aux, command.code, command.has(TASK_FAILED));
        if let Some(link) = self.links[index].as_mut() {
            let next = link.hand.done(id, took);
            if let Some(desk) = self.desk.as_mut() {
                desk.due = true;
                if let Some(next) = next {
                    desk.set_state(next, State::Running);
                }
            }
        }
        match failed {
            true => {
                let result = [&[TaskFailure::Failed as u8], payload].concat();
                self.desk_end(id, true, &result);
            }
            false => self.desk_end(id, false, payload),
        }
    }

    /// The submitter does not await the task any more.
    pub(super) fn desk_cancel(&mut self, _index: usize, token: u64) {
        if let Some(desk) = self.desk.as_mut()
            && let Some(id) = desk.tokens.remove(&token)
        {
            let ended = desk.end(id);
            self.desk_recall_from(ended.and_then(|ended| ended.ahead_at));
        }
    }

    /// A process that had submitted tasks is gone: nobody awaits their results.
    pub(super) fn desk_submitter_gone(&mut self, incarnation: u64) {
        let Some(desk) = self.desk.as_mut() else {
            return;
        };
        let gone: Vec<u64> = desk
            .tasks
            .iter()
            .filter(|(_, task)| !task.detached && task.incarnation == incarnation)
            .map(|(&id, _)| id)
            .collect();
        let ended: Vec<Ended> = gone.into_iter().filter_map(|id| desk.end(id)).collect();
        for ended in ended {
            self.desk_recall_from(ended.ahead_at);
        }
    }

    /// A task whose task worker died goes back to the front.
    pub(super) fn desk_take_back(&mut self, header: EventHeader, data: Vec<u8>) {
        self.count(ReactorCounter::Redelivered);
        if let Some(desk) = self.desk.as_mut()
            && let Some(task) = desk.tasks.get_mut(&header.aux)
        {
            task.attempts = header.attempts;
            desk.enqueue(header.aux, data);
        }
    }

    /// A task has killed too many task workers.
    pub(super) fn desk_give_up(&mut self, header: EventHeader) {
        self.desk_end(
            header.aux,
            true,
            &[TaskFailure::Poisonous as u8, header.attempts],
        );
    }

    pub(super) fn desk_worker_ready(&mut self, index: usize) {
        let kind = self.links[index].as_ref().map(|link| link.kind);
        if let Some(desk) = self.desk.as_mut()
            && kind == Some(Kind::TaskWorker)
        {
            desk.due = true;
        }
    }

    /// Ends tasks whose time is up.
    pub(super) fn desk_deadlines(&mut self) {
        let now = self.clock.now;
        let Some(desk) = self.desk.as_ref() else {
            return;
        };
        let late: Vec<u64> = desk
            .tasks
            .iter()
            .filter(|(_, task)| task.deadline != 0 && now >= task.deadline)
            .map(|(&id, _)| id)
            .collect();
        for id in late {
            self.desk_end(id, true, &[TaskFailure::TimedOut as u8]);
        }
    }

    /// At the end of a turn: gives waiting tasks to task workers, first to those that have none.
    pub(super) fn desk_assign(&mut self) {
        self.desk_look_after();
        let now = self.clock.now;
        let Some(desk) = self.desk.as_mut().filter(|desk| desk.due) else {
            return;
        };
        desk.due = false;
        let places = desk.first_place..desk.first_place + desk.queues.len() - 1;
        let (places, links) = (&self.places[places], &mut self.links);
        for round in 0..AHEAD {
            if desk.queued == 0 {
                break;
            }
            let mut goes_on = false;
            for (task_worker, place) in places.iter().enumerate() {
                let Some(link) = place.current.and_then(|index| links[index].as_mut()) else {
                    continue;
                };
                let count = link.hand.len();
                goes_on |= count > round;
                if count != round || round > 0 && !link.hand.takes_more() {
                    continue;
                }
                // What lies in the arena would have to stay there until it was read.
                let most = if round == 0 {
                    usize::MAX
                } else {
                    link.inline_limit()
                };
                let Some((id, data)) = desk.dequeue(task_worker, most) else {
                    continue;
                };
                let Some(task) = desk.tasks.get(&id) else {
                    continue;
                };
                let header = EventHeader {
                    flags: if task.detached { DETACHED } else { 0 },
                    origin: task.from.0,
                    attempts: task.attempts,
                    aux: id,
                    ..EventHeader::new(EventKind::Task, ConnId::from_u64(0))
                };
                match link.push(header, &[&data]) {
                    Ok(seq) => {
                        link.hand.push(seq, id, now);
                        if round > 0 {
                            desk.set_state(id, State::Ahead(link.incarnation));
                        }
                        goes_on = true;
                    }
                    // There is room when it has read something.
                    Err(_) => desk.enqueue(id, data),
                }
            }
            if !goes_on {
                break;
            }
        }
        let waiting = desk.waiting();
        self.set(ReactorCounter::TasksQueued, waiting);
    }

    /// Takes back what a task worker has ahead, and is not about to begin.
    pub(super) fn desk_recall(&mut self, index: usize) {
        let Some(desk) = self.desk.as_mut() else {
            return;
        };
        let Some(link) = self.links[index].as_mut() else {
            return;
        };
        if link.kind != Kind::TaskWorker {
            return;
        }
        for (header, data) in link.recall() {
            // One that has ended meanwhile is forgotten.
            desk.enqueue(header.aux, data);
        }
        desk.due = true;
    }

    fn desk_recall_from(&mut self, incarnation: Option<u64>) {
        if let Some(index) = incarnation.and_then(|incarnation| self.link_of(incarnation)) {
            self.desk_recall(index);
        }
    }

    /// Takes back what waits behind a task that takes its time.
    fn desk_look_after(&mut self) {
        let now = self.clock.now;
        if !self.desk.as_ref().is_some_and(Desk::is_ahead) {
            return;
        }
        for index in 0..self.links.len() {
            let link = self.links[index].as_mut();
            if link.is_some_and(|link| link.hand.is_held_up(now)) {
                self.desk_recall(index);
            }
        }
    }

    /// Carries a message from one worker to another.
    pub(super) fn pipe(&mut self, index: usize, to: u16, payload: &[u8]) {
        if let Some(from) = self.links[index].as_ref().map(|link| link.worker) {
            self.pipe_from(from, to, payload);
        }
    }

    /// As [`Reactor::pipe`], in the name of a process that has no ring for it.
    pub(super) fn pipe_from(&mut self, from: WorkerId, to: u16, payload: &[u8]) {
        let header = EventHeader {
            origin: from.0,
            ..EventHeader::new(EventKind::Pipe, ConnId::from_u64(0))
        };
        self.post_to_place(usize::from(to), header, payload);
    }

    fn desk_end(&mut self, id: u64, failed: bool, result: &[u8]) {
        let ended = self.desk.as_mut().and_then(|desk| desk.end(id));
        let Some(Ended { task, ahead_at }) = ended else {
            return;
        };
        self.desk_recall_from(ahead_at);
        self.count(if failed {
            ReactorCounter::TasksFailed
        } else {
            ReactorCounter::TasksFinished
        });
        let flags = if failed { FAILED } else { 0 };
        if !task.detached {
            return self.post_to(
                task.incarnation,
                EventKind::TaskResult,
                flags,
                task.token,
                result,
            );
        }
        let header = EventHeader {
            flags,
            aux: id,
            ..EventHeader::new(EventKind::Finish, ConnId::from_u64(0))
        };
        self.post_to_place(usize::from(task.from.0), header, result);
    }

    /// Sends to one process, if it is still there.
    fn post_to(&mut self, incarnation: u64, kind: EventKind, flags: u8, aux: u64, payload: &[u8]) {
        let Some(index) = self.link_of(incarnation) else {
            return;
        };
        let Some(link) = self.links[index].as_mut() else {
            return;
        };
        let header = EventHeader {
            flags,
            aux,
            ..EventHeader::new(kind, ConnId::from_u64(0))
        };
        if !link.post(header, payload, false) {
            tracing::error!(worker = %link.worker, ?kind, "an event was dropped: too much waits");
            self.count(ReactorCounter::Dropped);
        }
    }

    /// Sends to whoever holds a place, now or later.
    fn post_to_place(&mut self, place: usize, header: EventHeader, payload: &[u8]) {
        let Some(target) = self.places.get_mut(place) else {
            tracing::error!(
                place,
                "there is no such worker: a message to it was dropped"
            );
            return self.count(ReactorCounter::Dropped);
        };
        let link = target.current.and_then(|index| self.links[index].as_mut());
        let posted = match link {
            Some(link) if target.backlog.is_empty() => link.post(header, payload, true),
            // What waits for a worker that does not come back has the same limit.
            _ if target.posted + HEADER + payload.len() > self.settings.max_parked => false,
            _ => {
                target.posted += HEADER + payload.len();
                target.backlog.push_back((header, payload.to_vec()));
                true
            }
        };
        if !posted {
            tracing::error!(place, kind = ?header.kind, "an event was dropped: too much waits");
            self.count(ReactorCounter::Dropped);
        }
    }
}

/// Tasks that one master may number, as a power of two: ids stay below 2^53 for 8,192 masters.
const GENERATION_SHIFT: u32 = 40;
/// Numbers of tasks that have ended which a queue may hold, beside as many as wait.
const SPARE_NUMBERS: usize = 1_024;

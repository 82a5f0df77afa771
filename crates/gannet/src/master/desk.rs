//! Tasks: from the workers that submit them to the task workers that run them, and back.
//!
//! The desk is at reactor 0. A task waits in the shared queue, or in that of the task worker it is
//! meant for, until that worker is free; a task worker has one task at a time. When it dies the task
//! goes back to the front. States: **queued** → **running** → ended; running → queued when its task
//! worker dies; from both to ended when its time is up or (awaited tasks) its submitter is gone.
//!
//! Limits: `task_queue` tasks and `task_queue_bytes` bytes wait; beyond that a task is refused.

use std::collections::{HashMap, VecDeque};

use super::reactor::Reactor;
use crate::{
    control::Role as Kind,
    id::{ConnId, WorkerId},
    layout::ReactorCounter,
    settings::Settings,
    wire::{
        self, HEADER,
        command::{CommandHeader, DETACHED as SUBMIT_DETACHED},
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
    waiting: usize,
    waiting_bytes: usize,
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
    /// `None` while a task worker has it.
    data: Option<Vec<u8>>,
    attempts: u8,
    /// ms; 0: none.
    deadline: u64,
}

impl Desk {
    /// A task worker may still be at a task of an earlier master: no number is given twice.
    pub(super) fn new(settings: &Settings, generation: u64) -> Self {
        Desk {
            last_id: generation << GENERATION_SHIFT,
            tasks: HashMap::new(),
            tokens: HashMap::new(),
            queues: vec![VecDeque::new(); 1 + settings.task_workers],
            waiting: 0,
            waiting_bytes: 0,
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
        } else if self.waiting >= self.max_waiting || self.waiting_bytes + len > self.max_bytes {
            Some((
                TaskFailure::QueueFull,
                (self.max_waiting as u64).to_le_bytes().to_vec(),
            ))
        } else {
            None
        }
    }

    fn enqueue(&mut self, id: u64, data: Vec<u8>, front: bool) {
        let Some(task) = self.tasks.get_mut(&id) else {
            return;
        };
        self.waiting += 1;
        self.waiting_bytes += data.len();
        task.data = Some(data);
        let queue = &mut self.queues[task.queue];
        if front {
            queue.push_front(id)
        } else {
            queue.push_back(id)
        }
    }

    /// Takes the next task for a task worker out of its queue.
    fn dequeue(&mut self, task_worker: usize) -> Option<(u64, Vec<u8>)> {
        loop {
            let own = self.queues[1 + task_worker]
                .front()
                .copied()
                .unwrap_or(u64::MAX);
            let shared = self.queues[0].front().copied().unwrap_or(u64::MAX);
            let queue = if own < shared { 1 + task_worker } else { 0 };
            let id = self.queues[queue].pop_front()?;
            // What was cancelled while it waited is no longer among the tasks.
            if let Some(data) = self.tasks.get_mut(&id).and_then(|task| task.data.take()) {
                self.waiting -= 1;
                self.waiting_bytes -= data.len();
                return Some((id, data));
            }
        }
    }

    fn end(&mut self, id: u64) -> Option<Task> {
        let task = self.tasks.remove(&id)?;
        self.tokens.remove(&task.token);
        if let Some(data) = &task.data {
            self.waiting -= 1;
            self.waiting_bytes -= data.len();
            // Its number stays in the queue; with a busy task worker that could be for long.
            let queue = &mut self.queues[task.queue];
            if queue.len() > 2 * self.waiting + SPARE_NUMBERS {
                queue.retain(|id| self.tasks.contains_key(id));
            }
        }
        Some(task)
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
            data: None,
            attempts: 0,
            deadline: if timeout == 0 { 0 } else { now + timeout },
        };
        desk.tasks.insert(id, task);
        if !detached {
            desk.tokens.insert(command.aux, id);
        }
        desk.enqueue(id, data.to_vec(), false);
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
        self.desk_assign();
    }

    /// A task worker has finished a task.
    pub(super) fn desk_done(&mut self, index: usize, id: u64, failed: bool, payload: &[u8]) {
        if let Some(link) = self.links[index].as_mut() {
            link.tasks = link.tasks.saturating_sub(1);
        }
        let result = match failed {
            true => [&[TaskFailure::Failed as u8], payload].concat(),
            false => payload.to_vec(),
        };
        self.desk_end(id, failed, &result);
        self.desk_assign();
    }

    /// The submitter does not await the task any more.
    pub(super) fn desk_cancel(&mut self, _index: usize, token: u64) {
        if let Some(desk) = self.desk.as_mut()
            && let Some(id) = desk.tokens.remove(&token)
        {
            desk.end(id);
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
        for id in gone {
            desk.end(id);
        }
    }

    /// A task whose task worker died goes back to the front.
    pub(super) fn desk_take_back(&mut self, header: EventHeader, data: Vec<u8>) {
        self.count(ReactorCounter::Redelivered);
        if let Some(desk) = self.desk.as_mut()
            && let Some(task) = desk.tasks.get_mut(&header.aux)
        {
            task.attempts = header.attempts;
            desk.enqueue(header.aux, data, true);
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
        if self.links[index]
            .as_ref()
            .is_some_and(|link| link.kind == Kind::TaskWorker)
        {
            self.desk_assign();
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
        self.desk_assign();
    }

    /// Gives waiting tasks to task workers that have none.
    pub(super) fn desk_assign(&mut self) {
        let Some(desk) = self.desk.as_mut() else {
            return;
        };
        let task_workers = desk.queues.len() - 1;
        for place in desk.first_place..desk.first_place + task_workers {
            let Some(link) = self.places[place]
                .current
                .and_then(|index| self.links[index].as_mut())
            else {
                continue;
            };
            if link.tasks > 0 {
                continue;
            }
            let Some((id, data)) = desk.dequeue(place - desk.first_place) else {
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
                Ok(()) => link.tasks += 1,
                Err(_) => desk.enqueue(id, data, true),
            }
        }
        let waiting = desk.waiting;
        self.set(ReactorCounter::TasksQueued, waiting);
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
        let Some(task) = self.desk.as_mut().and_then(|desk| desk.end(id)) else {
            return;
        };
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

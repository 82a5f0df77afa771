//! Tasks: from the workers that submit them to the task workers that run them, and back.
//!
//! The desk is at reactor 0. A task waits in the shared queue, or in that of the task worker it is
//! meant for, until that worker is free; a task worker runs one task at a time. Their states stand in `tasks`,
//! who is given which in `handing`.
//!
//! Limits: `task_queue` tasks and `task_queue_bytes` bytes wait; beyond that a task is refused. Detached ones
//! need not be asked for while there is room for sure (see `admission`).

use super::{
    reactor::Reactor,
    tasks::{Ended, NewTask},
};
use crate::{
    control::Role as Kind,
    id::{ConnId, WorkerId},
    layout::ReactorCounter,
    wire::{
        self, HEADER,
        command::{
            ADMITTED, CommandHeader, DETACHED as SUBMIT_DETACHED, EARLY, FAILED as TASK_FAILED,
        },
        event::{EventHeader, EventKind, FAILED, TaskFailure},
    },
};

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
        let (detached, admitted) = (command.has(SUBMIT_DETACHED), command.has(ADMITTED));
        let numbered = admitted || command.has(EARLY);
        let refusal = desk.objection(command.code).or_else(|| {
            // There is room for what was not asked for.
            if admitted {
                return None;
            }
            desk.shortage(data.len())
        });
        if let Some((failure, detail)) = refusal {
            self.count(ReactorCounter::TasksRejected);
            let payload = [&[failure as u8], &detail[..]].concat();
            if numbered {
                return self.desk_finish(from, command.aux, FAILED, &payload);
            }
            return self.post_to(
                incarnation,
                EventKind::TaskResult,
                FAILED,
                command.aux,
                &payload,
            );
        }
        let id = if numbered {
            command.aux
        } else {
            desk.next_id()
        };
        let task = NewTask {
            from,
            incarnation,
            token: (!detached).then_some(command.aux),
            deadline: if timeout == 0 { 0 } else { now + timeout },
        };
        if !desk.submit(id, command.code, task, data.to_vec()) {
            tracing::error!(worker = %from, task = id, "a task with the number of another was dropped");
            return self.count(ReactorCounter::Dropped);
        }
        self.count(ReactorCounter::TasksSubmitted);
        if detached && !numbered {
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
        if let (Some(link), Some(desk)) = (self.links[index].as_mut(), self.desk.as_mut()) {
            desk.handed_back(link, id, took);
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
        let ended = self.desk.as_mut().and_then(|desk| desk.cancel(token));
        self.desk_recall_from(ended.and_then(|ended| ended.ahead_at));
    }

    /// A process that had submitted tasks is gone: nobody awaits their results.
    pub(super) fn desk_submitter_gone(&mut self, incarnation: u64) {
        let Some(desk) = self.desk.as_mut() else {
            return;
        };
        let gone = desk.all(|task| !task.is_detached() && task.incarnation == incarnation);
        let ended: Vec<Ended> = gone.into_iter().filter_map(|id| desk.end(id)).collect();
        for ended in ended {
            self.desk_recall_from(ended.ahead_at);
        }
    }

    /// A task whose task worker died goes back to the front.
    pub(super) fn desk_take_back(&mut self, header: EventHeader, data: Vec<u8>) {
        self.count(ReactorCounter::Redelivered);
        if let Some(desk) = self.desk.as_mut() {
            desk.put_back(header.aux, Some(header.attempts), data);
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
        let late = desk.all(|task| task.deadline != 0 && now >= task.deadline);
        for id in late {
            self.desk_end(id, true, &[TaskFailure::TimedOut as u8]);
        }
    }

    /// At the end of a turn: gives waiting tasks to task workers.
    pub(super) fn desk_assign(&mut self) {
        let now = self.clock.now;
        let Some(desk) = self.desk.as_mut() else {
            return;
        };
        let places = &self.places[desk.places()];
        desk.look_after(places, &mut self.links, now);
        if desk.assign(places, &mut self.links, now) {
            let waiting = desk.waiting();
            self.set(ReactorCounter::TasksQueued, waiting);
        }
    }

    /// Takes back what a task worker has ahead, and is not about to begin.
    pub(super) fn desk_recall(&mut self, index: usize) {
        if let (Some(link), Some(desk)) = (self.links[index].as_mut(), self.desk.as_mut()) {
            desk.recall(link);
        }
    }

    fn desk_recall_from(&mut self, incarnation: Option<u64>) {
        if let Some(index) = incarnation.and_then(|incarnation| self.link_of(incarnation)) {
            self.desk_recall(index);
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
        if let Some(token) = task.token {
            return self.post_to(
                task.incarnation,
                EventKind::TaskResult,
                flags,
                token,
                result,
            );
        }
        self.desk_finish(task.from, id, flags, result);
    }

    /// Tells a worker, or its successor, what a detached task has come to.
    fn desk_finish(&mut self, from: WorkerId, id: u64, flags: u8, result: &[u8]) {
        let header = EventHeader {
            flags,
            aux: id,
            ..EventHeader::new(EventKind::Finish, ConnId::from_u64(0))
        };
        self.post_to_place(usize::from(from.0), header, result);
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

//! The commands on their way to one reactor.

use std::{collections::VecDeque, rc::Rc};

use gannet_shm::Position;

use super::{
    outgoing::Outgoing,
    shared::{Command, Shared},
};
use crate::{
    ConnId, SendError,
    admission::{Admission, UnderWay},
    direct::{Direct, Full},
    wire::command::{ADMITTED, CommandHeader, CommandKind, EARLY, HANDLER_FAILED},
};

pub(crate) struct Outbound {
    way: Way,
    /// Commands of the engine that found no room. They go first, and all others wait.
    overflow: VecDeque<Command>,
    /// The last command, if it is not published and finishes no event yet.
    last: Option<Position>,
    /// Published since the reactor's bell was rung.
    bell_due: bool,
    /// Where the reactor was when there was last no room.
    full_at: Option<Position>,
    /// Tasks that were submitted without a question.
    under_way: UnderWay,
    largest: usize,
}

enum Way {
    /// To another process or thread.
    Ring(Box<Outgoing>),
    /// To the reactor of this thread.
    Direct(Rc<Direct>),
}

impl Outbound {
    /// `direct`: what leads to this reactor, if it runs on this thread.
    pub(crate) fn attach(shared: &Shared, reactor: usize, direct: Option<Rc<Direct>>) -> Self {
        Outbound {
            way: match direct {
                Some(direct) => Way::Direct(direct),
                None => Way::Ring(Box::new(Outgoing::attach(shared, reactor))),
            },
            overflow: VecDeque::new(),
            last: None,
            bell_due: false,
            full_at: None,
            under_way: UnderWay::default(),
            largest: shared.largest(),
        }
    }

    /// Writes a command if there is room. Nobody sees it before [`Outbound::publish`].
    pub(crate) fn offer(&mut self, command: &Command) -> Result<(), SendError> {
        self.send(&command.header, &command.head, &command.payload)
    }

    /// The same with a command in pieces: `head` is the front of its payload.
    #[inline]
    pub(crate) fn send(
        &mut self,
        header: &CommandHeader,
        head: &[u8],
        payload: &[u8],
    ) -> Result<(), SendError> {
        if self.overflow.is_empty() {
            let written = self.write(header, head, payload);
            if written != Err(SendError::Full) {
                return written;
            }
        }
        self.send_late(header, head, payload)
    }

    /// There was no room a moment ago.
    #[cold]
    fn send_late(
        &mut self,
        header: &CommandHeader,
        head: &[u8],
        payload: &[u8],
    ) -> Result<(), SendError> {
        self.settle();
        let written = if self.overflow.is_empty() {
            self.write(header, head, payload)
        } else {
            Err(SendError::Full)
        };
        if written == Err(SendError::Full) {
            // What is published can be read, and makes room.
            self.publish();
            self.mark_full();
        }
        written
    }

    /// Writes the submission of a task that is not asked for, if that may be: see `admission`. It is numbered
    /// by that.
    pub(crate) fn submit(
        &mut self,
        admission: &Admission,
        mut header: CommandHeader,
        head: &[u8],
        data: &[u8],
    ) -> Option<u64> {
        // In this order: what has been taken may have crowded the queue.
        let under_way = self.under_way.tasks(self.taken());
        let small = data.len() <= admission.largest();
        if under_way >= admission.ahead() || !small || admission.is_crowded() {
            return None;
        }
        header.flags |= ADMITTED;
        header.aux = admission.next_task();
        self.send(&header, head, data).ok()?;
        self.under_way.add(self.written());
        Some(header.aux)
    }

    /// The same where nobody can be asked and nothing is known of the desk yet: it may refuse the task.
    pub(crate) fn submit_early(
        &mut self,
        admission: &Admission,
        mut header: CommandHeader,
        head: &[u8],
        data: &[u8],
    ) -> Result<u64, SendError> {
        header.flags |= EARLY;
        header.aux = admission.next_task();
        self.send(&header, head, data)?;
        Ok(header.aux)
    }

    /// Writes a command of the engine, now or as soon as there is room.
    pub(crate) fn post(&mut self, command: Command) {
        if self.offer(&command) == Err(SendError::Full) {
            self.overflow.push_back(command);
        }
    }

    /// Has the last command finish an event, if that finishes none and is not visible yet. `false`: it takes
    /// [`Outbound::done`]. Whose command that is does not matter: it comes behind all that the handler has sent.
    #[inline]
    pub(crate) fn amend(&mut self, seq: u64) -> bool {
        let Some(position) = self.last.take() else {
            return false;
        };
        self.overflow.is_empty()
            && match &mut self.way {
                Way::Ring(ring) => ring.amend(position, seq),
                Way::Direct(direct) => direct.amend(position, seq),
            }
    }

    /// Finishes an event with a command of its own.
    pub(crate) fn done(&mut self, conn: ConnId, seq: u64, failed: bool) {
        let flags = if failed { HANDLER_FAILED } else { 0 };
        self.post(Command::done(conn, seq, flags));
    }

    /// Makes everything written visible with one store.
    #[inline]
    pub(crate) fn publish(&mut self) {
        // The reactor of this thread looks when it is its turn.
        if let Way::Ring(ring) = &mut self.way {
            self.last = None;
            self.bell_due |= ring.publish();
        }
    }

    /// Whether the reactor is to be woken.
    pub(crate) fn is_bell_due(&self) -> bool {
        self.bell_due
    }

    /// The same; says so once.
    pub(crate) fn take_bell_due(&mut self) -> bool {
        std::mem::take(&mut self.bell_due)
    }

    /// Whether half of the ring waits to be published.
    #[inline]
    pub(crate) fn is_heavy(&self) -> bool {
        match &self.way {
            Way::Ring(ring) => ring.is_heavy(),
            Way::Direct(_) => false,
        }
    }

    /// Gives room back that the reactor has made, and writes what found none before.
    pub(crate) fn settle(&mut self) {
        if let Way::Ring(ring) = &mut self.way {
            ring.reclaim();
        }
        while let Some(command) = self.overflow.pop_front() {
            let written = self.write(&command.header, &command.head, &command.payload);
            if written == Err(SendError::Full) {
                self.overflow.push_front(command);
                self.publish();
                self.mark_full();
                return;
            }
        }
    }

    /// Whether commands of the engine wait for room.
    pub(crate) fn is_stuck(&self) -> bool {
        !self.overflow.is_empty()
    }

    /// Whether there may be room again after there was none.
    pub(crate) fn may_have_room(&self) -> bool {
        self.full_at.is_none_or(|position| position != self.taken())
    }

    /// Notes that nothing is to be tried before the reactor has read more.
    pub(crate) fn mark_full(&mut self) {
        self.full_at = Some(self.taken());
    }

    #[inline]
    fn write(
        &mut self,
        header: &CommandHeader,
        head: &[u8],
        payload: &[u8],
    ) -> Result<(), SendError> {
        let (len, max) = (head.len() + payload.len(), self.largest);
        if len > max {
            return Err(SendError::TooLarge { len, max });
        }
        let written = match &mut self.way {
            Way::Ring(ring) => ring.write(header, head, payload),
            Way::Direct(direct) => direct.send(header, head, payload),
        };
        let position = written.map_err(|Full| SendError::Full)?;
        let open = header.done == 0 && header.kind != CommandKind::Done;
        self.last = open.then_some(position);
        self.full_at = None;
        Ok(())
    }

    /// Where the next command will be.
    fn written(&self) -> Position {
        match &self.way {
            Way::Ring(ring) => ring.written(),
            Way::Direct(direct) => direct.written(),
        }
    }

    /// What the reactor has taken.
    fn taken(&self) -> Position {
        match &self.way {
            Way::Ring(ring) => ring.taken(),
            Way::Direct(direct) => direct.taken(),
        }
    }
}

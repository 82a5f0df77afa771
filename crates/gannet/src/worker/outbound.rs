//! The commands on their way to one reactor.

use std::collections::VecDeque;

use gannet_shm::{Arena, Block, Position, Producer, RingSpec};

use super::shared::{Command, Shared};
use crate::{
    ConnId, SendError,
    admission::{Admission, UnderWay},
    wire::{
        ARENA, HEADER, block_bytes,
        command::{ADMITTED, CommandHeader, CommandKind, DONE_OFFSET, HANDLER_FAILED},
    },
};

pub(crate) struct Outbound {
    ring: Producer,
    arena: Arena,
    /// Blocks that records name which the reactor has not read, oldest first.
    blocks: VecDeque<(Position, Block)>,
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
    inline_limit: usize,
    largest: usize,
}

impl Outbound {
    pub(crate) fn attach(shared: &Shared, reactor: usize) -> Self {
        let (region, dimensions) = (&shared.region, &shared.dimensions);
        Outbound {
            ring: Producer::attach(region.clone(), dimensions.command_ring(reactor)),
            arena: Arena::attach(region.clone(), dimensions.command_arena(reactor)),
            blocks: VecDeque::new(),
            overflow: VecDeque::new(),
            last: None,
            bell_due: false,
            full_at: None,
            under_way: UnderWay::default(),
            inline_limit: shared.inline_limit(),
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
        let under_way = self.under_way.tasks(self.ring.consumer_position());
        let small = data.len() <= admission.largest();
        if under_way >= admission.ahead() || !small || admission.is_crowded() {
            return None;
        }
        header.flags |= ADMITTED;
        header.aux = admission.next_task();
        self.send(&header, head, data).ok()?;
        self.under_way.add(self.ring.head());
        Some(header.aux)
    }

    /// Writes a command of the engine, now or as soon as there is room.
    pub(crate) fn post(&mut self, command: Command) {
        if self.offer(&command) == Err(SendError::Full) {
            self.overflow.push_back(command);
        }
    }

    /// Finishes an event: with the last command, if that finishes none and is not visible yet, or else with
    /// a command of its own. Whose command that is does not matter: it comes behind all that the handler
    /// has sent.
    pub(crate) fn done(&mut self, conn: ConnId, seq: u64, failed: bool) {
        if let Some(position) = self.last
            && !failed
            && self.overflow.is_empty()
            && self
                .ring
                .amend_word(position, DONE_OFFSET, seq.to_le_bytes())
        {
            self.last = None;
            return;
        }
        self.post(Command::done(
            conn,
            seq,
            if failed { HANDLER_FAILED } else { 0 },
        ));
    }

    /// Makes everything written visible with one store.
    pub(crate) fn publish(&mut self) {
        self.last = None;
        self.bell_due |= self.ring.publish();
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
    pub(crate) fn is_heavy(&self) -> bool {
        let unpublished = self.ring.head().0 - self.ring.published().0;
        unpublished as usize > self.ring.capacity() / 2
    }

    /// Gives blocks back that the reactor has read, and writes what found no room before.
    pub(crate) fn settle(&mut self) {
        self.reclaim();
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
        self.full_at
            .is_none_or(|position| position != self.ring.consumer_position())
    }

    /// Notes that nothing is to be tried before the reactor has read more.
    pub(crate) fn mark_full(&mut self) {
        self.full_at = Some(self.ring.consumer_position());
    }

    fn write(
        &mut self,
        header: &CommandHeader,
        head: &[u8],
        payload: &[u8],
    ) -> Result<(), SendError> {
        let position = if head.len() + payload.len() <= self.inline_limit {
            self.ring
                .push_headed(&header.encode(), &[head, payload])
                .map_err(|_| SendError::Full)?
        } else {
            self.write_large(*header, head, payload)?
        };
        let open = header.done == 0 && header.kind != CommandKind::Done;
        self.last = open.then_some(position);
        self.full_at = None;
        Ok(())
    }

    /// Writes a command whose payload goes into the arena.
    fn write_large(
        &mut self,
        mut header: CommandHeader,
        head: &[u8],
        payload: &[u8],
    ) -> Result<Position, SendError> {
        let (len, max) = (head.len() + payload.len(), self.largest);
        if len > max {
            return Err(SendError::TooLarge { len, max });
        }
        // First the ring, so that nothing is copied in vain.
        if self.ring.free() < RingSpec::record_bytes(HEADER + 16) {
            return Err(SendError::Full);
        }
        self.reclaim();
        let block = self.arena.alloc(len).ok_or(SendError::Full)?;
        let reference = block.reference();
        header.flags |= ARENA;
        let written = self.arena.write(&block, &[head, payload]);
        let reference = block_bytes(reference.offset, reference.len);
        let pushed = self.ring.push_headed(&header.encode(), &[&reference]);
        match (written, pushed) {
            (Ok(()), Ok(position)) => {
                self.blocks.push_back((position, block));
                Ok(position)
            }
            _ => {
                self.arena.free(block);
                Err(SendError::Full)
            }
        }
    }

    fn reclaim(&mut self) {
        if self.blocks.is_empty() {
            return;
        }
        let read = self.ring.consumer_position();
        while self
            .blocks
            .front()
            .is_some_and(|(position, _)| *position < read)
        {
            if let Some((_, block)) = self.blocks.pop_front() {
                self.arena.free(block);
            }
        }
    }
}

//! What lies between the reactor and the worker of one thread, in the place of a pair of rings.
//!
//! Thread mode. Both ends belong to one thread, so nothing is shared and nobody is woken: an event is handed
//! over as a value, whose payload was copied once; a command is a header and its place in a buffer that the
//! two ends exchange. Rings to and from other threads are as in process mode.
//!
//! | | rings | here |
//! |---|---|---|
//! | events that are not read | `ring_size` | the same |
//! | events without outcome | `max_parked` more | the same |
//! | payloads over an eighth of `ring_size` | `arena_size`, for each direction | the same |
//! | commands that are not taken | `ring_size` | the same |
//! | a thread that has ended | its events are read back | those that it has not read; the others have no payload |
//!
//! One large payload is always let in when there is no other.
//!
//! # Invariants
//!
//! 1. Events are read, and commands taken, in the order in which they were written.
//! 2. No cell is borrowed while other code runs: what the reactor does for a command may write an event, and
//!    the user's function that chooses a worker may send something.
//!
//! Those of the events, and of what is owed an outcome, stand in [`events`].

mod events;

use std::{
    cell::RefCell,
    ops::{AddAssign, Range, SubAssign},
};

use bytes::Bytes;
use gannet_shm::{Position, RingSpec};

use self::events::{Events, KEEP};
use crate::{
    ConnId,
    layout::Dimensions,
    wire::{
        HEADER,
        command::{CommandHeader, CommandKind},
        event::EventHeader,
    },
};

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Direct {
    limits: Limits,
    events: RefCell<Events>,
    commands: RefCell<Commands>,
}

/// An event, as the worker takes it.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) header: EventHeader,
    pub(crate) payload: Bytes,
}

/// There is no room now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full;

/// Commands, oldest first: the reactor's end has one of them, the worker's another.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    commands: Vec<(CommandHeader, usize)>,
    bytes: Vec<u8>,
    /// Commands that were taken out, and their bytes.
    taken: usize,
    read: usize,
}

#[derive(Debug)]
struct Limits {
    /// Bytes of what is small, and of what is large, that may wait.
    waiting: Room,
    /// Bytes of events that may be without outcome.
    held: Room,
    /// Payloads over this are large.
    inline: usize,
}

/// Bytes, of headers and small payloads, and of large payloads.
#[derive(Clone, Copy, Debug, Default)]
struct Room {
    small: usize,
    large: usize,
}

#[derive(Debug, Default)]
struct Commands {
    written: Batch,
    /// What was written and not taken.
    waiting: Room,
    /// How many there ever were.
    head: u64,
    taken: u64,
}

impl Direct {
    pub(crate) fn new(dimensions: Dimensions, max_parked: usize) -> Self {
        let Dimensions { ring, arena, .. } = dimensions;
        let waiting = Room {
            small: ring,
            large: arena,
        };
        let held = Room {
            small: ring.saturating_add(max_parked),
            large: arena,
        };
        let inline = (ring / 8).min(RingSpec::max_record(ring)) - HEADER;
        Direct {
            limits: Limits {
                waiting,
                held,
                inline,
            },
            events: RefCell::new(Events::new()),
            commands: RefCell::default(),
        }
    }

    /// Gives the worker an event that is owed an outcome, and returns its number.
    #[inline(always)]
    pub(crate) fn push(&self, header: &EventHeader, payload: &[&[u8]]) -> Result<u64, Full> {
        self.events.borrow_mut().push(&self.limits, header, payload)
    }

    /// Gives the worker an event that has no number.
    pub(crate) fn post(&self, header: &EventHeader, payload: &[u8]) -> Result<(), Full> {
        let mut events = self.events.borrow_mut();
        events.post(&self.limits, header, payload)
    }

    /// Whether an event of so many bytes would find room now.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        let events = self.events.borrow();
        let Limits { waiting, held, .. } = self.limits;
        waiting.has(&self.limits, events.waiting, bytes)
            && held.has(&self.limits, events.held, bytes)
    }

    /// The worker says that an event is done: whose it was. `None`: there is no such event, or it was done before.
    #[inline(always)]
    pub(crate) fn finish(&self, seq: u64) -> Option<ConnId> {
        self.events.borrow_mut().finish(&self.limits, seq)
    }

    /// Bytes of events that are not read, and of commands that are not taken; without large payloads.
    pub(crate) fn waiting(&self) -> [usize; 2] {
        let (events, commands) = (self.events.borrow(), self.commands.borrow());
        [events.waiting.small, commands.waiting.small]
    }

    /// Events without outcome.
    pub(crate) fn owed(&self) -> usize {
        self.events.borrow().live
    }

    /// Bytes of events without outcome, beyond what a ring holds.
    pub(crate) fn parked_bytes(&self) -> usize {
        let held = self.events.borrow().held.small;
        held.saturating_sub(self.limits.waiting.small)
    }

    /// Takes all events without outcome, in order, and whether they were read. The payload of one that was
    /// read went with the worker.
    pub(crate) fn take_unfinished(&self) -> Vec<(EventHeader, Vec<u8>, bool)> {
        self.events.borrow_mut().take_unfinished(&self.limits)
    }

    /// The worker's next event.
    #[inline(always)]
    pub(crate) fn next_event(&self) -> Option<Event> {
        self.events.borrow_mut().next(&self.limits)
    }

    pub(crate) fn has_events(&self) -> bool {
        self.events.borrow().has_unread()
    }

    /// Writes a command, whose payload is both parts; its number.
    #[inline]
    pub(crate) fn send(
        &self,
        header: &CommandHeader,
        head: &[u8],
        payload: &[u8],
    ) -> Result<Position, Full> {
        let mut commands = self.commands.borrow_mut();
        let len = head.len() + payload.len();
        if !self.limits.waiting.has(&self.limits, commands.waiting, len) {
            return Err(Full);
        }
        commands.waiting.take(&self.limits, len);
        let batch = &mut commands.written;
        batch.commands.push((*header, len));
        if !head.is_empty() {
            batch.bytes.extend_from_slice(head);
        }
        batch.bytes.extend_from_slice(payload);
        commands.head += 1;
        Ok(Position(commands.head))
    }

    /// Has the last command finish an event, if it is the one of this number and was not taken.
    #[inline]
    pub(crate) fn amend(&self, number: Position, seq: u64) -> bool {
        let mut commands = self.commands.borrow_mut();
        let is_last = commands.head == number.0;
        match commands.written.commands.last_mut() {
            Some((header, _)) if is_last => {
                debug_assert!(header.done == 0 && header.kind != CommandKind::Done);
                header.done = seq;
                true
            }
            _ => false,
        }
    }

    /// Commands that were written so far.
    pub(crate) fn written(&self) -> Position {
        Position(self.commands.borrow().head)
    }

    /// Commands that were taken so far.
    pub(crate) fn taken(&self) -> Position {
        Position(self.commands.borrow().taken)
    }

    pub(crate) fn has_commands(&self) -> bool {
        let commands = self.commands.borrow();
        commands.head != commands.taken
    }

    /// Gives the reactor what was written, if its own batch is empty.
    pub(crate) fn exchange(&self, batch: &mut Batch) {
        if batch.is_empty() {
            batch.clear();
            std::mem::swap(batch, &mut self.commands.borrow_mut().written);
        }
    }

    /// The reactor has carried out so many commands, with payloads of these lengths.
    pub(crate) fn took(&self, taken: &Taken) {
        let mut commands = self.commands.borrow_mut();
        commands.taken += taken.commands;
        commands.waiting -= taken.room;
    }

    /// Notes that one more command was taken.
    #[inline]
    pub(crate) fn note(&self, taken: &mut Taken, payload: &Range<usize>) {
        taken.commands += 1;
        taken.room.take(&self.limits, payload.len());
    }
}

/// What was taken out of a batch and not told yet.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    commands: u64,
    room: Room,
}

impl Batch {
    pub(crate) fn is_empty(&self) -> bool {
        self.taken == self.commands.len()
    }

    /// The next command, and where its payload is.
    #[inline]
    pub(crate) fn next(&mut self) -> Option<(CommandHeader, Range<usize>)> {
        let (header, len) = *self.commands.get(self.taken)?;
        self.taken += 1;
        let payload = self.read..self.read + len;
        self.read = payload.end;
        Some((header, payload))
    }

    pub(crate) fn payload(&self, range: Range<usize>) -> &[u8] {
        self.bytes.get(range).unwrap_or_default()
    }

    fn clear(&mut self) {
        self.commands.clear();
        self.bytes.clear();
        (self.taken, self.read) = (0, 0);
        self.commands.shrink_to(KEEP);
        self.bytes.shrink_to(KEEP_BYTES);
    }
}

impl Room {
    /// Whether an event or a command with a payload of this length finds room beside what is used.
    #[inline]
    fn has(self, limits: &Limits, used: Room, len: usize) -> bool {
        match len <= limits.inline {
            true => used.small + HEADER + len <= self.small,
            false => {
                let large = used.large == 0 || used.large + len <= self.large;
                used.small + HEADER <= self.small && large
            }
        }
    }

    /// Uses what such a one takes.
    #[inline]
    fn take(&mut self, limits: &Limits, len: usize) {
        match len <= limits.inline {
            true => self.small += HEADER + len,
            false => {
                *self += Room {
                    small: HEADER,
                    large: len,
                }
            }
        }
    }

    /// Uses it no more.
    #[inline]
    fn give_back(&mut self, limits: &Limits, len: usize) {
        match len <= limits.inline {
            true => self.small -= HEADER + len,
            false => {
                *self -= Room {
                    small: HEADER,
                    large: len,
                }
            }
        }
    }
}

impl AddAssign for Room {
    fn add_assign(&mut self, other: Room) {
        self.small += other.small;
        self.large += other.large;
    }
}

impl SubAssign for Room {
    fn sub_assign(&mut self, other: Room) {
        self.small -= other.small;
        self.large -= other.large;
    }
}

/// Memory for more bytes of commands than these is not kept when there are none.
const KEEP_BYTES: usize = 128 << 10;

#[cfg(test)]
mod tests;

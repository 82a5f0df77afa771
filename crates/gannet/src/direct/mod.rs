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
//! 2. The ledger has the events that were written with a number, from `base` on and without gaps. In front stands
//!    one without outcome. Those below `base` that have none are `late`. `held` is what all of them take, `live`
//!    how many they are; so the ledger has at most twice as many entries, or [`KEEP`].
//! 3. No cell is borrowed while other code runs: what the reactor does for a command may write an event, and
//!    the user's function that chooses a worker may send something.

use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    ops::{AddAssign, Range, SubAssign},
};

use bytes::{Bytes, BytesMut};
use gannet_shm::{Position, RingSpec};

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

#[derive(Debug)]
struct Events {
    unread: VecDeque<Event>,
    waiting: Room,
    ledger: VecDeque<Owed>,
    base: u64,
    /// Events without outcome that were in front of many that have one.
    late: BTreeMap<u64, Owed>,
    live: usize,
    held: Room,
    /// Small payloads are cut from it.
    chunk: BytesMut,
}

/// An event that was without outcome when those before it were.
#[derive(Debug)]
struct Owed {
    header: EventHeader,
    len: usize,
    done: bool,
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
            events: RefCell::new(Events {
                unread: VecDeque::new(),
                waiting: Room::default(),
                ledger: VecDeque::new(),
                base: 1,
                late: BTreeMap::new(),
                live: 0,
                held: Room::default(),
                chunk: BytesMut::new(),
            }),
            commands: RefCell::default(),
        }
    }

    /// Gives the worker an event that is owed an outcome, and returns its number.
    pub(crate) fn push(&self, mut header: EventHeader, payload: &[&[u8]]) -> Result<u64, Full> {
        let mut events = self.events.borrow_mut();
        let len = total(payload);
        let size = self.limits.size(len);
        if !self.limits.held.has(events.held, size) {
            return Err(Full);
        }
        header.seq = events.base + events.ledger.len() as u64;
        self.write_event(&mut events, header, payload, len)?;
        events.ledger.push_back(Owed {
            header,
            len,
            done: false,
        });
        events.held += size;
        events.live += 1;
        Ok(header.seq)
    }

    /// Gives the worker an event that has no number.
    pub(crate) fn post(&self, header: EventHeader, payload: &[u8]) -> Result<(), Full> {
        let mut events = self.events.borrow_mut();
        let header = EventHeader { seq: 0, ..header };
        self.write_event(&mut events, header, &[payload], payload.len())
    }

    #[inline]
    fn write_event(
        &self,
        events: &mut Events,
        header: EventHeader,
        payload: &[&[u8]],
        len: usize,
    ) -> Result<(), Full> {
        let size = self.limits.size(len);
        if !self.limits.waiting.has(events.waiting, size) {
            return Err(Full);
        }
        let payload = match size.large {
            0 => events.cut(payload, len),
            _ => payload.concat().into(),
        };
        events.waiting += size;
        events.unread.push_back(Event { header, payload });
        Ok(())
    }

    /// Whether an event of so many bytes would find room now.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        let events = self.events.borrow();
        let size = self.limits.size(bytes);
        self.limits.waiting.has(events.waiting, size) && self.limits.held.has(events.held, size)
    }

    /// The worker says that an event is done: whose it was. `None`: there is no such event, or it was done before.
    pub(crate) fn finish(&self, seq: u64) -> Option<ConnId> {
        let mut events = self.events.borrow_mut();
        let (conn, len) = match seq.checked_sub(events.base) {
            Some(index) => {
                let owed = events.ledger.get_mut(usize::try_from(index).ok()?)?;
                if std::mem::replace(&mut owed.done, true) {
                    return None;
                }
                (owed.header.conn, owed.len)
            }
            None => {
                let owed = events.late.remove(&seq)?;
                (owed.header.conn, owed.len)
            }
        };
        events.held -= self.limits.size(len);
        events.live -= 1;
        events.sweep();
        Some(conn)
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
        let mut events = self.events.borrow_mut();
        let mut unread = std::mem::take(&mut events.unread).into_iter().peekable();
        let late = std::mem::take(&mut events.late).into_values();
        let owed = std::mem::take(&mut events.ledger);
        events.base += owed.len() as u64;
        (events.live, events.waiting, events.held) = (0, Room::default(), Room::default());
        let mut unfinished = Vec::new();
        for Owed { header, .. } in late.chain(owed).filter(|owed| !owed.done) {
            while unread.next_if(|event| event.header.seq == 0).is_some() {}
            let event = unread.next_if(|event| event.header.seq == header.seq);
            let read = event.is_none();
            let payload = event.map(|event| event.payload.to_vec());
            unfinished.push((header, payload.unwrap_or_default(), read));
        }
        unfinished
    }

    /// The worker's next event.
    #[inline]
    pub(crate) fn next_event(&self) -> Option<Event> {
        let mut events = self.events.borrow_mut();
        let Some(event) = events.unread.pop_front() else {
            events.tidy();
            return None;
        };
        let size = self.limits.size(event.payload.len());
        events.waiting -= size;
        Some(event)
    }

    pub(crate) fn has_events(&self) -> bool {
        !self.events.borrow().unread.is_empty()
    }

    /// Writes a command, whose payload is both parts; its number.
    pub(crate) fn send(
        &self,
        header: &CommandHeader,
        head: &[u8],
        payload: &[u8],
    ) -> Result<Position, Full> {
        let mut commands = self.commands.borrow_mut();
        let len = head.len() + payload.len();
        let size = self.limits.size(len);
        if !self.limits.waiting.has(commands.waiting, size) {
            return Err(Full);
        }
        commands.waiting += size;
        let batch = &mut commands.written;
        batch.commands.push((*header, len));
        batch.bytes.extend_from_slice(head);
        batch.bytes.extend_from_slice(payload);
        commands.head += 1;
        Ok(Position(commands.head))
    }

    /// Has the last command finish an event, if it is the one of this number and was not taken.
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
        taken.room += self.limits.size(payload.len());
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

impl Events {
    /// All that was written is read.
    #[inline]
    fn tidy(&mut self) {
        if self.unread.capacity() > KEEP {
            self.unread = VecDeque::new();
        }
        if self.ledger.capacity() > KEEP.max(4 * self.ledger.len()) {
            self.ledger.shrink_to(KEEP);
        }
    }

    /// Lets go of what is done at the front. An event that takes its time must not keep those that come after
    /// it: when they are many, it is moved out of their way.
    #[inline]
    fn sweep(&mut self) {
        while let Some(front) = self.ledger.front() {
            let is_late = !front.done && self.has_many_done();
            if !front.done && !is_late {
                return;
            }
            let Some(front) = self.ledger.pop_front() else {
                return;
            };
            if is_late {
                self.late.insert(self.base, front);
            }
            self.base += 1;
        }
    }

    /// Whether most of a long ledger is done.
    fn has_many_done(&self) -> bool {
        let len = self.ledger.len();
        len > KEEP && len / 2 > self.live - self.late.len()
    }

    /// A small payload.
    #[inline]
    fn cut(&mut self, parts: &[&[u8]], len: usize) -> Bytes {
        if len == 0 {
            return Bytes::new();
        }
        let chunk = &mut self.chunk;
        if chunk.capacity() < len {
            chunk.reserve(len.max(CHUNK));
        }
        for part in parts {
            chunk.extend_from_slice(part);
        }
        chunk.split().freeze()
    }
}

impl Limits {
    /// What an event or a command with such a payload takes.
    #[inline]
    fn size(&self, len: usize) -> Room {
        match len <= self.inline {
            true => Room {
                small: HEADER + len,
                large: 0,
            },
            false => Room {
                small: HEADER,
                large: len,
            },
        }
    }
}

impl Room {
    /// Whether so much finds room beside what is used.
    #[inline]
    fn has(self, used: Room, size: Room) -> bool {
        let small = used.small + size.small <= self.small;
        let large = size.large == 0 || used.large == 0 || used.large + size.large <= self.large;
        small && large
    }
}

impl AddAssign for Room {
    #[inline]
    fn add_assign(&mut self, other: Room) {
        self.small += other.small;
        self.large += other.large;
    }
}

impl SubAssign for Room {
    #[inline]
    fn sub_assign(&mut self, other: Room) {
        self.small -= other.small;
        self.large -= other.large;
    }
}

fn total(parts: &[&[u8]]) -> usize {
    parts.iter().map(|part| part.len()).sum()
}

/// Bytes that the payloads of many small events share. Whoever keeps one of them keeps all.
const CHUNK: usize = 16 << 10;
/// Memory for more events or commands than these is not kept when there are none.
const KEEP: usize = 1024;
/// The same for bytes of commands.
const KEEP_BYTES: usize = 128 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::event::EventKind;

    const PARKED: usize = 64 << 10;

    fn direct() -> Direct {
        Direct::new(Dimensions::SMALLEST, PARKED)
    }

    fn event(conn: u64) -> EventHeader {
        EventHeader::new(EventKind::Receive, ConnId::from_u64(conn))
    }

    fn command(code: u16) -> CommandHeader {
        let header = CommandHeader::new(CommandKind::Send, ConnId::from_u64(1));
        CommandHeader { code, ..header }
    }

    /// How many events of this payload find room.
    fn fill(direct: &Direct, payload: &[u8]) -> Vec<u64> {
        std::iter::from_fn(|| direct.push(event(1), &[payload]).ok()).collect()
    }

    #[test]
    fn events_come_as_they_were_written_and_are_finished_in_any_order() {
        let direct = direct();
        let first = direct.push(event(1), &[b"a", b"b"]).unwrap();
        direct.post(event(2), b"c").unwrap();
        let second = direct.push(event(3), &[]).unwrap();
        assert!(direct.has_events());
        let read = std::iter::from_fn(|| direct.next_event());
        let read: Vec<_> = read
            .map(|it| (it.header.conn.as_u64(), it.header.seq, it.payload))
            .collect();
        let expected = [
            (1, first, Bytes::from("ab")),
            (2, 0, Bytes::from("c")),
            (3, second, Bytes::new()),
        ];
        assert_eq!(read, expected);
        assert_eq!(direct.owed(), 2);
        assert_eq!(direct.finish(second), Some(ConnId::from_u64(3)));
        assert_eq!(direct.finish(second), None, "once");
        assert_eq!(direct.finish(second + 1), None, "there is none");
        assert_eq!(direct.finish(first), Some(ConnId::from_u64(1)));
        assert_eq!(direct.finish(first), None);
        assert_eq!(direct.owed(), 0);
        assert_eq!(direct.push(event(4), &[]), Ok(second + 1));
    }

    #[test]
    fn what_is_not_read_is_bounded_as_in_a_ring() {
        let direct = direct();
        let payload = [7; 1000];
        let pushed = fill(&direct, &payload).len();
        let ring = Dimensions::SMALLEST.ring;
        assert_eq!(pushed, ring / (HEADER + payload.len()));
        assert_eq!(direct.post(event(1), &payload), Err(Full));
        assert!(!direct.has_room(payload.len()));
        assert!(direct.next_event().is_some());
        assert!(direct.has_room(payload.len()));
        assert!(direct.post(event(1), &payload).is_ok());
    }

    #[test]
    fn what_is_read_and_not_finished_is_bounded_by_what_may_be_parked() {
        let direct = direct();
        let payload = [7; 1000];
        let mut numbers = Vec::new();
        loop {
            let pushed = fill(&direct, &payload);
            while direct.next_event().is_some() {}
            if pushed.is_empty() {
                break;
            }
            numbers.extend(pushed);
        }
        let most = Dimensions::SMALLEST.ring + PARKED;
        assert_eq!(numbers.len(), most / (HEADER + payload.len()));
        let over = numbers.len() * (HEADER + payload.len()) - Dimensions::SMALLEST.ring;
        assert_eq!(direct.parked_bytes(), over);
        // Whichever is finished makes room.
        direct.finish(numbers[numbers.len() / 2]).unwrap();
        assert_eq!(fill(&direct, &payload).len(), 1);
        for number in numbers {
            direct.finish(number);
        }
        assert_eq!(direct.parked_bytes(), 0);
    }

    #[test]
    fn large_payloads_have_room_of_their_own_and_one_always_has() {
        let direct = direct();
        let arena = Dimensions::SMALLEST.arena;
        let number = direct.push(event(1), &[&vec![1; 2 * arena]]).unwrap();
        assert_eq!(direct.push(event(1), &[&vec![2; arena / 2]]), Err(Full));
        assert!(direct.push(event(1), &[b"small"]).is_ok());
        assert_eq!(direct.next_event().unwrap().payload.len(), 2 * arena);
        direct.finish(number).unwrap();
        assert_eq!(fill(&direct, &vec![3; arena / 2]).len(), 2);

        let payload = vec![4; arena / 2];
        for _ in 0..2 {
            assert!(direct.send(&command(1), b"", &payload).is_ok());
        }
        assert_eq!(direct.send(&command(1), b"", &payload), Err(Full));
        assert!(direct.send(&command(1), b"", b"small").is_ok());
    }

    #[test]
    fn commands_are_taken_as_they_were_written_also_a_few_at_a_time() {
        let direct = direct();
        let (mut batch, mut got) = (Batch::default(), Vec::new());
        for code in 0..7 {
            direct
                .send(&command(code), &[b'0' + code as u8], b"x")
                .unwrap();
        }
        while direct.has_commands() {
            direct.exchange(&mut batch);
            let mut taken = Taken::default();
            for _ in 0..3 {
                let Some((header, payload)) = batch.next() else {
                    break;
                };
                direct.note(&mut taken, &payload);
                got.push((header.code, batch.payload(payload).to_vec()));
            }
            direct.took(&taken);
            if got.len() == 3 {
                direct.send(&command(7), b"7", b"x").unwrap();
            }
        }
        let expected: Vec<_> = (0..8)
            .map(|code| (code, vec![b'0' + code as u8, b'x']))
            .collect();
        assert_eq!(got, expected);
        assert_eq!(direct.taken(), Position(8));
        assert_eq!(direct.written(), Position(8));
    }

    #[test]
    fn commands_that_are_not_taken_are_bounded_as_in_a_ring() {
        let direct = direct();
        let mut sent = 0;
        while direct.send(&command(1), &[0; 500], &[0; 500]).is_ok() {
            sent += 1;
        }
        assert_eq!(sent, Dimensions::SMALLEST.ring / (HEADER + 1000));
        let (mut batch, mut taken) = (Batch::default(), Taken::default());
        direct.exchange(&mut batch);
        assert_eq!(direct.send(&command(1), &[0; 1000], b""), Err(Full));
        let (_, payload) = batch.next().unwrap();
        direct.note(&mut taken, &payload);
        direct.took(&taken);
        assert!(direct.send(&command(1), &[0; 1000], b"").is_ok());
    }

    #[test]
    fn only_the_last_command_finishes_an_event_and_only_while_it_is_here() {
        let direct = direct();
        let first = direct.send(&command(1), b"", b"").unwrap();
        let second = direct.send(&command(2), b"", b"").unwrap();
        assert!(!direct.amend(first, 7));
        assert!(direct.amend(second, 8));
        let mut batch = Batch::default();
        direct.exchange(&mut batch);
        let done = std::iter::from_fn(|| batch.next()).map(|(header, _)| header.done);
        assert_eq!(done.collect::<Vec<_>>(), [0, 8]);
        let third = direct.send(&command(3), b"", b"").unwrap();
        direct.exchange(&mut batch);
        assert!(!direct.amend(third, 9), "it is with the reactor");
    }

    #[test]
    fn an_event_that_takes_its_time_keeps_nothing_of_those_behind_it() {
        let direct = direct();
        let slow = [1, 2].map(|conn| direct.push(event(conn), &[b"slow"]).unwrap());
        let mut longest = 0;
        for _ in 0..100_000 {
            let number = direct.push(event(3), &[b"quick"]).unwrap();
            while direct.next_event().is_some() {}
            assert_eq!(direct.finish(number), Some(ConnId::from_u64(3)));
            longest = longest.max(direct.events.borrow().ledger.len());
        }
        assert!(longest <= KEEP + 1, "{longest} entries");
        assert_eq!(direct.owed(), 2);
        let last = direct.push(event(4), &[b"last"]).unwrap();
        assert_eq!(direct.finish(slow[1]), Some(ConnId::from_u64(2)));
        assert_eq!(direct.finish(slow[1]), None, "once");
        let unfinished = direct.take_unfinished();
        let unfinished: Vec<_> = unfinished
            .iter()
            .map(|(header, _, read)| (header.seq, *read))
            .collect();
        assert_eq!(unfinished, [(slow[0], true), (last, false)]);
        assert_eq!(direct.finish(slow[0]), None);
    }

    #[test]
    fn a_worker_that_has_ended_leaves_what_it_has_not_finished() {
        let direct = direct();
        let numbers: Vec<_> = [b"a", b"b", b"c"]
            .map(|payload| direct.push(event(1), &[payload]).unwrap())
            .into();
        direct.post(event(1), b"without number").unwrap();
        let last = direct.push(event(2), &[b"d"]).unwrap();
        direct.next_event().unwrap();
        direct.next_event().unwrap();
        direct.finish(numbers[0]).unwrap();
        let unfinished = direct.take_unfinished();
        let unfinished: Vec<_> = unfinished
            .into_iter()
            .map(|(header, payload, read)| (header.seq, payload, read))
            .collect();
        let expected = [
            (numbers[1], vec![], true),
            (numbers[2], b"c".to_vec(), false),
            (last, b"d".to_vec(), false),
        ];
        assert_eq!(unfinished, expected);
        assert_eq!(direct.owed(), 0);
        assert!(!direct.has_events());
        assert_eq!(direct.finish(last), None);
    }
}

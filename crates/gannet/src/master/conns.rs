//! The connections of one reactor, by slot.
//!
//! They stand side by side in chunks, each made when the first of its slots is used and given back when
//! the last is free: nothing is moved when their number grows, no memory waits for growth, and none is
//! spent on finding them but two words a chunk at most.

use std::collections::VecDeque;

use super::conn::Conn;
use crate::id::ConnId;

/// A slab that hands out slots in the order in which they became free, so that a number is used
/// again as late as possible, and never with the same generation.
pub(super) struct Conns {
    reactor: usize,
    limit: usize,
    /// Each has [`CHUNK`] slots; one without connections has no memory.
    chunks: Vec<Option<Box<[Option<Conn>; CHUNK]>>>,
    /// Connections in each of them.
    lens: Vec<u32>,
    /// Slots that were ever handed out.
    used: usize,
    free: VecDeque<u32>,
    len: usize,
}

impl Conns {
    pub(super) fn new(reactor: usize, limit: usize) -> Self {
        Conns {
            reactor,
            limit,
            chunks: Vec::new(),
            lens: Vec::new(),
            used: 0,
            free: VecDeque::new(),
            len: 0,
        }
    }

    /// An id for a new connection, whose slot is then filled by [`Conns::insert`]. `generation` tells
    /// the last one that a slot was used in, by this master or one before. `None`: no slot is left.
    pub(super) fn next_id(&mut self, generation: impl Fn(usize) -> u32) -> Option<ConnId> {
        loop {
            let slot = match self.free.pop_front() {
                Some(slot) => slot as usize,
                None if self.used < self.limit => {
                    self.used += 1;
                    self.used - 1
                }
                None => return None,
            };
            let used = generation(slot);
            // Else an earlier master has used it up.
            if used < ConnId::MAX_GENERATION {
                return Some(ConnId::new(used + 1, self.reactor, slot));
            }
        }
    }

    /// An id that was not used after all.
    pub(super) fn give_back(&mut self, id: ConnId) {
        self.free.push_back(id.slot() as u32);
    }

    pub(super) fn insert(&mut self, conn: Conn) {
        let (number, at) = place(conn.id.slot());
        if self.chunks.len() <= number {
            self.chunks.resize_with(number + 1, || None);
            self.lens.resize(number + 1, 0);
        }
        if self.chunks[number].is_none() {
            let empty: Box<[_]> = (0..CHUNK).map(|_| None).collect();
            self.chunks[number] = empty.try_into().ok();
        }
        if let Some(chunk) = &mut self.chunks[number] {
            debug_assert!(chunk[at].is_none());
            chunk[at] = Some(conn);
            self.lens[number] += 1;
            self.len += 1;
        }
    }

    /// Takes a connection out; its slot becomes free.
    pub(super) fn remove(&mut self, slot: usize) -> Option<Conn> {
        let (number, at) = place(slot);
        let chunk = self.chunks.get_mut(number)?;
        let conn = chunk.as_mut()?[at].take()?;
        self.lens[number] -= 1;
        if self.lens[number] == 0 {
            *chunk = None;
        }
        self.len -= 1;
        if conn.id.generation() < ConnId::MAX_GENERATION {
            self.free.push_back(slot as u32);
        }
        Some(conn)
    }

    /// The slot of a connection, if it is (still) there.
    pub(super) fn find(&self, id: ConnId) -> Option<usize> {
        let slot = id.slot();
        (id.reactor() == self.reactor)
            .then(|| self.get(slot))
            .flatten()
            .is_some_and(|conn| conn.id == id)
            .then_some(slot)
    }

    /// A connection, if it is (still) there, and its slot.
    #[inline]
    pub(super) fn find_mut(&mut self, id: ConnId) -> Option<(usize, &mut Conn)> {
        let slot = id.slot();
        if id.reactor() != self.reactor {
            return None;
        }
        let conn = self.get_mut(slot)?;
        (conn.id == id).then_some((slot, conn))
    }

    #[inline]
    pub(super) fn get(&self, slot: usize) -> Option<&Conn> {
        let (chunk, at) = place(slot);
        self.chunks.get(chunk)?.as_ref()?[at].as_ref()
    }

    #[inline]
    pub(super) fn get_mut(&mut self, slot: usize) -> Option<&mut Conn> {
        let (chunk, at) = place(slot);
        self.chunks.get_mut(chunk)?.as_mut()?[at].as_mut()
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The slots in use.
    pub(super) fn slots(&self) -> Vec<usize> {
        (0..self.used)
            .filter(|&slot| self.get(slot).is_some())
            .collect()
    }
}

/// The chunk of a slot, and where it is there.
fn place(slot: usize) -> (usize, usize) {
    (slot / CHUNK, slot % CHUNK)
}

/// Slots of a chunk. With the size of a `Conn` it is 8 KiB.
const CHUNK: usize = 64;

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, collections::HashMap};

    use super::*;
    use crate::master::conn::Speaks;

    /// Slots, and the table's account of their generations.
    struct Kit {
        conns: Conns,
        generations: RefCell<HashMap<usize, u32>>,
    }

    impl Kit {
        fn new(limit: usize) -> Self {
            Kit {
                conns: Conns::new(3, limit),
                generations: RefCell::default(),
            }
        }

        fn open(&mut self) -> Option<ConnId> {
            let generations = &self.generations;
            let last = |slot| generations.borrow().get(&slot).copied().unwrap_or(0);
            let id = self.conns.next_id(last)?;
            generations.borrow_mut().insert(id.slot(), id.generation());
            self.conns.insert(Conn::new(id, 0, 0, Speaks::Tcp, 0));
            Some(id)
        }
    }

    #[test]
    fn a_slot_is_used_again_under_another_number_and_as_late_as_possible() {
        let mut kit = Kit::new(3);
        let ids: Vec<_> = std::iter::from_fn(|| kit.open()).collect();
        assert_eq!(ids.len(), 3);
        assert!(kit.conns.remove(1).is_some() && kit.conns.remove(0).is_some());
        assert!(kit.conns.remove(0).is_none(), "twice");

        let again = [kit.open().unwrap(), kit.open().unwrap()];
        assert_eq!(again.map(ConnId::slot), [1, 0]);
        assert_eq!(again.map(ConnId::generation), [2, 2]);
        assert_eq!(kit.conns.find(ids[1]), None, "that one is gone");
        assert_eq!(kit.conns.find(again[0]), Some(1));
        assert_eq!(kit.conns.len(), 3);
    }

    #[test]
    fn a_slot_whose_generations_are_used_up_is_left_out() {
        let mut kit = Kit::new(2);
        let generations = [(0, ConnId::MAX_GENERATION), (1, ConnId::MAX_GENERATION - 1)];
        kit.generations = RefCell::new(generations.into());
        let last = kit.open().unwrap();
        assert_eq!(
            (last.slot(), last.generation()),
            (1, ConnId::MAX_GENERATION)
        );
        assert!(kit.conns.remove(1).is_some());
        assert_eq!(kit.open(), None);
    }

    #[test]
    fn memory_is_given_back_with_the_last_connection_of_a_chunk() {
        let mut kit = Kit::new(4 * CHUNK);
        let ids: Vec<_> = (0..2 * CHUNK + 1).map(|_| kit.open().unwrap()).collect();
        let chunks = |kit: &Kit| {
            let chunks = kit.conns.chunks.iter();
            chunks.filter(|chunk| chunk.is_some()).count()
        };
        assert_eq!(chunks(&kit), 3);
        assert_eq!(kit.conns.slots().len(), ids.len());
        for slot in CHUNK..2 * CHUNK {
            kit.conns.remove(slot);
        }
        assert_eq!((chunks(&kit), kit.conns.len()), (2, CHUNK + 1));
        assert!(kit.conns.get(CHUNK).is_none());
        assert_eq!(kit.conns.find(ids[2 * CHUNK]), Some(2 * CHUNK));
    }
}

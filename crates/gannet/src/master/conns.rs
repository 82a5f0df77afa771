//! The connections of one reactor, by slot.

use std::collections::VecDeque;

use super::conn::Conn;
use crate::id::ConnId;

/// A slab that hands out slots in the order in which they became free, so that a number is used
/// again as late as possible, and never with the same generation.
pub(super) struct Conns {
    reactor: usize,
    limit: usize,
    slots: Vec<Option<Box<Conn>>>,
    generations: Vec<u32>,
    free: VecDeque<u32>,
    len: usize,
}

impl Conns {
    /// `generation` tells what an earlier master used up of a slot.
    pub(super) fn new(reactor: usize, limit: usize) -> Self {
        Conns {
            reactor,
            limit,
            slots: Vec::new(),
            generations: Vec::new(),
            free: VecDeque::new(),
            len: 0,
        }
    }

    /// An id for a new connection, whose slot is then filled by [`Conns::insert`]. `used` tells the
    /// generation that an earlier master gave to a slot. `None`: no slot is left.
    pub(super) fn next_id(&mut self, used: impl Fn(usize) -> u32) -> Option<ConnId> {
        let slot = match self.free.pop_front() {
            Some(slot) => slot as usize,
            None if self.slots.len() < self.limit => {
                self.slots.push(None);
                self.generations.push(used(self.slots.len() - 1));
                self.slots.len() - 1
            }
            None => return None,
        };
        self.generations[slot] += 1;
        Some(ConnId::new(self.generations[slot], self.reactor, slot))
    }

    /// An id that was not used after all.
    pub(super) fn give_back(&mut self, id: ConnId) {
        self.free.push_back(id.slot() as u32);
    }

    pub(super) fn insert(&mut self, conn: Conn) {
        let slot = conn.id.slot();
        debug_assert!(self.slots[slot].is_none());
        self.slots[slot] = Some(Box::new(conn));
        self.len += 1;
    }

    /// Takes a connection out; its slot becomes free.
    pub(super) fn remove(&mut self, slot: usize) -> Option<Box<Conn>> {
        let conn = self.slots.get_mut(slot)?.take()?;
        self.len -= 1;
        if self.generations[slot] < ConnId::MAX_GENERATION {
            self.free.push_back(slot as u32);
        }
        Some(conn)
    }

    /// The slot of a connection, if it is (still) there.
    pub(super) fn find(&self, id: ConnId) -> Option<usize> {
        let slot = id.slot();
        (id.reactor() == self.reactor)
            .then(|| self.slots.get(slot)?.as_ref())
            .flatten()
            .is_some_and(|conn| conn.id == id)
            .then_some(slot)
    }

    pub(super) fn get(&self, slot: usize) -> Option<&Conn> {
        self.slots.get(slot)?.as_deref()
    }

    pub(super) fn get_mut(&mut self, slot: usize) -> Option<&mut Conn> {
        self.slots.get_mut(slot)?.as_deref_mut()
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The slots in use.
    pub(super) fn slots(&self) -> Vec<usize> {
        (0..self.slots.len())
            .filter(|&slot| self.slots[slot].is_some())
            .collect()
    }
}

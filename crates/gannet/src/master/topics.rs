//! Topics: who wants which published messages.
//!
//! A topic has the slots of its subscribers on this reactor, a connection has its topics with its
//! place in each list, so that leaving costs the same however many there are.

use std::collections::HashMap;

use super::{reactor::Reactor, sending::Broadcast};
use crate::id::ConnId;

/// The topics of one reactor; each exists as long as it has subscribers.
#[derive(Default)]
pub(super) struct Topics {
    names: HashMap<Box<str>, u32>,
    topics: Vec<Topic>,
    free: Vec<u32>,
}

#[derive(Default)]
struct Topic {
    name: Box<str>,
    /// Slots, each with the topic's place in the connection's list.
    subscribers: Vec<(u32, u32)>,
}

impl Topics {
    pub(super) fn count(&self, name: &str) -> usize {
        self.subscribers(name).len()
    }

    pub(super) fn subscribers(&self, name: &str) -> impl ExactSizeIterator<Item = u32> {
        let list = match self.names.get(name) {
            Some(&topic) => &self.topics[topic as usize].subscribers[..],
            None => &[],
        };
        list.iter().map(|&(slot, _)| slot)
    }
}

impl Reactor {
    pub(super) fn subscribe(&mut self, slot: usize, name: &str) {
        let Reactor { conns, topics, .. } = self;
        let Some(conn) = conns.get_mut(slot) else {
            return;
        };
        if conn.is_gone() {
            return;
        }
        let topic = match topics.names.get(name) {
            Some(&topic) => topic,
            None => {
                let topic = topics.free.pop().unwrap_or(topics.topics.len() as u32);
                if topic as usize == topics.topics.len() {
                    topics.topics.push(Topic::default());
                }
                topics.topics[topic as usize].name = name.into();
                topics.names.insert(name.into(), topic);
                topic
            }
        };
        if conn.ties().topics.iter().any(|&(other, _)| other == topic) {
            return;
        }
        let subscribers = &mut topics.topics[topic as usize].subscribers;
        let of_conn = &mut conn.ties_mut().topics;
        of_conn.push((topic, subscribers.len() as u32));
        subscribers.push((slot as u32, of_conn.len() as u32 - 1));
    }

    pub(super) fn unsubscribe(&mut self, slot: usize, name: &str) {
        let Some(&topic) = self.topics.names.get(name) else {
            return;
        };
        let Some(conn) = self.conns.get(slot) else {
            return;
        };
        let topics = &conn.ties().topics;
        if let Some(index) = topics.iter().position(|&(other, _)| other == topic) {
            self.unsubscribe_at(slot, index);
        }
        if let Some(conn) = self.conns.get_mut(slot) {
            conn.tidy();
        }
    }

    pub(super) fn unsubscribe_all(&mut self, slot: usize) {
        while let Some(conn) = self.conns.get(slot)
            && let Some(last) = conn.ties().topics.len().checked_sub(1)
        {
            self.unsubscribe_at(slot, last);
        }
        if let Some(conn) = self.conns.get_mut(slot) {
            conn.tidy();
        }
    }

    /// Queues a message for every subscriber but `except`.
    pub(super) fn publish_to(
        &mut self,
        name: &str,
        message: &mut Broadcast<'_>,
        droppable: bool,
        except: ConnId,
    ) {
        let Some(&topic) = self.topics.names.get(name) else {
            return;
        };
        let mut index = 0;
        // A subscriber that is cut leaves the list: the one that takes its place is next.
        while let Some(&(slot, _)) = self.topics.topics[topic as usize].subscribers.get(index) {
            let slot = slot as usize;
            if self.conns.get(slot).is_some_and(|conn| conn.id != except) {
                self.send_shared(slot, message, droppable);
            }
            let stays = self.topics.topics[topic as usize]
                .subscribers
                .get(index)
                .is_some_and(|&(same, _)| same as usize == slot);
            if stays {
                index += 1;
            }
        }
    }

    /// Takes a connection out of the topic at `index` of its list.
    fn unsubscribe_at(&mut self, slot: usize, index: usize) {
        let Reactor { conns, topics, .. } = self;
        let Some(conn) = conns.get_mut(slot) else {
            return;
        };
        let of_conn = &mut conn.ties_mut().topics;
        let (number, place) = of_conn.swap_remove(index);
        if let Some(&(moved, its_place)) = of_conn.get(index) {
            topics.topics[moved as usize].subscribers[its_place as usize].1 = index as u32;
        }
        let topic = &mut topics.topics[number as usize];
        topic.subscribers.swap_remove(place as usize);
        if let Some(&(moved, its_index)) = topic.subscribers.get(place as usize)
            && let Some(conn) = conns.get_mut(moved as usize)
        {
            conn.ties_mut().topics[its_index as usize].1 = place;
        }
        if topic.subscribers.is_empty() {
            topic.subscribers = Vec::new();
            let name = std::mem::take(&mut topic.name);
            topics.names.remove(&name);
            topics.free.push(number);
        }
    }
}

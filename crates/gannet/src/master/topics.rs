//! Topics: who wants which published messages.
//!
//! A topic has the slots of its subscribers on this reactor, a connection has its topics with its
//! place in each list, so that leaving costs the same however many there are. How they get what is
//! published stands in `fanout`.

use std::collections::HashMap;

use super::{
    fanout::{Log, Logs},
    reactor::Reactor,
};

/// The topics of one reactor; each exists as long as it has subscribers.
#[derive(Default)]
pub(super) struct Topics {
    pub(super) names: HashMap<Box<str>, u32>,
    pub(super) topics: Vec<Topic>,
    free: Vec<u32>,
    pub(super) logs: Logs,
}

#[derive(Default)]
pub(super) struct Topic {
    name: Box<str>,
    pub(super) subscribers: Vec<Subscriber>,
    /// The number that the next message gets.
    pub(super) published: u32,
    /// It is among those with a log. Stays true when the topic ends, until its turn has come.
    pub(super) listed: bool,
    /// Subscribers that the sweep has not come to, and what all have had when it ends.
    pub(super) cursor: u32,
    pub(super) goal: u32,
    pub(super) log: Option<Box<Log>>,
}

/// A connection, as one of its topics knows it.
pub(super) struct Subscriber {
    pub(super) slot: u32,
    /// The topic's place in the connection's list.
    index: u32,
    /// The number of the first message that it has not had.
    pub(super) next: u32,
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
        list.iter().map(|subscriber| subscriber.slot)
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
        let at = &mut topics.topics[topic as usize];
        let of_conn = &mut conn.ties_mut().topics;
        of_conn.push((topic, at.subscribers.len() as u32));
        at.subscribers.push(Subscriber {
            slot: slot as u32,
            index: of_conn.len() as u32 - 1,
            next: at.published,
        });
    }

    pub(super) fn unsubscribe(&mut self, slot: usize, name: &str) {
        let Some(&topic) = self.topics.names.get(name) else {
            return;
        };
        // It gets what was published before.
        self.catch_up(slot);
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

    /// Takes a connection out of the topic at `index` of its list.
    fn unsubscribe_at(&mut self, slot: usize, index: usize) {
        let Reactor { conns, topics, .. } = self;
        let Some(conn) = conns.get_mut(slot) else {
            return;
        };
        let of_conn = &mut conn.ties_mut().topics;
        let (number, place) = of_conn.swap_remove(index);
        if let Some(&(moved, its_place)) = of_conn.get(index) {
            topics.topics[moved as usize].subscribers[its_place as usize].index = index as u32;
        }
        let topic = &mut topics.topics[number as usize];
        topic.subscribers.swap_remove(place as usize);
        if let Some(moved) = topic.subscribers.get(place as usize)
            && let Some(conn) = conns.get_mut(moved.slot as usize)
        {
            conn.ties_mut().topics[moved.index as usize].1 = place;
        }
        if topic.subscribers.is_empty() {
            topic.subscribers = Vec::new();
            topic.cursor = 0;
            if let Some(log) = topic.log.take() {
                topics.logs.give_back(log);
            }
            let name = std::mem::take(&mut topic.name);
            topics.names.remove(&name);
            topics.free.push(number);
        }
    }
}

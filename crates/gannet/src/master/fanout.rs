//! From what was published to what subscribers are sent.
//!
//! A publish costs the same whatever the number of subscribers: the message goes into the *log* of
//! its topic. At the end of a turn each topic with a log is *swept*: every subscriber gets all that
//! it has not had yet, in one piece that is the same for all who speak alike, and that goes from
//! there to the socket without a copy between. So a turn costs each subscriber one system call,
//! however many messages it brings.
//!
//! | state of a topic | log | leaves when |
//! |---|---|---|
//! | **at rest** | empty | something is published: it is listed |
//! | **listed** | has messages; the sweep is somewhere (`cursor`) | a sweep ends, and every subscriber has all: at rest |
//!
//! Invariants:
//! - A subscriber has had all messages of its topic with numbers below its `next`. Who subscribes
//!   begins with the next one.
//! - A sweep goes from the last subscriber to the first. Who leaves is replaced by the last one, which
//!   is swept already, or looks up to date when it comes up once more; so nobody is left out.
//! - When a sweep ends, all that was in the log when it began is with everybody, and is dropped.
//! - Whatever else goes to a connection goes behind what it has not had yet: who queues something
//!   first calls [`Reactor::catch_up`]. A connection with several topics gets their messages in the
//!   order in which they were published.
//!
//! Bounds: a turn serves [`SHARE`] subscribers, [`SLICE`] of a topic before it is the next one's turn;
//! what is left goes on in the next turn, which comes at once. While [`LOGGED`] bytes are in logs, no
//! commands are taken from workers: their rings fill, and who publishes waits. What a subscriber's
//! socket does not take is queued for it, within `max_queued`.

use std::collections::VecDeque;

use rustix::{io::Errno, net::SendFlags};

use super::{
    broadcast::{Broadcast, Way},
    compress::Compressors,
    conn::{Closed, Conn, Speaks},
    reactor::Reactor,
    topics::Topics,
};
use crate::{
    close::CloseReason, conn_table::Cell, id::ConnId, layout::ReactorCounter, settings::Listener,
};

/// The messages of a topic that not every subscriber has had.
#[derive(Default)]
pub(super) struct Log {
    /// The number of the first.
    first: u32,
    messages: VecDeque<Published>,
    batches: Vec<Batch>,
    /// Who does not get all of them, in order.
    excepted: Vec<ConnId>,
    bytes: usize,
}

struct Published {
    message: Broadcast,
    droppable: bool,
    /// Who does not get it; 0: all do.
    except: ConnId,
    /// Counts what is published on this reactor.
    seq: u64,
}

/// The messages of a log in one piece, as some connections speak.
struct Batch {
    way: Way,
    bytes: Vec<u8>,
    /// Of each message of the log, as far as it is here: where it ends.
    ends: Vec<usize>,
    /// Something in it is compressed.
    packed: bool,
    /// All are here: none is too large to be copied, or impossible to be framed.
    whole: bool,
}

/// Logs that are in use, and what they hold.
#[derive(Default)]
pub(super) struct Logs {
    /// Topics with a log, in the order of their turns.
    listed: VecDeque<u32>,
    /// Bytes in all logs.
    bytes: usize,
    seq: u64,
    /// To be used again.
    #[expect(
        clippy::vec_box,
        reason = "a log moves in and out of its topic as it is"
    )]
    spare: Vec<Box<Log>>,
}

impl Logs {
    /// Nobody waits for anything.
    pub(super) fn is_empty(&self) -> bool {
        self.listed.is_empty()
    }

    /// Nothing more is to be published before subscribers have got something.
    pub(super) fn is_full(&self) -> bool {
        self.bytes >= LOGGED
    }

    /// Keeps an empty log for later.
    pub(super) fn give_back(&mut self, mut log: Box<Log>) {
        self.bytes -= log.bytes;
        if self.spare.len() < SPARE {
            log.clear();
            self.spare.push(log);
        }
    }
}

impl Reactor {
    /// Takes in a message for every subscriber of a topic but `except`.
    pub(super) fn publish_to(
        &mut self,
        name: &str,
        (text, data): (bool, &[u8]),
        droppable: bool,
        except: ConnId,
    ) {
        let Topics {
            names,
            topics,
            logs,
            ..
        } = &mut self.topics;
        let Some(&topic) = names.get(name) else {
            return;
        };
        let at = &mut topics[topic as usize];
        let log = at.log.get_or_insert_with(|| {
            let mut log = logs.spare.pop().unwrap_or_default();
            log.first = at.published;
            log
        });
        at.published = at.published.wrapping_add(1);
        if except != ConnId::from_u64(0)
            && let Err(place) = log.excepted.binary_search(&except)
        {
            log.excepted.insert(place, except);
        }
        log.bytes += data.len() + ENTRY;
        logs.bytes += data.len() + ENTRY;
        logs.seq += 1;
        log.messages.push_back(Published {
            message: Broadcast::new(text, data),
            droppable,
            except,
            seq: logs.seq,
        });
        if !at.listed {
            at.listed = true;
            logs.listed.push_back(topic);
        }
    }

    /// Gives the subscribers what was published, as far as this turn goes.
    pub(super) fn sweep_topics(&mut self) {
        let mut share = SHARE;
        while share > 0
            && let Some(topic) = self.topics.logs.listed.pop_front()
        {
            let slice = share.min(SLICE);
            share -= self.sweep(topic, slice).max(1);
            let at = &mut self.topics.topics[topic as usize];
            at.listed = at.log.is_some();
            if at.listed {
                self.topics.logs.listed.push_back(topic);
            }
        }
        if !self.topics.logs.is_empty() {
            self.count(ReactorCounter::Yields);
        }
    }

    /// Queues for a connection what was published to its topics, so that what is queued next comes
    /// behind it.
    pub(super) fn catch_up(&mut self, slot: usize) {
        if !self.topics.logs.is_empty() {
            self.give_all(slot);
        }
    }

    /// As [`catch_up`](Reactor::catch_up), also while the only topic that has a log is being swept.
    fn give_all(&mut self, slot: usize) {
        let Some(conn) = self.conns.get(slot) else {
            return;
        };
        let mut due: Vec<(u64, u32, u32)> = Vec::new();
        for &(topic, place) in &conn.ties().topics {
            let at = &mut self.topics.topics[topic as usize];
            let subscriber = &mut at.subscribers[place as usize];
            if let Some(log) = &at.log {
                due.extend(
                    log.since(subscriber.next)
                        .map(|(number, seq)| (seq, topic, number)),
                );
                subscriber.next = at.published;
            }
        }
        due.sort_unstable();
        for (_, topic, number) in due {
            let Some(mut log) = self.topics.topics[topic as usize].log.take() else {
                continue;
            };
            let goes_on = self.queue_published(slot, &mut log, number);
            self.keep_log(topic, log);
            if !goes_on {
                return;
            }
        }
    }

    /// Sweeps up to so many subscribers; says how many.
    fn sweep(&mut self, topic: u32, slice: usize) -> usize {
        let at = &mut self.topics.topics[topic as usize];
        let Some(mut log) = at.log.take() else {
            return 0;
        };
        if at.cursor == 0 {
            at.cursor = at.subscribers.len() as u32;
            at.goal = at.published;
        }
        let mut served = 0;
        loop {
            let at = &mut self.topics.topics[topic as usize];
            if at.cursor == 0 {
                log.drop_before(at.goal, &mut self.topics.logs.bytes);
                break;
            }
            if served == slice {
                break;
            }
            served += 1;
            at.cursor -= 1;
            let place = at.cursor as usize;
            let end = at.published;
            // Gone are more than one at once where the connection goes that carries their streams.
            let Some(subscriber) = at.subscribers.get_mut(place) else {
                continue;
            };
            if subscriber.next == end {
                continue;
            }
            let (slot, next) = (subscriber.slot as usize, subscriber.next);
            let is_only = self
                .conns
                .get(slot)
                .is_some_and(|conn| conn.ties().topics.len() == 1);
            if is_only {
                subscriber.next = end;
                self.deliver(slot, &mut log, next);
            } else {
                self.keep_log(topic, log);
                self.give_all(slot);
                match self.topics.topics[topic as usize].log.take() {
                    Some(back) => log = back,
                    None => return served,
                }
            }
        }
        self.keep_log(topic, log);
        served
    }

    /// After a log was taken out of its topic, which may have lost its last subscriber meanwhile.
    fn keep_log(&mut self, topic: u32, log: Box<Log>) {
        let at = &mut self.topics.topics[topic as usize];
        if log.messages.is_empty() || at.subscribers.is_empty() {
            self.topics.logs.give_back(log);
        } else {
            at.log = Some(log);
        }
    }

    /// Sends a connection of one topic all that it has not had.
    fn deliver(&mut self, slot: usize, log: &mut Log, next: u32) {
        let Some(conn) = self.conns.get_mut(slot) else {
            return;
        };
        if !conn.is_open() {
            return;
        }
        let from = log.index(next);
        let count = log.messages.len() - from;
        let listener = &self.settings.listeners[usize::from(conn.listener)];
        let max_queued = listener.max_queued;
        // Who already has something queued gets them one by one, as who must not have all of them.
        let plain = conn.output.is_none() && conn.tls.is_none() && !conn.writing;
        let alike = plain && log.excepted.binary_search(&conn.id).is_err();
        let batch = match Way::of(conn) {
            Some(way) if alike => log.batch(way, conn, &mut self.compressors, listener),
            _ => None,
        };
        if let Some(batch) = batch
            && let Some(socket) = &conn.socket
            && let bytes = batch.since(from)
            && bytes.len() <= max_queued
        {
            let id = conn.id;
            if batch.packed
                && let Speaks::WebSocket(websocket) = &mut conn.speaks
            {
                websocket.sending.forget();
            }
            let send = || rustix::net::send(socket, bytes, SendFlags::NOSIGNAL);
            let written = match rustix::io::retry_on_intr(send) {
                Ok(written) => written,
                Err(Errno::AGAIN) => 0,
                Err(_) => return self.leave(slot, Closed::of(CloseReason::Reset)),
            };
            let left = &bytes[written..];
            if !left.is_empty() {
                let output = self.pool.queue(&mut conn.output);
                output.append(&mut self.pool, |out| out.extend_from_slice(left));
            }
            if let Some(row) = self.table.row_of(id) {
                self.table.add(row, Cell::MessagesOut, count);
                self.table.add(row, Cell::BytesOut, written);
            }
            let is_full = !left.is_empty();
            self.add(ReactorCounter::BytesOut, written);
            if is_full {
                // Who waits for room, and until when, is settled there.
                self.flush(slot);
            }
            return;
        }
        for at in from..from + count {
            let number = log.first.wrapping_add(at as u32);
            if !self.queue_published(slot, log, number) {
                return;
            }
        }
    }

    /// Queues one message of a log; a slow reader is cut, or goes without if it may be dropped.
    /// `false`: the connection takes nothing any more.
    fn queue_published(&mut self, slot: usize, log: &mut Log, number: u32) -> bool {
        let Some(published) = log.get_mut(number) else {
            return true;
        };
        let Some(conn) = self.conns.get(slot).filter(|conn| conn.is_open()) else {
            return false;
        };
        if conn.id != published.except {
            self.send_shared(slot, &mut published.message, published.droppable);
        }
        true
    }
}

impl Log {
    /// The number of a message as an index; those of before count as the first.
    fn index(&self, number: u32) -> usize {
        let index = number.wrapping_sub(self.first) as usize;
        if index > self.messages.len() {
            0
        } else {
            index
        }
    }

    /// From this number on: numbers, and when they were published.
    fn since(&self, number: u32) -> impl Iterator<Item = (u32, u64)> {
        let from = self.index(number);
        let numbered = (0..).zip(&self.messages).skip(from);
        numbered.map(|(at, published)| (self.first.wrapping_add(at), published.seq))
    }

    fn get_mut(&mut self, number: u32) -> Option<&mut Published> {
        let index = number.wrapping_sub(self.first) as usize;
        self.messages.get_mut(index)
    }

    /// All messages in one piece, as this connection speaks; `None`: they cannot be.
    fn batch(
        &mut self,
        way: Way,
        conn: &mut Conn,
        compressors: &mut Compressors,
        listener: &Listener,
    ) -> Option<&Batch> {
        let known = self.batches.iter().position(|batch| batch.way == way);
        let at = known.unwrap_or_else(|| {
            self.batches.push(Batch::new(way));
            self.batches.len() - 1
        });
        let batch = &mut self.batches[at];
        for published in self.messages.iter_mut().skip(batch.ends.len()) {
            let message = &mut published.message;
            if !batch.whole || !message.append_to(&mut batch.bytes, conn, compressors, listener) {
                batch.whole = false;
                break;
            }
            let is_long = message.len() >= listener.compression_threshold;
            batch.packed |= is_long && matches!(way, Way::Compressed(..));
            batch.ends.push(batch.bytes.len());
        }
        batch.whole.then_some(&self.batches[at])
    }

    /// Drops what everybody has had.
    fn drop_before(&mut self, number: u32, all: &mut usize) {
        let count = number.wrapping_sub(self.first) as usize;
        let count = count.min(self.messages.len());
        for published in self.messages.drain(..count) {
            let bytes = published.message.len() + ENTRY;
            self.bytes -= bytes;
            *all -= bytes;
        }
        self.first = self.first.wrapping_add(count as u32);
        match self.messages.is_empty() {
            true => self.clear(),
            // Those that are left are put together anew.
            false => self.batches.clear(),
        }
    }

    fn clear(&mut self) {
        self.messages.clear();
        self.excepted.clear();
        self.bytes = 0;
        self.batches.truncate(WAYS);
        self.batches.retain_mut(Batch::clear);
    }
}

impl Batch {
    fn new(way: Way) -> Self {
        Batch {
            way,
            bytes: Vec::new(),
            ends: Vec::new(),
            packed: false,
            whole: true,
        }
    }

    /// From this message of the log on.
    fn since(&self, index: usize) -> &[u8] {
        let begin = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[begin..]
    }

    /// Empties it; whether its memory is worth keeping.
    fn clear(&mut self) -> bool {
        self.bytes.clear();
        self.ends.clear();
        (self.packed, self.whole) = (false, true);
        self.bytes.capacity() <= KEPT
    }
}

/// Subscribers that are served in a turn: some 1.5 ms of work. What is published meanwhile goes along to
/// those who are served next.
const SHARE: usize = 256;
/// Of those, subscribers of one topic before the next has its turn.
const SLICE: usize = 128;
/// Bytes in logs at which no more commands are taken.
const LOGGED: usize = 1 << 20;
/// What a message counts beside its bytes.
const ENTRY: usize = 128;
/// Logs kept for reuse, ways of each, and bytes of each of these: 4 MiB at most.
const SPARE: usize = 64;
const WAYS: usize = 4;
const KEPT: usize = 16 << 10;

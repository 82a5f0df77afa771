//! What the control socket wants of connections: who they are, closing them, sending to them.
//!
//! Each reactor is asked, and answers for its own connections; the master's main thread adds up.

use std::os::fd::OwnedFd;

use super::{broadcast::Broadcast, conn::Closed, conn::Speaks, reactor::Reactor};
use crate::{
    Error, Result, bootstrap::sealed, channel::Ask, close::CloseReason, control::Filter,
    id::ConnId, settings::Trust,
};

/// What is asked of all reactors.
pub(super) struct Question {
    id: u64,
    to: Filter,
    /// Those of the filter, understood.
    addresses: Option<Trust>,
    what: Ask,
    message: Vec<u8>,
}

/// What has come of it.
#[derive(Default)]
pub(crate) struct Answer {
    pub(super) count: u64,
    /// If it was asked who they are.
    members: Option<Vec<ConnId>>,
}

impl Question {
    pub(super) fn new(id: u64, to: Filter, what: Ask, message: Vec<u8>) -> Result<Self> {
        let addresses = to.addresses().map_err(Error::new)?;
        Ok(Question {
            id,
            to,
            addresses,
            what,
            message,
        })
    }
}

impl Answer {
    pub(super) fn merge(&mut self, other: Answer) {
        self.count += other.count;
        if let Some(members) = other.members {
            self.members.get_or_insert_default().extend(members);
        }
    }

    /// The members, if they were asked for, in order.
    pub(super) fn into_file(self) -> Result<Option<OwnedFd>> {
        let Some(mut members) = self.members else {
            return Ok(None);
        };
        members.sort_unstable();
        let bytes: Vec<u8> = members
            .iter()
            .flat_map(|id| id.as_u64().to_le_bytes())
            .collect();
        Ok(Some(sealed("gannet-members", &bytes)?))
    }
}

impl Reactor {
    /// Answers for the connections of this reactor.
    pub(super) fn ask(&mut self, question: &Question) {
        let meant = self.meant(question);
        let mut answer = Answer::default();
        match &question.what {
            Ask::Members => {
                answer.count = meant.len() as u64;
                answer.members = Some(self.ids_of(meant));
            }
            Ask::Kick { code, reason } => {
                answer.count = meant.len() as u64;
                for slot in meant {
                    let slot = slot as usize;
                    let websocket = self.conns.get(slot).is_some_and(|conn| conn.websocket);
                    let closed = Closed {
                        reason: CloseReason::Kicked,
                        code: if websocket { *code } else { 0 },
                    };
                    self.begin_close(slot, closed, reason);
                }
            }
            Ask::Send { text } => {
                let mut message = Broadcast::new(*text, &question.message);
                for slot in meant {
                    let slot = slot as usize;
                    self.catch_up(slot);
                    let has_messages = self.conns.get(slot).is_some_and(|conn| {
                        !matches!(
                            conn.speaks,
                            Speaks::Http(_) | Speaks::Http2(_) | Speaks::Taken
                        )
                    });
                    if has_messages && self.send_shared(slot, &mut message, false) {
                        answer.count += 1;
                    }
                }
            }
        }
        self.reports
            .send(super::Report::Answer(question.id, answer));
    }

    /// The slots of the open connections that are meant.
    fn meant(&self, question: &Question) -> Vec<u32> {
        let Question { to, addresses, .. } = question;
        let candidates: Vec<u32> = if let Some(topic) = &to.topic {
            self.topics.subscribers(topic).collect()
        } else if let Some(conn) = to.conn {
            let slot = self.conns.find(conn);
            slot.map(|slot| slot as u32).into_iter().collect()
        } else if let Some(uid) = &to.uid {
            self.uids.get(&**uid).cloned().unwrap_or_default()
        } else {
            let slots = self.conns.slots().into_iter();
            slots.map(|slot| slot as u32).collect()
        };
        let is_meant = |slot: &u32| {
            let Some(conn) = self.conns.get(*slot as usize) else {
                return false;
            };
            conn.is_open()
                && to.conn.is_none_or(|id| conn.id == id)
                && to
                    .listener
                    .is_none_or(|listener| usize::from(conn.listener) == listener)
                && to
                    .uid
                    .as_deref()
                    .is_none_or(|uid| conn.ties().uid.as_deref() == Some(uid))
                && addresses
                    .as_ref()
                    // Who it is that awaits a header nobody knows.
                    .is_none_or(|addresses| {
                        !conn.awaits_header() && addresses.has(self.table.peer(conn.id))
                    })
        };
        candidates.into_iter().filter(is_meant).collect()
    }
}

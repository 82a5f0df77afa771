//! What connections of the control socket want of clients' connections: the master is asked.
//!
//! A question is in the books from when it was sent to the master until the answer comes, or the
//! master has ended; so each is answered once. There is one for a connection at most, since a
//! connection's next request is not read before.

use std::{
    collections::BTreeMap,
    fs::File,
    os::{fd::OwnedFd, unix::fs::FileExt},
    sync::Arc,
};

use super::{
    children::Enclosed,
    event_loop::Manager,
    places::Who,
    report::{self, Selection},
};
use crate::{
    ConnId, Result,
    bootstrap::sealed,
    channel::{Ask, ToMaster},
    conn::check_close,
    control::{Count, Data, Filter, Reply},
};

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Questions {
    open: BTreeMap<u64, Question>,
    last: u64,
}

#[derive(Debug)]
struct Question {
    connection: u64,
    then: Then,
}

/// What is done with the answer.
#[derive(Debug)]
enum Then {
    /// The number is told; none is an error if it was about this connection.
    Count(Option<ConnId>),
    /// A page of the connection table.
    Page {
        from: usize,
        limit: usize,
        only: Filter,
    },
}

impl Manager {
    /// `clients`.
    pub(super) fn ask_clients(&mut self, connection: u64, from: usize, limit: usize, only: Filter) {
        if only.topic.is_some() {
            let to = only.clone();
            let then = Then::Page { from, limit, only };
            return self.ask(connection, to, Ask::Members, None, then);
        }
        self.reply_page(connection, from, limit, &only, None);
    }

    /// `kick`.
    pub(super) fn ask_kick(
        &mut self,
        connection: u64,
        to: Filter,
        code: Option<u16>,
        reason: Option<String>,
    ) {
        let reason = reason.unwrap_or_else(|| "closed by an administrator".to_owned());
        if let Err(wrong) = check_close(code.unwrap_or(DEFAULT_CODE), &reason) {
            return self.refuse(connection, wrong);
        }
        let what = Ask::Kick {
            code: code.unwrap_or(DEFAULT_CODE),
            reason,
        };
        let then = Then::Count(to.conn);
        self.ask_named(connection, to, what, None, then);
    }

    /// `send`, and `publish`, which is the same for a topic.
    pub(super) fn ask_send(&mut self, connection: u64, to: Filter, data: Data) {
        let (text, bytes) = match data.into_bytes() {
            Ok(data) => data,
            Err(wrong) => return self.refuse(connection, wrong),
        };
        let file = match sealed("gannet-message", &bytes) {
            Ok(file) => file,
            Err(error) => {
                let reply = Reply::error("unavailable", format!("no memory: {error}"));
                return self.control.reply(connection, &reply);
            }
        };
        let then = Then::Count(to.conn);
        self.ask_named(connection, to, Ask::Send { text }, Some(file), then);
    }

    /// The master has answered.
    pub(super) fn answered(&mut self, id: u64, count: u64, files: Vec<OwnedFd>) {
        let Some(Question { connection, then }) = self.questions.open.remove(&id) else {
            return;
        };
        match then {
            Then::Count(Some(conn)) if count == 0 => {
                let message = format!("there is no connection {conn}");
                let reply = Reply::error("not_found", message);
                self.control.reply(connection, &reply);
            }
            Then::Count(_) => {
                self.control.reply(connection, &Reply::ok(Count { count }));
            }
            Then::Page { from, limit, only } => {
                let members = files
                    .into_iter()
                    .next()
                    .map_or(Ok(Vec::new()), read_members);
                match members {
                    Ok(members) => self.reply_page(connection, from, limit, &only, Some(members)),
                    Err(error) => self
                        .control
                        .reply(connection, &Reply::error("unavailable", error)),
                }
            }
        }
        // Another request may have waited for this one.
        self.serve(connection);
    }

    /// The master is gone, and with it what it was asked.
    pub(super) fn fail_questions(&mut self) {
        for (_, question) in std::mem::take(&mut self.questions.open) {
            self.control.reply(question.connection, &no_master());
            self.serve(question.connection);
        }
    }

    /// Asks only if it was said who is meant.
    fn ask_named(
        &mut self,
        connection: u64,
        to: Filter,
        what: Ask,
        file: Option<OwnedFd>,
        then: Then,
    ) {
        if to.is_empty() {
            let message = "say who is meant: conn, uid, address, listener, topic, or all";
            return self.refuse(connection, message.to_owned());
        }
        self.ask(connection, to, what, file, then);
    }

    fn ask(&mut self, connection: u64, to: Filter, what: Ask, file: Option<OwnedFd>, then: Then) {
        let long = |text: &Option<String>| text.as_ref().is_some_and(|text| text.len() > MAX_NAME);
        if long(&to.topic) || long(&to.uid) {
            let message = format!("a topic or uid has at most {MAX_NAME} bytes");
            return self.refuse(connection, message);
        }
        if let Err(wrong) = to.addresses() {
            return self.refuse(connection, wrong);
        }
        if self.children.pid(Who::Master).is_none() {
            return self.control.reply(connection, &no_master());
        }
        self.questions.last += 1;
        let id = self.questions.last;
        self.questions
            .open
            .insert(id, Question { connection, then });
        let enclosed = file.map_or(Enclosed::Nothing, |file| Enclosed::File(Arc::new(file)));
        self.children
            .tell_master(ToMaster::Ask { id, to, what }, enclosed);
    }

    fn reply_page(
        &mut self,
        connection: u64,
        from: usize,
        limit: usize,
        only: &Filter,
        members: Option<Vec<ConnId>>,
    ) {
        match Selection::new(only, members) {
            Ok(selection) => {
                let page = report::clients(&self.table, from, limit, &selection);
                self.control.reply(connection, &Reply::ok(page));
            }
            Err(wrong) => self.refuse(connection, wrong),
        }
    }

    fn refuse(&mut self, connection: u64, message: String) {
        self.control
            .reply(connection, &Reply::error("bad_request", message));
    }
}

fn no_master() -> Reply<()> {
    Reply::error("unavailable", "the master is being restarted: try again")
}

fn read_members(file: OwnedFd) -> Result<Vec<ConnId>> {
    let file = File::from(file);
    let mut bytes = vec![0; file.metadata()?.len() as usize];
    file.read_exact_at(&mut bytes, 0)?;
    let (numbers, _) = bytes.as_chunks();
    let ids = numbers.iter().map(|bytes| u64::from_le_bytes(*bytes));
    Ok(ids.map(ConnId::from_u64).collect())
}

/// Bytes of a topic's name, and more than a uid has: the question must fit into a packet.
const MAX_NAME: usize = 255;
/// What a WebSocket is closed with if nothing else is said: policy violation.
const DEFAULT_CODE: u16 = 1008;

//! The hub: what it does with requests, wherever they come from.
//!
//! Knows the engine only as a [`Net`] and the database only as a [`Store`].

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use futures_util::future::join_all;
use gannet::ConnId;
use serde_json::value::RawValue;
use ulid::Ulid;

use crate::{
    address::{Address, Device, User},
    error::{Code, Error},
    message::{DEFAULT_EVENT, Message},
    metrics,
    net::Net,
    protocol::{Request, refuse},
    session::Sessions,
    settings::Settings,
    store::{Append, Appended, Store},
};

/// The hub of one worker; cheap to clone.
#[derive(Clone)]
pub(crate) struct Hub<N> {
    pub(crate) net: N,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) sessions: Sessions,
    pub(crate) settings: Arc<Settings>,
}

/// A message on its way in, from the socket or over HTTP.
pub(crate) struct Outgoing {
    pub(crate) to: Address,
    pub(crate) from: Option<User>,
    /// Whose `key` is one; none: the application's.
    pub(crate) device: Option<(User, Device)>,
    pub(crate) event: Option<Arc<str>>,
    pub(crate) data: Box<RawValue>,
    pub(crate) key: Option<Arc<str>>,
}

impl<N: Net> Hub<N> {
    /// Does what a WebSocket message asks for, line by line, and sends the replies.
    pub(crate) async fn frame(&self, conn: ConnId, text: &str) -> Result<(), Error> {
        let lines = text.lines().filter(|line| !line.trim_ascii().is_empty());
        if lines.clone().count() > self.settings.max_lines {
            let limit = self.settings.max_lines;
            let error = Error::new(Code::TooMany, format!("a frame has at most {limit} lines"));
            return Ok(self.net.send(conn, refuse(error)).await?);
        }
        let requests: Vec<Request> = lines.map(Request::parse).collect();
        let mut replies = String::new();
        // Messages that arrive together are stored together; all else is done one after another.
        for run in requests.chunk_by(|one, next| one.is_pub() && next.is_pub()) {
            let answers = run.iter().map(async |request| {
                let outcome = match &request.op {
                    Ok(op) => self.answer(conn, op).await,
                    Err(error) => Err(error.clone()),
                };
                request.reply(outcome)
            });
            for reply in join_all(answers).await {
                if !replies.is_empty() {
                    replies.push('\n');
                }
                replies.push_str(&reply);
                if replies.len() > FLUSH {
                    self.net.send(conn, std::mem::take(&mut replies)).await?;
                }
            }
        }
        if !replies.is_empty() {
            self.net.send(conn, replies).await?;
        }
        Ok(())
    }

    /// Answers a frame that is not text.
    pub(crate) async fn binary(&self, conn: ConnId) -> Result<(), Error> {
        let error = Error::new(Code::NotText, "messages are to be text frames");
        Ok(self.net.send(conn, refuse(error)).await?)
    }

    /// A connection is gone.
    pub(crate) async fn closed(&self, conn: ConnId) -> Result<(), Error> {
        if let Some(session) = self.sessions.find(conn).await? {
            for channel in &session.channels {
                self.left(conn, channel, &session.user).await?;
            }
            // Last, so that a successor does all of it again if this worker dies here.
            self.sessions.end(conn).await?;
        }
        Ok(())
    }

    /// Stores a message where it is to be stored, and pushes it.
    ///
    /// A repeat is pushed again: it may be one because a worker died between storing and pushing.
    /// Clients know a channel's messages by offset and drop what they have.
    pub(crate) async fn publish(&self, outgoing: Outgoing) -> Result<Appended, Error> {
        let append = self.check(outgoing)?;
        let appended = match (&append.to, &append.key) {
            (Address::User(_), None) => live(append.clone()),
            _ => self.store.append(append.clone()).await?,
        };
        self.net.count(metrics::MESSAGES);
        if appended.repeated {
            self.net.count(metrics::REPEATS);
        }
        if let Some(message) = &appended.message {
            let push = match &append.to {
                Address::User(user) => message.push_to_user(user),
                Address::Channel(channel) => message.push_to_channel(channel),
            };
            self.net.publish(&append.to.topic(), push).await?;
        }
        Ok(appended)
    }

    /// Pushes what was stored in the last moments again.
    ///
    /// A new worker does this: its predecessor may have died between storing a message and
    /// pushing it, and not every message has a sender who tries again.
    pub(crate) async fn push_recent(&self) -> Result<(), Error> {
        let since = now().saturating_sub(RECENT_MS);
        for (channel, message) in self.store.recent(since, MAX_RECENT).await? {
            let push = message.push_to_channel(&channel);
            self.net.publish(&channel.topic(), push).await?;
        }
        Ok(())
    }

    /// Holds a message against the limits.
    fn check(&self, outgoing: Outgoing) -> Result<Append, Error> {
        let Outgoing {
            to,
            from,
            device,
            event,
            data,
            key,
        } = outgoing;
        let limit = self.settings.max_data;
        if data.get().len() > limit {
            let is = data.get().len();
            let msg = format!("data: {is} bytes, more than the {limit} that a message may have");
            return Err(Error::new(Code::TooLong, msg));
        }
        let event = event.unwrap_or_else(|| DEFAULT_EVENT.into());
        for (field, text) in [("event", Some(&event)), ("key", key.as_ref())] {
            match text.map(|text| text.len()) {
                Some(0) => return Err(Error::field(field, "is empty")),
                Some(MAX_LABEL..) => {
                    let msg = format!("{field}: {MAX_LABEL} bytes or more");
                    return Err(Error::new(Code::TooLong, msg));
                }
                _ => {}
            }
        }
        Ok(Append {
            to,
            from,
            device,
            event,
            data: one_line(data).into(),
            key,
        })
    }
}

/// A message that is pushed to who is there now and kept nowhere.
fn live(append: Append) -> Appended {
    let (id, time) = (Ulid::generate(), now());
    let Append {
        from,
        event,
        data,
        key,
        ..
    } = append;
    let message = Message {
        offset: None,
        id,
        from,
        event,
        data,
        time,
        key,
    };
    Appended {
        id,
        offset: None,
        time,
        repeated: false,
        message: Some(message),
    }
}

/// The same JSON without line breaks: a push is a line. Inside of JSON strings there are none.
fn one_line(data: Box<RawValue>) -> Box<RawValue> {
    if !data.get().contains(['\n', '\r']) {
        return data;
    }
    // Blanks between tokens mean nothing, so the result is JSON as the input was.
    RawValue::from_string(data.get().replace(['\n', '\r'], " ")).unwrap_or(data)
}

/// The time of the server's clock, in milliseconds since 1970.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Replies of this many bytes are sent before the frame's other requests are done.
const FLUSH: usize = 64 << 10;
/// An event name or key is shorter, in bytes.
const MAX_LABEL: usize = 129;
/// What [`Hub::push_recent`] takes for the last moments: longer than a worker needs to start.
const RECENT_MS: u64 = 30_000;
const MAX_RECENT: usize = 500;

#[cfg(test)]
mod tests;

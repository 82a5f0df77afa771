//! The operations of the client protocol, one method each.

use std::collections::BTreeSet;

use gannet::ConnId;

use crate::{
    address::{Address, Channel},
    error::{Code, Error},
    hub::{Hub, Outgoing, now},
    metrics,
    net::Net,
    protocol::{Hello, History, HistoryPage, OfChannel, Op, Position, Pub, Reply, Sub, VERSION},
    session::Session,
    store::{Page, Part},
};

impl<N: Net> Hub<N> {
    /// Does what a client asks for.
    pub(crate) async fn answer(&self, conn: ConnId, op: &Op) -> Result<Reply, Error> {
        match op {
            Op::Hello(hello) => self.hello(conn, hello).await,
            Op::Ping => Ok(Reply::Ping { time: now() }),
            Op::Sub(sub) => self.subscribe(conn, self.session(conn).await?, sub).await,
            Op::Unsub(unsub) => {
                self.unsubscribe(conn, self.session(conn).await?, &unsub.channel)
                    .await
            }
            Op::Pub(message) => self.say(self.session(conn).await?, message).await,
            Op::History(history) => {
                self.session(conn).await?;
                self.history(history).await.map(Reply::History)
            }
            Op::Presence(OfChannel { channel }) => {
                self.session(conn).await?;
                let present = self.present(channel).await?;
                Ok(Reply::Presence {
                    channel: channel.clone(),
                    present,
                })
            }
        }
    }

    async fn hello(&self, conn: ConnId, hello: &Hello) -> Result<Reply, Error> {
        let known = self.sessions.find(conn).await?;
        let is_new = known.is_none();
        let channels = match known {
            Some(session) if session.user != hello.user || session.device != hello.device => {
                let Session { user, device, .. } = session;
                return Err(Error::new(
                    Code::OtherUser,
                    format!("this is the connection of {user} on {device}: open another"),
                ));
            }
            Some(session) => session.channels,
            None => BTreeSet::new(),
        };
        let Hello { user, device } = hello.clone();
        let session = Session {
            user: user.clone(),
            device: device.clone(),
            channels,
        };
        self.sessions.save(conn, session).await?;
        self.net.bind(conn, &user).await?;
        self.net.subscribe(conn, &user.topic()).await?;
        if is_new {
            self.net.count(metrics::HELLOS);
        }
        Ok(Reply::Hello {
            v: VERSION,
            user,
            device,
            conn: conn.as_u64(),
            epoch: self.store.epoch(),
            time: now(),
            max_data: self.settings.max_data,
            max_lines: self.settings.max_lines,
        })
    }

    async fn subscribe(
        &self,
        conn: ConnId,
        mut session: Session,
        sub: &Sub,
    ) -> Result<Reply, Error> {
        let channel = &sub.channel;
        let user = session.user.clone();
        if session.channels.insert(channel.clone())
            && session.channels.len() > self.settings.max_subscriptions
        {
            let limit = self.settings.max_subscriptions;
            let msg = format!("a connection subscribes to at most {limit} channels");
            return Err(Error::new(Code::TooMany, msg));
        }
        // The session first: whoever handles the close must know what to leave.
        self.sessions.save(conn, session).await?;
        self.net.subscribe(conn, &channel.topic()).await?;
        // When the members are known the subscription is in force. What is stored from now on is
        // pushed to this client too, what was stored before is in the page: nothing is between.
        let present = self.present(channel).await?;
        let page = match sub.since {
            Some(since) => self.since(channel, since, sub.limit).await?,
            None => self.newest(channel, Part::Newest, sub.limit).await?,
        };
        self.joined(channel, &user, &present).await?;
        Ok(Reply::Sub { page, present })
    }

    async fn unsubscribe(
        &self,
        conn: ConnId,
        mut session: Session,
        channel: &Channel,
    ) -> Result<Reply, Error> {
        self.net.unsubscribe(conn, &channel.topic()).await?;
        if session.channels.remove(channel) {
            self.left(conn, channel, &session.user).await?;
            self.sessions.save(conn, session).await?;
        }
        Ok(Reply::Unsub {
            channel: channel.clone(),
        })
    }

    async fn say(&self, session: Session, message: &Pub) -> Result<Reply, Error> {
        let appended = self
            .publish(Outgoing {
                to: Address::Channel(message.channel.clone()),
                from: Some(session.user.clone()),
                device: Some((session.user, session.device)),
                event: message.event.clone(),
                data: message.data.clone(),
                key: Some(message.key.clone()),
            })
            .await?;
        Ok(Reply::Pub {
            channel: message.channel.clone(),
            offset: appended.offset,
            id: appended.id,
            time: appended.time,
        })
    }

    /// A part of a channel's history.
    pub(crate) async fn history(&self, history: &History) -> Result<HistoryPage, Error> {
        let History {
            channel,
            before,
            since,
            limit,
        } = history;
        match (before, since) {
            (Some(_), Some(_)) => Err(Error::field("since", "and before exclude each other")),
            (_, Some(since)) => self.since(channel, *since, *limit).await,
            (Some(before), None) => self.newest(channel, Part::Before(*before), *limit).await,
            (None, None) => self.newest(channel, Part::Newest, *limit).await,
        }
    }

    /// What a client that knows the history up to `since` has missed. If that cannot be told any
    /// more, the newest messages, marked with `gap`.
    async fn since(
        &self,
        channel: &Channel,
        since: Position,
        limit: Option<usize>,
    ) -> Result<HistoryPage, Error> {
        let limit = limit.unwrap_or(MAX_PAGE).min(MAX_PAGE);
        let Page {
            mut messages,
            last,
            first,
        } = self
            .store
            .page(channel, Part::Since(since.offset), limit)
            .await?;
        // An offset from the future: the store was put back to an earlier state.
        let known = since.epoch == self.store.epoch() && since.offset <= last;
        if !known || since.offset + 1 < first {
            let page = self.newest(channel, Part::Newest, Some(limit)).await?;
            return Ok(HistoryPage { gap: true, ..page });
        }
        let mut room = MAX_PAGE_BYTES;
        messages.truncate(
            messages
                .iter()
                .take_while(|message| fits(message, &mut room))
                .count(),
        );
        let reached = messages
            .last()
            .and_then(|message| message.offset)
            .unwrap_or(since.offset);
        Ok(HistoryPage {
            channel: channel.clone(),
            epoch: self.store.epoch(),
            last,
            messages,
            more: reached < last,
            gap: false,
        })
    }

    async fn newest(
        &self,
        channel: &Channel,
        part: Part,
        limit: Option<usize>,
    ) -> Result<HistoryPage, Error> {
        let limit = limit.unwrap_or(DEFAULT_PAGE).min(MAX_PAGE);
        let Page {
            mut messages,
            last,
            first,
        } = self.store.page(channel, part, limit).await?;
        let mut room = MAX_PAGE_BYTES;
        let fit = messages
            .iter()
            .rev()
            .take_while(|message| fits(message, &mut room))
            .count();
        messages.drain(..messages.len() - fit);
        let more = match (messages.first().and_then(|message| message.offset), part) {
            (Some(oldest), _) => oldest > first,
            (None, Part::Before(before)) => before > first,
            (None, _) => last >= first,
        };
        Ok(HistoryPage {
            channel: channel.clone(),
            epoch: self.store.epoch(),
            last,
            messages,
            more,
            gap: false,
        })
    }

    /// The session of a connection that has said hello.
    async fn session(&self, conn: ConnId) -> Result<Session, Error> {
        self.sessions
            .find(conn)
            .await?
            .ok_or_else(|| Error::new(Code::HelloFirst, "say hello on this connection first"))
    }
}

/// Whether a message goes into a reply that has room for so many bytes. The first always does.
fn fits(message: &crate::message::Message, room: &mut usize) -> bool {
    let first = *room == MAX_PAGE_BYTES;
    let needs = message.data.get().len() + OVERHEAD;
    let fits = first || needs <= *room;
    *room = room.saturating_sub(needs);
    fits
}

/// Messages of a reply if the client does not say how many.
const DEFAULT_PAGE: usize = 50;
/// Most messages of a reply.
const MAX_PAGE: usize = 200;
/// Most bytes of a reply's messages, unless the first alone is larger.
const MAX_PAGE_BYTES: usize = 1 << 20;
/// About what a message has beside its data.
const OVERHEAD: usize = 256;

//! A connection, as handlers see it.

use std::{
    fmt,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;

use crate::{
    ConnId, Error, Message, Peer, Result, SendError, TlsInfo, Worker, WorkerId,
    conn_table::{Cell, Row},
    wire::{
        TEXT,
        command::{ABORT, CommandHeader, CommandKind, MAX_UID, Query},
    },
    worker::{Command, Push, check_topic},
};

/// A connection. Cheap to clone; may be used on any thread, and may outlive the connection: what
/// is sent then goes nowhere.
///
/// What one task sends arrives in that order. What several tasks send at once arrives in some
/// order, each message whole.
#[derive(Clone)]
pub struct Conn {
    worker: Worker,
    id: ConnId,
    redelivered: bool,
}

impl Conn {
    pub(crate) fn new(worker: Worker, id: ConnId, redelivered: bool) -> Self {
        Conn {
            worker,
            id,
            redelivered,
        }
    }

    /// Its number.
    pub fn id(&self) -> ConnId {
        self.id
    }

    /// Sends a message: a WebSocket message, or bytes on TCP, as they are: with a framing too
    /// ([`Conn::send_framed`] frames).
    ///
    /// Waits only while the ring to the reactor is full. `Ok` means that the message is on its
    /// way to the master, not that the peer has it. If the peer is gone, nothing happens.
    ///
    /// Nothing is sent before the future is awaited.
    #[inline]
    pub fn send(&self, message: impl Into<Message>) -> impl Future<Output = Result> {
        Sending {
            conn: Some(self),
            message: message.into(),
            push: None,
        }
    }

    /// As [`Conn::send`], but says [`SendError::Full`] instead of waiting.
    pub fn try_send(&self, message: impl Into<Message>) -> std::result::Result<(), SendError> {
        let message = message.into();
        let command = Command::new(self.header_of(&message), message.into_bytes());
        self.worker.shared().try_push(self.id.reactor(), command)
    }

    /// Sends one message by the [framing](crate::Framing) of the connection's listener: with its
    /// marker, or with a header in front. Without a framing as [`Conn::send`].
    ///
    /// What `receive` got can be sent back as it is: a kept marker stands at the end once, and of
    /// a kept header the length is written anew. An error means that no receiver with the same
    /// framing would read the message again ([`EncodeError`](crate::framing::EncodeError)).
    pub async fn send_framed(&self, message: impl Into<Message>) -> Result {
        let message = self.framed(message.into())?;
        self.send(message).await
    }

    /// Closes the connection when everything queued has been sent (WebSocket: 1000).
    pub async fn close(&self) -> Result {
        self.command(
            CommandHeader::new(CommandKind::Close, self.id),
            Bytes::new(),
        )
        .await
    }

    /// Closes a WebSocket with a code (1000 to 1003, 1007 to 1014, or 3000 to 4999) and a reason
    /// of at most 123 bytes. On other connections as [`Conn::close`].
    pub async fn close_with(&self, code: u16, reason: &str) -> Result {
        check_close(code, reason).map_err(Error::new)?;
        let header = CommandHeader {
            code,
            ..CommandHeader::new(CommandKind::Close, self.id)
        };
        self.command(header, Bytes::copy_from_slice(reason.as_bytes()))
            .await
    }

    /// Cuts the connection at once; what is queued is lost.
    pub async fn abort(&self) -> Result {
        let header = CommandHeader {
            flags: ABORT,
            ..CommandHeader::new(CommandKind::Close, self.id)
        };
        self.command(header, Bytes::new()).await
    }

    /// Waits until at most `bytes` are queued for the peer, or the connection is closed.
    ///
    /// For senders that would otherwise run into `max_queued`.
    pub async fn drained(&self, bytes: usize) -> Result {
        Ok(self.worker.shared().drained(self.id, bytes).await?)
    }

    /// From now on it gets what is published to `topic` (1 to 255 bytes). Ends with the
    /// connection.
    pub async fn subscribe(&self, topic: &str) -> Result {
        check_topic(topic)?;
        let header = CommandHeader::new(CommandKind::Subscribe, self.id);
        self.command(header, Bytes::copy_from_slice(topic.as_bytes()))
            .await
    }

    /// It gets no more of `topic`.
    pub async fn unsubscribe(&self, topic: &str) -> Result {
        check_topic(topic)?;
        let header = CommandHeader::new(CommandKind::Unsubscribe, self.id);
        self.command(header, Bytes::copy_from_slice(topic.as_bytes()))
            .await
    }

    /// Binds the connection to a user, in place of the one before: 1 to 63 bytes. Several
    /// connections can be bound to one. See [`Worker::bound_to`].
    pub async fn bind(&self, uid: impl fmt::Display) -> Result {
        let uid = uid.to_string();
        check_uid(&uid)?;
        self.command(CommandHeader::new(CommandKind::Bind, self.id), uid.into())
            .await
    }

    /// Takes the binding back.
    pub async fn unbind(&self) -> Result {
        self.command(CommandHeader::new(CommandKind::Bind, self.id), Bytes::new())
            .await
    }

    /// What the connection table says of it now; `None` once the connection is closed.
    pub fn info(&self) -> Option<ConnInfo> {
        self.worker.info(self.id)
    }

    /// Whether the connection is open, as far as the master knows.
    pub fn is_open(&self) -> bool {
        self.worker.shared().table().is_open(self.id)
    }

    /// Whether the event being handled was given to a worker before, which died with it: it may
    /// have been handled in part.
    pub fn is_redelivered(&self) -> bool {
        self.redelivered
    }

    /// The worker that this is running in.
    pub fn worker(&self) -> &Worker {
        &self.worker
    }

    fn framed(&self, message: Message) -> Result<Message> {
        let Some(framing) = self.worker.shared().framing_of(self.id) else {
            return Ok(message);
        };
        let mut bytes = Vec::with_capacity(message.as_bytes().len() + 16);
        framing.encode(&mut bytes, message.as_bytes())?;
        Ok(Message::Binary(bytes.into()))
    }

    fn header_of(&self, message: &Message) -> CommandHeader {
        let mut header = CommandHeader::new(CommandKind::Send, self.id);
        if message.is_text() {
            header.flags = TEXT;
        }
        header
    }

    async fn command(&self, header: CommandHeader, payload: Bytes) -> Result {
        let command = Command::new(header, payload);
        Ok(self
            .worker
            .shared()
            .push(self.id.reactor(), command)
            .await?)
    }
}

/// See [`Conn::send`]. Every answer of a handler is one of these and moves with its future, so it is small:
/// what hardly any needs is made when it is.
struct Sending<'a> {
    /// `None` once it is over.
    conn: Option<&'a Conn>,
    message: Message,
    /// There was no room, or this is not the thread of the worker.
    push: Option<Box<Push<'a>>>,
}

impl Future for Sending<'_> {
    type Output = Result;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result> {
        if self.push.is_none()
            && let Some(conn) = self.conn
        {
            let (message, shared) = (&self.message, conn.worker.shared());
            let (reactor, header) = (conn.id.reactor(), conn.header_of(message));
            if shared.push_at_once(reactor, &header, message.as_bytes()) {
                self.conn = None;
                return Poll::Ready(Ok(()));
            }
        }
        self.wait(cx)
    }
}

impl Sending<'_> {
    #[cold]
    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<Result> {
        let Some(conn) = self.conn else {
            return Poll::Pending;
        };
        let push = self.push.get_or_insert_with(|| {
            let header = conn.header_of(&self.message);
            let command = Command::new(header, self.message.clone().into_bytes());
            Box::new(conn.worker.shared().push(conn.id.reactor(), command))
        });
        let pushed = Pin::new(&mut **push).poll(cx);
        if pushed.is_ready() {
            self.conn = None;
        }
        pushed.map_err(Error::from)
    }
}

impl fmt::Debug for Conn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Conn({})", self.id)
    }
}

/// Two handles are equal if they mean the same connection.
impl PartialEq for Conn {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Conn {}

impl std::hash::Hash for Conn {
    fn hash<S: std::hash::Hasher>(&self, state: &mut S) {
        self.id.hash(state);
    }
}

/// What is known of a connection.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConnInfo {
    /// Its number.
    pub id: ConnId,
    /// The client. Behind a proxy: whom its PROXY header names, or, for a WebSocket, the forwarding
    /// header of the handshake. A plain HTTP connection keeps the proxy here, since each of its
    /// requests may be another client's: [`Peer::of`] a request is that.
    pub peer: Peer,
    /// The trusted proxy that has named the client: the other end of the socket.
    pub proxy: Option<Peer>,
    /// The address that the client connected to, behind a proxy with a PROXY header that of the
    /// proxy; `None` on a Unix socket, whose address stands in the settings of the listener.
    pub local: Option<SocketAddr>,
    /// Which of `settings.listeners` it came from.
    pub listener: usize,
    /// The worker that has its events now.
    pub worker: WorkerId,
    /// The user [bound](Conn::bind) to it.
    pub uid: Option<String>,
    /// When it was accepted.
    pub opened: SystemTime,
    /// When something last came from the client.
    pub last_seen: SystemTime,
    /// Bytes from the client.
    pub bytes_in: u64,
    /// Bytes to the client.
    pub bytes_out: u64,
    /// Messages or requests from the client.
    pub messages_in: u64,
    /// Messages or responses to the client.
    pub messages_out: u64,
    /// Bytes that wait for the client to read, now.
    pub queued: u64,
    /// Whether it is an open WebSocket.
    pub websocket: bool,
    /// What its TLS handshake agreed on, and the client's certificate; `None` without TLS, and
    /// before the handshake is done.
    pub tls: Option<TlsInfo>,
}

impl ConnInfo {
    /// From its row and the row's cells.
    pub(crate) fn new(row: Row, tls: Option<TlsInfo>, cell: impl Fn(Cell) -> u64) -> Self {
        ConnInfo {
            id: row.id,
            peer: row.peer,
            proxy: row.proxy,
            local: row.local,
            listener: row.listener.into(),
            worker: row.worker,
            uid: (!row.uid.is_empty()).then_some(row.uid),
            opened: unix_ms(row.opened),
            last_seen: unix_ms(cell(Cell::LastSeen).max(row.opened)),
            bytes_in: cell(Cell::BytesIn),
            bytes_out: cell(Cell::BytesOut),
            messages_in: cell(Cell::MessagesIn),
            messages_out: cell(Cell::MessagesOut),
            queued: cell(Cell::Queued),
            websocket: row.websocket,
            tls,
        }
    }
}

impl Worker {
    /// Connections bound to this user, on any listener and worker.
    pub async fn bound_to(&self, uid: impl fmt::Display) -> Result<Vec<ConnId>> {
        let uid = uid.to_string();
        check_uid(&uid)?;
        Ok(self
            .shared()
            .ask_for_conns(Query::Bound, uid.into())
            .await?)
    }
}

fn check_uid(uid: &str) -> Result {
    if uid.is_empty() || uid.len() > MAX_UID {
        let len = uid.len();
        return Err(Error::new(format!(
            "a uid has 1 to {MAX_UID} bytes, this one has {len}"
        )));
    }
    Ok(())
}

fn unix_ms(ms: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(ms)
}

/// Whether a close frame can carry this; the error says why not.
pub(crate) fn check_close(code: u16, reason: &str) -> std::result::Result<(), String> {
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(format!(
            "{code} is no close code that can be sent: use 1000 or one of 4000 to 4999"
        ));
    }
    match reason.len() {
        len if len > MAX_CLOSE_REASON => Err(format!(
            "a close reason has at most {MAX_CLOSE_REASON} bytes, this one has {len}"
        )),
        _ => Ok(()),
    }
}

/// Longest reason in a close frame.
const MAX_CLOSE_REASON: usize = 123;

#[cfg(test)]
mod tests {
    use super::*;

    /// Axum wants the futures of its handlers to be `Send`; threads of a pool want the handles.
    #[test]
    fn handles_and_their_futures_go_to_other_threads() {
        fn portable<T: Send + Sync + 'static>() {}
        fn sendable<T: Send>(_: impl FnOnce(&'static Conn) -> T) {}
        portable::<Conn>();
        portable::<Worker>();
        sendable(|conn| conn.send("x"));
        sendable(|conn| conn.drained(0));
        sendable(|conn| conn.bind("ann"));
        sendable(|conn| conn.worker().task("x"));
        sendable(|conn| conn.worker().publish("topic", "x"));
        sendable(|conn| conn.worker().topic_members("topic"));
    }
}

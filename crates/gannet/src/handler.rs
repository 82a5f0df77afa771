//! The trait that user code implements.

use std::{
    any::TypeId,
    future::Future,
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;

use crate::{
    Accept, CloseReason, Conn, Error, Handshake, Message, PacketSource, Request, Response, Result,
    Task, TaskError, TaskId, Worker, WorkerId, channel::Implements,
};

/// What a server does with its events. Implement the methods for what it listens on.
///
/// Every worker and task worker makes one value with [`start`](Handler::start) and calls its
/// methods on one thread: futures need not be `Send`, and state needs no locks, but is this
/// process's own. The events of one connection come one after another; while one awaits, those of
/// other connections run. A method that blocks the thread stops its whole worker: hand such work
/// to [`Worker::task`].
///
/// An error or a panic is logged and counted, and the client is told: HTTP 500, WebSocket close
/// 1011, TCP close.
#[allow(
    async_fn_in_trait,
    reason = "handlers run on one thread: no Send bound is wanted"
)]
pub trait Handler: Sized + 'static {
    /// Makes the handler; before the process gets its first event. An error or a panic aborts a
    /// start, and during a reload leaves the old code serving.
    ///
    /// Futures can be spawned here, messages sent and published, and tasks detached. All that leaves when the
    /// worker is ready, and nothing of it if this fails. What would wait for the master, which
    /// does not know the worker before, is an error at once ([`SendError::NotReady`](crate::SendError::NotReady),
    /// [`TaskError::NotReady`]): the result of [`Worker::task`], the members of a topic, and
    /// room for more than `ring_size`. A future given to [`Worker::spawn_local`] can wait for it.
    async fn start(worker: &Worker) -> Result<Self>;

    /// A client connected to a TCP listener.
    fn connect(&self, conn: Conn) -> impl Future<Output = Result> {
        let _ = conn;
        Default::default_of(Ok(()))
    }

    /// Bytes came in on a TCP connection. TCP is a stream: they may be a part of what the client
    /// sent at once, or several of its messages. With a [framing](crate::Framing) of the listener
    /// it is one message, whole; it may be empty.
    ///
    /// Small payloads share a buffer of 16 KiB with their neighbours, which lives as long as any of
    /// them: copy what is to be kept for long. The same holds for messages.
    fn receive(&self, conn: Conn, data: Bytes) -> impl Future<Output = Result> {
        let _ = (conn, data);
        Default::default_of(Ok(()))
    }

    /// A datagram came to a UDP listener (or one of Unix datagrams). A datagram has no connection:
    /// several of one sender may be handled at the same time, where a handler awaits, and none is
    /// told when it fails.
    ///
    /// A datagram that was given to a worker is handled again if the worker dies, as messages are.
    /// One that finds no room is dropped (`packets_dropped`).
    fn packet(&self, from: PacketSource, data: Bytes) -> impl Future<Output = Result> {
        let _ = (from, data);
        Default::default_of(Ok(()))
    }

    /// An HTTP request. Its body streams; the response may. A response whose body fails or has not
    /// the length that it promised is broken off, so that the client sees it. An axum `Router` or
    /// any tower service can answer it: see [`serve_service`](crate::serve_service).
    fn request(&self, conn: Conn, request: Request) -> impl Future<Output = Result<Response>> {
        let _ = (conn, request);
        Default::default_of(Ok(Response::default()))
    }

    /// A client wants to open a WebSocket; `handshake` is its whole request. Messages sent here
    /// reach the client after the handshake. Default: accept. An error is answered with 500.
    fn open(&self, conn: Conn, handshake: Handshake) -> impl Future<Output = Result<Accept>> {
        let _ = (conn, handshake);
        Default::default_of(Ok(Accept::new()))
    }

    /// A WebSocket message, whole.
    fn message(&self, conn: Conn, message: Message) -> impl Future<Output = Result> {
        let _ = (conn, message);
        Default::default_of(Ok(()))
    }

    /// The connection (TCP, or a WebSocket that was opened) is closed; the last event of it. Also
    /// called if a client vanished while [`open`](Handler::open) ran. Not called for HTTP.
    fn close(&self, conn: Conn, reason: CloseReason) -> impl Future<Output = Result> {
        let _ = (conn, reason);
        Default::default_of(Ok(()))
    }

    /// Runs in a task worker, one task at a time; may block the thread. What it sends leaves at
    /// once. An error or a panic becomes the [`TaskError::Failed`] of who submitted it.
    fn task(&self, task: Task) -> impl Future<Output = Result<Bytes>> {
        let _ = task;
        Default::default_of(Ok(Bytes::new()))
    }

    /// A task submitted by this worker with [`Worker::detach_task`] has ended.
    fn finish(
        &self,
        task: TaskId,
        result: std::result::Result<Bytes, TaskError>,
    ) -> impl Future<Output = Result> {
        let _ = (task, result);
        Default::default_of(Ok(()))
    }

    /// Another worker or task worker called [`Worker::pipe`].
    fn pipe_message(&self, from: WorkerId, data: Bytes) -> impl Future<Output = Result> {
        let _ = (from, data);
        Default::default_of(Ok(()))
    }

    /// The process is about to exit: reload, stop, or `max_requests`. All handlers have ended. It
    /// may take `max_wait_time_ms`. Not called when the process crashes.
    fn stop(&self) -> impl Future<Output = Result> {
        Default::default_of(Ok(()))
    }
}

/// What the trait's own methods return: a ready value, of a type that no handler's own method can
/// return, so that the engine can tell whether a method was implemented.
struct Default<T>(Option<T>);

impl<T> Default<T> {
    fn default_of(value: T) -> Self {
        Default(Some(value))
    }
}

impl<T: Unpin> Future for Default<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<T> {
        match self.0.take() {
            Some(value) => Poll::Ready(value),
            None => Poll::Pending,
        }
    }
}

/// Which methods `H` has of its own.
pub(crate) fn implements<H: Handler>() -> Implements {
    fn own<H: Handler, A, T: 'static, F: Future<Output = T> + 'static>(
        _method: impl FnOnce(&'static H, A) -> F,
    ) -> bool {
        let _ = PhantomData::<A>;
        TypeId::of::<F>() != TypeId::of::<Default<T>>()
    }
    Implements {
        connect: own(|handler: &'static H, conn| handler.connect(conn)),
        receive: own(|handler: &'static H, (conn, data)| handler.receive(conn, data)),
        packet: own(|handler: &'static H, (from, data)| handler.packet(from, data)),
        request: own(|handler: &'static H, (conn, request)| handler.request(conn, request)),
        open: own(|handler: &'static H, (conn, handshake)| handler.open(conn, handshake)),
        message: own(|handler: &'static H, (conn, message)| handler.message(conn, message)),
        close: own(|handler: &'static H, (conn, reason)| handler.close(conn, reason)),
        task: own(|handler: &'static H, task| handler.task(task)),
        finish: own(|handler: &'static H, (task, result)| handler.finish(task, result)),
        pipe_message: own(|handler: &'static H, (from, data)| handler.pipe_message(from, data)),
    }
}

/// Why a handler cannot serve a listener of this protocol, if it cannot.
pub(crate) fn lacks(
    implements: &Implements,
    protocol: crate::Protocol,
    address: &str,
) -> Option<Error> {
    use crate::Protocol;
    let (missing, what) = match protocol {
        Protocol::Tcp if !implements.receive => ("receive", "TCP"),
        Protocol::Udp if !implements.packet => ("packet", "UDP"),
        Protocol::Http if !implements.request => ("request", "HTTP"),
        Protocol::Websocket if !implements.message => ("message", "WebSocket"),
        _ => return None,
    };
    Some(Error::usage(format!(
        "the {what} listener {address} needs a handler with `{missing}`: implement \
         `Handler::{missing}`, or remove the listener"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Echo;

    impl Handler for Echo {
        async fn start(_worker: &Worker) -> Result<Self> {
            Ok(Echo)
        }

        async fn receive(&self, conn: Conn, data: Bytes) -> Result {
            conn.send(data).await
        }
    }

    #[test]
    fn tells_own_methods_from_default_ones() {
        assert_eq!(
            implements::<Echo>(),
            Implements {
                receive: true,
                ..Implements::default()
            }
        );
    }
}

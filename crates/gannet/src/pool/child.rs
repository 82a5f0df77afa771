//! A child from start to end, and the handle that its function has.

use std::{
    fmt, io, marker::PhantomData, os::unix::net::UnixStream as StdStream, rc::Rc, sync::Arc,
};

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::AsyncWriteExt,
    net::{UnixStream, unix::OwnedWriteHalf},
    sync::{Mutex, mpsc, oneshot, watch},
};

use super::{
    frame::{FrameReader, decode, encode},
    options::Orders,
};
use crate::{
    Error, Result,
    channel::{Channel, FromWorker, Implements, ToWorker},
    inherit, logging, sys, watch as readiness,
    worker::caught,
};

/// The child process of a pool that a function runs in: its end of the conversation.
///
/// Cheap to clone; may be used from several tasks of the function, which run on one thread
/// ([`tokio::task::spawn_local`]). Timers and sockets of tokio work. What blocks belongs into
/// [`tokio::task::spawn_blocking`], or between two messages of a child that does nothing else.
pub struct Child<Request, Reply> {
    number: usize,
    restarts: u64,
    max_message: usize,
    reader: Arc<Mutex<FrameReader>>,
    outgoing: mpsc::Sender<Out>,
    stop: watch::Receiver<bool>,
    types: PhantomData<fn(Reply) -> Request>,
}

enum Out {
    Frame(Bytes),
    /// Everything before it is written.
    Flush(oneshot::Sender<()>),
}

impl<Request, Reply> Child<Request, Reply> {
    /// Its number: children are `0..processes`, a restarted one keeps its number.
    pub fn number(&self) -> usize {
        self.number
    }

    /// How often the child with this number was restarted.
    pub fn restarts(&self) -> u64 {
        self.restarts
    }

    /// Waits until the parent asks its children to end. The child is killed if its function has not
    /// returned within `max_wait` of that.
    pub async fn stopping(&self) {
        // The sender lives as long as the process.
        let _ = self.stop.clone().wait_for(|stop| *stop).await;
    }
}

impl<Request: DeserializeOwned, Reply> Child<Request, Reply> {
    /// The next message of the parent. Waits for one; cancel safe. `None`: there will be none any
    /// more, the parent has asked its children to end and everything before that was received.
    ///
    /// An error: the message is no `Request`, which happens when the program was replaced by one with
    /// other types. The next call has the next message.
    pub async fn recv(&self) -> Result<Option<Request>> {
        let frame = self.reader.lock().await.next().await?;
        frame.map(|frame| decode(&frame)).transpose()
    }
}

impl<Request, Reply: Serialize> Child<Request, Reply> {
    /// Sends the parent a message. Waits while `queue` messages wait already; cancel safe: then it
    /// was not sent.
    pub async fn send(&self, reply: &Reply) -> Result {
        let frame = encode(reply, self.max_message)?;
        self.outgoing
            .send(Out::Frame(frame))
            .await
            .map_err(|_| Error::new("the parent is gone"))?;
        // A function that computes until it sends again does not hold this one back.
        tokio::task::yield_now().await;
        Ok(())
    }
}

impl<Request, Reply> Clone for Child<Request, Reply> {
    fn clone(&self) -> Self {
        Child {
            number: self.number,
            restarts: self.restarts,
            max_message: self.max_message,
            reader: self.reader.clone(),
            outgoing: self.outgoing.clone(),
            stop: self.stop.clone(),
            types: PhantomData,
        }
    }
}

impl<Request, Reply> fmt::Debug for Child<Request, Reply> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Child({})", self.number)
    }
}

/// Runs the function in this process, and ends it.
pub(super) fn run<Request, Reply, F, R>(orders: Orders, function: F) -> !
where
    F: FnOnce(Child<Request, Reply>) -> R,
    R: Future<Output = Result>,
{
    logging::init_pool(&orders.pool, orders.child);
    let code = match live(orders, function) {
        Ok(()) => 0,
        Err(error) => {
            tracing::error!("{error}");
            1
        }
    };
    // What `main` does further is the parent's business.
    std::process::exit(code);
}

fn live<Request, Reply, F, R>(orders: Orders, function: F) -> Result
where
    F: FnOnce(Child<Request, Reply>) -> R,
    R: Future<Output = Result>,
{
    // A Ctrl-C at the terminal goes to children, too; what it means, the parent says.
    sys::leave_steering_to_the_manager()?;
    let channel = Rc::new(Channel::new(inherit::take(orders.channel)?));
    let stream = StdStream::from(inherit::take(orders.stream)?);
    stream.set_nonblocking(true)?;
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build_local(Default::default())?;
    let result = runtime.block_on(async {
        let (reader, writer) = UnixStream::from_std(stream)?.into_split();
        let (outgoing, queue) = mpsc::channel(orders.queue);
        let (stop, stops) = watch::channel(false);
        let child = Child {
            number: orders.child,
            restarts: orders.restarts,
            max_message: orders.max_message,
            reader: Arc::new(Mutex::new(FrameReader::new(reader, orders.max_message))),
            outgoing: outgoing.clone(),
            stop: stops,
            types: PhantomData,
        };
        tokio::task::spawn_local(obey(channel.clone(), stop));
        tokio::task::spawn_local(write(writer, queue));
        let implements = Implements::default();
        channel.send(&FromWorker::Ready { implements }, &[])?;
        // A panic is an error: unwinding would wait for threads that block.
        let result = caught(async { function(child).await }).await;
        let result = result.unwrap_or_else(|panic| Err(Error::new(format!("panic: {panic}"))));
        let (flushed, done) = oneshot::channel();
        if outgoing.send(Out::Flush(flushed)).await.is_ok() {
            // An error: the parent is gone.
            let _ = done.await;
        }
        result
    });
    // Threads of the function that block still must not hold the process.
    runtime.shutdown_background();
    result.inspect_err(|error| {
        let error = error.to_string();
        let _ = channel.send(&FromWorker::Failed { error }, &[]);
    })
}

/// Hears what the parent orders, and its end.
async fn obey(channel: Rc<Channel>, stop: watch::Sender<bool>) -> Result {
    let speaks = readiness::readable(&*channel)?;
    loop {
        let mut ready = speaks.readable().await?;
        match channel.recv::<ToWorker>() {
            Ok(Some((ToWorker::Stop, _))) => {
                stop.send_replace(true);
            }
            Ok(Some(_)) => {}
            // The parent is gone. Threads that block must not hold the process.
            Ok(None) => std::process::exit(1),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
            Err(error) => tracing::error!(%error, "a message of the parent was not understood"),
        }
    }
}

async fn write(mut stream: OwnedWriteHalf, mut queue: mpsc::Receiver<Out>) {
    while let Some(out) = queue.recv().await {
        match out {
            Out::Frame(frame) => {
                if stream.write_all(&frame).await.is_err() {
                    return;
                }
            }
            Out::Flush(done) => {
                let _ = done.send(());
            }
        }
    }
}

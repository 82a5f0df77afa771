//! What the handles of a worker reach, from any thread.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use gannet_proto::tcp::Framing;
use gannet_shm::{Region, Words};

use super::{
    awaited::Awaited, lane::Lane, local::Local, origin::Number, timer::Timers, wake::Wake,
};
use crate::{
    ConnId, SendError, Settings, TaskId, WorkerId,
    admission::Admission,
    conn_table::ConnTable,
    control::Role as Kind,
    histogram::Recorder,
    layout::{Dimensions, WORKER_COUNTS, WorkerCounter},
    wire::command::{CommandHeader, CommandKind, Query},
};

/// One for each worker, behind its handles.
pub(crate) struct Shared {
    pub(crate) id: WorkerId,
    pub(crate) kind: Kind,
    pub(crate) generation: u64,
    pub(crate) settings: Settings,
    /// Counters, locks and tables.
    pub(crate) objects: crate::Shared,
    /// By listener.
    framings: Vec<Option<Framing>>,
    pub(crate) dimensions: Dimensions,
    /// The worker's region.
    pub(crate) region: Arc<Region>,
    counters: Words<WORKER_COUNTS>,
    /// See [`Shared::current`].
    current: Vec<Words<1>>,
    pub(super) histograms: Recorder,
    pub(crate) admission: Admission,
    table: ConnTable,
    /// By reactor.
    pub(crate) lanes: Vec<Lane>,
    /// Whether some inbox of them holds something: saves the worker's thread a look at each.
    ///
    /// Set under the lock of the inbox, once it does; cleared by the worker's thread before it takes
    /// these locks one after another. So what is in an inbox is taken, or this says so.
    mail: AtomicBool,
    pub(crate) awaited: Awaited,
    /// Wakes the worker's loop.
    pub(crate) wake: Wake,
    pub(crate) timers: Timers,
    /// By which the bodies of its requests find it.
    pub(super) number: Number,
}

/// A command before it is in a ring.
#[derive(Clone, Debug)]
pub(crate) struct Command {
    pub(crate) header: CommandHeader,
    /// The front of the payload.
    pub(crate) head: Bytes,
    pub(crate) payload: Bytes,
}

impl Command {
    pub(crate) fn new(header: CommandHeader, payload: Bytes) -> Self {
        Command {
            header,
            head: Bytes::new(),
            payload,
        }
    }

    /// Only a header.
    pub(crate) fn bare(kind: CommandKind, conn: ConnId) -> Self {
        Command::new(CommandHeader::new(kind, conn), Bytes::new())
    }

    /// Says that the event `seq` is finished.
    pub(crate) fn done(conn: ConnId, seq: u64, flags: u8) -> Self {
        let header = CommandHeader {
            done: seq,
            flags,
            ..CommandHeader::new(CommandKind::Done, conn)
        };
        Command::new(header, Bytes::new())
    }

    /// Bytes of the payload.
    pub(crate) fn len(&self) -> usize {
        self.head.len() + self.payload.len()
    }
}

impl Shared {
    #[expect(
        clippy::too_many_arguments,
        reason = "one caller, that has just read them"
    )]
    pub(crate) fn new(
        id: WorkerId,
        kind: Kind,
        incarnation: u64,
        generation: u64,
        settings: Settings,
        objects: crate::Shared,
        dimensions: Dimensions,
        region: Arc<Region>,
        control: Arc<Region>,
    ) -> Arc<Self> {
        let framings = settings.listeners.iter();
        let shared = Arc::new(Shared {
            id,
            kind,
            generation,
            // They were checked before the server started.
            framings: framings
                .map(|listener| listener.framing.rule().ok().flatten())
                .collect(),
            admission: Admission::attach(control.clone(), dimensions, &settings),
            settings,
            objects,
            dimensions,
            counters: Words::attach(region.clone(), dimensions.worker_counters()),
            current: (0..dimensions.reactors)
                .map(|reactor| Words::attach(region.clone(), dimensions.current(reactor)))
                .collect(),
            histograms: Recorder::attach(region.clone(), dimensions.histograms()),
            region,
            table: ConnTable::attach(control, dimensions),
            lanes: (0..dimensions.reactors).map(|_| Lane::default()).collect(),
            mail: AtomicBool::new(false),
            awaited: Awaited::new(incarnation),
            wake: Wake::default(),
            timers: Timers::default(),
            number: Number::next(),
        });
        Number::enter(&shared);
        shared
    }

    pub(crate) fn table(&self) -> &ConnTable {
        &self.table
    }

    /// How the messages of a connection are framed, if they are.
    pub(crate) fn framing_of(&self, conn: ConnId) -> Option<&Framing> {
        if self.framings.iter().all(Option::is_none) {
            return None;
        }
        let listener = self.table.get(conn)?.listener;
        self.framings.get(usize::from(listener))?.as_ref()
    }

    /// Bytes of payload that go into the ring itself.
    pub(crate) fn inline_limit(&self) -> usize {
        self.dimensions.inline_limit()
    }

    /// Bytes of payload that fit at all.
    pub(crate) fn largest(&self) -> usize {
        self.dimensions.arena / 4
    }

    #[inline]
    pub(crate) fn counter(&self, counter: WorkerCounter) -> &AtomicU64 {
        &self.counters[counter as usize]
    }

    /// All of them, for who counts often.
    pub(super) fn counters(&self) -> &Words<WORKER_COUNTS> {
        &self.counters
    }

    /// By reactor: see [`Shared::current`].
    pub(super) fn current_words(&self) -> &[Words<1>] {
        &self.current
    }

    /// The word that tells the master which event of this reactor is being handled.
    #[inline]
    pub(crate) fn current(&self, reactor: usize) -> &AtomicU64 {
        &self.current[reactor][0]
    }

    #[inline]
    pub(crate) fn count(&self, counter: WorkerCounter) {
        // Only the worker's thread counts: a load and a store are enough.
        let word = self.counter(counter);
        word.store(word.load(Relaxed) + 1, Relaxed);
    }

    #[inline]
    pub(super) fn has_mail(&self) -> bool {
        self.mail.load(Relaxed)
    }

    pub(super) fn set_mail(&self, some: bool) {
        self.mail.store(some, Relaxed);
    }

    /// Puts a command into the ring of a reactor if that can be done at once: on the worker's thread, and
    /// with room. `false`: nothing was done, and [`Shared::push`] does it, or says why it cannot be done.
    #[inline]
    pub(crate) fn push_at_once(
        &self,
        reactor: usize,
        header: &CommandHeader,
        payload: &[u8],
    ) -> bool {
        let Some(lane) = self.lanes.get(reactor) else {
            return false;
        };
        let sent = Local::with(self, |local| {
            lane.room.is_empty() && local.send(reactor, header, &[], payload).is_ok()
        });
        sent == Some(true)
    }

    /// Puts a command into the ring of a reactor; waits for room. A reactor that does not exist
    /// (the connection id was made up) takes everything.
    pub(crate) fn push(&self, reactor: usize, command: Command) -> Push<'_> {
        Push {
            shared: self,
            reactor,
            command,
            ring_place: None,
            inbox_place: None,
        }
    }

    /// The same without waiting.
    pub(crate) fn try_push(&self, reactor: usize, command: Command) -> Result<(), SendError> {
        let Some(lane) = self.lanes.get(reactor) else {
            return Ok(());
        };
        self.check(&command)?;
        let direct = Local::with(self, |local| {
            if lane.room.may_go(None) {
                local.offer(reactor, &command)
            } else {
                Err(SendError::Full)
            }
        });
        if let Some(result) = direct {
            return result;
        }
        let mut inbox = lane.inbox();
        if !inbox.has_room() || !inbox.line.may_go(None) {
            return Err(SendError::Full);
        }
        self.deliver(lane, &mut inbox, command);
        Ok(())
    }

    /// Submits a detached task that the desk is sure to take, and numbers it; `header` is that of its submission
    /// without number. `None`: it is to be asked for.
    pub(crate) fn submit(&self, header: CommandHeader, head: &[u8], data: &[u8]) -> Option<TaskId> {
        // When a user process writes its last words, there may be nobody who reads them.
        let may = self.kind != Kind::Process && self.lanes.first()?.room.may_go(None);
        may.then(|| Local::with(self, |local| local.submit(header, head, data)))??
    }

    /// Whether this is `Handler::start`: it cannot wait for a master, since none knows of the worker before it
    /// has returned.
    pub(crate) fn is_starting(&self) -> bool {
        Local::with(self, Local::is_starting).unwrap_or_default()
    }

    /// Submits a detached task from `Handler::start`. The desk takes it, or refuses it, when the worker is
    /// ready.
    pub(crate) fn submit_early(&self, command: &Command) -> Result<TaskId, SendError> {
        self.check(command)?;
        let Command {
            header,
            head,
            payload,
        } = command;
        match Local::with(self, |local| local.submit_early(*header, head, payload)) {
            Some(Err(SendError::Full)) | None => Err(SendError::NotReady),
            Some(submitted) => submitted,
        }
    }

    /// Puts a command of the engine's own into the ring, or into line for it. They are few: at
    /// most one for each event in flight.
    pub(crate) fn post(&self, reactor: usize, command: Command) {
        let Some(lane) = self.lanes.get(reactor) else {
            return;
        };
        let mut command = Some(command);
        Local::with(self, |local| {
            if let Some(command) = command.take() {
                local.post(reactor, command);
            }
        });
        if let Some(command) = command {
            self.deliver(lane, &mut lane.inbox(), command);
        }
    }

    /// Finishes an event that no handler ends (a piece of a body).
    pub(crate) fn finish(&self, reactor: usize, conn: ConnId, seq: u64, epoch: u32) {
        if seq != 0
            && self
                .lanes
                .get(reactor)
                .is_some_and(|lane| lane.epoch() == epoch)
        {
            let direct = Local::with(self, |local| local.finish_piece(reactor, conn, seq));
            if direct.is_none() {
                self.post(reactor, Command::done(conn, seq, 0));
            }
        }
    }

    /// Asks a reactor, and waits for what it says.
    pub(crate) async fn ask(
        &self,
        reactor: usize,
        query: Query,
        conn: ConnId,
        payload: Bytes,
    ) -> Result<Bytes, SendError> {
        if self.is_starting() {
            return Err(SendError::NotReady);
        }
        let expected = self.awaited.reply(reactor);
        let header = CommandHeader {
            code: query as u16,
            aux: expected.token(),
            ..CommandHeader::new(CommandKind::Query, conn)
        };
        self.push(reactor, Command::new(header, payload)).await?;
        expected.reply().await
    }

    /// Asks every reactor for connections.
    pub(crate) async fn ask_for_conns(
        &self,
        query: Query,
        payload: Bytes,
    ) -> Result<Vec<ConnId>, SendError> {
        let mut conns = Vec::new();
        for reactor in 0..self.lanes.len() {
            let none = ConnId::from_u64(0);
            let reply = self.ask(reactor, query, none, payload.clone()).await?;
            let ids = reply.as_chunks::<8>().0.iter();
            conns.extend(ids.map(|bytes| ConnId::from_u64(u64::from_le_bytes(*bytes))));
        }
        Ok(conns)
    }

    /// Waits until at most `bytes` are queued for the connection, or it is closed.
    pub(crate) async fn drained(&self, conn: ConnId, bytes: usize) -> Result<(), SendError> {
        if conn.reactor() >= self.lanes.len() {
            return Ok(());
        }
        let bytes = Bytes::copy_from_slice(&(bytes as u64).to_le_bytes());
        self.ask(conn.reactor(), Query::Drained, conn, bytes)
            .await?;
        Ok(())
    }

    fn check(&self, command: &Command) -> Result<(), SendError> {
        let (len, max) = (command.len(), self.largest());
        if len > max {
            Err(SendError::TooLarge { len, max })
        } else {
            Ok(())
        }
    }

    fn deliver(&self, lane: &Lane, inbox: &mut super::lane::Inbox, command: Command) {
        inbox.bytes += command.len();
        inbox.delivered += 1;
        inbox.queue.push_back(command);
        lane.mail.store(true, Relaxed);
        self.set_mail(true);
        self.wake.notify_one();
    }
}

/// See [`Shared::push`].
#[must_use = "nothing is sent until it is awaited"]
pub(crate) struct Push<'a> {
    shared: &'a Shared,
    reactor: usize,
    command: Command,
    /// In line for the ring (on the worker's thread) or for the inbox (on others).
    ring_place: Option<u64>,
    inbox_place: Option<u64>,
}

impl Future for Push<'_> {
    type Output = Result<(), SendError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let shared = this.shared;
        let Some(lane) = shared.lanes.get(this.reactor) else {
            return Poll::Ready(Ok(()));
        };
        shared.check(&this.command)?;

        let direct = Local::with(shared, |local| {
            if !lane.room.may_go(this.ring_place) {
                return Err(SendError::Full);
            }
            local.offer(this.reactor, &this.command)
        });
        match direct {
            Some(Err(SendError::Full)) if shared.is_starting() => {
                this.leave();
                return Poll::Ready(Err(SendError::NotReady));
            }
            Some(Err(SendError::Full)) => {
                lane.room.wait(&mut this.ring_place, cx.waker());
                return Poll::Pending;
            }
            Some(result) => {
                this.leave();
                return Poll::Ready(result);
            }
            None => {}
        }

        let mut inbox = lane.inbox();
        if !inbox.has_room() || !inbox.line.may_go(this.inbox_place) {
            inbox.line.wait(&mut this.inbox_place, cx.waker());
            return Poll::Pending;
        }
        let nothing = Command::bare(CommandKind::Done, this.command.header.conn);
        let command = std::mem::replace(&mut this.command, nothing);
        shared.deliver(lane, &mut inbox, command);
        drop(inbox);
        this.leave();
        Poll::Ready(Ok(()))
    }
}

impl Push<'_> {
    #[inline]
    fn leave(&mut self) {
        if self.ring_place.is_some() || self.inbox_place.is_some() {
            self.leave_lines();
        }
    }

    #[cold]
    fn leave_lines(&mut self) {
        let Some(lane) = self.shared.lanes.get(self.reactor) else {
            return;
        };
        if let Some(place) = self.ring_place.take() {
            lane.room.leave(place);
        }
        if let Some(place) = self.inbox_place.take() {
            lane.inbox().line.leave(place);
        }
    }
}

impl Drop for Push<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}

//! The worker process: takes events from the reactors' rings, runs the handler, and writes
//! commands.
//!
//! - `run`: the process from start to end; `process`: that of a user process; `engine`: their loop.
//! - `doze`: how it sleeps under load; `inline`: the loop in thread mode; `wake`: waking either.
//! - `inbound`: events, out of a ring or from the reactor of this thread; `dispatch`: which handler runs
//!   when; `case`: the event that it has; `handle`: the call.
//! - `outbound`: commands to a reactor; `outgoing`: the ring to one of another process or thread; `local`:
//!   what belongs to the worker's thread; `shared`: what its handles reach from any thread.
//! - `timer`: timers; `caught`: panics of user code; `latency`: how long handlers take.
//! - `request`, `fields`, `origin`, `upload`, `respond`: HTTP.
//! - `awaited`: answers that somebody waits for; `submit` and `topics`: what asks for them.
//!
//! Everything but `shared`, `awaited`, `origin` and `upload` stays on the worker's thread. No `RefCell`
//! borrow is held over an await or while user code runs, except that of the slot it runs in.

use std::{fmt, future::Future, sync::Arc};

use gannet_shm::{
    Counter, Lock,
    table::{Content, Key, Record, Table},
};

use crate::{
    Conn, ConnId, ConnInfo, Message, Result, Settings, WorkerId,
    conn_table::{Cell, ConnTable},
    control::Role as Kind,
};

pub use self::timer::{Missed, Timer, TimerOptions};
pub(crate) use self::{
    caught::caught,
    dispatch::{Outcome, panic_text},
    origin::Origin,
    process::{run as run_process, run_on_thread as run_process_on_thread},
    run::{Parts, run, runtime, serve},
    shared::{Command, Push, Shared},
    topics::check_topic,
    upload::UploadReader,
};

mod awaited;
mod case;
mod caught;
mod dispatch;
mod doze;
mod engine;
mod fields;
mod hand;
mod handle;
mod inbound;
mod inline;
mod lane;
mod latency;
mod local;
mod origin;
mod outbound;
mod outgoing;
mod process;
mod request;
mod respond;
mod run;
mod shared;
mod submit;
mod timer;
mod topics;
mod upload;
mod wake;

#[cfg(test)]
mod pair;
#[cfg(test)]
mod tests;

/// The worker or task worker that the handler runs in, or the user process that a function runs in.
/// Cheap to clone; may be used on any thread.
#[derive(Clone)]
pub struct Worker {
    shared: Arc<Shared>,
}

impl Worker {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Worker { shared }
    }

    /// Its place: workers are `0..workers`, task workers follow, then user processes.
    pub fn id(&self) -> WorkerId {
        self.shared.id
    }

    /// Whether it runs tasks and nothing else.
    pub fn is_task_worker(&self) -> bool {
        self.shared.kind == Kind::TaskWorker
    }

    /// How often the worker's place was filled anew by reload; from 0.
    pub fn generation(&self) -> u64 {
        self.shared.generation
    }

    /// The settings of the server.
    pub fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    /// The counter that was declared by [`Server::counter`](crate::Server::counter): the same in
    /// every process.
    pub fn counter(&self, name: &str) -> Result<Counter> {
        self.shared.objects.counter(name)
    }

    /// The lock that was declared by [`Server::lock`](crate::Server::lock).
    pub fn lock(&self, name: &str) -> Result<Lock> {
        self.shared.objects.lock(name)
    }

    /// The table that was declared by [`Server::table`](crate::Server::table), with the same types.
    pub fn table<R: Content, K: Key + ?Sized>(&self, name: &str) -> Result<Table<R, K>> {
        self.shared.objects.table(name)
    }

    /// A table whose columns are known by name: what was declared by
    /// [`Server::records`](crate::Server::records), or any other.
    pub fn records<K: Key + ?Sized>(&self, name: &str) -> Result<Table<Record, K>> {
        self.shared.objects.records(name)
    }

    /// The connection with this number. It need not exist (any more).
    pub fn conn(&self, id: ConnId) -> Conn {
        Conn::new(self.clone(), id, false)
    }

    /// The open connections of the whole server, in no order. Reads one row of shared memory for
    /// each possible connection.
    pub fn connections(&self) -> impl Iterator<Item = ConnInfo> + use<> {
        let rows: Vec<usize> = self.shared.table().rows_in_use(0).collect();
        let shared = self.shared.clone();
        rows.into_iter()
            .filter_map(move |row| info_of(shared.table(), row))
    }

    /// As [`Conn::send`].
    pub async fn send(&self, conn: ConnId, message: impl Into<Message>) -> Result {
        self.conn(conn).send(message).await
    }

    /// Runs a future beside the handlers, on the worker's thread. It is dropped when the worker
    /// exits. A panic in it is not logged: see [`after`](Worker::after) for what logs, and what stops
    /// when the worker is replaced.
    ///
    /// # Panics
    ///
    /// On another thread.
    pub fn spawn_local(&self, future: impl Future<Output = ()> + 'static) {
        tokio::task::spawn_local(future);
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(crate) fn info(&self, id: ConnId) -> Option<ConnInfo> {
        let table = self.shared.table();
        info_of(table, table.row_of(id)?).filter(|info| info.id == id)
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Worker({})", self.shared.id)
    }
}

fn info_of(table: &ConnTable, row: usize) -> Option<ConnInfo> {
    let cell = |cell: Cell| {
        table
            .cell(row, cell)
            .load(std::sync::atomic::Ordering::Relaxed)
    };
    let content = table.row(row)?;
    let tls = table.tls(row, &content);
    Some(ConnInfo::new(content, tls, cell))
}

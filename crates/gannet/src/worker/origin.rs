//! Which connection a request came on, as its body knows it.
//!
//! A body lives anywhere, so a handle of its worker would have to be counted by atomic instructions, for each request,
//! and nearly nobody asks a body for its connection: who handles a request has that anyway. So a body knows its worker
//! by number only. Who asks is nearly always on that worker's thread, which knows it; others find it among
//! [`WORKERS`]. When the worker is gone, nobody does.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, PoisonError, RwLock, Weak,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use super::{Worker, local::Local, shared::Shared};
use crate::{Conn, ConnId};

/// See the module's documentation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    conn: ConnId,
    worker: u32,
    redelivered: bool,
}

/// The number of a worker, which no other of this process ever has.
pub(super) struct Number(u32);

/// The workers of this process, by number: more than one in thread mode.
static WORKERS: RwLock<BTreeMap<u32, Weak<Shared>>> = RwLock::new(BTreeMap::new());

impl Origin {
    #[inline]
    pub(super) fn new(worker: &Shared, conn: ConnId, redelivered: bool) -> Self {
        Origin {
            conn,
            worker: worker.number.0,
            redelivered,
        }
    }

    /// `None`: the worker is gone.
    pub(crate) fn conn(&self) -> Option<Conn> {
        let here = Local::shared_of_thread().filter(|shared| shared.number.0 == self.worker);
        let shared = here.or_else(|| {
            let workers = WORKERS.read().unwrap_or_else(PoisonError::into_inner);
            workers.get(&self.worker)?.upgrade()
        })?;
        Some(Conn::new(Worker::new(shared), self.conn, self.redelivered))
    }
}

impl Number {
    pub(super) fn next() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        Number(NEXT.fetch_add(1, Relaxed))
    }

    /// Lets the worker that has this number be found, until the number is dropped with it.
    pub(super) fn enter(worker: &Arc<Shared>) {
        let mut workers = WORKERS.write().unwrap_or_else(PoisonError::into_inner);
        workers.insert(worker.number.0, Arc::downgrade(worker));
    }
}

impl Drop for Number {
    fn drop(&mut self) {
        let mut workers = WORKERS.write().unwrap_or_else(PoisonError::into_inner);
        workers.remove(&self.0);
    }
}

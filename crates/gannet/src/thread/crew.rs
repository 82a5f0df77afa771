//! Starts the threads of a server, in the place of `manager::spawn`.

use std::{
    fmt, io,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Mutex, PoisonError, atomic::Ordering::Relaxed, mpsc},
};

use gannet_shm::Region;
use rustix::event::{PollFd, PollFlags, poll};

use super::{running::Running, watchdog::Watchdog};
use crate::{
    Error, Handler, Result, Settings, WorkerId, affinity,
    channel::Channel,
    control::Role as Kind,
    layout::{Dimensions, WorkerCounter},
    master::{self, Base, Reactor, ReactorParts, Started},
    process::ProcessFn,
    server::DispatchFn,
    settings::millis,
    worker::{self, Parts},
};

/// The program's code, for threads that are to run it.
#[derive(Clone)]
pub(crate) struct Code {
    run_worker: RunWorker,
    /// In the order of `settings.processes`.
    pub(crate) processes: Vec<ProcessFn>,
    pub(crate) dispatch: Option<DispatchFn>,
}

type RunWorker = fn(Parts, Option<Berth>) -> Result;

/// What starts threads.
pub(crate) struct Crew {
    code: Code,
    /// By worker: where its reactor comes from.
    berths: Mutex<Vec<Option<Berth>>>,
    reactors: Vec<mpsc::Sender<(ReactorParts, Started)>>,
    watchdog: Watchdog,
}

/// What all threads have in common.
pub(crate) struct Common<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) dimensions: Dimensions,
    pub(crate) control: &'a Arc<Region>,
    pub(crate) objects: &'a crate::Shared,
    /// The reactors' eventfds.
    pub(crate) bells: &'a [OwnedFd],
}

/// A place that is to be filled.
pub(crate) struct Post {
    pub(crate) id: WorkerId,
    pub(crate) kind: Kind,
    pub(crate) incarnation: u64,
    pub(crate) generation: u64,
    pub(crate) region: Arc<Region>,
    /// The worker's eventfd.
    pub(crate) bell: OwnedFd,
}

/// Where the thread of a worker gets its reactor.
pub(crate) struct Berth {
    coming: mpsc::Receiver<(ReactorParts, Started)>,
}

impl Code {
    pub(crate) fn of<H: Handler>(processes: Vec<ProcessFn>, dispatch: Option<DispatchFn>) -> Self {
        Code {
            run_worker: run_worker::<H>,
            processes,
            dispatch,
        }
    }
}

impl Crew {
    pub(crate) fn new(code: Code, settings: &Settings, dimensions: Dimensions) -> io::Result<Self> {
        let (reactors, berths) = (0..settings.workers)
            .map(|_| {
                let (sender, coming) = mpsc::channel();
                (sender, Some(Berth { coming }))
            })
            .unzip();
        Ok(Crew {
            code,
            berths: Mutex::new(berths),
            reactors,
            watchdog: Watchdog::start(dimensions, millis(settings.stall_timeout_ms))?,
        })
    }

    /// Starts the master; the manager's end of its channel.
    pub(crate) fn master(
        &self,
        common: &Common<'_>,
        listeners: Vec<OwnedFd>,
        tls: Option<OwnedFd>,
    ) -> Result<(Running, Channel)> {
        let (channel, own) = Channel::pair()?;
        let base = Base {
            settings: Arc::new(common.settings.clone()),
            dimensions: common.dimensions,
            control: common.control.clone(),
            listeners,
            bells: common.copies()?,
            tls,
            generation: 0,
            dispatch: self.code.dispatch.clone(),
        };
        let reactors = self.reactors.clone();
        let launch = move |parts: ReactorParts, started: Started| {
            let id = parts.id();
            let gone = || io::Error::other(format!("the thread of worker {id} has ended"));
            let thread = reactors.get(id).ok_or_else(gone)?;
            thread.send((parts, started)).map_err(|_| gone())
        };
        let run = move || master::run_on_thread(base, launch, &own);
        Ok((Running::start("master", run)?, channel))
    }

    /// Starts a worker, task worker or user process; the manager's end of its channel.
    pub(crate) fn worker(
        &self,
        common: &Common<'_>,
        post: Post,
        title: &str,
    ) -> Result<(Running, Channel)> {
        let (channel, own) = Channel::pair()?;
        let Post {
            id,
            kind,
            incarnation,
            generation,
            region,
            bell,
        } = post;
        if kind == Kind::Worker {
            self.watchdog.add(id, region.clone());
        }
        let name = common.settings.process_name(id).map(str::to_owned);
        let cpus = Share::of(common.settings, id, kind, title);
        let parts = Parts {
            shared: worker::Shared::new(
                id,
                kind,
                incarnation,
                generation,
                common.settings.clone(),
                common.objects.clone(),
                common.dimensions,
                region,
                common.control.clone(),
            ),
            control: common.control.clone(),
            reactor_bells: common.copies()?,
            bell,
            channel: own,
        };
        let running = match name {
            Some(name) => {
                let index = usize::from(id.0) - common.settings.first_process();
                let function = self.code.processes.get(index).cloned();
                let function = function
                    .ok_or_else(|| Error::new(format!("the program has no process `{name}`")))?;
                let run = move || {
                    cpus.take();
                    worker::run_process_on_thread(parts, &name, function)
                };
                Running::start(title, run)?
            }
            None => {
                let berth = match kind {
                    Kind::Worker => self.take_berth(id)?,
                    _ => None,
                };
                let run_worker = self.code.run_worker;
                let run = move || {
                    cpus.take();
                    run_worker(parts, berth)
                };
                Running::start(title, run)?
            }
        };
        Ok((running, channel))
    }

    fn take_berth(&self, id: WorkerId) -> Result<Option<Berth>> {
        let mut berths = self.berths.lock().unwrap_or_else(PoisonError::into_inner);
        let berth = berths.get_mut(usize::from(id.0)).and_then(Option::take);
        match berth {
            Some(berth) => Ok(Some(berth)),
            None => Err(Error::new(format!(
                "worker {id} cannot be started a second time in thread mode"
            ))),
        }
    }
}

impl fmt::Debug for Crew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Crew({} workers)", self.reactors.len())
    }
}

impl Common<'_> {
    fn copies(&self) -> io::Result<Vec<OwnedFd>> {
        self.bells.iter().map(OwnedFd::try_clone).collect()
    }
}

/// The processors that a thread runs on.
struct Share {
    cpus: String,
    who: String,
    index: usize,
    count: usize,
}

impl Share {
    fn of(settings: &Settings, id: WorkerId, kind: Kind, title: &str) -> Self {
        let (index, count) = match kind {
            Kind::Worker => (id.0.into(), settings.workers),
            _ => (0, 1),
        };
        Share {
            cpus: settings.worker_cpus.clone(),
            who: title.to_owned(),
            index,
            count,
        }
    }

    fn take(&self) {
        affinity::pin_share(&self.cpus, &self.who, self.index, self.count);
    }
}

impl Berth {
    /// The reactor of this thread, made here. `None`: the master could not start.
    fn board(self) -> Result<Option<Reactor>> {
        let Ok((parts, started)) = self.coming.recv() else {
            return Ok(None);
        };
        match Reactor::new(parts) {
            Ok(reactor) => {
                // The master waits for it.
                let _ = started.send(Ok(()));
                Ok(Some(reactor))
            }
            Err(error) => {
                let text = error.to_string();
                let _ = started.send(Err(error));
                Err(Error::new(text))
            }
        }
    }
}

/// The thread of a worker or task worker.
fn run_worker<H: Handler>(parts: Parts, berth: Option<Berth>) -> Result {
    let reactor = match berth {
        None => None,
        Some(berth) => match berth.board()? {
            Some(reactor) => Some(reactor),
            None => {
                // Why is told by the master; the manager lets go of the channel then.
                let mut gone = [PollFd::from_borrowed_fd(
                    parts.channel.as_fd(),
                    PollFlags::IN,
                )];
                poll(&mut gone, None)?;
                return Ok(());
            }
        },
    };
    let shared = parts.shared.clone();
    let runtime = worker::runtime()?;
    let served = worker::serve::<H>(parts, reactor);
    let served = runtime.block_on(tokio::task::coop::unconstrained(served));
    // The watchdog is to look at it no more.
    shared.counter(WorkerCounter::Turns).store(0, Relaxed);
    // Threads of the handler that block still must not hold this one.
    runtime.shutdown_background();
    let (_, reactor) = served?;
    if let Some(reactor) = reactor {
        reactor.run();
    }
    Ok(())
}

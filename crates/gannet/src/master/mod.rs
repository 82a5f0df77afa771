//! The master process: it owns every client socket.
//!
//! The main thread takes orders from the manager and passes them to the reactors, one thread each
//! (see [`reactor`]); what reactors report goes back to the manager. User code runs here in one
//! case only: the function given to `Server::dispatch_with`.
//!
//! | file                    | idea                                                        |
//! |-------------------------|-------------------------------------------------------------|
//! | `reactor`               | one turn of the loop, the clock                             |
//! | `accept`                | new connections                                             |
//! | `conn`, `conns`, `rare` | one connection, all connections; what few of them have      |
//! | `input`                 | reading, and what was read                                  |
//! | `tls`                   | TLS between socket and protocol                             |
//! | `framed`, `http`,       | the protocols                                               |
//! | `exchange`, `pipeline`, |                                                             |
//! | `http2`,                |                                                             |
//! | `websocket`             |                                                             |
//! | `proxied`               | who the client behind a proxy is                            |
//! | `packets`               | datagrams                                                   |
//! | `sending`, `output`     | what goes to clients                                        |
//! | `compress`              | compressing WebSocket messages                              |
//! | `pace`                  | clients that are too slow, or send too much of something    |
//! | `closing`, `deadlines`  | how connections end; when something is due for one          |
//! | `stopping`              | a stop of the server                                        |
//! | `places`                | the places of workers; redelivery                           |
//! | `routes`                | which worker gets an event                                  |
//! | `link`                  | the way to a worker                                         |
//! | `rings`, `ledger`       | one of another process or thread: its rings; what it owes   |
//! | `commands`              | what workers ask for                                        |
//! | `audience`              | what the control socket wants of connections                |
//! | `topics`                | publishing                                                  |
//! | `desk`, `tasks`         | tasks and messages between workers; where tasks wait        |
//! | `handing`, `hand`       | which task worker is given which task; what one has         |
//! | `spread`                | thread mode: which reactor has a new connection             |
//! | `counts`                | what is counted by crates/gannet-counts                     |
//! | `wheel`                 | when to look at which connection                            |

mod accept;
mod audience;
mod broadcast;
mod closing;
mod commands;
mod compress;
mod conn;
mod conns;
#[doc(hidden)]
pub mod counts;
mod deadlines;
mod desk;
mod exchange;
mod fanout;
mod framed;
mod hand;
mod handing;
mod http;
mod http2;
mod input;
mod interest;
mod ledger;
mod link;
mod output;
mod pace;
mod packets;
mod pipeline;
mod places;
mod proxied;
mod rare;
mod reactor;
mod rings;
mod routes;
mod sending;
mod slow_reader;
mod spread;
mod stopping;
mod tasks;
mod tls;
mod topics;
mod websocket;
mod wheel;

use std::{
    collections::HashMap,
    fs::File,
    io,
    os::{
        fd::{AsFd, OwnedFd, RawFd},
        unix::fs::FileExt,
    },
    sync::{Arc, atomic::AtomicUsize, mpsc},
    thread,
};

use gannet_shm::Region;
use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, eventfd, poll},
    process::Pid,
};

pub(crate) use self::reactor::{Failed, Parts as ReactorParts, Reactor, Ready};
use self::{
    link::Attachment,
    reactor::{Order, Parts},
    spread::{Seat, Spread},
};
use crate::{
    Result, affinity,
    bootstrap::{Bootstrap, Role},
    channel::{Channel, FromMaster, ToMaster},
    id::{ConnId, WorkerId},
    inherit,
    layout::{CONTROL_KIND, Dimensions, WORKER_KIND},
    server::DispatchFn,
    settings::{Mode, Settings},
    sys::SignalFd,
    tls::{Material, Serving},
};

/// Becomes the master: runs until the manager says stop.
pub(crate) fn run(bootstrap: Bootstrap, dispatch: Option<DispatchFn>) -> Result<()> {
    let channel = Channel::new(inherit::take(bootstrap.channel)?);
    // Before the reactors' threads begin: they inherit that the signals are blocked.
    let signals = SignalFd::steering()?;
    let manager = bootstrap.manager_pid;
    let base = Base::inherited(bootstrap, dispatch);
    lead(base, on_own_thread, &channel, Some((&signals, manager)))
}

/// Runs the master on a thread of its own, in the manager's process; `launch` has the reactors run.
pub(crate) fn run_on_thread(
    base: Base,
    launch: impl FnMut(Parts, Started) -> io::Result<()>,
    channel: &Channel,
) -> Result<()> {
    lead(Ok(base), launch, channel, None)
}

/// Whom a reactor tells that it has started, or why it cannot.
pub(crate) type Started = mpsc::Sender<io::Result<()>>;

/// What a master is made of.
pub(crate) struct Base {
    pub(crate) settings: Arc<Settings>,
    pub(crate) dimensions: Dimensions,
    pub(crate) control: Arc<Region>,
    /// In the order of `settings.listeners`.
    pub(crate) listeners: Vec<OwnedFd>,
    /// The reactors' eventfds.
    pub(crate) bells: Vec<OwnedFd>,
    /// A memfd with what TLS needs.
    pub(crate) tls: Option<OwnedFd>,
    pub(crate) generation: u64,
    pub(crate) dispatch: Option<DispatchFn>,
}

impl Base {
    fn inherited(bootstrap: Bootstrap, dispatch: Option<DispatchFn>) -> Result<Self> {
        let Role::Master {
            listeners,
            generation,
            tls,
        } = bootstrap.role
        else {
            return Err(crate::Error::new("the bootstrap is not a master's"));
        };
        let take_all = |fds: Vec<RawFd>| fds.into_iter().map(inherit::take).collect();
        let listeners: io::Result<Vec<_>> = take_all(listeners);
        let bells: io::Result<Vec<_>> = take_all(bootstrap.reactor_bells);
        Ok(Base {
            settings: Arc::new(bootstrap.settings),
            dimensions: bootstrap.dimensions,
            control: Region::attach(inherit::take(bootstrap.control)?, CONTROL_KIND)?,
            listeners: listeners?,
            bells: bells?,
            tls: tls.map(inherit::take).transpose()?,
            generation,
            dispatch,
        })
    }
}

fn lead(
    base: Result<Base>,
    launch: impl FnMut(Parts, Started) -> io::Result<()>,
    channel: &Channel,
    signals: Option<(&SignalFd, u32)>,
) -> Result<()> {
    let started = base.and_then(|base| Master::start(base, launch));
    let outcome = started.and_then(|master| {
        channel.send(&FromMaster::Ready, &[])?;
        master.serve(channel, signals)
    });
    if let Err(error) = &outcome {
        // The manager may be gone; then nobody needs to be told.
        let _ = channel.send(
            &FromMaster::Failed {
                error: error.to_string(),
            },
            &[],
        );
    }
    outcome
}

/// From a reactor to the main thread.
pub(crate) enum Report {
    Attached(WorkerId, u64),
    Stalled(WorkerId, u64),
    Retired(WorkerId, u64),
    Failed(String),
    Pong(u64),
    /// An event that kills workers is given up.
    GaveUp {
        worker: WorkerId,
        conn: Option<ConnId>,
        event: String,
    },
    /// What was asked has come to this on one reactor.
    Answer(u64, audience::Answer),
    /// Nothing is left on this reactor.
    Stopped,
}

/// Where reactors send their reports.
#[derive(Clone)]
pub(crate) struct Reports {
    sender: mpsc::Sender<Report>,
    bell: Arc<OwnedFd>,
}

impl Reports {
    fn send(&self, report: Report) {
        // The main thread ends last, or the process ends.
        let _ = self.sender.send(report);
        ring(&*self.bell);
    }
}

struct Master {
    reactors: Vec<Remote>,
    reports: mpsc::Receiver<Report>,
    report_bell: Arc<OwnedFd>,
    /// Reactors that have attached, and that have retired, an incarnation; until all have.
    attached: HashMap<u64, usize>,
    retired: HashMap<u64, usize>,
    /// What the reactors are asked, by number, and how many have answered.
    asked: HashMap<u64, (usize, audience::Answer)>,
    /// The same of questions whether they run.
    answered: HashMap<u64, usize>,
    stopped: usize,
    settings: Arc<Settings>,
    serving: Serving,
}

/// A reactor, from outside.
struct Remote {
    orders: mpsc::Sender<Order>,
    bell: OwnedFd,
}

impl Master {
    fn start(base: Base, mut launch: impl FnMut(Parts, Started) -> io::Result<()>) -> Result<Self> {
        let (sender, reports) = mpsc::channel();
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let report_bell = Arc::new(eventfd(0, flags)?);
        let settings = base.settings;
        let connections = Arc::new(AtomicUsize::new(0));
        let working = Arc::new(AtomicUsize::new(base.bells.len()));
        let mut serving = Serving::default();
        let material = match base.tls {
            Some(fd) => read_material(fd)?,
            None => Material::default(),
        };
        let tls = serving.renew(&settings, &material)?;
        let mut reactors = Vec::new();
        let mut receivers = Vec::new();
        for bell in base.bells {
            let (orders, receiver) = mpsc::channel();
            receivers.push(receiver);
            reactors.push(Remote { orders, bell });
        }
        let spread = match settings.mode {
            Mode::Process => None,
            Mode::Thread => {
                let seats = reactors.iter().map(Remote::seat);
                Some(Spread::new(seats.collect::<io::Result<_>>()?))
            }
        };
        for (id, (reactor, receiver)) in reactors.iter().zip(receivers).enumerate() {
            let parts = Parts {
                id,
                settings: settings.clone(),
                dimensions: base.dimensions,
                dispatch: base.dispatch.clone(),
                control: base.control.clone(),
                bell: reactor.bell.try_clone()?,
                listeners: base
                    .listeners
                    .iter()
                    .map(OwnedFd::try_clone)
                    .collect::<io::Result<Vec<_>>>()?,
                tls: tls.clone(),
                orders: receiver,
                reports: Reports {
                    sender: sender.clone(),
                    bell: report_bell.clone(),
                },
                connections: connections.clone(),
                working: working.clone(),
                spread: spread.clone(),
                generation: base.generation,
            };
            let (started, start) = mpsc::channel();
            launch(parts, started)?;
            start
                .recv()
                .map_err(|_| crate::Error::new("a reactor panicked at its start"))??;
        }
        Ok(Master {
            reactors,
            reports,
            report_bell,
            attached: HashMap::new(),
            retired: HashMap::new(),
            asked: HashMap::new(),
            answered: HashMap::new(),
            stopped: 0,
            settings,
            serving,
        })
    }

    /// `signals`: those that go on to this manager; none where the manager has them itself.
    fn serve(mut self, channel: &Channel, signals: Option<(&SignalFd, u32)>) -> Result<()> {
        loop {
            let mut ready = vec![
                PollFd::new(channel, PollFlags::IN),
                PollFd::from_borrowed_fd(self.report_bell.as_fd(), PollFlags::IN),
            ];
            ready.extend(signals.map(|(signals, _)| PollFd::new(signals, PollFlags::IN)));
            match poll(&mut ready, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let mut counter = [0; 8];
            // Empty: another report was enough to read it.
            let _ = rustix::io::read(&*self.report_bell, &mut counter);
            loop {
                match channel.recv::<ToMaster>() {
                    Ok(Some((order, fds))) => self.obey(order, fds)?,
                    // In thread mode, whoever runs the server has had enough of it.
                    Ok(None) if self.settings.mode == Mode::Thread => return Ok(()),
                    // Without a manager there is no server.
                    Ok(None) => std::process::exit(1),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error.into()),
                }
            }
            if let Some((signals, manager)) = signals {
                pass_on(signals, manager)?;
            }
            while let Ok(report) = self.reports.try_recv() {
                if self.report(report, channel)? {
                    return Ok(());
                }
            }
        }
    }

    fn obey(&mut self, order: ToMaster, fds: Vec<OwnedFd>) -> Result<()> {
        match order {
            ToMaster::Attach {
                worker,
                kind,
                incarnation,
            } => {
                let Ok([region, bell]) = <[OwnedFd; 2]>::try_from(fds) else {
                    return Err(crate::Error::new(
                        "`attach` came without its two descriptors",
                    ));
                };
                let region = Region::attach(region, WORKER_KIND)?;
                for reactor in &self.reactors {
                    reactor.order(Order::Attach(Attachment {
                        worker,
                        kind,
                        incarnation,
                        region: region.clone(),
                        bell: bell.try_clone()?,
                    }));
                }
            }
            ToMaster::Dead {
                worker,
                incarnation,
                blame,
            } => {
                for reactor in &self.reactors {
                    reactor.order(Order::Dead {
                        worker,
                        incarnation,
                        blame,
                    });
                }
            }
            ToMaster::Certificates => {
                let Ok([material]) = <[OwnedFd; 1]>::try_from(fds) else {
                    return Err(crate::Error::new(
                        "`certificates` came without its descriptor",
                    ));
                };
                let renewed = read_material(material)
                    .and_then(|material| self.serving.renew(&self.settings, &material));
                match renewed {
                    Ok(listeners) => {
                        for reactor in &self.reactors {
                            reactor.order(Order::Tls(listeners.clone()));
                        }
                        tracing::info!("new connections get the new certificates");
                    }
                    // The manager has tried them out: this is something else.
                    Err(error) => tracing::error!("the certificates stay as they are: {error}"),
                }
            }
            ToMaster::Stop { deadline_ms } => {
                for reactor in &self.reactors {
                    reactor.order(Order::Stop { deadline_ms });
                }
            }
            ToMaster::Output { from, to, line } => {
                // Where pipe messages go through.
                if let Some(reactor) = self.reactors.first() {
                    reactor.order(Order::Pipe { from, to, line });
                }
            }
            ToMaster::Ping { number } => {
                for reactor in &self.reactors {
                    reactor.order(Order::Ping(number));
                }
            }
            ToMaster::LogLevel { level } => crate::logging::set_level(&level),
            ToMaster::Ask { id, to, what } => {
                let message = match fds.into_iter().next() {
                    Some(file) => read_file(file)?,
                    None => Vec::new(),
                };
                let question = Arc::new(audience::Question::new(id, to, what, message)?);
                for reactor in &self.reactors {
                    reactor.order(Order::Ask(question.clone()));
                }
            }
        }
        Ok(())
    }

    /// `true`: the server has stopped.
    fn report(&mut self, report: Report, channel: &Channel) -> Result<bool> {
        match report {
            Report::Stalled(worker, incarnation) => {
                channel.send(
                    &FromMaster::Stalled {
                        worker,
                        incarnation,
                    },
                    &[],
                )?;
            }
            Report::Attached(worker, incarnation) => {
                if by_all(&mut self.attached, incarnation, self.reactors.len()) {
                    channel.send(
                        &FromMaster::Attached {
                            worker,
                            incarnation,
                        },
                        &[],
                    )?;
                }
            }
            Report::Retired(worker, incarnation) => {
                if by_all(&mut self.retired, incarnation, self.reactors.len()) {
                    channel.send(
                        &FromMaster::Retired {
                            worker,
                            incarnation,
                        },
                        &[],
                    )?;
                }
            }
            Report::Pong(number) => {
                if by_all(&mut self.answered, number, self.reactors.len()) {
                    channel.send(&FromMaster::Pong { number }, &[])?;
                }
            }
            Report::GaveUp {
                worker,
                conn,
                event,
            } => {
                let gave_up = FromMaster::GaveUp {
                    worker,
                    conn,
                    event,
                };
                channel.send(&gave_up, &[])?;
            }
            Report::Answer(id, answer) => {
                let (answered, all) = self.asked.entry(id).or_default();
                *answered += 1;
                all.merge(answer);
                if *answered == self.reactors.len()
                    && let Some((_, all)) = self.asked.remove(&id)
                {
                    let count = all.count;
                    let file = all.into_file()?;
                    let files: Vec<_> = file.iter().map(AsFd::as_fd).collect();
                    channel.send(&FromMaster::Answer { id, count }, &files)?;
                }
            }
            Report::Failed(error) => return Err(crate::Error::new(error)),
            Report::Stopped => {
                self.stopped += 1;
                if self.stopped == self.reactors.len() {
                    channel.send(&FromMaster::Stopped, &[])?;
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}

impl Remote {
    fn seat(&self) -> io::Result<Seat> {
        Ok(Seat::new(self.orders.clone(), self.bell.try_clone()?))
    }

    fn order(&self, order: Order) {
        // A reactor that has ended has reported why.
        let _ = self.orders.send(order);
        ring(&self.bell);
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.order(Order::End);
    }
}

/// Runs a reactor on a thread of its own.
fn on_own_thread(parts: Parts, started: Started) -> io::Result<()> {
    let reports = parts.reports.clone();
    let id = parts.id;
    let run = move || {
        let settings = &parts.settings;
        let who = format!("reactor {id}");
        affinity::pin_share(&settings.reactor_cpus, &who, id, settings.reactors);
        let run = std::panic::AssertUnwindSafe(|| match Reactor::new(parts) {
            Ok(reactor) => {
                // The main thread waits for it.
                let _ = started.send(Ok(()));
                reactor.run();
            }
            Err(error) => {
                let _ = started.send(Err(error));
            }
        });
        if std::panic::catch_unwind(run).is_err() {
            reports.send(Report::Failed(format!(
                "reactor {id} panicked: see the log"
            )));
        }
    };
    let thread = thread::Builder::new().name(format!("reactor {id}"));
    thread.spawn(run).map(drop)
}

/// Sends each signal that a process has sent here to the manager. What the terminal sends, the
/// manager has had too.
fn pass_on(signals: &SignalFd, manager: u32) -> Result<()> {
    let manager = i32::try_from(manager).ok().and_then(Pid::from_raw);
    while let Some((signal, from_process)) = signals.next_with_sender() {
        if let Some(manager) = manager.filter(|_| from_process) {
            rustix::process::kill_process(manager, signal)?;
        }
    }
    Ok(())
}

/// Counts one more reactor; whether it was the last.
fn by_all(counts: &mut HashMap<u64, usize>, incarnation: u64, reactors: usize) -> bool {
    let count = counts.entry(incarnation).or_default();
    *count += 1;
    let all = *count == reactors;
    if all {
        counts.remove(&incarnation);
    }
    all
}

fn read_material(fd: OwnedFd) -> Result<Material> {
    Ok(serde_json::from_slice(&read_file(fd)?)?)
}

fn read_file(fd: OwnedFd) -> Result<Vec<u8>> {
    let file = File::from(fd);
    let mut bytes = vec![0; file.metadata()?.len() as usize];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

fn ring(bell: impl AsFd) {
    // Full: it is rung already.
    let _ = rustix::io::write(bell, &1u64.to_ne_bytes());
}

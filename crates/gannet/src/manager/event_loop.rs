//! The manager's loop: what happens goes to [`Places`], what that decides is done here.

use std::{
    io::{self, Write},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Instant,
};

use gannet_shm::Region;
use rustix::{
    buffer::spare_capacity,
    event::{
        Timespec,
        epoll::{self, CreateFlags, Event, EventData, EventFlags},
    },
    process::Signal,
};

use super::{
    admin::{self, Admin, Record, Usage},
    certificates::Certificates,
    children::{Children, Counts, Enclosed, Shared, Source},
    control::{ControlSocket, LISTENER_TOKEN},
    listeners::Listeners,
    notify::Notify,
    output::Outputs,
    places::{Action, End, Input, Limits, Place, Places, State, Who},
    questions::Questions,
    samples::Samples,
    spawn::{Spawner, eventfd},
    watched::{self, Watched},
};
use crate::{
    ConnId, Error, Result, Settings, WorkerError, WorkerId, WorkerTrouble,
    bootstrap::Role,
    channel::{FromMaster, FromWorker, ToMaster, ToWorker},
    conn_table::ConnTable,
    control::ReloadCause,
    daemon::Daemon,
    layout::WORKER_KIND,
    logging,
    server::{ReadyFn, WorkerErrorFn},
    settings::{Origins, millis},
    sys::SignalFd,
    thread::{self, Post},
};

/// All that the manager has.
pub(super) struct Manager {
    pub(super) epoll: OwnedFd,
    signals: SignalFd,
    pub(super) control: ControlSocket,
    pub(super) admin: Option<Admin>,
    listeners: Listeners,
    pub(super) spawner: Spawner,
    pub(super) table: ConnTable,
    pub(super) places: Places,
    pub(super) children: Children,
    pub(super) outputs: Outputs,
    pub(super) watched: Option<Watched>,
    pub(super) certificates: Certificates,
    notify: Notify,
    /// By place: counters of processes that have ended.
    pub(super) departed: Vec<Counts>,
    pub(super) record: Record,
    pub(super) started: Instant,
    pub(super) samples: Samples,
    pub(super) questions: Questions,
    pub(super) hooks: Hooks,
}

/// What the program has the manager call.
pub(super) struct Hooks {
    pub(super) on_ready: Option<ReadyFn>,
    pub(super) on_worker_error: Option<WorkerErrorFn>,
    pub(super) origins: Origins,
    pub(super) reread: Box<dyn Fn() -> Result<Settings>>,
    /// Until the server is ready.
    pub(super) daemon: Option<Daemon>,
}

impl Manager {
    pub(super) fn new(
        spawner: Spawner,
        listeners: Listeners,
        signals: SignalFd,
        control: ControlSocket,
        certificates: Certificates,
        notify: Notify,
        hooks: Hooks,
    ) -> Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(
            &epoll,
            &signals,
            EventData::new_u64(SIGNALS_TOKEN),
            EventFlags::IN,
        )?;
        control.watch(epoll.as_fd())?;

        let started = Instant::now();
        let settings = &spawner.settings;
        let limits = Limits {
            workers: settings.workers,
            task_workers: settings.task_workers,
            processes: settings.processes.clone(),
            start_timeout: millis(settings.start_timeout_ms),
            max_wait_time: millis(settings.max_wait_time_ms),
            threads: spawner.crew.is_some(),
        };
        let debounce = millis(settings.watch_debounce_ms);
        let program = &spawner.program.path;
        let watched = Watched::new(program, &settings.watch, debounce, epoll.as_fd())?;
        let departed = vec![Counts::default(); settings.places()];
        let record = Record::new(settings.places());
        let table = ConnTable::attach(spawner.control.clone(), spawner.dimensions);
        Ok(Manager {
            epoll,
            signals,
            control,
            admin: None,
            listeners,
            spawner,
            table,
            places: Places::new(started, limits),
            children: Children::default(),
            outputs: Outputs::default(),
            watched,
            certificates,
            notify,
            departed,
            record,
            started,
            samples: Samples::new(started),
            questions: Questions::default(),
            hooks,
        })
    }

    /// Serves metrics and health from now on.
    pub(super) fn admit(&mut self, admin: Admin) -> Result {
        admin.watch(self.epoll.as_fd())?;
        self.admin = Some(admin);
        Ok(())
    }

    /// Returns when no process is left.
    pub(super) fn run(&mut self) -> Result {
        let mut events = Vec::with_capacity(64);
        loop {
            if let Some(result) = self.act() {
                self.finish_outputs();
                return result;
            }
            let now = Instant::now();
            self.pump(now);
            self.tell_service_manager(now);
            let wait = [
                self.places.poll_timeout(),
                self.pump_again(now),
                self.notify.poll_timeout(),
                self.admin
                    .as_ref()
                    .and_then(|admin| admin.poll_timeout(now)),
                self.watched.as_ref().and_then(Watched::poll_timeout),
                Some(self.samples.poll_timeout()),
            ];
            let wait = wait.into_iter().flatten().min();
            let wait = wait.map(|at| at.saturating_duration_since(now));
            let wait = wait.map(|wait| Timespec {
                tv_sec: wait.as_secs() as i64,
                tv_nsec: wait.subsec_nanos().into(),
            });
            events.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut events), wait.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(Error::from(error).context("epoll_wait")),
            }
            for event in &events {
                self.dispatch(event);
            }
            let now = Instant::now();
            self.places.handle_timeout(now);
            self.follow_changes(now);
            if self.samples.poll_timeout() <= now {
                let sample = self.report().sample();
                self.samples.add(sample);
            }
            self.turn_admin(now);
        }
    }

    fn dispatch(&mut self, event: &Event) {
        let token = event.data.u64();
        if token == admin::TOKEN {
            // Its turn comes in each round of the loop.
        } else if token == watched::TOKEN {
            if let Some(watched) = &mut self.watched {
                watched.take_events(Instant::now());
            }
        } else if token == SIGNALS_TOKEN {
            while let Some(signal) = self.signals.next() {
                self.signal(signal);
            }
        } else if token == LISTENER_TOKEN {
            self.control.accept(self.epoll.as_fd());
        } else if let Some(number) = Outputs::source(token) {
            self.outputs.is_ready(number);
        } else if let Some(connection) = ControlSocket::connection(token) {
            self.serve(connection);
        } else {
            match Children::source(token) {
                Some(Source::Channel(who)) => {
                    self.children.flush(who);
                    self.hear(who);
                }
                Some(Source::Process(who)) => {
                    // What it said before it ended counts.
                    self.hear(who);
                    self.reap(who);
                }
                None => {}
            }
        }
    }

    /// Serves metrics and health, as far as somebody asks.
    fn turn_admin(&mut self, now: Instant) {
        if let Some(mut admin) = self.admin.take() {
            admin.turn(now, &self.report(), &self.record);
            self.admin = Some(admin);
        }
    }

    fn signal(&mut self, signal: Signal) {
        match signal {
            Signal::USR1 | Signal::USR2 if self.spawner.crew.is_some() => {
                tracing::error!("{}", thread::NO_RELOAD);
            }
            Signal::USR1 => {
                // What is wrong with them is in the log.
                let _ = self.reread_certificates();
                self.happened(Input::Reload {
                    tasks_only: false,
                    cause: ReloadCause::Signal,
                    request: None,
                });
            }
            Signal::USR2 => self.happened(Input::Reload {
                tasks_only: true,
                cause: ReloadCause::Signal,
                request: None,
            }),
            Signal::HUP => {
                self.spawner.log.queue.reopen();
                self.reread_settings();
                // What is wrong with them is in the log.
                let _ = self.reread_certificates();
                self.notify.reloaded_at_once();
            }
            _ => {
                tracing::info!("stopping: a signal asked for it");
                self.happened(Input::Stop);
            }
        }
    }

    /// Reloads if watched files have changed.
    fn follow_changes(&mut self, now: Instant) {
        let watched = self.watched.as_mut();
        if let Some(what) = watched.and_then(|watched| watched.handle_timeout(now)) {
            tracing::info!("watched files: {what}");
            // What is wrong with them is in the log.
            let _ = self.reread_certificates();
            self.happened(Input::Reload {
                tasks_only: false,
                cause: ReloadCause::Watch,
                request: None,
            });
        }
    }

    fn reread_settings(&mut self) {
        let level = (self.hooks.reread)().and_then(|settings| {
            crate::logging::check_filter("log_level", &settings.log_level)
                .map(|()| settings.log_level)
        });
        match level {
            Ok(level) => {
                crate::logging::set_level(&level);
                tracing::info!("settings read again: log_level is {level}");
                self.children.log_level(&level);
                self.spawner.settings.log_level = level;
            }
            Err(error) => tracing::error!("settings not read again: {error}"),
        }
    }

    /// Reads the certificates again; if they are good and others than before, the master gets them.
    pub(super) fn reread_certificates(&mut self) -> Result {
        match self.certificates.reread(&self.spawner.settings) {
            Ok(None) => Ok(()),
            Ok(Some(file)) => {
                let enclosed = Enclosed::File(Arc::new(file));
                self.children.tell_master(ToMaster::Certificates, enclosed);
                Ok(())
            }
            Err(error) => {
                tracing::error!("the certificates stay as they are: {error}");
                Err(error)
            }
        }
    }

    /// Takes what a child says.
    fn hear(&mut self, who: Who) {
        match who {
            Who::Master => {
                while let Some((message, files)) = self.children.recv_with_files(who) {
                    match message {
                        FromMaster::Ready => self.happened(Input::Ready(who)),
                        FromMaster::Attached { incarnation, .. } => {
                            self.happened(Input::Attached(incarnation));
                        }
                        FromMaster::Failed { error } => self.happened(Input::Failed(who, error)),
                        FromMaster::Stalled { incarnation, .. } => {
                            self.happened(Input::Stalled(incarnation));
                        }
                        FromMaster::Retired {
                            worker,
                            incarnation,
                        } => {
                            tracing::debug!("worker {worker} ({incarnation}) has nothing left");
                        }
                        FromMaster::Pong { number } => self.notify.answered(number),
                        FromMaster::GaveUp {
                            worker,
                            conn,
                            event,
                        } => self.gave_up(worker, conn, &event),
                        FromMaster::Answer { id, count } => self.answered(id, count, files),
                        FromMaster::Stopped => self.happened(Input::Stopped),
                    }
                }
            }
            Who::Worker(incarnation) => {
                while let Some(message) = self.children.recv(who) {
                    match message {
                        FromWorker::Ready { .. } => self.happened(Input::Ready(who)),
                        FromWorker::Failed { error } => self.happened(Input::Failed(who, error)),
                        FromWorker::Retire => self.happened(Input::Retire(incarnation)),
                    }
                }
            }
        }
    }

    fn reap(&mut self, who: Who) {
        // Of what was reaped the kernel knows nothing more.
        let usage = self.children.pid(who).and_then(Usage::of);
        let Some((child, end)) = self.children.reap(who) else {
            return;
        };
        self.outputs.left(match who {
            Who::Master => 0,
            Who::Worker(incarnation) => incarnation,
        });
        // What it said last is in the log before its end is.
        self.pump(Instant::now());
        if who == Who::Master {
            self.fail_questions();
        }
        let place = self
            .places
            .processes()
            .find(|(number, _)| Who::Worker(*number) == who);
        let index = place.map(|(_, process)| process.place);
        self.record.ended(index, usage);
        if let (Some((_, process)), Some(shared)) = (place, child.into_shared()) {
            let dimensions = &self.spawner.dimensions;
            self.departed[process.place].add(&shared.counts(dimensions));
            self.record.departs(&shared, dimensions);
        }
        self.happened(Input::Exited(who, end));
    }

    /// Does what was decided, until nothing is left to do. The result, when all is over.
    fn act(&mut self) -> Option<Result> {
        // Told last: no successor waits for a function of the program.
        let mut troubles = Vec::new();
        let result = self.act_but_tell(&mut troubles);
        for error in &troubles {
            self.tell_trouble(error);
        }
        result
    }

    /// The same, but that the program is told of no trouble.
    fn act_but_tell(&mut self, troubles: &mut Vec<WorkerError>) -> Option<Result> {
        while let Some(action) = self.places.poll_action() {
            match action {
                Action::SpawnMaster { generation } => {
                    let started = self.certificates.file().and_then(|certificates| {
                        if let Some(crew) = &self.spawner.crew {
                            let listeners = self.listeners.copies()?;
                            return self.spawner.master_thread(crew, listeners, certificates);
                        }
                        let listeners = self.listeners.descriptors();
                        let role = Role::Master {
                            listeners,
                            generation,
                            tls: certificates.as_ref().map(AsRawFd::as_raw_fd),
                        };
                        let printed = self.captured();
                        self.start(role, logging::Who::master(), 0, printed)
                    });
                    let started = started.and_then(|spawned| {
                        let epoll = self.epoll.as_fd();
                        Ok(self.children.add(epoll, Who::Master, spawned, None)?)
                    });
                    self.check_started(Who::Master, started);
                }
                Action::SpawnWorker {
                    worker,
                    incarnation,
                    generation,
                } => {
                    let started = self.spawn_worker(worker, incarnation, generation);
                    self.check_started(Who::Worker(incarnation), started);
                }
                Action::Attach {
                    worker,
                    incarnation,
                } => {
                    let shared = self.children.shared(Who::Worker(incarnation)).cloned();
                    let kind = self.place(worker).kind;
                    let attach = ToMaster::Attach {
                        worker,
                        kind,
                        incarnation,
                    };
                    if let Some(shared) = shared {
                        self.children.tell_master(attach, Enclosed::Shared(shared));
                    }
                    self.tell_predecessors(incarnation);
                }
                Action::Dead {
                    worker,
                    incarnation,
                    blame,
                } => {
                    let dead = ToMaster::Dead {
                        worker,
                        incarnation,
                        blame,
                    };
                    self.children.tell_master(dead, Enclosed::Nothing);
                }
                Action::Stop { deadline } => {
                    let deadline_ms = deadline.as_millis() as u64;
                    self.notify.stop_takes(deadline);
                    self.listeners.close();
                    self.children
                        .tell_master(ToMaster::Stop { deadline_ms }, Enclosed::Nothing);
                }
                Action::Exit { incarnation } => {
                    self.children.tell_worker(incarnation, ToWorker::Exit);
                }
                Action::Begin { incarnation } => {
                    self.children.tell_worker(incarnation, ToWorker::Begin);
                }
                Action::AskToStop { incarnation } => {
                    self.children.tell_worker(incarnation, ToWorker::Stop);
                }
                Action::Kill(who) => self.children.kill(who),
                Action::Started => {
                    self.announce();
                    if let Some(daemon) = self.hooks.daemon.take() {
                        daemon.ready();
                    }
                }
                Action::Trouble(error) => troubles.push(error),
                Action::Tell { requests, progress } => self.progress(&requests, &progress),
                Action::Reloaded { requests, reloaded } => self.reloaded(&requests, &reloaded),
                Action::Finished(Ok(())) => return Some(Ok(())),
                Action::Finished(Err(error)) => return Some(Err(Error::new(error))),
            }
        }
        None
    }

    /// Tells those who had the place of this process before that it is ready.
    fn tell_predecessors(&mut self, incarnation: u64) {
        let mut all = self.places.processes();
        let Some((_, process)) = all.find(|(number, _)| *number == incarnation) else {
            return;
        };
        let place = process.place;
        for (number, process) in self.places.processes() {
            if process.place == place && matches!(process.state, State::Retiring { .. }) {
                self.children.tell_worker(number, ToWorker::Replaced);
            }
        }
    }

    fn spawn_worker(&mut self, worker: WorkerId, incarnation: u64, generation: u64) -> Result {
        let len = self.spawner.dimensions.worker_len();
        let region = Region::create("gannet-worker", WORKER_KIND, len)?;
        let bell = Arc::new(eventfd()?);
        let place = self.place(worker);
        let kind = place.kind;
        let whose = logging::Who::place(worker, kind, place.name.as_deref());
        let shared = Shared {
            region: region.clone(),
            bell: bell.clone(),
        };
        let who = Who::Worker(incarnation);
        if let Some(crew) = &self.spawner.crew {
            let post = Post {
                id: worker,
                kind,
                incarnation,
                generation,
                region,
                bell: bell.try_clone()?,
            };
            let spawned = self.spawner.worker_thread(crew, post, &place.title())?;
            let epoll = self.epoll.as_fd();
            return Ok(self.children.add(epoll, who, spawned, Some(shared))?);
        }
        let role = Role::Worker {
            id: worker,
            kind,
            incarnation,
            generation,
            region: region.fd().as_raw_fd(),
            bell: bell.as_raw_fd(),
        };
        let routes = self.routes(worker)?;
        let spawned = self.start(role, whose, incarnation, routes)?;
        Ok(self
            .children
            .add(self.epoll.as_fd(), who, spawned, Some(shared))?)
    }

    fn check_started(&mut self, who: Who, started: Result) {
        if let Err(error) = started {
            let how = error.to_string();
            self.happened(Input::Failed(who, how.clone()));
            self.happened(Input::Exited(
                who,
                End {
                    pid: None,
                    clean: false,
                    how,
                },
            ));
        }
    }

    /// How far the server is, and that it is alive.
    fn tell_service_manager(&mut self, now: Instant) {
        let listeners = &self.spawner.settings.listeners;
        self.notify.stage(self.places.stage(), || {
            let addresses = listeners
                .iter()
                .map(|listener| format!("{}://{}", listener.scheme(), listener.address));
            format!("listening on {}", addresses.collect::<Vec<_>>().join(", "))
        });
        let has_master = self.places.master().state() == Some(State::Ready);
        if let Some(number) = self.notify.beat(now, has_master) {
            let ping = ToMaster::Ping { number };
            self.children.tell_master(ping, Enclosed::Nothing);
        }
    }

    /// Tells the program of a worker's bad end.
    fn tell_trouble(&self, error: &WorkerError) {
        let Some(hook) = &self.hooks.on_worker_error else {
            return;
        };
        // The panic itself is in the log by now.
        if catch_unwind(AssertUnwindSafe(|| hook(error))).is_err() {
            tracing::error!("the function for worker errors panicked at: {error}");
        }
    }

    /// The master has given up an event that kills workers.
    fn gave_up(&self, worker: WorkerId, conn: Option<ConnId>, event: &str) {
        let place = self.place(worker);
        let error = WorkerError {
            worker,
            role: place.kind,
            name: place.name.clone(),
            pid: None,
            trouble: WorkerTrouble::GaveUp(conn),
            reason: format!("an event ({event}) has killed its worker again and again"),
            restarts: place.restarts,
            early_deaths: place.back_off().0,
            retry_in: None,
        };
        self.tell_trouble(&error);
    }

    fn announce(&self) {
        if let Some(on_ready) = &self.hooks.on_ready {
            return on_ready(&self.spawner.settings);
        }
        let mut stdout = io::stdout().lock();
        // A closed stdout is no reason to stop serving.
        let written = self
            .spawner
            .settings
            .listeners
            .iter()
            .try_for_each(|listener| {
                let scheme = listener.scheme();
                writeln!(stdout, "listening on {scheme}://{}", listener.address)
            });
        let _ = written.and_then(|()| stdout.flush());
    }

    pub(super) fn happened(&mut self, input: Input) {
        self.places.handle(Instant::now(), input);
    }

    pub(super) fn place(&self, worker: WorkerId) -> &Place {
        &self.places.places()[usize::from(worker.0)]
    }
}

/// Epoll token that is neither a child's nor the control socket's.
const SIGNALS_TOKEN: u64 = 3;

//! The manager process: the one that the user started.
//!
//! One thread, one epoll loop. It opens the listening sockets, starts the master and the workers,
//! watches them, and steers the server by signals and through the control socket. It carries no
//! connection and runs no handler.
//!
//! - [`places`] decides which processes there are to be; no I/O.
//! - [`event_loop`] is the loop: what happens goes to `places`, what that decides is done here.
//! - [`children`] are the processes and the channels to them; [`spawn`] starts one.
//! - [`output`] is what processes log and print; [`lines`] brings it to where it goes.
//! - [`control`] is the server's end of the control socket; [`requests`] does what comes in there,
//!   [`questions`] are those of them that the master answers,
//!   [`report`] answers `status` and `clients`, with what [`samples`] and [`memory`] know.
//! - [`watched`]: files whose change is followed by a reload.
//! - [`admin`] is the listener for metrics and health.
//! - [`certificates`]: those of listeners with TLS, read again when they change.
//! - [`notify`] tells a service manager (systemd) how the server is.
//! - [`program`], [`pid_file`], [`listeners`] ([`unix_socket`], [`activation`]): what is fixed once
//!   at the start.
//!
//! # Signals
//!
//! | signal     | what happens                                                              |
//! |------------|---------------------------------------------------------------------------|
//! | TERM, INT  | stop gracefully; again: at once                                           |
//! | USR1       | reload workers and task workers                                           |
//! | USR2       | reload task workers                                                       |
//! | HUP        | open the log file again, read `log_level` and the certificates again      |
//!
//! Children are started with all of them blocked. The master takes them with a signalfd of its own
//! and sends each on to the manager; in workers they do nothing. So a Ctrl-C, which the terminal
//! sends to every process of the group, stops the server once and gracefully.
//!
//! # What outlives what
//!
//! The listening sockets, the control region and the reactors' eventfds belong to the manager and
//! outlive every master; a worker's region belongs to its incarnation. Children die with the manager
//! (a death signal set by the child before its exec, and, as a second net, the end of file on its
//! channel).

mod activation;
mod admin;
mod certificates;
mod children;
mod control;
mod event_loop;
mod lines;
mod listeners;
mod memory;
mod notify;
mod output;
mod pid_file;
mod places;
mod program;
mod questions;
mod report;
mod requests;
mod samples;
mod spawn;
mod unix_socket;
mod watched;

use std::{path::PathBuf, time::Instant};

use self::{
    activation::Passed,
    admin::Admin,
    certificates::Certificates,
    control::ControlSocket,
    event_loop::{Hooks, Manager},
    listeners::Listeners,
    notify::Notify,
    pid_file::PidFile,
    spawn::{Place, Spawner},
};
pub(crate) use self::{
    admin::Export,
    children::how_it_ended,
    places::title,
    program::{ENV as TITLED_ENV, Program},
    spawn::pidfd,
};
use crate::{
    Result, Settings, Shared,
    account::{By, Rights},
    daemon::Daemon,
    logging::Log,
    server::{ReadyFn, WorkerErrorFn},
    settings::{self, Endpoint, Origins},
    sys::SignalFd,
    thread::Code,
};

/// What the manager is to run. The settings were checked.
pub(crate) struct Start {
    pub(crate) settings: Settings,
    /// The addresses of the listeners, looked up.
    pub(crate) addresses: Vec<Endpoint>,
    pub(crate) pid_file: PathBuf,
    pub(crate) program: Program,
    /// Where `main` of children begins, if the server works elsewhere.
    pub(crate) started_in: Option<PathBuf>,
    /// If it is to go on in the background when it serves.
    pub(crate) daemon: Option<Daemon>,
    /// What the process may still do that it may not do later.
    pub(crate) rights: Rights,
    /// Counters, locks and tables.
    pub(crate) shared: Shared,
    pub(crate) log: Log,
    /// Counters among them that are metrics of their own.
    pub(crate) exports: Vec<Export>,
    /// In thread mode.
    pub(crate) crew: Option<Code>,
    /// Called when everything is ready, in place of printing the addresses.
    pub(crate) on_ready: Option<ReadyFn>,
    /// Called when a worker has ended badly.
    pub(crate) on_worker_error: Option<WorkerErrorFn>,
    /// Where the settings come from.
    pub(crate) origins: Origins,
    /// Reads the settings again, for HUP.
    pub(crate) reread: Box<dyn Fn() -> Result<Settings>>,
}

/// Binds what the server would listen on, `admin_listen` too, and lets go of it again.
pub(crate) fn try_to_listen(
    settings: &Settings,
    addresses: &[Endpoint],
    rights: &Rights,
) -> Result {
    let mut settings = settings.clone();
    let _listeners = Listeners::bind(&mut settings, addresses, Passed::default(), rights)?;
    Admin::bind(&settings, Vec::new(), rights).map(drop)
}

/// Runs a server until it has been stopped.
pub(crate) fn run(start: Start) -> Result {
    let Start {
        mut settings,
        addresses,
        pid_file,
        program,
        started_in,
        daemon,
        mut rights,
        shared,
        log,
        exports,
        crew,
        on_ready,
        on_worker_error,
        origins,
        reread,
    } = start;
    // Before any descriptor is opened, and children are started.
    let passed = Passed::to_this_process()?;
    let notify = Notify::from_environment(Instant::now())?;
    // Before anything is made that would have to be removed again.
    let signals = SignalFd::steering()?;
    // Each as the user that the server runs as if he may, else as root.
    let (pid_file, path) = (
        rights.or_as_root(|| PidFile::create(&pid_file))?.0,
        pid_file,
    );
    let (certificates, by) = rights.or_as_root(|| Certificates::read(&settings))?;
    if let Some(user) = rights.user().filter(|_| by == By::Root) {
        tracing::warn!(
            "user {user} cannot read the certificates and keys: they were read at the start, but a \
             reload will not see new ones; let that user read them"
        );
    }
    rights.as_root(|| settings::raise_file_limit(&mut settings))?;
    let listeners = Listeners::bind(&mut settings, &addresses, passed, &rights)?;
    let admin = Admin::bind(&settings, exports, &rights)?;
    let control = ControlSocket::bind(&path, &rights)?;
    rights.give_up(&settings)?;

    let output = daemon.as_ref().map(Daemon::output).transpose()?;
    let place = Place {
        started_in,
        output,
        environment: rights.environment(),
    };
    let spawner = Spawner::new(settings, program, place, shared, log, crew)?;
    let mut manager = Manager::new(
        spawner,
        listeners,
        signals,
        control,
        certificates,
        notify,
        Hooks {
            on_ready,
            on_worker_error,
            origins,
            reread,
            daemon,
        },
    )?;
    if let Some(admin) = admin {
        manager.admit(admin)?;
    }
    let result = manager.run();
    // Whoever waits for the end on the control socket finds the pid file gone.
    drop(pid_file);
    drop(manager);
    result
}

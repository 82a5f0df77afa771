//! Every setting of a server: its meaning, default, unit, trade-off and worst-case memory.

mod address;
mod check;
mod environment;
mod fields;
mod file;
mod flags;
pub(crate) mod framing;
mod listener;
mod logs;
mod origins;
mod tls;
mod trust;

use std::{path::PathBuf, time::Duration};

pub(crate) use self::{
    address::{Endpoint, UnixName, resolve},
    check::{
        OTHER_FILES, check, check_handler, connections_by_files, dimensions, pid_file,
        raise_file_limit,
    },
    environment::Environment,
    flags::Flags,
    origins::{Named, Origins},
    trust::Trust,
};
pub use self::{
    listener::{Forwarded, Listener, Protocol, ProxyProtocol},
    logs::{CaptureOutput, LogFormat, LogRotation},
    tls::{CertificateFiles, ClientAuth, Tls, TlsVersion},
};

use serde::{Deserialize, Serialize};

use crate::process::ProcessSpec;

/// The settings of a server.
///
/// They come from the code ([`Server`](crate::Server)), a TOML file (`--config`), the environment
/// (`GANNET_WORKERS=4`) and the command line (`--workers 4`); the later wins. Durations are
/// written in milliseconds in files and environment, with names that end in `_ms`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Settings {
    /// Name of the server in `ps`, logs and the default pid file. Default: the program's name.
    pub name: String,

    /// What the server listens on; at least one.
    pub listeners: Vec<Listener>,

    /// Whether workers are processes or threads. Default: [`Mode::Process`].
    pub mode: Mode,

    /// Worker processes, which run the handler. Default: the number of processors. 1 to 1024; in
    /// thread mode 1 to 64.
    pub workers: usize,

    /// Reactor threads of the master, which own the sockets. Default 1. 1 to 64.
    ///
    /// One reactor moves several hundred thousand messages a second; more pay off on machines
    /// with many processors. In thread mode each worker has one of its own, and this is not looked at.
    pub reactors: usize,

    /// Task worker processes, which run `Handler::task`. Default 0. 0 to 1024.
    pub task_workers: usize,

    /// Which worker gets an event. Default: [`Dispatch::Connection`].
    pub dispatch: Dispatch,

    /// The pid file; the control socket is beside it, with `.sock` appended. Default:
    /// `NAME.pid` in `$XDG_RUNTIME_DIR`, else `/run` for root, else the directory for temporary files.
    pub pid_file: Option<PathBuf>,

    /// Connections open at a time. Default 0: as many as the limit of open files allows (it is
    /// raised as far as it goes), at most 100,000.
    ///
    /// At the limit no more are accepted until one closes; the kernel's backlog holds them
    /// meanwhile. Each possible connection costs 208 B of reserved, untouched memory.
    pub max_connections: usize,

    /// Streams of HTTP/2 open at a time, on each reactor. Default 0: as many as `max_connections`.
    ///
    /// A stream is a connection of its own but for its socket. At the limit more are refused
    /// (`REFUSED_STREAM`: clients try again; `http2_refused`). Each possible one costs 208 B of
    /// reserved, untouched memory, if a listener speaks HTTP/2.
    pub max_streams: usize,

    /// A worker is replaced after so many events. Default 0: never. Process mode only.
    pub max_requests: u64,

    /// Added to `max_requests` at random, per worker, so that workers are not replaced all at
    /// once; up to this many. Default 0: half of `max_requests`.
    pub max_requests_spread: u64,

    /// How long handlers may take to finish at reload and stop, in milliseconds. Default 30,000.
    ///
    /// Then the worker is killed; events that allow it are handled again by its successor.
    pub max_wait_time_ms: u64,

    /// How long a worker may make no progress while events wait for it, in milliseconds. Default
    /// 60,000; 0: for ever.
    ///
    /// A handler that computes or blocks (not: awaits) for longer has its worker killed, and is
    /// run again, up to three times. Work that long belongs into a task: task workers are not
    /// killed for it. In thread mode the worker cannot be killed: it is logged and counted (`hangs` in
    /// `status`), and its connections wait.
    pub stall_timeout_ms: u64,

    /// How long a process may take to start (`Handler::start` included), in milliseconds.
    /// Default 10,000.
    pub start_timeout_ms: u64,

    /// Bytes of each ring between a reactor and a worker, a power of two. Default 256 KiB.
    /// 64 KiB to 64 MiB.
    ///
    /// There are two for each pair of reactor and worker. A full ring pauses reading of the
    /// connections that want to use it. In thread mode, the queues between a reactor and the worker of its
    /// own thread have the same limit.
    pub ring_size: usize,

    /// Bytes reserved for payloads too large for a ring, for each ring. Default 64 MiB; at least
    /// 4 MiB. Touched only in use; given back afterwards.
    ///
    /// No message can be larger than a quarter of it.
    pub arena_size: usize,

    /// Events of one connection that may be unfinished before its reading pauses. Default 64.
    ///
    /// Of pipelined HTTP requests, at most 16 are; 1 has them handed over one by one.
    pub max_in_flight: usize,

    /// Bytes of unfinished events that a reactor may keep outside a worker's ring, so that slow
    /// handlers do not hold the ring for the others. Default 16 MiB, for each worker and reactor.
    pub max_parked: usize,

    /// Datagrams that a worker may have unfinished, from each reactor. Default 4096. 1 to 1,000,000.
    ///
    /// Further ones are dropped (`packets_dropped`), and so are those that find the ring full, or
    /// connections waiting for room in it. Worst-case memory is in the ring and in `max_parked`.
    pub max_packets: usize,

    /// Tasks waiting for a task worker. Default 10,000. At the limit a task is refused
    /// ([`TaskError::QueueFull`](crate::TaskError)).
    ///
    /// While less than half of them wait, workers submit detached tasks without asking the master. Such a task
    /// is never refused, so what workers send in the very moment in which the queue becomes full may go over
    /// it, by a quarter at most. Below 8 for each worker and task worker, all are asked for.
    pub task_queue: usize,

    /// Bytes of the tasks waiting. Default 256 MiB. At the limit a task is refused; it may be gone over as
    /// `task_queue`.
    pub task_queue_bytes: usize,

    /// What is logged: `error`, `warn`, `info`, `debug`, `trace`, or a filter such as
    /// `info,my_app=debug`. Default `info`.
    pub log_level: String,

    /// What of the spans and events that handlers record is exported with the feature
    /// `opentelemetry`: a level or a filter, as `log_level`. Default `info`.
    ///
    /// It is about traces only, as `log_level` is about the log only. The spans of the engine's events
    /// are exported whatever it says. What it lets through costs time, and room in the queue of spans.
    pub trace_level: String,

    /// The user that all processes of the server run as, by name or number; the server has to be
    /// started by root. Default empty: the user who starts it.
    ///
    /// What needs root is done before: ports below 1024 are bound, certificates read, the pid file
    /// and the control socket made where only root may. The manager keeps none of it: what is read
    /// or written later (certificates and settings at a reload, the log file) is read and written as
    /// this user.
    pub user: String,

    /// The group that goes with [`user`](Settings::user), by name or number. Default empty: that of
    /// the user. Supplementary groups are those of the user.
    pub group: String,

    /// Whether no process of the server, nor any that it starts, can get more rights than it has
    /// (`PR_SET_NO_NEW_PRIVS`): a `setuid` program such as `sudo` then runs without them. Default
    /// false.
    pub no_new_privs: bool,

    /// Permissions that new files do not get, as `umask(2)`. In files `0o027`, elsewhere `027`.
    /// Default: that of whoever starts the server.
    ///
    /// Files of Unix sockets have `unix_mode`, the control socket 0600, whatever this is.
    pub umask: Option<u32>,

    /// The directory that the server works in. Default: where it is started.
    ///
    /// Paths in settings, flags and variables are relative to where it is started. In every process
    /// `main` begins there; `Server::run` changes to this one.
    pub working_directory: Option<PathBuf>,

    /// Processors for the reactors, such as `0-3,6`. Default empty: any.
    ///
    /// They are shared out: with as many as reactors each has one for itself, with more each has
    /// several, with fewer some share one. Caches stay warm, and a busy handler does not take a
    /// reactor's time; a processor that something else keeps busy slows the reactor that is bound to
    /// it, since it cannot go elsewhere.
    pub reactor_cpus: String,

    /// Processors for the workers, shared out in the same way. Default empty: any. Task workers and
    /// user processes may use all of the list.
    pub worker_cpus: String,

    /// Added to the chance of workers, task workers and user processes to be killed when memory runs
    /// out, as `oom_score_adj`. Default 0; 0 to 1000.
    ///
    /// A worker that is killed loses no connection; the master loses all. 500 has the kernel choose
    /// workers first in nearly all cases, also before other programs of the machine.
    pub worker_oom_score_adj: u32,

    /// How its lines are written. Default [`LogFormat::Auto`]: text on a terminal, else JSON.
    pub log_format: LogFormat,

    /// The file that the log is appended to. Default: none, it goes to standard error.
    ///
    /// A relative path is one from the working directory at the start. The manager alone writes;
    /// it opens the file before anything is started, and again at HUP: another program may have moved
    /// it away.
    pub log_file: Option<PathBuf>,

    /// Permissions of a log file that the server makes, less the umask. Default 0640.
    pub log_file_mode: u32,

    /// Size in bytes at which a new log file is begun. Default 0: no limit; at least 64 KiB otherwise.
    ///
    /// The old file gets the time behind its name. No file is larger, but for one with a single
    /// longer line.
    pub log_rotate_size: u64,

    /// How often a new log file is begun, by the clock (UTC). Default [`LogRotation::Never`].
    ///
    /// It happens when the first line of the new period is written.
    pub log_rotate_every: LogRotation,

    /// Old log files that are kept; older ones are removed. Default 10; 0: all.
    ///
    /// With `log_rotate_size` the log takes that much times one more than this on the disk.
    pub log_keep: u64,

    /// Whether what the master, workers, task workers and user processes write to standard output and
    /// standard error becomes lines of the log, with role and number. Default
    /// [`CaptureOutput::Auto`]: if there is a `log_file`, or standard error is no terminal.
    pub capture_output: CaptureOutput,

    /// Events of one place in the code that a process logs in a second; those above it are counted,
    /// and the count is logged. Default 1,000; 0: any number.
    ///
    /// What is printed rather than logged does not count.
    pub log_repeat_limit: u64,

    /// How long a line waits when the log cannot be written as fast as it is made, in milliseconds.
    /// Default 1,000. 0 to 60,000.
    ///
    /// Workers wait so long, and are slowed down by it; the master for 10 ms at most, the manager not
    /// at all. Then lines are dropped and counted (`log_lost`, and a line in the log that says how
    /// many) until the log takes some again, so that a disk or terminal that hangs does not stop the
    /// server.
    pub log_wait_ms: u64,

    /// Bytes of lines that the manager holds until they are written. Default 4 MiB. 256 KiB to 1 GiB.
    ///
    /// This is worst-case memory. When it is full, lines wait as `log_wait_ms` says.
    pub log_queue: usize,

    /// Where metrics and health are served over HTTP: `127.0.0.1:9600`, `unix:/run/echo-admin.sock`.
    /// Default: empty, nowhere.
    ///
    /// The manager answers `GET /metrics`, `/healthz` and `/readyz`, to anybody who can connect: no
    /// address that strangers reach belongs here. A Unix socket has the mode 0600. `docs/metrics.md`
    /// has what there is, and the limits. Costs at most 16 connections, each with a page (some
    /// 100 KiB) and a request (8 KiB).
    pub admin_listen: String,

    /// Whether handlers are timed, and how long events wait for them, for the histograms of
    /// `/metrics`. Default true.
    ///
    /// Costs a worker one more look at the clock for each handler and each turn of its loop, some 30 ns,
    /// and 2.2 KiB of shared memory (which it has in any case).
    pub latency_histograms: bool,

    /// Files and directories whose change is followed by a reload, as is then a change of the
    /// program. Default: none. `--watch PATH`.
    ///
    /// Directories count with all below, but for names that begin with a dot or end with `~`, and
    /// for directories behind symbolic links. At most 20,000 files: some 4 MiB of memory, and 50 ms of
    /// the manager's time when something has changed. Each directory takes one of the user's inotify
    /// watches.
    pub watch: Vec<String>,

    /// How long watched files must have been left alone before a reload. Default 300. 10 to 60,000.
    ///
    /// With less, a build that writes its files one after another causes several reloads, and some
    /// that fail. When there is no quiet, the reload comes after ten times as long.
    pub watch_debounce_ms: u64,

    /// The user processes: see [`Server::add_process`](crate::Server::add_process). The code alone
    /// says which there are.
    pub(crate) processes: Vec<ProcessSpec>,
}

/// Whether the workers of a server are processes or threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Mode {
    /// Processes: a crash costs no connection, and code is reloaded while clients stay.
    #[default]
    Process,
    /// Threads of one process. A worker's thread owns the connections that it serves, and calls the
    /// handler where it has read the message: nothing is faster, and nothing is isolated. A panic of a
    /// handler is caught; what ends a process (an abort, a signal, memory running out) ends the
    /// server. `reload` needs process mode.
    Thread,
}

/// Which worker gets an event. The events of one connection are handled in order whatever is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Dispatch {
    /// Each connection has one worker for life, the one with the fewest connections when it came.
    Connection,
    /// Each event that meets an idle connection goes to the next worker.
    RoundRobin,
    /// Each event that meets an idle connection goes to the worker with the fewest events in flight.
    LeastBusy,
    /// By the client's IP address; on a Unix socket by its process.
    PeerAddress,
    /// By the uid bound to the connection ([`Conn::bind`](crate::Conn::bind)); until then as `Connection`.
    Uid,
    /// By the function given to [`Server::dispatch_with`](crate::Server::dispatch_with).
    Custom,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            name: String::new(),
            listeners: Vec::new(),
            mode: Mode::Process,
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            reactors: 1,
            task_workers: 0,
            dispatch: Dispatch::Connection,
            pid_file: None,
            max_connections: 0,
            max_streams: 0,
            max_requests: 0,
            max_requests_spread: 0,
            max_wait_time_ms: 30_000,
            stall_timeout_ms: 60_000,
            start_timeout_ms: 10_000,
            ring_size: 256 << 10,
            arena_size: 64 << 20,
            max_in_flight: 64,
            max_parked: 16 << 20,
            max_packets: 4096,
            task_queue: 10_000,
            task_queue_bytes: 256 << 20,
            log_level: "info".to_owned(),
            trace_level: "info".to_owned(),
            user: String::new(),
            group: String::new(),
            no_new_privs: false,
            umask: None,
            working_directory: None,
            reactor_cpus: String::new(),
            worker_cpus: String::new(),
            worker_oom_score_adj: 0,
            log_format: LogFormat::Auto,
            log_file: None,
            log_file_mode: 0o640,
            log_rotate_size: 0,
            log_rotate_every: LogRotation::Never,
            log_keep: 10,
            capture_output: CaptureOutput::Auto,
            log_repeat_limit: 1_000,
            log_wait_ms: 1_000,
            log_queue: 4 << 20,
            admin_listen: String::new(),
            latency_histograms: true,
            watch: Vec::new(),
            watch_debounce_ms: 300,
            processes: Vec::new(),
        }
    }
}

impl Settings {
    /// `max_streams`, its default put in.
    pub(crate) fn most_streams(&self) -> usize {
        match self.max_streams {
            0 => self.max_connections,
            most => most,
        }
    }
}

/// Puts the layers together: the code's settings, then the file, the environment, the flags.
pub(crate) fn gather(
    code: &Settings,
    environment: &Environment,
    flags: &Flags,
) -> crate::Result<Settings> {
    let mut settings = code.clone();
    if let Some(path) = flags.config.as_ref().or(environment.config.as_ref()) {
        file::apply(&mut settings, path)?;
    }
    environment.apply(&mut settings)?;
    flags.apply(&mut settings)?;
    flags.tls().or(&environment.tls).apply(&mut settings)?;
    Ok(settings)
}

/// Makes every path that is relative one from the root, as seen from here.
pub(crate) fn make_absolute(settings: &mut Settings) -> crate::Result {
    for mut field in fields::of_server(settings) {
        field.make_absolute()?;
    }
    for path in &mut settings.watch {
        *path = std::path::absolute(&*path)?.display().to_string();
    }
    for tls in settings
        .listeners
        .iter_mut()
        .filter_map(|listener| listener.tls.as_mut())
    {
        for mut field in fields::of_tls(tls) {
            field.make_absolute()?;
        }
        for files in &mut tls.sni {
            for mut field in fields::of_certificate(files) {
                field.make_absolute()?;
            }
        }
    }
    Ok(())
}

/// The origins of the settings that [`gather`] has put together, with what `start` says on top.
pub(crate) fn origins(
    settings: &Settings,
    start: Named,
    environment: &Environment,
    flags: &Flags,
) -> crate::Result<Origins> {
    let file = match flags.config.as_ref().or(environment.config.as_ref()) {
        Some(path) => file::named(path)?,
        None => Named::new(),
    };
    let layers = [start, flags.named(), environment.named(), file];
    Ok(Origins::new(settings, &layers))
}

pub(crate) fn millis(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Arguments {
        #[command(flatten)]
        flags: Flags,
    }

    #[test]
    fn flag_beats_environment_beats_file_beats_code() {
        let directory = std::env::temp_dir().join(format!("gannet-layers-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let file = directory.join("layers.toml");
        std::fs::write(&file, "workers = 2\nreactors = 2\ntask_workers = 2\n").unwrap();

        let mut code = Settings {
            max_in_flight: 1,
            ..Settings::default()
        };
        (code.workers, code.reactors, code.task_workers) = (1, 1, 1);
        let variables = [
            ("GANNET_REACTORS", "3"),
            ("GANNET_TASK_WORKERS", "3"),
            ("GANNET_CONFIG", "/no/such/file"),
        ];
        let variables = variables
            .map(|(name, value)| (name.into(), value.into()))
            .into_iter();
        let environment = Environment::read(variables, &[]).unwrap();
        let config = format!("--config={}", file.display());
        let flags = Arguments::parse_from(["echo", &config, "--task-workers", "4"]).flags;

        let settings = gather(&code, &environment, &flags).unwrap();
        assert_eq!(
            (
                settings.max_in_flight,
                settings.workers,
                settings.reactors,
                settings.task_workers
            ),
            (1, 2, 3, 4)
        );
        std::fs::remove_dir_all(directory).unwrap();
    }
}

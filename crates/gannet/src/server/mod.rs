//! A server: what `main` puts together. What it becomes, in each of its processes, stands in `begin`.

mod begin;

use std::{
    io::{self, Write},
    path::PathBuf,
    sync::Arc,
};

use gannet_shm::table::{Key, Row, Rows, Schema, TableSpec};

use crate::{
    ConnId, Dispatch, Handler, Listener, Mode, Peer, Process, ProcessOptions, Result, Settings,
    Shared, Tls, WorkerError,
    channel::Implements,
    check::{self, Findings},
    cli,
    control::{Client, Setting},
    manager::Export,
    objects::{Declaration, Declared},
    process::{ProcessFn, ProcessSpec},
    settings::{self, Flags},
};

/// A server that is to be run.
///
/// ```no_run
/// use gannet::{Bytes, Conn, Handler, Server, Worker};
///
/// /// Sends every message back to whoever sent it.
/// struct Echo;
///
/// impl Handler for Echo {
///     async fn start(_worker: &Worker) -> gannet::Result<Self> {
///         Ok(Echo)
///     }
///
///     async fn receive(&self, conn: Conn, data: Bytes) -> gannet::Result {
///         conn.send(data).await
///     }
/// }
///
/// fn main() -> gannet::Result {
///     Server::tcp("127.0.0.1:9501").workers(2).run::<Echo>()
/// }
/// ```
///
/// # One program, several processes
///
/// The process that was started becomes the manager. It starts the program again for the master, for
/// each worker and each task worker: `main` runs in each of them from its beginning, with the same
/// arguments, until it calls [`run`](Server::run) or [`serve`](Server::serve), which finds out
/// what the process is to be and does not return. (The manager too begins `main` once more, to have
/// its title in `ps`.) So keep `main` short: what stands in front of `run` happens in every process,
/// and `argv[0]` is a title there, not a path. What stands behind it happens only in the process
/// that the user started, after the server has stopped.
#[derive(Clone)]
#[must_use = "a server does nothing until it is run"]
pub struct Server {
    settings: Settings,
    /// Of the command line; they win over the rest.
    flags: Flags,
    /// The same of the command that starts it.
    pub(crate) start: cli::Start,
    dispatch: Option<DispatchFn>,
    /// In the order of `settings.processes`.
    processes: Vec<ProcessFn>,
    allowed_env: Vec<String>,
    declared: Declared,
    /// Counters among them that are metrics.
    exports: Vec<Export>,
    prepare: Option<PrepareFn>,
    on_ready: Option<ReadyFn>,
    on_worker_error: Option<WorkerErrorFn>,
    /// What the handler has, where that is known.
    implements: Option<Implements>,
}

/// Chooses a worker: see [`Server::dispatch_with`].
pub type DispatchFn = Arc<dyn Fn(&DispatchRequest<'_>) -> usize + Send + Sync>;

type PrepareFn = Arc<dyn Fn(&Shared) -> Result>;

/// What is done when the server is ready: see [`Server::on_ready`].
pub(crate) type ReadyFn = Arc<dyn Fn(&Settings)>;

/// What is done when a worker has ended badly: see [`Server::on_worker_error`].
pub(crate) type WorkerErrorFn = Arc<dyn Fn(&WorkerError)>;

/// An event for which [`Server::dispatch_with`]'s function is to choose a worker.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct DispatchRequest<'a> {
    /// The connection; 0 for a datagram, which has none.
    pub conn: ConnId,
    /// Index of the listener that it came from.
    pub listener: usize,
    /// The client.
    pub peer: Peer,
    /// The uid bound to the connection.
    pub uid: Option<&'a str>,
    /// The first bytes of the event's data; of an HTTP request and a WebSocket's handshake the target, such as
    /// `/room/7?user=ann`. Empty for events without.
    pub data: &'a [u8],
    /// Number of workers: the answer is below it.
    pub workers: usize,
}

impl Server {
    /// A server for plain TCP on `address`: `127.0.0.1:9501`, `[::]:80` or `host:port`.
    pub fn tcp(address: impl Into<String>) -> Self {
        Server::with_listener(Listener::tcp(address))
    }

    /// A server for datagrams: UDP on `host:port`, or Unix datagrams on `unixgram:/path`.
    pub fn udp(address: impl Into<String>) -> Self {
        Server::with_listener(Listener::udp(address))
    }

    /// A server for HTTP/1.1.
    pub fn http(address: impl Into<String>) -> Self {
        Server::with_listener(Listener::http(address))
    }

    /// A server for WebSocket, and HTTP/1.1 on the same port.
    pub fn websocket(address: impl Into<String>) -> Self {
        Server::with_listener(Listener::websocket(address))
    }

    /// A server with these settings.
    pub fn new(settings: Settings) -> Self {
        Server {
            settings,
            flags: Flags::default(),
            start: cli::Start::default(),
            dispatch: None,
            processes: Vec::new(),
            allowed_env: Vec::new(),
            declared: Declared::default(),
            exports: Vec::new(),
            prepare: None,
            on_ready: None,
            on_worker_error: None,
            implements: None,
        }
    }

    /// Name of the server in `ps`, logs and the default pid file.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.settings.name = name.into();
        self
    }

    /// Whether workers are processes (the default) or threads.
    pub fn mode(mut self, mode: Mode) -> Self {
        self.settings.mode = mode;
        self
    }

    /// Number of workers.
    pub fn workers(mut self, workers: usize) -> Self {
        self.settings.workers = workers;
        self
    }

    /// Number of reactor threads of the master.
    pub fn reactors(mut self, reactors: usize) -> Self {
        self.settings.reactors = reactors;
        self
    }

    /// Number of task worker processes.
    pub fn task_workers(mut self, task_workers: usize) -> Self {
        self.settings.task_workers = task_workers;
        self
    }

    /// Listens on one more address.
    pub fn listen(mut self, listener: Listener) -> Self {
        self.settings.listeners.push(listener);
        self
    }

    /// TLS on the address named last, which becomes `tls://`, `https://` or `wss://`.
    pub fn tls(mut self, tls: Tls) -> Self {
        if let Some(listener) = self.settings.listeners.last_mut() {
            listener.tls = Some(tls);
        }
        self
    }

    /// Which worker gets an event.
    pub fn dispatch(mut self, dispatch: Dispatch) -> Self {
        self.settings.dispatch = dispatch;
        self
    }

    /// Lets a function choose the worker of an event that meets an idle connection. It runs in the
    /// reactors, for every such event: it must be quick and must not block. An answer that is no
    /// worker's number is taken modulo the number of workers.
    pub fn dispatch_with(
        mut self,
        choose: impl Fn(&DispatchRequest<'_>) -> usize + Send + Sync + 'static,
    ) -> Self {
        self.settings.dispatch = Dispatch::Custom;
        self.dispatch = Some(Arc::new(choose));
        self
    }

    /// Adds a user process: beside the workers, a process of its own that runs `function`.
    ///
    /// It is for what there is to be one of: a consumer of a queue, all timers, a connection to
    /// another system. The manager starts it as soon as the server runs, and again by
    /// [`ProcessOptions`] (or just a [`Restart`](crate::Restart)) when it has ended. What it can do:
    /// [`Process`]. `ps` shows it as `gannet: process NAME`, and `status` lists it.
    ///
    /// A reload starts the process from the program on disk, which stands by; then the old one is
    /// asked to end ([`Process::stopping`], [`Process::recv`] gives `None`); when it is gone, or
    /// was killed after `max_wait_time_ms`, the new one's function runs. So two never run at a time.
    /// Messages that come meanwhile wait. Which processes there are, and their options, can be
    /// changed by a new start of the server only. `docs/processes.md` has more.
    ///
    /// ```no_run
    /// # use gannet::{Bytes, Conn, Handler, Result, Worker};
    /// # struct Echo;
    /// # impl Handler for Echo {
    /// #     async fn start(_: &Worker) -> Result<Self> { Ok(Echo) }
    /// #     async fn receive(&self, conn: Conn, data: Bytes) -> Result { conn.send(data).await }
    /// # }
    /// use gannet::{Process, Restart, Server};
    ///
    /// /// Tells everybody what workers have sent to this process.
    /// async fn herald(process: Process) -> Result {
    ///     while let Some(news) = process.recv().await {
    ///         process.publish("news", news.data().clone()).await?;
    ///     }
    ///     Ok(())
    /// }
    ///
    /// # fn main() -> Result {
    /// Server::tcp("127.0.0.1:9501")
    ///     .add_process("herald", Restart::Always, herald)
    ///     .run::<Echo>()
    /// # }
    /// ```
    pub fn add_process<F, R>(
        mut self,
        name: impl Into<String>,
        options: impl Into<ProcessOptions>,
        function: F,
    ) -> Self
    where
        F: Fn(Process) -> R + Send + Sync + 'static,
        R: Future<Output = Result> + 'static,
    {
        let spec = ProcessSpec::new(name.into(), options.into());
        self.settings.processes.push(spec);
        self.processes
            .push(Arc::new(move |process| Box::pin(function(process))));
        self
    }

    /// The pid file; the control socket is beside it.
    pub fn pid_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.settings.pid_file = Some(path.into());
        self
    }

    /// Changes any setting.
    pub fn settings(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(&mut self.settings);
        self
    }

    /// Names environment variables of the program's own that start with `GANNET_`; others that are
    /// no setting are refused as typing errors.
    pub fn allow_env<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.allowed_env.extend(names.into_iter().map(Into::into));
        self
    }

    /// Adds a counter that every process finds by its name: [`Worker::counter`]. It begins at 0.
    ///
    /// Counters, locks and tables are made when the server starts and live as long as it does:
    /// longer than its workers, and its master. A reloaded program finds them as they are; one that
    /// declares others than the server was started with is refused, and the old workers go on.
    ///
    /// A name has 1 to 64 ASCII letters, digits and `.`, `_`, `-`, `:`; it stands for one object
    /// only. [`Shared`] says how many there can be.
    ///
    /// [`Worker::counter`]: crate::Worker::counter
    pub fn counter(mut self, name: impl Into<String>) -> Self {
        self.declared.push(Declaration::Counter(name.into()));
        self
    }

    /// Adds a counter that is also a metric of its own at `/metrics` (`admin_listen`), of the type
    /// counter: it only ever grows, and its name ends in `_total`. `help` says in a sentence what it
    /// counts. `docs/metrics.md` has the rules for names.
    pub fn counter_metric(self, name: impl Into<String>, help: impl Into<String>) -> Self {
        self.metric(name.into(), help.into(), true)
    }

    /// The same for a counter that goes up and down: a gauge.
    pub fn gauge_metric(self, name: impl Into<String>, help: impl Into<String>) -> Self {
        self.metric(name.into(), help.into(), false)
    }

    /// Adds a lock between processes: [`Worker::lock`](crate::Worker::lock). For names and lifetime
    /// see [`counter`](Server::counter).
    pub fn lock(mut self, name: impl Into<String>) -> Self {
        self.declared.push(Declaration::Lock(name.into()));
        self
    }

    /// Adds a table with rows of type `R` under keys of type `K` (`str`, `[u8]` or `u64`):
    /// [`Worker::table`](crate::Worker::table). For names and lifetime see
    /// [`counter`](Server::counter).
    pub fn table<R: Row, K: Key + ?Sized>(self, name: impl Into<String>, rows: Rows) -> Self {
        self.records(name, Schema::of::<R, K>(), rows)
    }

    /// Adds a table whose columns are put together at run time:
    /// [`Worker::records`](crate::Worker::records).
    pub fn records(mut self, name: impl Into<String>, schema: Schema, rows: Rows) -> Self {
        let name = name.into();
        self.declared
            .push(Declaration::Table(TableSpec { name, schema, rows }));
        self
    }

    /// What is to be done once, in the manager, before anything is started: making a directory,
    /// bringing a database up to date, filling tables. An error ends the start.
    pub fn prepare(mut self, prepare: impl Fn(&Shared) -> Result + 'static) -> Self {
        self.prepare = Some(Arc::new(prepare));
        self
    }

    /// What is to be done once, in the manager, when every process is ready for the first time,
    /// in place of printing the addresses. The listeners in the settings have their real ports.
    pub fn on_ready(mut self, ready: impl Fn(&Settings) + 'static) -> Self {
        self.on_ready = Some(Arc::new(ready));
        self
    }

    /// What is to be done whenever a worker, task worker or user process has ended badly, did not
    /// start, or an event was given up that has killed one worker after the other: telling a pager,
    /// counting.
    ///
    /// It runs in the manager, on its only thread: nothing else is supervised meanwhile, so hand what
    /// takes long to a thread or a program. If it panics, that is logged. The log has what it is told in
    /// any case.
    ///
    /// ```no_run
    /// # let server = gannet::Server::tcp("127.0.0.1:9501");
    /// let server = server.on_worker_error(|error| {
    ///     if error.early_deaths > 3 {
    ///         eprintln!("crash loop: {error}");
    ///     }
    /// });
    /// ```
    pub fn on_worker_error(mut self, hook: impl Fn(&WorkerError) + 'static) -> Self {
        self.on_worker_error = Some(Arc::new(hook));
        self
    }

    /// Does what the command line says: `start` (also without a command), or one of the commands in
    /// [`cli`]; see `--help`.
    ///
    /// Returns `Ok` when the server has been stopped gracefully. After the other commands the process
    /// ends here, with exit code 0. Errors are printed (one line, `error: …`, on stderr) and end the
    /// process as well: with exit code 2 if the command line, the environment or the settings are
    /// wrong, with 1 if the server could not start or the command failed.
    ///
    /// Call it in the process's main thread.
    pub fn run<H: Handler>(self) -> Result {
        self.become_child::<H>();
        match self.run_command::<H>() {
            Ok(()) => Ok(()),
            Err(error) => {
                // With stderr closed there is still the exit code.
                let line = error.to_string().replace('\n', " ");
                let _ = writeln!(io::stderr(), "error: {line}");
                std::process::exit(error.exit_code().into());
            }
        }
    }

    /// Runs the server as the environment and the code say, for programs with a command line of
    /// their own. [`cli`](crate::cli) has `stop` and the others for them.
    ///
    /// Returns when the server has been stopped gracefully, or an error if it could not start
    /// ([`Error::is_usage`](crate::Error::is_usage) tells whether the settings are at fault). Call it in the process's main
    /// thread.
    pub fn serve<H: Handler>(self) -> Result {
        self.become_child::<H>();
        self.start::<H>()
    }

    /// The settings that a start would use, and where each comes from.
    pub(crate) fn planned_settings(&self) -> Result<Vec<Setting>> {
        let (environment, mut settings, _) = self.gather()?;
        settings::check(&mut settings)?;
        let origins = settings::origins(&settings, self.start.named(), &environment, &self.flags)?;
        Ok(origins.show(&settings))
    }

    /// Connects to the running server of this program, that is: with this pid file, as the
    /// environment and the code say.
    pub fn control(&self) -> Result<Client> {
        let (_, settings, _) = self.gather()?;
        Client::connect(settings::pid_file(&settings)?)
    }

    fn metric(mut self, name: String, help: String, is_counter: bool) -> Self {
        self.exports.push(Export {
            name: name.clone(),
            help,
            is_counter,
        });
        self.counter(name)
    }

    /// What `check` says.
    pub(crate) fn look(&self) -> Result<Findings> {
        let (_, mut settings, _) = self.gather()?;
        let addresses = settings::check(&mut settings)?;
        if let Some(implements) = &self.implements {
            settings::check_handler(&settings, implements)?;
        }
        Ok(check::look(&mut settings, &addresses))
    }

    fn with_listener(listener: Listener) -> Self {
        Server::new(Settings {
            listeners: vec![listener],
            ..Settings::default()
        })
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

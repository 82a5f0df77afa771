//! How a pool is defined and started, and how a process finds out that it is a child of one.

use std::{
    collections::BTreeSet,
    marker::PhantomData,
    os::fd::{AsRawFd, OwnedFd, RawFd},
    process::{Command, Stdio},
    sync::{Mutex, OnceLock, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{Child, Pool, child, slot};
use crate::{
    Error, Restart, Result, bootstrap,
    channel::{Channel, FromWorker},
    inherit,
    manager::{self, Program, TITLED_ENV},
    process::check_name,
    sys,
};

/// A pool that is defined and not started yet: see [`Pool::define`].
#[must_use = "no child is started before `start`"]
pub struct PoolOptions<Request, Reply> {
    pub(super) plan: Plan,
    /// What is wrong with the definition.
    error: Option<Error>,
    types: PhantomData<fn(Request) -> Reply>,
}

/// What children are made of.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) name: String,
    pub(super) processes: usize,
    pub(super) restart: Restart,
    pub(super) queue: usize,
    pub(super) max_message: usize,
    pub(super) capture_output: bool,
    pub(super) max_wait: Duration,
    pub(super) start_timeout: Duration,
}

/// What a child is told by its sealed memfd.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Orders {
    abi: u32,
    parent_pid: u32,
    pub(super) pool: String,
    pub(super) child: usize,
    pub(super) restarts: u64,
    pub(super) channel: RawFd,
    pub(super) stream: RawFd,
    pub(super) queue: usize,
    pub(super) max_message: usize,
}

impl<Request, Reply> Pool<Request, Reply>
where
    Request: Serialize + DeserializeOwned + 'static,
    Reply: Serialize + DeserializeOwned + 'static,
{
    /// Defines a pool: its name, and the function that its children run.
    ///
    /// Children are started from the same program, whose `main` runs in each of them from the
    /// beginning, with the same arguments. There, this call does not return: it runs the function and
    /// ends the process. So define pools early in `main`, each under a name of its own, all before the
    /// first is started: what stands before the definition happens in every child, too.
    ///
    /// A program that runs a [`Server`](crate::Server) uses
    /// [`Server::add_process`](crate::Server::add_process) instead.
    pub fn define<F, R>(name: &str, function: F) -> PoolOptions<Request, Reply>
    where
        F: FnOnce(Child<Request, Reply>) -> R,
        R: Future<Output = Result>,
    {
        if let Some(orders) = orders()
            && orders.pool == name
        {
            child::run(orders.clone(), function);
        }
        PoolOptions {
            plan: Plan {
                name: name.to_owned(),
                processes: std::thread::available_parallelism().map_or(1, usize::from),
                restart: Restart::Always,
                queue: 16,
                max_message: 1 << 20,
                capture_output: false,
                max_wait: Duration::from_secs(30),
                start_timeout: Duration::from_secs(10),
            },
            error: check(name).err(),
            types: PhantomData,
        }
    }
}

impl<Request, Reply> PoolOptions<Request, Reply> {
    /// Child processes. Default: the number of processors. 1 to 1024.
    pub fn processes(mut self, processes: usize) -> Self {
        self.plan.processes = processes;
        self
    }

    /// When a child that has ended is started again, after a back-off of up to 10 s if it keeps dying
    /// young. Default: [`Restart::Always`].
    pub fn restart(mut self, restart: Restart) -> Self {
        self.plan.restart = restart;
        self
    }

    /// Messages that may wait for each child, in the child for the parent, and in the parent to be
    /// received, beside what the sockets hold (about 200 KiB each way). Default 16. 1 to 65,536.
    ///
    /// At the limit `send` waits. Worst-case memory of the parent is `max_message` times this times
    /// one more than there are children.
    pub fn queue(mut self, messages: usize) -> Self {
        self.plan.queue = messages;
        self
    }

    /// Largest message, as JSON, in bytes. Default 1 MiB. At most 1 GiB. A larger one is an error for
    /// who sends it.
    pub fn max_message(mut self, bytes: usize) -> Self {
        self.plan.max_message = bytes;
        self
    }

    /// Whether what children write to standard output comes to the parent, as
    /// [`PoolEvent::Line`](crate::PoolEvent::Line). Default: no, it goes where the parent's goes.
    ///
    /// Lines over 8 KiB are cut. A child whose lines are not received waits in its `write`.
    pub fn capture_output(mut self, capture: bool) -> Self {
        self.plan.capture_output = capture;
        self
    }

    /// How long children may take to end after [`Pool::stop`]; then they are killed. Default 30 s.
    pub fn max_wait(mut self, time: Duration) -> Self {
        self.plan.max_wait = time;
        self
    }

    /// How long a child may take to come to its function. Default 10 s.
    pub fn start_timeout(mut self, time: Duration) -> Self {
        self.plan.start_timeout = time;
        self
    }

    /// Starts the children, and returns when all have come to their function: some milliseconds.
    /// If one does not, all are killed and the reason is returned.
    pub fn start(self) -> Result<Pool<Request, Reply>> {
        if let Some(orders) = orders() {
            let error = format!(
                "this is a child of the pool `{}`, and has come to the start of the pool `{}`: \
                 define all pools (Pool::define) before the first is started",
                orders.pool, self.plan.name
            );
            if let Ok(channel) = inherit::take(orders.channel) {
                let error = error.clone();
                let _ = Channel::new(channel).send(&FromWorker::Failed { error }, &[]);
            }
            return Err(Error::usage(error));
        }
        if let Some(error) = self.error {
            return Err(error);
        }
        self.plan.check()?;
        Pool::new(slot::start(self.plan)?)
    }
}

impl Plan {
    fn check(&self) -> Result {
        let within = |what: &str, value: usize, most: usize| {
            if (1..=most).contains(&value) {
                return Ok(());
            }
            Err(Error::usage(format!(
                "the pool `{}`: `{what}` = {value}: must be 1 to {most}",
                self.name
            )))
        };
        within("processes", self.processes, 1024)?;
        within("queue", self.queue, 1 << 16)?;
        within("max_message", self.max_message, 1 << 30)
    }
}

/// A child that was started.
pub(super) struct Started {
    pub(super) process: std::process::Child,
    pub(super) pidfd: OwnedFd,
    pub(super) channel: Channel,
    pub(super) stream: std::os::unix::net::UnixStream,
}

/// Starts a child. It dies with the thread that calls this.
pub(super) fn spawn(
    plan: &Plan,
    program: &Program,
    child: usize,
    restarts: u64,
) -> Result<Started> {
    let (channel, childs_channel) = Channel::pair()?;
    let (stream, childs_stream) = std::os::unix::net::UnixStream::pair()?;
    stream.set_nonblocking(true)?;
    let orders = Orders {
        abi: ABI,
        parent_pid: std::process::id(),
        pool: plan.name.clone(),
        child,
        restarts,
        channel: childs_channel.as_raw_fd(),
        stream: childs_stream.as_raw_fd(),
        queue: plan.queue,
        max_message: plan.max_message,
    };
    let orders_fd = bootstrap::sealed(MEMFD, &serde_json::to_vec(&orders)?)?;
    let mut command = Command::new(&program.path);
    command
        .arg0_title(&format!("gannet: child {} {child}", plan.name))
        .args(&program.arguments)
        .env(ENV, orders_fd.as_raw_fd().to_string())
        .env_remove(TITLED_ENV)
        .stdin(Stdio::null());
    if plan.capture_output {
        command.stdout(Stdio::piped());
    }
    let inherit = vec![
        childs_channel.as_raw_fd(),
        childs_stream.as_raw_fd(),
        orders_fd.as_raw_fd(),
    ];
    sys::as_child(&mut command, inherit, None);
    let mut process = command.spawn().map_err(|error| {
        let path = program.path.display();
        Error::new(format!("cannot start {path}: {error}"))
    })?;
    let pidfd = manager::pidfd(&mut process)?;
    Ok(Started {
        process,
        pidfd,
        channel,
        stream,
    })
}

trait Title {
    /// What `ps` shows.
    fn arg0_title(&mut self, title: &str) -> &mut Self;
}

impl Title for Command {
    fn arg0_title(&mut self, title: &str) -> &mut Self {
        std::os::unix::process::CommandExt::arg0(self, title)
    }
}

/// What this process was told, if it is a child of a pool.
fn orders() -> Option<&'static Orders> {
    static ORDERS: OnceLock<Option<Orders>> = OnceLock::new();
    /// The part of the orders that every version has.
    #[derive(Deserialize)]
    struct Core {
        abi: u32,
        parent_pid: u32,
    }

    let read = || {
        let orders = bootstrap::inherited(ENV, MEMFD)?;
        let core: Core = serde_json::from_slice(&orders).ok()?;
        if core.parent_pid != std::os::unix::process::parent_id() {
            return None;
        }
        sys::remove_variable(ENV);
        if let (ABI, Ok(orders)) = (core.abi, serde_json::from_slice(&orders)) {
            return Some(orders);
        }
        // It must not take itself for a parent.
        eprintln!(
            "error: this program was built with another version of gannet than the one that has \
             started it as a child of a pool: start that anew"
        );
        std::process::exit(1);
    };
    ORDERS.get_or_init(read).as_ref()
}

/// Refuses names that are none, and that were taken before.
fn check(name: &str) -> Result {
    static DEFINED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    check_name("pool", name)?;
    let mut defined = DEFINED.lock().unwrap_or_else(PoisonError::into_inner);
    if !defined.insert(name.to_owned()) {
        return Err(Error::usage(format!(
            "the pool `{name}` was defined twice: its children could not know which they belong to"
        )));
    }
    Ok(())
}

/// Environment variable with the number of the orders' descriptor.
const ENV: &str = "GANNET_POOL";
const MEMFD: &str = "gannet-pool";
/// Version of the orders and of what goes over the sockets. Another program may stand at the path when
/// a child is restarted.
const ABI: u32 = 1;

//! Runs the load: threads, the window that is measured, progress on a terminal.

use std::{
    io::{self, Write as _},
    sync::atomic::{AtomicBool, Ordering},
    thread::{self, ScopedJoinHandle},
    time::Duration,
};

use rustix::{
    process::{Resource, Rlimit, getrlimit, setrlimit},
    termios::isatty,
    time::{ClockId, clock_gettime},
};

use crate::{
    Error,
    control::{Control, NEVER, Totals},
    driver::Driver,
    plan::Plan,
    protocol::Protocol,
    record::Record,
    report::{ClientUse, Report, ServerUse, count, time},
    server::{Memory, Server, Usage},
};

/// How long, and who watches.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watch<'a> {
    pub(crate) warmup: Duration,
    pub(crate) duration: Duration,
    pub(crate) server_pids: &'a [u32],
    pub(crate) progress: Progress,
    /// How long to wait between the last connection and the first message.
    pub(crate) settle: Duration,
    /// What is counted: `messages`.
    pub(crate) unit: &'static str,
}

/// A line on the terminal that changes every second.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Progress {
    shown: bool,
}

/// What is known when all threads have ended.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) record: Record,
    /// When the window began, by the clock of the run.
    pub(crate) begin: u64,
    pub(crate) seconds: f64,
    /// Done in the window.
    pub(crate) done: u64,
    pub(crate) server: Option<(Usage, Option<Memory>)>,
    pub(crate) client: Duration,
}

impl Measured {
    /// Puts into the report all that every mode has. `units` must be in it already.
    pub(crate) fn report(&self, report: &mut Report, reconnect: bool) {
        report.seconds = crate::report::round(self.seconds);
        report.take(&self.record, self.begin, reconnect);
        let units = report.units();
        report.server = self
            .server
            .map(|(used, memory)| ServerUse::new(used, units, memory));
        report.client = Some(ClientUse::new(self.client, self.seconds, units));
    }

    pub(crate) fn per_second(&self, number: u64) -> f64 {
        crate::report::round(number as f64 / self.seconds.max(1e-9))
    }
}

/// Runs a plan with a protocol; `of_thread` makes that of each thread.
pub(crate) fn run<P: Protocol>(
    plan: &Plan,
    watch: &Watch<'_>,
    of_thread: impl Fn(usize) -> P,
) -> Result<Measured, Error> {
    raise_descriptor_limit(plan.connections)?;
    let control = Control::new(plan.threads);
    let drivers = (0..plan.threads)
        .map(|thread| Driver::new(plan, &control, of_thread(thread), thread))
        .collect::<Result<Vec<_>, _>>()?;
    let jobs = drivers.into_iter().map(|driver| || driver.run());
    command(&control, watch, plan.connections, jobs)
}

/// Starts the threads, and commands them through the stages of [`Control`].
pub(crate) fn command<F>(
    control: &Control,
    watch: &Watch<'_>,
    connections: usize,
    jobs: impl Iterator<Item = F>,
) -> Result<Measured, Error>
where
    F: FnOnce() -> Result<Record, Error> + Send,
{
    // Before anything is connected: a wrong id is told at once.
    let mut server = match watch.server_pids {
        [] => None,
        pids => Some(Server::find(pids)?),
    };
    thread::scope(|scope| {
        let threads: Vec<_> = jobs
            .map(|job| {
                scope.spawn(move || {
                    let outcome = job();
                    if outcome.is_err() {
                        control.abort();
                    }
                    control.ended();
                    outcome
                })
            })
            .collect();
        let connecting = |totals: Totals| {
            watch.progress.show(&format!(
                "connecting: {} of {}",
                count(totals.connected),
                count(connections as u64)
            ));
        };
        let marks = match control.wait_ready(connecting) {
            true => {
                thread::sleep(watch.settle);
                Some(measure(control, watch, server.as_mut()))
            }
            false => None,
        };
        watch.progress.clear();
        if marks.is_none() {
            control.abort();
        }
        let record = join(threads)?;
        let marks =
            marks.ok_or_else(|| {
                Error::Server(record.samples.first().cloned().unwrap_or_else(|| {
                    "a thread of the generator ended before the load began".into()
                }))
            })?;
        let seconds = (marks.end - marks.begin) as f64 / 1e9;
        Ok(Measured {
            record,
            begin: marks.begin,
            seconds,
            done: marks.done,
            server: marks.server,
            client: marks.client,
        })
    })
}

/// What is read at the two ends of the window.
struct Marks {
    begin: u64,
    end: u64,
    done: u64,
    server: Option<(Usage, Option<Memory>)>,
    client: Duration,
}

fn measure(control: &Control, watch: &Watch<'_>, mut server: Option<&mut Server>) -> Marks {
    let mut before = 0;
    let mut tell = |control_second: &str, totals: Totals| {
        let rate = totals.done - before;
        before = totals.done;
        watch.progress.show(&format!(
            "{control_second}{} {} a second, worst of them {}, {} connections, {} errors",
            count(rate),
            watch.unit,
            time(totals.worst as f64 / 1e3),
            count(totals.connected),
            count(totals.errors)
        ));
    };
    control.go();
    control.wait(watch.warmup, |totals| tell("warm-up: ", totals));

    let used = server.as_mut().map(|server| {
        server.look();
        server.usage()
    });
    let (client, done) = (cpu_time(), control.totals().done);
    control.begin();
    let (begin, mut left) = (control.window().0, watch.duration);
    // In between, processes of the server may end.
    let mut second = 0;
    while !left.is_zero() {
        let step = left.min(LOOK);
        left -= step;
        let running = control.wait(step, |_| {});
        second += u32::try_from(step.as_millis()).unwrap_or_default();
        if second >= 1000 {
            second = 0;
            tell("", control.totals());
        }
        if let Some(server) = server.as_mut() {
            server.look();
        }
        if !running {
            break;
        }
    }
    let used = server.as_mut().map(|server| {
        server.look();
        server.usage().since(used.unwrap_or_default())
    });
    let (client, done) = (cpu_time() - client, control.totals().done - done);
    control.end();
    let end = control.window().1;
    // That takes milliseconds, in which the server may have to wait.
    let server = used
        .zip(server)
        .map(|(used, server)| (used, server.memory()));
    debug_assert!(begin != NEVER && end >= begin);
    Marks {
        begin,
        end,
        done,
        server,
        client,
    }
}

pub(crate) fn join(
    threads: Vec<ScopedJoinHandle<'_, Result<Record, Error>>>,
) -> Result<Record, Error> {
    let mut all = Record::new();
    let mut failed = None;
    for thread in threads {
        match thread.join() {
            Ok(Ok(record)) => all.add(&record),
            Ok(Err(error)) => failed = failed.or(Some(error)),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
    match failed {
        Some(error) => Err(error),
        None => Ok(all),
    }
}

impl Progress {
    /// Shown if standard error is a terminal, unless `never`.
    pub(crate) fn new(never: bool) -> Self {
        Progress {
            shown: !never && isatty(io::stderr()),
        }
    }

    pub(crate) fn show(self, text: &str) {
        if self.shown {
            DIRTY.store(true, Ordering::Relaxed);
            // That nobody sees it is no error.
            let _ = write!(io::stderr(), "\r\x1b[K{text}");
        }
    }

    pub(crate) fn clear(self) {
        if self.shown && DIRTY.swap(false, Ordering::Relaxed) {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

/// Processor time of this process.
pub(crate) fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    // Neither is negative.
    Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec as u32)
}

/// Sees to it that there are enough descriptors.
pub(crate) fn raise_descriptor_limit(connections: usize) -> Result<(), Error> {
    let needed = connections as u64 + BESIDES;
    let limit = getrlimit(Resource::Nofile);
    let enough = |value: Option<u64>| value.is_none_or(|value| value >= needed);
    if enough(limit.current) {
        return Ok(());
    }
    let set = |current, maximum| setrlimit(Resource::Nofile, Rlimit { current, maximum }).is_ok();
    // Root may have more than the hard limit says.
    if enough(limit.maximum) && set(limit.maximum, limit.maximum) || set(Some(needed), Some(needed))
    {
        return Ok(());
    }
    Err(Error::Descriptors {
        needed,
        allowed: limit.maximum.unwrap_or(u64::MAX),
    })
}

static DIRTY: AtomicBool = AtomicBool::new(false);

/// How often processes of the server are looked for.
const LOOK: Duration = Duration::from_millis(250);

/// Descriptors that are not connections.
const BESIDES: u64 = 64;

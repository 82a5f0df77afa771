//! The pool's thread, and each child as its parent sees it.
//!
//! The thread lives as long as the pool, for children die with the thread that started them. On it, a
//! task for each child goes through these states:
//!
//! ```text
//!   Starting ──ready──▶ Running ──ends──▶ Waiting (back-off) ──▶ Starting
//!      │                   │ stop            │ stop, or the policy says so
//!      │ fails, late       ▼                 ▼
//!      └──▶ Waiting     Stopping ──ends──▶ gone
//! ```
//!
//! - While a child runs, one future moves requests from its queue to the stream, one moves replies
//!   from the stream to the events, and one its lines. Each waits when its target has no room, and
//!   reads no more meanwhile: that is the back-pressure.
//! - `Exited` is said after the death of the process, when its stream is read to the end, so it comes
//!   behind everything that the child has sent. The end is where nothing more is there: programs that
//!   the child has started may hold the stream open.
//! - When the pool is dropped, everything is dropped and every process killed.

use std::{
    convert::Infallible,
    os::fd::OwnedFd,
    pin::pin,
    process::ExitStatus,
    sync::mpsc::{Receiver as StartReceiver, Sender as StartSender, channel},
    time::{Duration, Instant},
};

use bytes::Bytes;
use rustix::process::Signal;
use tokio::{
    io::AsyncWriteExt,
    net::{
        UnixStream,
        unix::{OwnedWriteHalf, pipe},
    },
    sync::{mpsc, oneshot, watch},
    time::timeout,
};

use super::{
    frame::FrameReader,
    options::{Plan, Started, spawn},
    parent::{Event, Phase, Running},
};
use crate::{
    Error, Result,
    backoff::BackOff,
    channel::{Channel, FromWorker, ToWorker},
    lines::Lines,
    manager::{Program, how_it_ended},
    watch as readiness,
};

/// Starts the pool's thread and the children, and waits until all are ready.
pub(super) fn start(plan: Plan) -> Result<Running> {
    let program = Program::current(None)?;
    let (events_in, events) = mpsc::channel(plan.queue);
    let (phase, phases) = watch::channel(Phase::Running);
    let (started, starts) = channel();
    let (mut queues, mut slots) = (Vec::new(), Vec::new());
    for child in 0..plan.processes {
        let (queue, requests) = mpsc::channel(plan.queue);
        queues.push(queue);
        slots.push(Slot {
            plan: plan.clone(),
            program: program.clone(),
            child,
            requests,
            events: events_in.clone(),
            phase: phases.clone(),
            restarts: 0,
            first: Some(started.clone()),
        });
    }
    drop(events_in);
    drop(started);
    let thread = std::thread::Builder::new()
        .name(format!("pool {}", plan.name))
        .spawn(move || supervise(slots))?;
    let running = Running {
        name: plan.name.clone(),
        queues,
        max_message: plan.max_message,
        events,
        phase,
        thread,
    };
    if let Err(error) = all_started(&starts, plan.processes) {
        running.phase.send_replace(Phase::Dropped);
        let Running { events, thread, .. } = running;
        drop(events);
        let _ = thread.join();
        return Err(error.context(format!("the pool `{}`", plan.name)));
    }
    Ok(running)
}

fn all_started(starts: &StartReceiver<Result>, processes: usize) -> Result {
    for _ in 0..processes {
        match starts.recv() {
            Ok(started) => started?,
            Err(_) => return Err(Error::new("its thread has ended: see the log")),
        }
    }
    Ok(())
}

fn supervise(slots: Vec<Slot>) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = match runtime.enable_all().build_local(Default::default()) {
        Ok(runtime) => runtime,
        Err(error) => {
            if let Some(first) = slots.first().and_then(|slot| slot.first.as_ref()) {
                let _ = first.send(Err(error.into()));
            }
            return;
        }
    };
    runtime.block_on(async {
        let tasks: Vec<_> = slots
            .into_iter()
            .map(|slot| tokio::task::spawn_local(slot.run()))
            .collect();
        for task in tasks {
            if let Err(error) = task.await {
                tracing::error!("a child is not looked after any more: {error}");
            }
        }
    });
}

/// The place of a child.
struct Slot {
    plan: Plan,
    program: Program,
    child: usize,
    requests: mpsc::Receiver<Bytes>,
    events: mpsc::Sender<Event>,
    phase: watch::Receiver<Phase>,
    restarts: u64,
    /// Who waits for the first start.
    first: Option<StartSender<Result>>,
}

/// A process; it is killed when this is dropped, and reaped.
struct Living {
    process: std::process::Child,
    pidfd: OwnedFd,
    reaped: bool,
}

/// How a child has ended.
struct Ended {
    clean: bool,
    how: String,
    /// For how long its function ran; `None`: it did not come to that.
    lived: Option<Duration>,
}

impl Slot {
    async fn run(mut self) {
        let mut dropped = self.phase.clone();
        tokio::select! {
            biased;
            // An error: the pool is gone.
            _ = dropped.wait_for(|phase| *phase == Phase::Dropped) => {}
            () = self.keep() => {}
        }
    }

    /// Keeps a child running, until that is over.
    async fn keep(&mut self) {
        let mut backoff = BackOff::patient();
        loop {
            let ended = self.live().await;
            if let Some(first) = self.first.take() {
                // It was not started once: the pool is not to be.
                let child = self.child;
                let error = Error::new(format!("child {child} did not start: {}", ended.how));
                let _ = first.send(Err(error));
                return;
            }
            let over = self.is_stopping() || self.plan.restart.is_over(ended.clean);
            let delay = backoff.failed(Instant::now(), ended.lived);
            let title = format!("child {} {}", self.plan.name, self.child);
            match over {
                true => tracing::debug!("{title} has ended: {}", ended.how),
                false => tracing::warn!("{title} ended: {}; restarted {delay}", ended.how),
            }
            if over {
                // Before the news: who has that is not to be able to send.
                self.requests.close();
            }
            let _ = self
                .events
                .send(Event::Exited(self.child, ended.how, !over))
                .await;
            if over {
                return;
            }
            self.restarts += 1;
            let mut phase = self.phase.clone();
            tokio::select! {
                () = tokio::time::sleep(delay.duration()) => {}
                // What waits for it, nobody will have.
                _ = phase.wait_for(|phase| *phase != Phase::Running) => return,
            }
        }
    }

    fn is_stopping(&self) -> bool {
        *self.phase.borrow() != Phase::Running
    }

    /// One process, from its start to its end.
    async fn live(&mut self) -> Ended {
        let started = spawn(&self.plan, &self.program, self.child, self.restarts);
        let Started {
            mut process,
            pidfd,
            channel,
            stream,
        } = match started {
            Ok(started) => started,
            Err(error) => return Ended::without_process(error),
        };
        let output = process.stdout.take().map(OwnedFd::from);
        let mut living = Living {
            process,
            pidfd,
            reaped: false,
        };
        let (gone, is_gone) = oneshot::channel();
        let lines = output.map(|pipe| {
            let events = self.events.clone();
            tokio::task::spawn_local(capture(self.child, pipe, events, is_gone))
        });

        let heard = timeout(self.plan.start_timeout, hear(&channel)).await;
        let began = Instant::now();
        let mut failure = match heard {
            Ok(Ok(Some(FromWorker::Ready { .. }))) => None,
            Ok(Ok(Some(FromWorker::Failed { error }))) => Some(error),
            Ok(Ok(_)) => Some(String::new()),
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => {
                living.kill();
                Some("it did not come to its function within `start_timeout`".to_owned())
            }
        };
        let is_ready = failure.is_none();
        if is_ready {
            if let Some(first) = self.first.take() {
                let _ = first.send(Ok(()));
            }
            match UnixStream::from_std(stream) {
                Ok(stream) => failure = self.converse(stream, &channel, &living).await,
                Err(error) => failure = Some(error.to_string()),
            }
        }
        // It has closed its stream, or was killed: it is on its way out, if nothing holds it there.
        let ended = match timeout(self.plan.max_wait, living.ended()).await {
            Ok(ended) => ended,
            Err(_) => {
                living.kill();
                failure.get_or_insert_with(|| NOT_IN_TIME.to_owned());
                living.ended().await
            }
        };
        let status = match ended {
            Ok(status) => status,
            Err(error) => return Ended::without_process(error),
        };
        // What it wrote last. An error: nobody listens.
        let _ = gone.send(());
        if let Some(lines) = lines {
            let _ = lines.await;
        }
        // What it said last, if that was not why it did not start.
        if let Ok(Some((FromWorker::Failed { error }, _))) = channel.recv() {
            failure = Some(error);
        }
        let (clean, how) = how_it_ended(status);
        let how = match failure.filter(|failure| !failure.is_empty()) {
            Some(failure) => failure,
            None if is_ready => how,
            None => format!(
                "{how}, before it came to Pool::define: `main` has to come there with the same \
                 arguments, whatever else it does"
            ),
        };
        Ended {
            clean,
            how,
            lived: is_ready.then(|| began.elapsed()),
        }
    }

    /// Carries messages both ways until the child's end; what it was killed for, if it was.
    async fn converse(
        &mut self,
        stream: UnixStream,
        channel: &Channel,
        living: &Living,
    ) -> Option<String> {
        let (reader, writer) = stream.into_split();
        let reader = FrameReader::new(reader, self.plan.max_message);
        let (mut phase, max_wait) = (self.phase.clone(), self.plan.max_wait);
        let stop = async {
            stops(&mut phase).await;
            // An error: it has ended.
            let _ = channel.send(&ToWorker::Stop, &[]);
            tokio::time::sleep(max_wait).await;
        };
        let failure = tokio::select! {
            // The reader has heard everything when it ends; so it is asked first.
            biased;
            broken = read(reader, self.child, &self.events, living.dies()) => broken,
            never = write(writer, &mut self.requests, &mut self.phase) => match never {},
            () = stop => Some(NOT_IN_TIME.to_owned()),
        };
        if failure.is_some() {
            living.kill();
        }
        failure
    }
}

/// Moves replies to the events, until the end of the stream; or, when the child is `gone`, until
/// there is nothing more. What is wrong with it, if anything.
async fn read(
    mut reader: FrameReader,
    child: usize,
    events: &mpsc::Sender<Event>,
    gone: impl Future<Output = ()>,
) -> Option<String> {
    let mut gone = pin!(gone);
    let mut is_gone = false;
    loop {
        let next = match is_gone {
            true => reader.next_now(),
            false => tokio::select! {
                biased;
                next = reader.next() => next,
                () = &mut gone => {
                    is_gone = true;
                    continue;
                }
            },
        };
        match next {
            Ok(Some(frame)) => {
                // An error: the pool is being dropped.
                let _ = events.send(Event::Reply(child, frame)).await;
            }
            Ok(None) => return None,
            Err(error) => return Some(error.to_string()),
        }
    }
}

/// Moves requests to the stream. At a stop, what waits is written, and then the end of file.
async fn write(
    mut stream: OwnedWriteHalf,
    requests: &mut mpsc::Receiver<Bytes>,
    phase: &mut watch::Receiver<Phase>,
) -> Infallible {
    let mut closing = false;
    loop {
        let frame = tokio::select! {
            biased;
            () = stops(phase), if !closing => {
                closing = true;
                requests.close();
                continue;
            }
            frame = requests.recv() => frame,
        };
        let Some(frame) = frame else { break };
        if stream.write_all(&frame).await.is_err() {
            // The reader hears why.
            break;
        }
    }
    drop(stream);
    std::future::pending().await
}

async fn stops(phase: &mut watch::Receiver<Phase>) {
    // An error: the pool is gone.
    let _ = phase.wait_for(|phase| *phase != Phase::Running).await;
}

/// The next message of a child; `None` if it has ended.
async fn hear(channel: &Channel) -> Result<Option<FromWorker>> {
    let speaks = readiness::readable(channel)?;
    loop {
        let mut ready = speaks.readable().await?;
        match channel.recv() {
            Ok(message) => return Ok(message.map(|(message, _)| message)),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => ready.clear_ready(),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Moves what a child writes to the events, line by line, until its end of file; or, when the child
/// is `gone`, until there is nothing more (what it has started may hold the pipe open).
async fn capture(
    child: usize,
    pipe: OwnedFd,
    events: mpsc::Sender<Event>,
    mut gone: oneshot::Receiver<()>,
) -> Result {
    let pipe = pipe::Receiver::from_owned_fd(pipe)?;
    let (mut lines, mut whole) = (Lines::default(), Vec::new());
    let mut buffer = vec![0; PIECE];
    let mut is_gone = false;
    loop {
        if !is_gone {
            tokio::select! {
                biased;
                _ = &mut gone => is_gone = true,
                ready = pipe.readable() => ready?,
            }
        }
        let text = |line: &[u8]| String::from_utf8_lossy(line).into_owned();
        match pipe.try_read(&mut buffer) {
            Ok(0) => break,
            Ok(len) => lines.feed(&buffer[..len], |line| whole.push(text(line))),
            Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => {
                return Err(error.into());
            }
            Err(_) if is_gone => break,
            Err(_) => {}
        }
        for line in whole.drain(..) {
            let _ = events.send(Event::Line(child, line)).await;
        }
    }
    lines.finish(|line| whole.push(String::from_utf8_lossy(line).into_owned()));
    for line in whole {
        let _ = events.send(Event::Line(child, line)).await;
    }
    Ok(())
}

impl Living {
    fn kill(&self) {
        // An error: it has ended.
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
    }

    /// Waits until the process is dead.
    async fn dies(&self) {
        match readiness::readable(&self.pidfd) {
            // An error: the runtime ends.
            Ok(ends) => drop(ends.readable().await),
            // No descriptor is left for that: the stream's end of file has to tell.
            Err(_) => std::future::pending().await,
        }
    }

    /// Waits for the end of the process, and reaps it.
    async fn ended(&mut self) -> Result<ExitStatus> {
        let ends = readiness::readable(&self.pidfd)?;
        loop {
            let mut ready = ends.readable().await?;
            if let Some(status) = self.process.try_wait()? {
                self.reaped = true;
                return Ok(status);
            }
            ready.clear_ready();
        }
    }
}

impl Drop for Living {
    fn drop(&mut self) {
        if !self.reaped {
            self.kill();
            // It dies at once.
            let _ = self.process.wait();
        }
    }
}

impl Ended {
    fn without_process(error: Error) -> Self {
        Ended {
            clean: false,
            how: error.to_string(),
            lived: None,
        }
    }
}

const NOT_IN_TIME: &str = "it did not end within `max_wait` and was killed";
/// Bytes of output read at once.
const PIECE: usize = 16 << 10;

//! A user process from start to end.
//!
//! It attaches to its rings as a worker does and says `ready`; then it *stands by*. Its function is
//! called at `begin`: when the server runs, and its predecessor, if there was one, is gone. So no two
//! processes ever run the function at a time. The engine's loop runs beside the function; messages
//! go to the mailbox, and an event is finished when the function has dropped its message.
//!
//! The process ends when the function does: with exit code 0 if that returned `Ok`, else with 1,
//! after it has told the manager why.

use std::{
    cell::Cell,
    convert::Infallible,
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use tokio::{runtime::LocalRuntime, time::Instant};

use super::{
    Worker,
    case::Case,
    caught::caught,
    dispatch::Dispatcher,
    engine::{Ended, Engine, Orders},
    local::Local,
    run::{Parts, begin, obey, runtime},
    shared::Shared,
};
use crate::{
    Error, Mode, Result, TaskError, WorkerId,
    bootstrap::Bootstrap,
    channel::{FromWorker, Implements},
    process::{Mail, Mailbox, Process, ProcessFn},
    settings::millis,
    watch,
    wire::event::{EventKind, FAILED, REDELIVERED},
};

/// Runs a user process to its end. `function`: none if this build does not know the process.
pub(crate) fn run(bootstrap: Bootstrap, name: &str, function: Option<ProcessFn>) -> Result {
    let unknown = || {
        Error::new(format!(
            "this build of the program has no process `{name}`: stop and start the server to change \
             which processes it has"
        ))
    };
    let (parts, runtime) = begin(bootstrap, |_| match function {
        Some(_) => Ok(()),
        None => Err(unknown()),
    })?;
    let function = function.ok_or_else(unknown)?;
    finish(runtime, serve(parts, name, function))
}

/// The same as a thread of the server's only process.
pub(crate) fn run_on_thread(parts: Parts, name: &str, function: ProcessFn) -> Result {
    finish(runtime()?, serve(parts, name, function))
}

fn finish(runtime: LocalRuntime, serve: impl Future<Output = Result>) -> Result {
    let result = runtime.block_on(tokio::task::coop::unconstrained(serve));
    // Threads of the function that block still must not hold the process.
    runtime.shutdown_background();
    result
}

pub(crate) async fn serve(parts: Parts, name: &str, function: ProcessFn) -> Result {
    let Parts {
        shared,
        control,
        reactor_bells,
        bell,
        channel,
    } = parts;
    let local = Local::new(shared.clone(), &control, reactor_bells, None);
    let _installed = local.install();
    let channel = Rc::new(channel);
    let speaks = watch::readable(&*channel)?;
    let mailbox = Arc::new(Mailbox::default());
    let dispatcher = {
        let mailbox = mailbox.clone();
        let shared = shared.clone();
        Dispatcher::new(local.clone(), move |case| {
            receive(mailbox.clone(), shared.clone(), case)
        })
    };
    let orders = Rc::new(Orders::default());
    let mut engine = Engine::new(local, dispatcher, orders.clone(), bell, 0)?;
    let obey = obey(channel.clone(), speaks, shared.clone(), orders.clone());
    tokio::task::spawn_local(obey);
    let implements = Implements::default();
    channel.send(&FromWorker::Ready { implements }, &[])?;

    let begins = |orders: &Orders| orders.begin.get() || orders.exit.get();
    let mut ended = engine.run(|_| begins(&orders), None).await;
    if ended == Ended::Over && orders.begin.get() {
        let worker = Worker::new(shared.clone());
        let process = Process::new(worker, name, mailbox.clone(), orders.stop.subscribe());
        tokio::task::spawn_local(close_at_stop(process.clone(), mailbox.clone()));
        shared.timers.begin();
        let result = Rc::new(Cell::new(None));
        let over = Rc::new(Cell::new(false));
        let (slot, done, wake) = (result.clone(), over.clone(), shared.clone());
        let left = mailbox.clone();
        tokio::task::spawn_local(async move {
            slot.set(Some(call(function, process).await));
            left.function_ended();
            done.set(true);
            wake.timers.end();
            wake.wake.notify_one();
        });
        let exits = |engine: &Engine<_, _>| over.get() || engine.is_told_to_exit();
        ended = engine.run(exits, None).await;
        if ended == Ended::Over && !over.get() {
            // The master has gone home: nobody will answer what the function still asks.
            orders.stop.send_replace(true);
            (0..shared.dimensions.reactors).for_each(|reactor| shared.awaited.lose(reactor));
            ended = engine.run(|_| over.get(), None).await;
        }
        if ended == Ended::Over {
            // What it has sent and finished is to be known before it is gone.
            let patience = Instant::now() + millis(shared.settings.max_wait_time_ms);
            let settled = |engine: &Engine<_, _>| mailbox.is_settled() && engine.is_settled();
            ended = engine.run(settled, Some(patience)).await;
            if let Some(Err(error)) = result.take() {
                let failed = FromWorker::Failed {
                    error: error.to_string(),
                };
                let _ = channel.send(&failed, &[]);
                return Err(error.context(format!("process {name}")));
            }
        }
    }
    if ended == Ended::Orphaned && shared.settings.mode == Mode::Process {
        // Nobody is left to take an outcome. Threads that block must not hold the process.
        tracing::error!("the manager is gone");
        std::process::exit(1);
    }
    Ok(())
}

/// The events of a process, each from its arrival until it is done.
async fn receive(mailbox: Arc<Mailbox>, shared: Arc<Shared>, case: Rc<Case>) -> Infallible {
    loop {
        case.next().await;
        let outcome = receive_one(&mailbox, &shared, &case).await;
        case.tell(outcome);
    }
}

async fn receive_one(mailbox: &Arc<Mailbox>, shared: &Shared, case: &Case) -> Result {
    let header = case.header();
    match header.kind {
        EventKind::Pipe => {
            let (reactor, seq) = (case.reactor(), header.seq);
            let mail = Mail {
                from: WorkerId(header.origin),
                data: case.payload(),
                redelivered: header.has(REDELIVERED),
                reactor,
                seq,
            };
            if !mailbox.deliver(mail).await {
                let current = shared.current(reactor);
                let _ = current.compare_exchange(seq, 0, Relaxed, Relaxed);
                return Err(Error::new(
                    "a task or thread of the process panicked with a message: it is given up",
                ));
            }
            mailbox.told();
        }
        EventKind::Finish if header.has(FAILED) => {
            let error = TaskError::from_payload(&case.payload(), u16::MAX);
            tracing::warn!(task = header.aux, %error, "a detached task failed");
        }
        _ => {}
    }
    Ok(())
}

/// Runs the function; a panic is an error.
async fn call(function: ProcessFn, process: Process) -> Result {
    let ended = caught(async { function(process).await }).await;
    ended.unwrap_or_else(|panic| Err(Error::new(format!("panic: {panic}"))))
}

async fn close_at_stop(process: Process, mailbox: Arc<Mailbox>) {
    process.stopping().await;
    mailbox.close();
}

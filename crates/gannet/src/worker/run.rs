//! A worker process from start to end.

use std::{
    future::poll_fn,
    hash::{BuildHasher, RandomState},
    io,
    os::fd::OwnedFd,
    pin::pin,
    rc::Rc,
    sync::Arc,
};

use gannet_shm::Region;
use tokio::{io::unix::AsyncFd, time::Instant};

use super::{
    Shared, Worker,
    caught::caught,
    dispatch::Dispatcher,
    engine::{Ended, Engine, Orders},
    handle::{Core, handle},
    local::Local,
};
use crate::{
    Error, Handler, Result, Settings,
    bootstrap::{Bootstrap, Role},
    channel::{Channel, FromWorker, Implements, ToWorker},
    control::Role as Kind,
    handler, inherit,
    layout::{CONTROL_KIND, WORKER_KIND},
    master::Reactor,
    settings::millis,
    watch,
};

/// What a worker is made of.
pub(crate) struct Parts {
    pub(crate) shared: Arc<Shared>,
    pub(crate) control: Arc<Region>,
    /// The reactors' eventfds.
    pub(crate) reactor_bells: Vec<OwnedFd>,
    /// The worker's eventfd.
    pub(crate) bell: OwnedFd,
    pub(crate) channel: Channel,
}

/// Runs a worker or task worker to its end.
pub(crate) fn run<H: Handler>(bootstrap: Bootstrap) -> Result<()> {
    let implements = handler::implements::<H>();
    let (parts, runtime) = begin(bootstrap, |bootstrap| check(bootstrap, &implements))?;
    let served = runtime.block_on(tokio::task::coop::unconstrained(serve::<H>(parts, None)));
    let ended = served.map(|(ended, _)| ended);
    if matches!(ended, Ok(Ended::Orphaned)) {
        // Nobody is left to take an outcome. Threads that block must not hold the process.
        tracing::error!("the manager is gone");
        std::process::exit(1);
    }
    // Neither must threads of the handler that block still, also of one that has failed to start.
    runtime.shutdown_background();
    ended.map(drop)
}

/// Makes what a worker needs, or tells the manager why that cannot be done.
pub(super) fn begin(
    bootstrap: Bootstrap,
    check: impl FnOnce(&Bootstrap) -> Result,
) -> Result<(Parts, tokio::runtime::LocalRuntime)> {
    let channel = Channel::new(inherit::take(bootstrap.channel)?);
    let parts = check(&bootstrap).and_then(|()| attach(bootstrap, &channel));
    parts
        .and_then(|parts| Ok((parts, runtime()?)))
        .inspect_err(|error| {
            let error = error.to_string();
            let _ = channel.send(&FromWorker::Failed { error }, &[]);
        })
}

/// Starts the handler and serves until the worker is retired or told to exit.
///
/// In thread mode the `reactor` of this thread runs in turn with the worker; it is given back.
pub(crate) async fn serve<H: Handler>(
    parts: Parts,
    reactor: Option<Reactor>,
) -> Result<(Ended, Option<Reactor>)> {
    let Parts {
        shared,
        control,
        reactor_bells,
        bell,
        channel,
    } = parts;
    let own = reactor
        .as_ref()
        .and_then(|reactor| Some((reactor.id(), reactor.direct()?)));
    let local = Local::new(shared.clone(), &control, reactor_bells, own);
    let _installed = local.install();
    let worker = Worker::new(shared.clone());
    let channel = Rc::new(channel);
    let speaks = watch::readable(&*channel)?;

    let handler = match start::<H>(&worker, &local).await {
        Ok(handler) => handler,
        Err(error) => {
            let failed = FromWorker::Failed {
                error: error.to_string(),
            };
            channel.send(&failed, &[])?;
            return Err(error);
        }
    };
    let core = Rc::new(Core {
        handler,
        worker,
        local: local.clone(),
    });
    let orders = Rc::new(Orders::default());
    let dispatcher = {
        let core = core.clone();
        Dispatcher::new(local.clone(), move |case| handle(core.clone(), case))
    };
    let retire_at = retire_at(&shared.settings);
    let mut engine = Engine::new(local.clone(), dispatcher, orders.clone(), bell, retire_at)?;
    match reactor {
        Some(reactor) => engine.join(reactor, &channel)?,
        None => engine.doze(&channel)?,
    }
    let obey = tokio::task::spawn_local(obey(
        channel.clone(),
        speaks,
        shared.clone(),
        orders.clone(),
    ));
    let ask = tokio::task::spawn_local(ask_for_successor(channel.clone(), orders));
    let implements = handler::implements::<H>();
    channel.send(&FromWorker::Ready { implements }, &[])?;
    shared.timers.begin();

    // Until every reactor has retired it; or, when told to exit, until what runs has ended.
    let patience = || Instant::now() + millis(shared.settings.max_wait_time_ms);
    let mut ended = engine
        .run(
            |engine| engine.is_finished() || engine.is_told_to_exit(),
            None,
        )
        .await;
    if ended == Ended::Over && !engine.is_finished() {
        ended = engine.run(Engine::is_finished, Some(patience())).await;
    }
    shared.timers.end();
    if ended != Ended::Orphaned {
        let stopped = Rc::new(std::cell::Cell::new(false));
        tokio::task::spawn_local(stop(core, stopped.clone()));
        ended = engine
            .run(
                |engine| stopped.get() && engine.is_settled(),
                Some(patience()),
            )
            .await;
        if ended == Ended::TimedOut {
            tracing::warn!("`stop` was given up: it took longer than `max_wait_time_ms`");
        }
    }
    obey.abort();
    ask.abort();
    Ok((ended, engine.part()))
}

pub(crate) fn runtime() -> Result<tokio::runtime::LocalRuntime> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    Ok(builder.enable_all().build_local(Default::default())?)
}

/// Whether this build can be the process that the manager wants.
fn check(bootstrap: &Bootstrap, implements: &Implements) -> Result {
    let Role::Worker { kind, .. } = bootstrap.role else {
        return Err(Error::new("the bootstrap is not that of a worker"));
    };
    if kind == Kind::TaskWorker {
        if !implements.task {
            return Err(Error::usage(
                "task workers need a handler with `task`: implement `Handler::task`, or set \
                 `task_workers` to 0",
            ));
        }
        return Ok(());
    }
    let lacks = bootstrap
        .settings
        .listeners
        .iter()
        .find_map(|listener| handler::lacks(implements, listener.protocol, &listener.address));
    lacks.map_or(Ok(()), Err)
}

fn attach(bootstrap: Bootstrap, channel: &Channel) -> Result<Parts> {
    let Role::Worker {
        id,
        kind,
        incarnation,
        generation,
        region,
        bell,
    } = bootstrap.role
    else {
        return Err(Error::new("the bootstrap is not that of a worker"));
    };
    let control = Region::attach(inherit::take(bootstrap.control)?, CONTROL_KIND)?;
    let region = Region::attach(inherit::take(region)?, WORKER_KIND)?;
    let objects = crate::Shared::attach(bootstrap.objects, &bootstrap.declared)?;
    let bells: io::Result<Vec<_>> = bootstrap
        .reactor_bells
        .iter()
        .map(|bell| inherit::take(*bell))
        .collect();
    let shared = Shared::new(
        id,
        kind,
        incarnation,
        generation,
        bootstrap.settings,
        objects,
        bootstrap.dimensions,
        region,
        control.clone(),
    );
    let bell = inherit::take(bell)?;
    let channel = channel.try_clone()?;
    Ok(Parts {
        shared,
        control,
        reactor_bells: bells?,
        bell,
        channel,
    })
}

async fn start<H: Handler>(worker: &Worker, local: &Local) -> Result<H> {
    let mut start = pin!(caught(H::start(worker)));
    let started = poll_fn(|cx| local.poll_start(start.as_mut(), cx)).await;
    started
        .unwrap_or_else(|panic| Err(Error::new(format!("panic: {panic}"))))
        .map_err(|error| error.context("`Handler::start` failed"))
}

async fn stop<H: Handler>(core: Rc<Core<H>>, stopped: Rc<std::cell::Cell<bool>>) {
    let wake = core.local.shared.clone();
    let stop = tokio::task::spawn_local(async move { core.handler.stop().await });
    match stop.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!(%error, "`stop` failed"),
        Err(error) => tracing::error!(%error, "`stop` failed"),
    }
    stopped.set(true);
    wake.wake.notify_one();
}

/// Reads what the manager says.
pub(super) async fn obey(
    channel: Rc<Channel>,
    speaks: AsyncFd<OwnedFd>,
    shared: Arc<Shared>,
    orders: Rc<Orders>,
) {
    loop {
        let Ok(mut ready) = speaks.readable().await else {
            return;
        };
        let received = channel.recv::<ToWorker>();
        match received {
            Ok(Some((ToWorker::Exit, _))) => {
                orders.exit.set(true);
                shared.timers.end();
            }
            Ok(Some((ToWorker::Replaced, _))) => shared.timers.end(),
            Ok(Some((ToWorker::LogLevel { level }, _))) => crate::logging::set_level(&level),
            Ok(Some((ToWorker::Begin, _))) => orders.begin.set(true),
            Ok(Some((ToWorker::Stop, _))) => {
                orders.stop.send_replace(true);
            }
            Ok(None) => orders.orphaned.set(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                ready.clear_ready();
                continue;
            }
            Err(error) => {
                tracing::error!(%error, "a message of the manager was not understood");
                continue;
            }
        }
        shared.wake.notify_one();
        if orders.orphaned.get() {
            return;
        }
    }
}

/// Tells the manager once that `max_requests` is reached.
async fn ask_for_successor(channel: Rc<Channel>, orders: Rc<Orders>) {
    orders.wants_successor.notified().await;
    if let Err(error) = channel.send(&FromWorker::Retire, &[]) {
        tracing::error!(%error, "the manager could not be asked for a successor");
    }
}

/// After how many events a successor is wanted; 0: never.
fn retire_at(settings: &Settings) -> u64 {
    let max = settings.max_requests;
    if max == 0 {
        return 0;
    }
    let spread = match settings.max_requests_spread {
        0 => max / 2,
        spread => spread,
    };
    // Every `RandomState` has keys of its own.
    let random = RandomState::new().hash_one(max);
    max.saturating_add(random % spread.saturating_add(1))
}

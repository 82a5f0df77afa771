//! How a process of a server begins: as the one that the user has started, which runs a command or becomes the
//! manager, or as a child of that. `docs/internals/processes.md` has the steps.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use serde::Deserialize;

use super::Server;
use crate::{
    Dispatch, Error, Handler, Mode, Result, Settings, Shared, WorkerId,
    account::Rights,
    affinity,
    bootstrap::{self, Bootstrap, Role},
    channel::{Channel, FromWorker},
    cli::{Arguments, Wanted},
    control::Role as Kind,
    daemon::{self, Daemon},
    handler, inherit,
    logging::{self, LogFile},
    manager::{self, Export},
    master,
    settings::{self, Environment},
    sys,
    thread::Code,
    traces, wire, worker,
};

impl Server {
    pub(super) fn run_command<H: Handler>(mut self) -> Result {
        let program = program_name()?;
        let arguments = Arguments::parse(&program, std::env::args_os().skip(1))?;
        let (wanted, flags) = arguments.into_parts();
        self.flags = flags;
        match wanted {
            Wanted::Start(start) => start.apply(self).start::<H>(),
            Wanted::Running(command) => {
                self.implements = Some(handler::implements::<H>());
                command.run(&self)?;
                // What `main` does after a server has stopped is not for a command.
                std::process::exit(0)
            }
        }
    }

    pub(super) fn start<H: Handler>(mut self) -> Result {
        let (mut environment, mut settings, named) = self.gather()?;
        let addresses = settings::check(&mut settings)?;
        settings::check_handler(&settings, &handler::implements::<H>())?;
        if settings.dispatch == Dispatch::Custom && self.dispatch.is_none() {
            return Err(Error::usage(
                "`dispatch` = custom, but the program has no function for it: see \
                 Server::dispatch_with",
            ));
        }
        let mut rights = Rights::wanted(&settings)?;
        let pid_file = settings::pid_file(&settings)?;
        let program = manager::Program::current(named.then(|| settings.name.clone()))?;
        let log = self
            .start
            .daemon
            .then(|| daemon::Log::of(settings.log_file.as_deref()))
            .transpose()?;
        if let Some(log) = log.as_ref().filter(|_| !daemon::is_one()) {
            daemon::start(&program, log)?;
        }
        let crew = match settings.mode {
            Mode::Process => None,
            Mode::Thread => {
                self.lend_functions(&mut settings);
                Some(Code::of::<H>(self.processes.clone(), self.dispatch.clone()))
            }
        };
        let role = match crew {
            None => "manager",
            Some(_) => "server",
        };
        program.take_title(role);
        let daemon = log.as_ref().map(Daemon::take).transpose()?.flatten();
        rights.step_down(&program.path)?;
        let started_in = self.settle(&mut settings, &mut environment)?;
        sys::ends::survive_file_size_limit()?;
        let log = logging::init_manager(&settings, open_log(&settings, &rights)?)?;
        let _written = log.queue.at_end();
        // Before that, in thread mode.
        let _exported = traces::AtEnd;
        // Standard error has it anyway, but who looks into the file later should find it there.
        let has_file = settings.log_file.is_some();
        let tell = |error: &Error| {
            if has_file {
                tracing::error!("{error}");
            }
        };
        Export::check(&self.exports).inspect_err(tell)?;
        let shared = Shared::create(&self.declared).inspect_err(tell)?;
        if let Some(prepare) = &self.prepare {
            prepare(&shared).inspect_err(tell)?;
        }
        let origins = settings::origins(&settings, self.start.named(), &environment, &self.flags)?;
        let (on_ready, on_worker_error) = (self.on_ready, self.on_worker_error);
        let (code, flags) = (self.settings, self.flags);
        let reread = Box::new(move || settings::gather(&code, &environment, &flags));
        manager::run(manager::Start {
            settings,
            addresses,
            pid_file,
            program,
            started_in,
            daemon,
            rights,
            shared,
            log,
            exports: self.exports,
            crew,
            on_ready,
            on_worker_error,
            origins,
            reread,
        })
        .inspect_err(tell)
    }

    /// The environment, the settings of all layers, and whether somebody named the server.
    pub(super) fn gather(&self) -> Result<(Environment, Settings, bool)> {
        let environment = Environment::read(std::env::vars_os(), &self.allowed_env)?;
        let mut settings = settings::gather(&self.settings, &environment, &self.flags)?;
        self.start.set(&mut settings);
        let named = !settings.name.is_empty();
        if !named {
            settings.name = program_name()?;
        }
        Ok((environment, settings, named))
    }

    /// Changes the umask and the working directory as the settings say. Children begin in the
    /// directory that is returned, if it is another: `main` may have paths that are relative to it.
    fn settle(
        &mut self,
        settings: &mut Settings,
        environment: &mut Environment,
    ) -> Result<Option<PathBuf>> {
        if let Some(mask) = settings.umask {
            rustix::process::umask(rustix::fs::Mode::from_raw_mode(mask));
        }
        if settings.working_directory.is_none() {
            return Ok(None);
        }
        let before = std::env::current_dir()?;
        settings::make_absolute(settings)?;
        let configs = [&mut environment.config, &mut self.flags.config];
        for path in configs.into_iter().flatten() {
            *path = std::path::absolute(&*path)?;
        }
        work_in(settings)?;
        Ok(Some(before))
    }

    /// In a process that a manager has started: does its part, and ends the process.
    pub(super) fn become_child<H: Handler>(&self) {
        let Some(bootstrap) = read_bootstrap() else {
            return;
        };
        let code = match bootstrap.map(|bootstrap| self.play::<H>(bootstrap)) {
            Ok(Ok(())) => 0,
            Ok(Err(error)) => {
                tracing::error!("{error}");
                1
            }
            Err(error) => {
                // It has nothing yet to log with. If nobody reads it, there is the exit code.
                let _ = writeln!(io::stderr(), "error: {error}");
                1
            }
        };
        traces::end();
        logging::finish();
        // What `main` does after the server has stopped is the first process's business.
        std::process::exit(code);
    }

    fn play<H: Handler>(&self, mut bootstrap: Bootstrap) -> Result {
        // First of all, so that whatever fails is told.
        let may_wait = !matches!(bootstrap.role, Role::Master { .. });
        logging::init_child(bootstrap.log.clone(), &bootstrap.settings, may_wait)?;
        bootstrap.declared = self.declared.clone();
        self.lend_functions(&mut bootstrap.settings);
        work_in(&bootstrap.settings)?;
        match bootstrap.role {
            Role::Master { .. } => master::run(bootstrap, self.dispatch.clone()),
            Role::Worker { id, kind, .. } => {
                let name = bootstrap.settings.process_name(id).map(str::to_owned);
                let role = manager::title(id, kind, name.as_deref());
                share_machine(&bootstrap.settings, id, kind, &role);
                sys::leave_steering_to_the_manager()?;
                match name {
                    None => worker::run::<H>(bootstrap),
                    Some(name) => {
                        let specs = &self.settings.processes;
                        let index = specs.iter().position(|spec| spec.name == name);
                        let function = index.and_then(|index| self.processes.get(index).cloned());
                        worker::run_process(bootstrap, &name, function)
                    }
                }
            }
        }
    }

    /// Settings that came from another process have no functions: gives them the program's. An
    /// address that was added on the command line has its framing from the listener before it.
    fn lend_functions(&self, settings: &mut Settings) {
        let own = &self.settings.listeners;
        for (index, listener) in settings.listeners.iter_mut().enumerate() {
            if let Some(own) = own.get(index).or(own.last()) {
                listener.framing.take_function(&own.framing);
            }
        }
    }
}

/// Opens the log file, if there is to be one. The server's user has to be able to do so later.
fn open_log(settings: &Settings, rights: &Rights) -> Result<Option<LogFile>> {
    let (file, by) = rights.or_as_root(|| LogFile::open(settings))?;
    if let Some(file) = &file {
        if file.is_new() {
            // The path may be a link to it.
            rights.give(&file.path().canonicalize()?, by)?;
        }
        file.check_access()?;
    }
    Ok(file)
}

/// What the manager has left for this process; `None` if no manager started it.
///
/// A program that a handler has started may have inherited the variable, but neither the
/// descriptor nor the parent.
fn read_bootstrap() -> Option<Result<Bootstrap>> {
    /// The part of a bootstrap that every version has.
    #[derive(Deserialize)]
    struct Core {
        abi: u32,
        manager_pid: u32,
        channel: i32,
    }

    let bytes = bootstrap::inherited(bootstrap::ENV, bootstrap::MEMFD)?;
    let core: Core = serde_json::from_slice(&bytes).ok()?;
    if std::os::unix::process::parent_id() != core.manager_pid {
        return None;
    }
    sys::remove_variable(bootstrap::ENV);

    let understood = if core.abi == wire::ABI {
        serde_json::from_slice(&bytes).map_err(|error| error.to_string())
    } else {
        let (theirs, ours) = (core.abi, wire::ABI);
        Err(format!(
            "the running server speaks version {theirs} of the internal protocol, {ours}"
        ))
    };
    Some(understood.map_err(|why| {
        let error = format!(
            "this program was built with another version of gannet than the running server: stop \
             and start it instead of a reload ({why})"
        );
        // A master's `Failed` looks the same.
        if let Ok(channel) = inherit::take(core.channel) {
            let failed = FromWorker::Failed {
                error: error.clone(),
            };
            let _ = Channel::new(channel).send(&failed, &[]);
        }
        Error::new(error)
    }))
}

/// Changes to the working directory, if one is set.
fn work_in(settings: &Settings) -> Result {
    let Some(directory) = &settings.working_directory else {
        return Ok(());
    };
    std::env::set_current_dir(directory).map_err(|error| {
        let directory = directory.display();
        Error::usage(format!(
            "cannot change to `working_directory` = \"{directory}\": {error}"
        ))
    })
}

/// What a worker may take of the machine.
fn share_machine(settings: &Settings, id: WorkerId, kind: Kind, role: &str) {
    let list = &settings.worker_cpus;
    match kind {
        Kind::Worker => affinity::pin_share(list, role, id.0.into(), settings.workers),
        _ => affinity::pin_share(list, role, 0, 1),
    }
    let adjust = settings.worker_oom_score_adj;
    if adjust > 0
        && let Err(error) = std::fs::write("/proc/self/oom_score_adj", adjust.to_string())
    {
        tracing::warn!("cannot set oom_score_adj to {adjust}: {error}");
    }
}

fn program_name() -> Result<String> {
    let path = std::env::current_exe()?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // What the kernel adds when the file was replaced.
    Ok(name.trim_end_matches(" (deleted)").to_owned())
}

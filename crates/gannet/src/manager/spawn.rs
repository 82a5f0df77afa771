//! Starting a child.

use std::{
    ffi::CString,
    fs::File,
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
        unix::{ffi::OsStrExt, process::CommandExt},
    },
    path::PathBuf,
    process::{Child as Process, Command, Stdio},
    sync::Arc,
};

use gannet_shm::Region;
use rustix::{
    event::EventfdFlags,
    process::{Pid, PidfdFlags, Signal, pidfd_send_signal},
};

use super::{Program, how_it_ended};
use crate::{
    Error, Result, Settings, Shared,
    bootstrap::{self, Bootstrap, Role},
    channel::Channel,
    layout::{CONTROL_KIND, Dimensions},
    logging::{Handed, Log},
    objects::{self, Declared},
    sys,
    thread::{Code, Common, Crew, Post, Running},
    wire,
};

/// Where and as whom children begin.
#[derive(Debug, Default)]
pub(super) struct Place {
    /// The directory, if it is not the manager's.
    pub(super) started_in: Option<PathBuf>,
    /// What they write to, if not to the manager's outputs.
    pub(super) output: Option<File>,
    /// Variables beside those of the manager.
    pub(super) environment: Vec<(&'static str, String)>,
}

/// What all children have in common.
#[derive(Debug)]
pub(super) struct Spawner {
    pub(super) program: Program,
    pub(super) settings: Settings,
    pub(super) dimensions: Dimensions,
    pub(super) control: Arc<Region>,
    pub(super) objects: Shared,
    pub(super) log: Log,
    /// In thread mode: what starts threads in the place of processes.
    pub(super) crew: Option<Crew>,
    reactor_bells: Vec<OwnedFd>,
    place: Place,
}

/// A child that was started.
#[derive(Debug)]
pub(super) struct Spawned {
    pub(super) body: Body,
    pub(super) channel: Channel,
}

/// What a child is.
#[derive(Debug)]
pub(super) enum Body {
    /// With a descriptor that tells its end.
    Process(Process, OwnedFd),
    /// In thread mode.
    Thread(Running),
}

impl Spawner {
    pub(super) fn new(
        settings: Settings,
        program: Program,
        place: Place,
        objects: Shared,
        log: Log,
        code: Option<Code>,
    ) -> Result<Self> {
        let dimensions = crate::settings::dimensions(&settings);
        let control = Region::create("gannet-control", CONTROL_KIND, dimensions.control_len())?;
        let bells = (0..settings.reactors).map(|_| eventfd());
        let reactor_bells = bells.collect::<io::Result<_>>()?;
        let crew = code.map(|code| Crew::new(code, &settings, dimensions));
        Ok(Spawner {
            crew: crew.transpose()?,
            program,
            settings,
            dimensions,
            control,
            objects,
            log,
            reactor_bells,
            place,
        })
    }

    /// Starts the program that stands at the path now, with `role`; `title` is for `ps`. Standard
    /// output and standard error are pipes where `piped` says so.
    ///
    /// Only on the manager's thread: the children die when the thread does.
    pub(super) fn spawn(
        &self,
        role: Role,
        title: &str,
        log: Handed,
        piped: [bool; 2],
    ) -> Result<Spawned> {
        let (channel, childs_end) = Channel::pair()?;
        let mut inherit: Vec<RawFd> = vec![childs_end.as_raw_fd(), self.control.fd().as_raw_fd()];
        inherit.extend(self.reactor_bells.iter().map(AsRawFd::as_raw_fd));
        let objects = match &role {
            Role::Master { listeners, tls, .. } => {
                inherit.extend(listeners);
                inherit.extend(tls);
                objects::Handed::default()
            }
            Role::Worker { region, bell, .. } => {
                inherit.extend([region, bell]);
                self.objects.hand()
            }
        };
        inherit.extend(objects.descriptors());
        inherit.push(log.pipe());
        let bootstrap = Bootstrap {
            abi: wire::ABI,
            manager_pid: std::process::id(),
            settings: self.settings.clone(),
            log,
            dimensions: self.dimensions,
            channel: childs_end.as_raw_fd(),
            control: self.control.fd().as_raw_fd(),
            reactor_bells: self.reactor_bells.iter().map(AsRawFd::as_raw_fd).collect(),
            objects,
            declared: Declared::default(),
            role,
        };
        let bootstrap = bootstrap::sealed(bootstrap::MEMFD, &serde_json::to_vec(&bootstrap)?)?;
        inherit.push(bootstrap.as_raw_fd());

        let mut command = Command::new(&self.program.path);
        command
            .arg0(self.program.title(title))
            .args(&self.program.arguments)
            .env(bootstrap::ENV, bootstrap.as_raw_fd().to_string())
            .env_remove(super::TITLED_ENV)
            .env_remove(crate::daemon::ENV)
            .envs(
                self.place
                    .environment
                    .iter()
                    .map(|(name, value)| (name, value)),
            )
            .stdin(Stdio::null());
        // With these a child would speak in the manager's name, or take its sockets.
        let managers = super::notify::VARIABLES.iter();
        for variable in managers.chain(&super::activation::VARIABLES) {
            command.env_remove(variable);
        }
        if let Some(output) = &self.place.output {
            command
                .stdout(output.try_clone()?)
                .stderr(output.try_clone()?);
        }
        if piped[0] {
            command.stdout(Stdio::piped());
        }
        if piped[1] {
            command.stderr(Stdio::piped());
        }
        let directory = self.place.started_in.as_ref();
        let directory = directory.map(|path| CString::new(path.as_os_str().as_bytes()));
        sys::as_child(&mut command, inherit, directory.transpose()?);
        let process = command.spawn().map_err(|error| {
            Error::new(format!(
                "cannot start {}: {error}",
                self.program.path.display()
            ))
        })?;
        Ok(Spawned::new(process, channel)?)
    }
}

impl Spawner {
    /// Starts the master as a thread.
    pub(super) fn master_thread(
        &self,
        crew: &Crew,
        listeners: Vec<OwnedFd>,
        tls: Option<OwnedFd>,
    ) -> Result<Spawned> {
        Ok(Spawned::thread(crew.master(
            &self.common(),
            listeners,
            tls,
        )?))
    }

    /// Starts what fills a place as a thread.
    pub(super) fn worker_thread(&self, crew: &Crew, post: Post, title: &str) -> Result<Spawned> {
        Ok(Spawned::thread(crew.worker(&self.common(), post, title)?))
    }

    fn common(&self) -> Common<'_> {
        Common {
            settings: &self.settings,
            dimensions: self.dimensions,
            control: &self.control,
            objects: &self.objects,
            bells: &self.reactor_bells,
        }
    }
}

impl Spawned {
    /// Takes a process over that has just been started.
    pub(super) fn new(mut process: Process, channel: Channel) -> io::Result<Self> {
        let pidfd = pidfd(&mut process)?;
        Ok(Spawned {
            body: Body::Process(process, pidfd),
            channel,
        })
    }

    pub(super) fn thread((running, channel): (Running, Channel)) -> Self {
        Spawned {
            body: Body::Thread(running),
            channel,
        }
    }

    /// Process id; of a thread the system's number of it.
    pub(super) fn id(&self) -> u32 {
        match &self.body {
            Body::Process(process, _) => process.id(),
            Body::Thread(running) => running.number(),
        }
    }

    /// The redirected outputs of a process.
    pub(super) fn take_outputs(&mut self) -> [Option<OwnedFd>; 2] {
        match &mut self.body {
            Body::Process(process, _) => [
                process.stdout.take().map(OwnedFd::from),
                process.stderr.take().map(OwnedFd::from),
            ],
            Body::Thread(_) => [None, None],
        }
    }

    /// Kills the process, or leaves the thread behind.
    pub(super) fn kill(&self) -> io::Result<()> {
        match &self.body {
            Body::Process(_, pidfd) => Ok(pidfd_send_signal(pidfd, Signal::KILL)?),
            Body::Thread(running) => {
                running.leave_behind();
                Ok(())
            }
        }
    }

    /// Whether it ended well, and how; none while it goes on.
    pub(super) fn try_wait(&mut self) -> io::Result<Option<(bool, String)>> {
        match &mut self.body {
            Body::Process(process, _) => Ok(process.try_wait()?.map(how_it_ended)),
            Body::Thread(running) => Ok(running.ended()),
        }
    }
}

impl AsFd for Spawned {
    /// What tells the end.
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.body {
            Body::Process(_, pidfd) => pidfd.as_fd(),
            Body::Thread(running) => running.as_fd(),
        }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        match self {
            Body::Process(process, _) => end(process),
            Body::Thread(running) => running.leave_behind(),
        }
    }
}

/// A descriptor that tells the end of a process. Without one nobody could look after it: it is ended.
pub(crate) fn pidfd(process: &mut Process) -> io::Result<OwnedFd> {
    let opened = rustix::process::pidfd_open(Pid::from_child(process), PidfdFlags::NONBLOCK);
    opened.map_err(|error| {
        end(process);
        error.into()
    })
}

/// Kills and reaps a process that cannot be taken into the books, for want of descriptors or memory.
/// Of one that was reaped nothing is left to do: `Child` knows that.
fn end(process: &mut Process) {
    let _ = process.kill();
    // It dies at once.
    let _ = process.wait();
}

/// An eventfd, close-on-exec, as a doorbell.
pub(super) fn eventfd() -> io::Result<OwnedFd> {
    Ok(rustix::event::eventfd(
        0,
        EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK,
    )?)
}

//! What comes out of the processes: where it is to go, and bringing it there. See [`super::output`].

use std::{
    cell::RefCell,
    os::fd::{AsFd, AsRawFd},
    time::Instant,
};

use super::{
    children::Enclosed,
    event_loop::Manager,
    output::{Route, To},
    spawn::Spawned,
};
use crate::{
    Result, WorkerId,
    bootstrap::Role,
    channel::ToMaster,
    logging::{Log, Who},
    process::{self, Output},
};

impl Manager {
    /// Starts a child and listens to what it says. `incarnation`: 0 for the master.
    pub(super) fn start(
        &mut self,
        role: Role,
        who: Who,
        incarnation: u64,
        printed: [Option<To>; 2],
    ) -> Result<Spawned> {
        let log = &self.spawner.log;
        let (lines, writer) = log.pipe()?;
        let handed = log.hand(writer.as_raw_fd(), who.clone());
        let piped = printed.map(|to| to.is_some());
        let mut spawned = self.spawner.spawn(role, who.title(), handed, piped)?;
        let who = who.with_pid(spawned.id());
        let [stdout, stderr] = spawned.take_outputs();
        let pipes = [
            (Some(lines), Some(To::Log)),
            (stdout, printed[0]),
            (stderr, printed[1]),
        ];
        for (pipe, to) in pipes {
            if let (Some(pipe), Some(to)) = (pipe, to) {
                let who = who.clone();
                let route = Route {
                    incarnation,
                    who,
                    to,
                };
                let now = Instant::now();
                self.outputs.add(self.epoll.as_fd(), pipe, route, now)?;
            }
        }
        Ok(spawned)
    }

    /// Where what the process of this place prints goes; `None`: to wherever that of the manager does.
    pub(super) fn routes(&self, worker: WorkerId) -> Result<[Option<To>; 2]> {
        let mut routes = self.captured();
        let settings = &self.spawner.settings;
        let index = usize::from(worker.0).checked_sub(settings.first_process());
        let Some(spec) = index.and_then(|index| settings.processes.get(index)) else {
            return Ok(routes);
        };
        for ((output, route), is_errors) in spec
            .outputs()
            .into_iter()
            .zip(&mut routes)
            .zip([false, true])
        {
            match (output, process::target(settings, output)?) {
                (_, Some(to)) => *route = Some(To::Place { from: worker, to }),
                (Output::Inherit, None) => {}
                (_, None) => *route = Some(To::Captured { is_errors }),
            }
        }
        Ok(routes)
    }

    /// Of processes of which nothing else is said.
    pub(super) fn captured(&self) -> [Option<To>; 2] {
        [false, true].map(|is_errors| {
            self.spawner
                .log
                .captures
                .then_some(To::Captured { is_errors })
        })
    }

    /// When to [pump](Manager::pump) again.
    pub(super) fn pump_again(&self, now: Instant) -> Option<Instant> {
        let has_room = |to| match to {
            To::Place { .. } => self.children.master_has_room(),
            To::Log | To::Captured { .. } => self.spawner.log.queue.has_room(now),
        };
        self.outputs.poll_timeout(now, has_room)
    }

    /// Passes on what has come.
    pub(super) fn pump(&mut self, now: Instant) {
        let children = RefCell::new(&mut self.children);
        let log = &self.spawner.log;
        let has_room = |to| match to {
            To::Place { .. } => children.borrow().master_has_room(),
            To::Log | To::Captured { .. } => log.queue.has_room(now),
        };
        self.outputs
            .pump(now, has_room, |route, line, is_whole| match route.to {
                To::Place { from, to } => {
                    let line = ToMaster::Output {
                        from,
                        to,
                        line: line.to_vec(),
                    };
                    children.borrow_mut().tell_master(line, Enclosed::Nothing);
                }
                To::Log | To::Captured { .. } => write(log, route, line, is_whole),
            });
    }

    /// Logs what processes have written last. For other processes it is too late.
    pub(super) fn finish_outputs(&mut self) {
        let log = &self.spawner.log;
        let mut late = 0_u64;
        let mut may_wait = true;
        self.outputs.finish(|route, line, is_whole| match route.to {
            To::Place { .. } => late += 1,
            To::Log | To::Captured { .. } => {
                if may_wait && !log.queue.has_room(Instant::now()) {
                    may_wait = log.queue.flush();
                }
                write(log, route, line, is_whole);
            }
        });
        if late > 0 {
            tracing::warn!("{late} lines that processes wrote at the end had no receiver any more");
        }
    }
}

fn write(log: &Log, route: &Route, line: &[u8], is_whole: bool) {
    match route.to {
        To::Captured { is_errors } => log.captured(&route.who, is_errors, line),
        To::Log | To::Place { .. } => log.line(&route.who, line, is_whole),
    }
}

//! How a server ends: gracefully, at a failure, at once.

use std::time::{Duration, Instant};

use super::{Action, Kill, Kind, Phase, Places, State, Who};

impl Places {
    pub(super) fn stop(&mut self, now: Instant) {
        match self.phase {
            Phase::Starting => self.end(now, Ok(())),
            Phase::Running => {
                let deadline = now + self.limits.max_wait_time;
                self.phase = Phase::Stopping {
                    deadline,
                    exit_by: None,
                };
                self.refuse_reloads(now);
                self.stop_processes(now);
                let needless: Vec<u64> = self
                    .places
                    .iter()
                    .filter(|place| place.holder.is_some() || place.kind == Kind::Process)
                    .filter_map(|place| place.next)
                    .collect();
                for incarnation in needless {
                    self.kill_worker(incarnation, Kill::NotWanted);
                }
                match self.master.state() {
                    Some(State::Ready) => {
                        let deadline = self.limits.max_wait_time;
                        self.actions.push_back(Action::Stop { deadline });
                    }
                    _ => {
                        self.kill_master(Kill::NotWanted);
                        self.master_done(now);
                    }
                }
            }
            Phase::Stopping { .. } => self.end(now, Ok(())),
            Phase::Ending(_) | Phase::Finished => {}
        }
    }

    /// Stopping: the master needs no worker any more, or is no more.
    pub(super) fn master_done(&mut self, now: Instant) {
        let Phase::Stopping {
            deadline,
            exit_by: exit_by @ None,
        } = &mut self.phase
        else {
            return;
        };
        *exit_by = Some((*deadline).max(now + GRACE));
        let mut starting = Vec::new();
        for (&incarnation, process) in &self.processes {
            if matches!(process.state, State::Starting { .. }) {
                starting.push(incarnation);
            } else {
                self.actions.push_back(Action::Exit { incarnation });
            }
        }
        for incarnation in starting {
            self.kill_worker(incarnation, Kill::NotWanted);
        }
    }

    /// Kills everything; `result` is what the server ends with.
    pub(super) fn end(&mut self, now: Instant, result: Result<(), String>) {
        if matches!(self.phase, Phase::Ending(_) | Phase::Finished) {
            return;
        }
        self.phase = Phase::Ending(result);
        self.refuse_reloads(now);
        for incarnation in self.processes.keys().copied().collect::<Vec<_>>() {
            self.kill_worker(incarnation, Kill::OutOfTime);
        }
        self.kill_master(Kill::OutOfTime);
    }

    pub(super) fn kill_worker(&mut self, incarnation: u64, kill: Kill) {
        let Some(process) = self.processes.get_mut(&incarnation) else {
            return;
        };
        if process.kill.is_none() {
            process.kill = Some(kill);
            self.actions
                .push_back(Action::Kill(Who::Worker(incarnation)));
        }
    }

    pub(super) fn kill_master(&mut self, kill: Kill) {
        if self.master.kill(kill) {
            self.actions.push_back(Action::Kill(Who::Master));
        }
    }
}

/// What a process gets beyond its deadline to do what it was told at the deadline.
pub(super) const GRACE: Duration = Duration::from_secs(2);

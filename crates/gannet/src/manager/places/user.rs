//! When user processes begin, end, and are followed: see the module's documentation.

use std::time::Instant;

use super::{Action, Kill, Kind, Phase, Place, Places, State};

impl Places {
    /// Lets processes begin whose turn it is, and asks those to stop that another waits for.
    pub(super) fn turn_processes(&mut self, now: Instant) {
        if !matches!(self.phase, Phase::Running) {
            return;
        }
        for index in 0..self.places.len() {
            let place = &self.places[index];
            let Some(next) = place.next.filter(|next| self.stands_by(*next)) else {
                continue;
            };
            if place.holder.is_some() {
                self.ask_to_stop(now, index);
                // Until it is gone there is no process that would take its place.
                self.places[index].lost = true;
            } else if place.retiring == 0 {
                self.begin(now, index, next);
            }
        }
    }

    /// The server stops.
    pub(super) fn stop_processes(&mut self, now: Instant) {
        for index in 0..self.places.len() {
            if self.places[index].kind == Kind::Process {
                self.ask_to_stop(now, index);
            }
        }
    }

    /// Whether the place has what it needs for the server to be up.
    pub(super) fn is_filled(&self, place: &Place) -> bool {
        place.holder.is_some() || place.next.is_some_and(|next| self.stands_by(next))
    }

    /// The holder has ended by itself, and nobody is to follow it.
    pub(super) fn process_is_over(
        &mut self,
        now: Instant,
        index: usize,
        title: &str,
        reason: &str,
        clean: bool,
    ) {
        let place = &mut self.places[index];
        place.ended = true;
        place.lost = false;
        match clean {
            true => tracing::info!("{title} has ended: {reason}"),
            false => tracing::error!("{title} has ended and is not restarted: {reason}"),
        }
        // A reload may have started one.
        if let Some(next) = place.next {
            self.kill_worker(next, Kill::NotWanted);
        }
        self.step_is_skipped(now, index);
    }

    fn stands_by(&self, incarnation: u64) -> bool {
        self.processes
            .get(&incarnation)
            .is_some_and(|process| process.state == State::Standby && process.kill.is_none())
    }

    fn ask_to_stop(&mut self, now: Instant, index: usize) {
        let place = &mut self.places[index];
        let Some(incarnation) = place.holder.take() else {
            return;
        };
        place.retiring += 1;
        if let Some(process) = self.processes.get_mut(&incarnation) {
            let deadline = now + self.limits.max_wait_time;
            process.state = State::Retiring { deadline };
        }
        self.actions.push_back(Action::AskToStop { incarnation });
    }

    fn begin(&mut self, now: Instant, index: usize, incarnation: u64) {
        let Some(process) = self.processes.get_mut(&incarnation) else {
            return;
        };
        process.state = State::Ready;
        process.ready_at = Some(now);
        let place = &mut self.places[index];
        place.holder = place.next.take();
        place.lost = false;
        place.generation = process.generation;
        let worker = place.id;
        if self.master.exists() {
            self.actions.push_back(Action::Attach {
                worker,
                incarnation,
            });
        }
        self.actions.push_back(Action::Begin { incarnation });
    }
}

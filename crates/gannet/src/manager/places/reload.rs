//! A reload: which places are still to be filled anew, and what became of the others.

use std::time::Instant;

use super::{Action, PARALLEL, Phase, Places};
use crate::{
    WorkerId,
    control::{ReloadOutcome, Reloaded, ReloadedWorker, Role as Kind},
};

/// Who asked for a reload and waits for its outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct RequestId(pub(crate) u64);

/// A reload that has not begun.
#[derive(Debug)]
pub(super) struct Wish {
    tasks_only: bool,
    requests: Vec<RequestId>,
}

/// The reload that runs.
#[derive(Debug)]
pub(super) struct Reload {
    requests: Vec<RequestId>,
    /// Processes from this incarnation on run the new program.
    since: u64,
    steps: Vec<Step>,
    error: Option<String>,
}

#[derive(Debug)]
struct Step {
    place: usize,
    worker: WorkerId,
    state: StepState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StepState {
    Pending,
    InFlight,
    Ended(ReloadOutcome),
}

impl Reload {
    /// Whether a process that is started now for the place is the reload's.
    pub(super) fn covers(&self, place: usize) -> bool {
        self.steps
            .iter()
            .any(|step| step.place == place && !matches!(step.state, StepState::Ended(_)))
    }

    pub(super) fn replaced(&mut self, place: usize, incarnation: u64) {
        self.settle(place, incarnation, ReloadOutcome::Replaced);
    }

    pub(super) fn failed(&mut self, place: usize, incarnation: u64, reason: &str) {
        let Some(worker) = self.settle(place, incarnation, ReloadOutcome::Failed) else {
            return;
        };
        self.error
            .get_or_insert_with(|| format!("worker {worker} did not start: {reason}"));
        for step in &mut self.steps {
            if step.state == StepState::Pending {
                step.state = StepState::Ended(ReloadOutcome::Kept);
            }
        }
    }

    /// The place has ended for good: its turn is over.
    pub(super) fn skip(&mut self, place: usize) {
        for step in &mut self.steps {
            if step.place == place && !matches!(step.state, StepState::Ended(_)) {
                step.state = StepState::Ended(ReloadOutcome::Kept);
            }
        }
    }

    fn settle(&mut self, place: usize, incarnation: u64, to: ReloadOutcome) -> Option<WorkerId> {
        let step = self.steps.iter_mut().find(|step| step.place == place)?;
        if incarnation < self.since || matches!(step.state, StepState::Ended(_)) {
            return None;
        }
        step.state = StepState::Ended(to);
        Some(step.worker)
    }

    fn has_ended(&self) -> bool {
        self.steps
            .iter()
            .all(|step| matches!(step.state, StepState::Ended(_)))
    }

    fn into_action(self) -> Action {
        let outcome = |step: Step| ReloadedWorker {
            id: step.worker,
            outcome: match step.state {
                StepState::Ended(outcome) => outcome,
                StepState::Pending | StepState::InFlight => ReloadOutcome::Kept,
            },
        };
        let workers = self.steps.into_iter().map(outcome).collect();
        Action::Reloaded {
            requests: self.requests,
            reloaded: Reloaded {
                workers,
                error: self.error,
                certificates: None,
            },
        }
    }
}

impl Places {
    pub(super) fn wish_reload(&mut self, tasks_only: bool, request: Option<RequestId>) {
        let wish = self.queued.get_or_insert(Wish {
            tasks_only,
            requests: Vec::new(),
        });
        wish.tasks_only &= tasks_only;
        wish.requests.extend(request);
        if self.is_stopping() {
            self.refuse_reloads();
        }
    }

    /// The server stops: whoever waits for a reload hears it.
    pub(super) fn refuse_reloads(&mut self) {
        let error = Some("the server is stopping".to_owned());
        if let Some(reload) = self.reload.take() {
            self.actions.push_back(
                Reload {
                    error: error.clone(),
                    ..reload
                }
                .into_action(),
            );
        }
        if let Some(Wish { requests, .. }) = self.queued.take() {
            let reloaded = Reloaded {
                workers: Vec::new(),
                error,
                certificates: None,
            };
            self.actions
                .push_back(Action::Reloaded { requests, reloaded });
        }
    }

    pub(super) fn step_reload(&mut self, now: Instant) {
        if !matches!(self.phase, Phase::Running) {
            return;
        }
        loop {
            if self.reload.is_none() {
                match self.queued.take() {
                    Some(wish) => self.begin_reload(wish),
                    None => return,
                }
            }
            while let Some(place) = self.next_reload_step() {
                self.start_worker(now, place);
            }
            match self.reload.take_if(|reload| reload.has_ended()) {
                Some(reload) => self.end_reload(reload),
                None => return,
            }
        }
    }

    fn begin_reload(&mut self, wish: Wish) {
        let places = self.places.iter().enumerate();
        let steps: Vec<Step> = places
            .filter(|(_, place)| place.kind == Kind::TaskWorker || !wish.tasks_only)
            .filter(|(_, place)| !place.ended)
            .map(|(index, place)| Step {
                place: index,
                worker: place.id,
                state: StepState::Pending,
            })
            .collect();
        tracing::info!("reload of {} workers begins", steps.len());
        self.reloads += 1;
        let since = self.next_incarnation;
        self.reload = Some(Reload {
            requests: wish.requests,
            since,
            steps,
            error: None,
        });
    }

    fn end_reload(&mut self, reload: Reload) {
        match &reload.error {
            None => tracing::info!("reload is done"),
            Some(error) => tracing::error!("reload is aborted, the other workers go on: {error}"),
        }
        self.actions.push_back(reload.into_action());
    }

    /// Marks the next place whose successor may start now.
    fn next_reload_step(&mut self) -> Option<usize> {
        let reload = self.reload.as_mut()?;
        let in_flight = |step: &&Step| step.state == StepState::InFlight;
        if reload.steps.iter().filter(in_flight).count() >= PARALLEL {
            return None;
        }
        let places = &self.places;
        let step = reload.steps.iter_mut().find(|step| {
            let place = &places[step.place];
            step.state == StepState::Pending && place.next.is_none() && place.retiring == 0
        })?;
        step.state = StepState::InFlight;
        Some(step.place)
    }
}

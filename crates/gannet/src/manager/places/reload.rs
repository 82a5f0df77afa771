//! A reload: which places are still to be filled anew, and what became of the others.

use std::time::{Duration, Instant};

use super::{Action, PARALLEL, Phase, Places};
use crate::{
    WorkerId,
    control::{ReloadCause, ReloadOutcome, Reloaded, ReloadedWorker, Role as Kind},
};

/// Who asked for a reload and waits for its outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct RequestId(pub(crate) u64);

/// What those who wait for a reload hear before its end.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Progress {
    /// Another reload runs.
    Waits,
    Begins(Vec<WorkerId>),
    Starts {
        worker: WorkerId,
        incarnation: u64,
    },
    Ended {
        worker: WorkerId,
        outcome: ReloadOutcome,
        error: Option<String>,
        /// Since the reload began.
        after: Duration,
    },
}

/// A reload that has ended, for `status`.
#[derive(Debug)]
pub(crate) struct Past {
    pub(crate) cause: ReloadCause,
    pub(crate) ended: Instant,
    pub(crate) reloaded: Reloaded,
}

/// A reload that has not begun.
#[derive(Debug)]
pub(super) struct Wish {
    tasks_only: bool,
    cause: ReloadCause,
    requests: Vec<RequestId>,
}

/// The reload that runs.
#[derive(Debug)]
pub(super) struct Reload {
    requests: Vec<RequestId>,
    cause: ReloadCause,
    began: Instant,
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

    fn settle(&mut self, place: usize, incarnation: u64, to: ReloadOutcome) -> Option<WorkerId> {
        let step = self.steps.iter_mut().find(|step| step.place == place)?;
        if incarnation < self.since || matches!(step.state, StepState::Ended(_)) {
            return None;
        }
        step.state = StepState::Ended(to);
        Some(step.worker)
    }

    /// Settles the steps that `which` names as kept. Returns their workers.
    fn keep(&mut self, which: impl Fn(&Step) -> bool) -> Vec<WorkerId> {
        let kept = self.steps.iter_mut().filter(|step| which(step));
        kept.map(|step| {
            step.state = StepState::Ended(ReloadOutcome::Kept);
            step.worker
        })
        .collect()
    }

    fn tell(&self, progress: Progress) -> Action {
        Action::Tell {
            requests: self.requests.clone(),
            progress,
        }
    }

    fn tell_end(
        &self,
        now: Instant,
        worker: WorkerId,
        outcome: ReloadOutcome,
        error: Option<&str>,
    ) -> Action {
        self.tell(Progress::Ended {
            worker,
            outcome,
            error: error.map(str::to_owned),
            after: now.saturating_duration_since(self.began),
        })
    }

    fn has_ended(&self) -> bool {
        self.steps
            .iter()
            .all(|step| matches!(step.state, StepState::Ended(_)))
    }

    fn into_reloaded(self, now: Instant) -> Reloaded {
        let outcome = |step: Step| ReloadedWorker {
            id: step.worker,
            outcome: match step.state {
                StepState::Ended(outcome) => outcome,
                StepState::Pending | StepState::InFlight => ReloadOutcome::Kept,
            },
        };
        Reloaded {
            workers: self.steps.into_iter().map(outcome).collect(),
            error: self.error,
            certificates: None,
            took_ms: now.saturating_duration_since(self.began).as_millis() as u64,
        }
    }
}

impl Places {
    pub(super) fn wish_reload(
        &mut self,
        now: Instant,
        tasks_only: bool,
        cause: ReloadCause,
        request: Option<RequestId>,
    ) {
        let wish = self.queued.get_or_insert(Wish {
            tasks_only,
            cause,
            requests: Vec::new(),
        });
        wish.tasks_only &= tasks_only;
        wish.requests.extend(request);
        if self.is_stopping() {
            self.refuse_reloads(now);
        } else if self.reload.is_some() {
            self.actions.push_back(Action::Tell {
                requests: request.into_iter().collect(),
                progress: Progress::Waits,
            });
        }
    }

    /// The server stops: whoever waits for a reload hears it.
    pub(super) fn refuse_reloads(&mut self, now: Instant) {
        let error = Some("the server is stopping".to_owned());
        if let Some(reload) = self.reload.take() {
            self.end_reload(
                now,
                Reload {
                    error: error.clone(),
                    ..reload
                },
            );
        }
        if let Some(Wish { requests, .. }) = self.queued.take() {
            let reloaded = Reloaded {
                error,
                ..Reloaded::default()
            };
            self.actions
                .push_back(Action::Reloaded { requests, reloaded });
        }
    }

    /// The process for this place gets its events.
    pub(super) fn step_is_done(&mut self, now: Instant, place: usize, incarnation: u64) {
        let Some(reload) = &mut self.reload else {
            return;
        };
        let outcome = ReloadOutcome::Replaced;
        if let Some(worker) = reload.settle(place, incarnation, outcome) {
            let told = reload.tell_end(now, worker, outcome, None);
            self.actions.push_back(told);
        }
    }

    /// The process for this place did not start: what has not begun is not begun any more.
    pub(super) fn step_failed(
        &mut self,
        now: Instant,
        place: usize,
        incarnation: u64,
        reason: &str,
    ) {
        let Some(reload) = &mut self.reload else {
            return;
        };
        let outcome = ReloadOutcome::Failed;
        let Some(worker) = reload.settle(place, incarnation, outcome) else {
            return;
        };
        reload
            .error
            .get_or_insert_with(|| format!("worker {worker} did not start: {reason}"));
        let told = reload.tell_end(now, worker, outcome, Some(reason));
        self.actions.push_back(told);
        for worker in reload.keep(|step| step.state == StepState::Pending) {
            let told = reload.tell_end(now, worker, ReloadOutcome::Kept, None);
            self.actions.push_back(told);
        }
    }

    /// The place has ended for good: its turn is over.
    pub(super) fn step_is_skipped(&mut self, now: Instant, place: usize) {
        let Some(reload) = &mut self.reload else {
            return;
        };
        let open = |step: &Step| step.place == place && !matches!(step.state, StepState::Ended(_));
        for worker in reload.keep(open) {
            let told = reload.tell_end(now, worker, ReloadOutcome::Kept, None);
            self.actions.push_back(told);
        }
    }

    /// A process was started for a place.
    pub(super) fn step_starts(&mut self, worker: WorkerId, incarnation: u64) {
        if let Some(reload) = &self.reload {
            let told = reload.tell(Progress::Starts {
                worker,
                incarnation,
            });
            self.actions.push_back(told);
        }
    }

    pub(super) fn step_reload(&mut self, now: Instant) {
        if !matches!(self.phase, Phase::Running) {
            return;
        }
        loop {
            if self.reload.is_none() {
                match self.queued.take() {
                    Some(wish) => self.begin_reload(now, wish),
                    None => return,
                }
            }
            while let Some(place) = self.next_reload_step() {
                self.start_worker(now, place);
            }
            match self.reload.take_if(|reload| reload.has_ended()) {
                Some(reload) => self.end_reload(now, reload),
                None => return,
            }
        }
    }

    fn begin_reload(&mut self, now: Instant, wish: Wish) {
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
        let (count, by) = (steps.len(), wish.cause.as_str());
        tracing::info!("reload of {count} workers begins, asked for by {by}");
        self.reloads += 1;
        let since = self.next_incarnation;
        let workers = steps.iter().map(|step| step.worker).collect();
        let reload = Reload {
            requests: wish.requests,
            cause: wish.cause,
            began: now,
            since,
            steps,
            error: None,
        };
        self.actions
            .push_back(reload.tell(Progress::Begins(workers)));
        self.reload = Some(reload);
    }

    fn end_reload(&mut self, now: Instant, mut reload: Reload) {
        match &reload.error {
            None => tracing::info!("reload is done"),
            Some(error) => tracing::error!("reload is aborted, the other workers go on: {error}"),
        }
        let (cause, requests) = (reload.cause, std::mem::take(&mut reload.requests));
        let reloaded = reload.into_reloaded(now);
        self.last_reload = Some(Past {
            cause,
            ended: now,
            reloaded: reloaded.clone(),
        });
        self.actions
            .push_back(Action::Reloaded { requests, reloaded });
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

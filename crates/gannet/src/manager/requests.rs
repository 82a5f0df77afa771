//! What comes through the control socket, and what goes back.

use std::time::Instant;

use super::{
    admin::Admin,
    event_loop::Manager,
    places::{Input, Progress, RequestId, Who},
    report::Report,
};
use crate::{
    WorkerId,
    control::{Filter, ReloadCause, ReloadEvent, Reloaded, ReloadingWorker, Reply, Request},
    thread,
};

impl Manager {
    /// Something happened on a connection of the control socket.
    pub(super) fn serve(&mut self, connection: u64) {
        while let Some(request) = self.control.serve(connection, Instant::now()) {
            match request {
                Request::Status { pss } => {
                    let status = self.report().status(pss);
                    self.control.reply(connection, &Reply::ok(status));
                }
                Request::Clients { from, limit, only } => {
                    self.ask_clients(connection, from, limit, only);
                }
                Request::Reload { .. } if self.spawner.crew.is_some() => {
                    let refused = Reply::error("needs_process_mode", thread::NO_RELOAD);
                    self.control.reply(connection, &refused);
                }
                Request::Reload {
                    tasks_only,
                    progress,
                } => {
                    if progress {
                        self.control.wants_events(connection);
                    }
                    // The master has them before it hears of new workers.
                    if !tasks_only && let Err(error) = self.reread_certificates() {
                        self.certificates.note_refusal(connection, &error);
                    }
                    self.happened(Input::Reload {
                        tasks_only,
                        cause: ReloadCause::Control,
                        request: Some(RequestId(connection)),
                    });
                }
                Request::Stop {} => {
                    tracing::info!("stopping: the control socket asked for it");
                    self.control.reply(connection, &Reply::ok("stopping"));
                    self.happened(Input::Stop);
                }
                Request::Settings {} => {
                    let settings = self.hooks.origins.show(&self.spawner.settings);
                    self.control.reply(connection, &Reply::ok(settings));
                }
                Request::Kick { to, code, reason } => {
                    self.ask_kick(connection, to, code, reason);
                }
                Request::Send { to, data } => self.ask_send(connection, to, data),
                Request::Publish { topic, data } => {
                    let to = Filter {
                        topic: Some(topic),
                        ..Filter::default()
                    };
                    self.ask_send(connection, to, data);
                }
            }
        }
    }

    /// Tells those who wait for a reload, and want to know, how far it is.
    pub(super) fn progress(&mut self, requests: &[RequestId], progress: &Progress) {
        let title = |worker: WorkerId| self.place(worker).title();
        let event = match progress {
            Progress::Waits => ReloadEvent::Waits,
            Progress::Begins(workers) => ReloadEvent::Begins {
                workers: workers
                    .iter()
                    .map(|&id| ReloadingWorker {
                        id,
                        title: title(id),
                    })
                    .collect(),
            },
            Progress::Starts {
                worker,
                incarnation,
            } => ReloadEvent::Starts {
                worker: *worker,
                title: title(*worker),
                pid: self.children.pid(Who::Worker(*incarnation)),
            },
            Progress::Ended {
                worker,
                outcome,
                error,
                after,
            } => ReloadEvent::Ended {
                worker: *worker,
                title: title(*worker),
                outcome: *outcome,
                error: error.clone(),
                after_ms: after.as_millis() as u64,
            },
        };
        let event = Reply::event(event);
        for &RequestId(connection) in requests {
            self.control.tell(connection, &event);
        }
    }

    /// Tells those who wait for a reload what became of it.
    pub(super) fn reloaded(&mut self, requests: &[RequestId], reloaded: &Reloaded) {
        self.record.reloaded(reloaded);
        if let (Some(_), Some(watched)) = (&reloaded.error, &mut self.watched) {
            watched.failed();
        }
        for &RequestId(connection) in requests {
            let reloaded = Reloaded {
                certificates: self.certificates.refusal(connection),
                ..reloaded.clone()
            };
            self.control.reply(connection, &Reply::ok(reloaded));
            // Another request may have waited for this one.
            self.serve(connection);
        }
    }

    pub(super) fn report(&self) -> Report<'_> {
        Report {
            now: Instant::now(),
            started: self.started,
            spawner: &self.spawner,
            places: &self.places,
            children: &self.children,
            departed: &self.departed,
            admin: self.admin.as_ref().map(Admin::address),
            table: &self.table,
            samples: &self.samples,
        }
    }
}

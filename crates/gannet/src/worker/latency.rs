//! Times the handlers of this worker.
//!
//! The clock is read once a turn and once for each handler that ends: in a row of handlers that
//! do not wait, the end of one is the beginning of the next.

use std::{cell::Cell, sync::Arc};

use super::shared::Shared;
use crate::{
    histogram::Timed,
    wire::{event::EventKind, stamp},
};

pub(crate) struct Latency {
    shared: Arc<Shared>,
    is_on: bool,
    /// The clock when it was last read, in nanoseconds; 0: too long ago.
    now: Cell<u64>,
}

impl Latency {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Latency {
            is_on: shared.settings.latency_histograms,
            shared,
            now: Cell::new(0),
        }
    }

    /// Time passes that no handler took.
    pub(crate) fn pause(&self) {
        self.now.set(0);
    }

    /// A handler begins; returns when.
    #[inline]
    pub(crate) fn begin(&self, stamp: u32) -> u64 {
        if !self.is_on {
            return 0;
        }
        let now = match self.now.get() {
            0 => self.read(),
            now => now,
        };
        if let Some(waited) = stamp::since(stamp, now) {
            self.shared.time(Timed::Wait, waited);
        }
        now
    }

    /// A clock that moves every few milliseconds. Where handlers are timed it is the one that was read
    /// when the last of them ended.
    #[inline]
    pub(crate) fn tick(&self) -> u64 {
        let nanos = match (self.is_on, self.now.get()) {
            (false, _) => stamp::coarse_nanos(),
            (true, 0) => self.read(),
            (true, now) => now,
        };
        nanos >> TICK
    }

    /// The handler that began then has ended.
    #[inline]
    pub(crate) fn end(&self, kind: EventKind, began: u64) {
        if self.is_on
            && let Some(timed) = timed(kind)
        {
            let now = self.read();
            self.shared.time(timed, now.saturating_sub(began));
        }
    }

    #[inline]
    fn read(&self) -> u64 {
        let now = stamp::monotonic_nanos();
        self.now.set(now);
        now
    }
}

/// 4 ms, as powers of two go.
const TICK: u32 = 22;

impl Shared {
    /// The clock, if handlers are timed.
    pub(crate) fn clock(&self) -> Option<u64> {
        self.settings
            .latency_histograms
            .then(stamp::monotonic_nanos)
    }

    /// Notes how long something took. On the worker's thread only.
    #[inline]
    pub(crate) fn time(&self, timed: Timed, nanos: u64) {
        self.histograms.record(timed, nanos);
    }
}

/// Which method handles events of this kind.
fn timed(kind: EventKind) -> Option<Timed> {
    Some(match kind {
        EventKind::Connect => Timed::Connect,
        EventKind::Receive => Timed::Receive,
        EventKind::Packet => Timed::Packet,
        EventKind::Request => Timed::Request,
        EventKind::Open => Timed::Open,
        EventKind::Message => Timed::Message,
        EventKind::Close => Timed::Close,
        EventKind::Task => Timed::Task,
        EventKind::Finish => Timed::Finish,
        EventKind::Pipe => Timed::PipeMessage,
        EventKind::RequestBody
        | EventKind::TaskResult
        | EventKind::Reply
        | EventKind::Tick
        | EventKind::Retire
        | EventKind::Reset
        | EventKind::TaskAccepted => return None,
    })
}

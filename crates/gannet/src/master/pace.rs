//! Clients that are too slow in the middle of something, and those that send too much of it.
//!
//! What has begun to arrive (a streamed request body, a WebSocket or framed message) holds memory or a
//! handler until it is whole. It has to come on with `min_receive_rate` bytes a second on average,
//! with `request_timeout_ms` on top. The count begins anew when the server itself has not read for
//! a while, so that nobody is late through no fault of its own.
//!
//! The other way round, what waits for a client that does not read holds memory, and often a handler.
//! As long as its socket is full ([`Unread`]), a client has to take `min_send_rate` bytes a second,
//! looked at window by window of `request_timeout_ms`. What it takes is what it has acknowledged, not
//! what the kernel has taken for it: a full socket says that it has room only when a third of its
//! buffer, often a megabyte, is free, which a slow and honest client may need minutes for.

use std::num::NonZeroU64;

use crate::settings::Listener;

/// How far something that arrives in pieces has come, and since when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Progress {
    /// When it began, ms. Never 0, so that an `Option` of this takes no more room.
    since: NonZeroU64,
    bytes: u64,
}

/// A client whose socket is full: how it has read in the current window.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unread {
    /// When the window began, ms.
    since: u64,
    /// Bytes that its socket has taken since.
    written: usize,
    /// Bytes that were in the socket when the window began.
    before: usize,
}

/// Control frames in the current second.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ControlRate {
    /// The second, by the reactor's clock.
    second: u32,
    count: u32,
}

impl Progress {
    pub(super) fn begin(now: u64) -> Self {
        Progress {
            since: NonZeroU64::new(now).unwrap_or(NonZeroU64::MIN),
            bytes: 0,
        }
    }

    /// Goes on from `before`, if there is something, with so many bytes more; or begins.
    pub(super) fn go_on(before: Option<Self>, now: u64, bytes: usize) -> Self {
        match before {
            Some(progress) => progress.and(bytes),
            None => Progress::begin(now),
        }
    }

    /// With so many bytes more.
    pub(super) fn and(self, bytes: usize) -> Self {
        Progress {
            bytes: self.bytes + bytes as u64,
            ..self
        }
    }

    /// Whether more should have come by now.
    pub(super) fn is_late(self, now: u64, listener: &Listener) -> bool {
        self.deadline(listener)
            .is_some_and(|deadline| now >= deadline)
    }

    /// When it is too late for the next byte; `None`: never.
    pub(super) fn deadline(self, listener: &Listener) -> Option<u64> {
        let rate = u64::from(listener.min_receive_rate);
        let earned = self.bytes.saturating_mul(1_000).checked_div(rate)?;
        let timeout = self.since.get() + listener.request_timeout_ms;
        Some(timeout.saturating_add(earned))
    }
}

impl Unread {
    /// The window begins with so many bytes in the socket.
    pub(super) fn begin(now: u64, in_socket: usize) -> Self {
        Unread {
            since: now,
            written: 0,
            before: in_socket,
        }
    }

    /// The socket has taken so many bytes more.
    pub(super) fn wrote(&mut self, bytes: usize) {
        self.written += bytes;
    }

    /// When a window of this length ends.
    pub(super) fn deadline(self, window: u64) -> u64 {
        self.since + window
    }

    /// Whether the client has taken less than this rate wants of it, when the window ends with so
    /// many bytes in the socket. Nothing at all is too little for any rate.
    pub(super) fn is_too_slow(self, in_socket: usize, rate: u32, window: u64) -> bool {
        let taken = (self.before + self.written).saturating_sub(in_socket) as u64;
        taken < (u64::from(rate) * window / 1_000).max(1)
    }
}

impl ControlRate {
    /// Counts one; whether it is within `most` in a second (0: any number).
    pub(super) fn admits(&mut self, now: u64, most: u32) -> bool {
        let second = (now / 1_000) as u32;
        if second != self.second {
            *self = ControlRate { second, count: 0 };
        }
        self.count = self.count.saturating_add(1);
        most == 0 || self.count <= most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_in_pieces_has_its_timeout_and_what_its_bytes_have_earned() {
        let listener = Listener {
            request_timeout_ms: 5_000,
            min_receive_rate: 100,
            ..Listener::default()
        };
        let progress = Progress::begin(1_000);
        assert_eq!(progress.deadline(&listener), Some(6_000));
        assert_eq!(progress.and(50).and(50).deadline(&listener), Some(7_000));
        let any = Listener {
            min_receive_rate: 0,
            ..listener
        };
        assert_eq!(progress.deadline(&any), None);
    }

    #[test]
    fn a_client_takes_what_its_socket_has_taken_and_does_not_hold_any_more() {
        let mut unread = Unread::begin(1_000, 5_000);
        assert_eq!(unread.deadline(2_000), 3_000);
        unread.wrote(300);
        // 300 of 5,300 bytes are gone: 100 a second are 200 in two seconds.
        assert!(!unread.is_too_slow(5_000, 100, 2_000));
        assert!(!unread.is_too_slow(5_100, 100, 2_000));
        assert!(unread.is_too_slow(5_101, 100, 2_000));
        // Any rate wants a byte, and a socket that counts otherwise owes nothing.
        assert!(unread.is_too_slow(5_300, 0, 2_000));
        assert!(!unread.is_too_slow(5_299, 0, 2_000));
        assert!(unread.is_too_slow(9_000, 0, 2_000));
    }

    #[test]
    fn control_frames_count_by_the_second() {
        let mut rate = ControlRate::default();
        for now in [5_000, 5_999] {
            assert!(rate.admits(now, 2));
        }
        assert!(!rate.admits(5_999, 2));
        assert!(rate.admits(6_000, 2));
        assert!((0..1_000).all(|_| rate.admits(6_001, 0)));
    }
}

//! Why a connection ended.

use std::fmt;

/// Why a connection was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
#[non_exhaustive]
pub enum CloseReason {
    /// The client closed it in good order; for a WebSocket its close code, if it sent one.
    Client = 1,
    /// The client vanished: reset, or end of file in the middle of a message.
    Reset = 2,
    /// The handler closed it ([`Conn::close`](crate::Conn::close)).
    Handler = 3,
    /// Nothing came for the listener's `idle_timeout`.
    Idle = 4,
    /// A request or handshake took longer than `request_timeout`.
    Timeout = 5,
    /// The client broke the protocol.
    Protocol = 6,
    /// A message or request was over a limit.
    TooLarge = 7,
    /// The client did not read: more than `max_queued` waited for it, or it took less than
    /// `min_send_rate`.
    SlowReader = 8,
    /// The handler returned an error or panicked; or the function of a custom framing did.
    HandlerFailed = 9,
    /// A message was lost with its worker and could not be given to another.
    WorkerDied = 10,
    /// The server is stopping.
    Stopping = 11,
    /// The master died; the connection was lost with it.
    MasterDied = 12,
    /// An HTTP connection ended after a response, as it should.
    Complete = 13,
    /// An administrator closed it.
    Kicked = 14,
    /// The handler refused the WebSocket handshake.
    Refused = 15,
    /// It sent too many control frames in a second, or a message in too many fragments.
    Flood = 16,
    /// The TLS handshake failed, or what came after it was not what it should be.
    TlsFailed = 17,
}

impl CloseReason {
    /// Every reason, by its number.
    pub(crate) const ALL: [CloseReason; 17] = [
        CloseReason::Client,
        CloseReason::Reset,
        CloseReason::Handler,
        CloseReason::Idle,
        CloseReason::Timeout,
        CloseReason::Protocol,
        CloseReason::TooLarge,
        CloseReason::SlowReader,
        CloseReason::HandlerFailed,
        CloseReason::WorkerDied,
        CloseReason::Stopping,
        CloseReason::MasterDied,
        CloseReason::Complete,
        CloseReason::Kicked,
        CloseReason::Refused,
        CloseReason::Flood,
        CloseReason::TlsFailed,
    ];

    /// The name in counters and logs: `slow_reader`.
    pub fn name(self) -> &'static str {
        match self {
            CloseReason::Client => "client",
            CloseReason::Reset => "reset",
            CloseReason::Handler => "handler",
            CloseReason::Idle => "idle",
            CloseReason::Timeout => "timeout",
            CloseReason::Protocol => "protocol",
            CloseReason::TooLarge => "too_large",
            CloseReason::SlowReader => "slow_reader",
            CloseReason::HandlerFailed => "handler_failed",
            CloseReason::WorkerDied => "worker_died",
            CloseReason::Stopping => "stopping",
            CloseReason::MasterDied => "master_died",
            CloseReason::Complete => "complete",
            CloseReason::Kicked => "kicked",
            CloseReason::Refused => "refused",
            CloseReason::Flood => "flood",
            CloseReason::TlsFailed => "tls_failed",
        }
    }

    pub(crate) fn from_u16(number: u16) -> Option<Self> {
        CloseReason::ALL
            .get(usize::from(number).checked_sub(1)?)
            .copied()
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_reasons_agree() {
        for reason in CloseReason::ALL {
            assert_eq!(CloseReason::from_u16(reason as u16), Some(reason));
        }
        assert_eq!(CloseReason::from_u16(0), None);
        assert!(CloseReason::ALL.len() < crate::layout::CLOSE_REASONS);
    }
}

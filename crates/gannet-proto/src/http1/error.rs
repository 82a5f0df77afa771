//! What can be wrong with a request.

use std::borrow::Cow;

/// A request that is refused: answer with [`status`](Self::status) (see
/// [`encode_error`](super::encode_error)), then close the connection. Where the next
/// request would begin is not known.
///
/// | status | when |
/// |---|---|
/// | 400 | the request is malformed or ambiguous |
/// | 408 | the caller waited long enough, see [`timeout`](Self::timeout) |
/// | 413 | the body is larger than the limit |
/// | 414 | the target is longer than the limit |
/// | 417 | `Expect` asks for something else than `100-continue` |
/// | 431 | the head or trailer section is larger than its limit |
/// | 501 | the method name is too long, or a transfer coding is unknown |
/// | 505 | the major version is not 1 |
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RequestError {
    status: u16,
    message: Cow<'static, str>,
}

impl RequestError {
    /// An error with a message for whoever wrote the client: what is wrong, where, and
    /// what to do. It is sent to the client.
    pub fn new(status: u16, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            message: message.into(),
        }
    }

    /// 408: the rest of the request did not come in time. For the caller, who has the clock.
    pub fn timeout() -> Self {
        Self::new(
            408,
            "the request did not arrive in time: send it whole, without long pauses",
        )
    }

    /// The status to answer with: 400 to 505.
    pub const fn status(&self) -> u16 {
        self.status
    }

    /// What is wrong, where, and what to do.
    pub fn message(&self) -> &str {
        &self.message
    }

    pub(super) fn bad(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(400, message)
    }
}

//! Why something could not be sent.

/// Why a message was not sent.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendError {
    /// No room now. Only the `try_` methods say so; the others wait.
    #[error("the ring to the reactor is full: await `send` instead, or try again later")]
    Full,
    /// It would never fit: a message may take a quarter of the setting `arena_size`.
    #[error("a message of {len} bytes is larger than the {max} bytes that fit: raise `arena_size`")]
    TooLarge {
        /// Bytes of the message, with what goes in front of it.
        len: usize,
        /// Bytes that fit.
        max: usize,
    },
    /// [`Handler::start`](crate::Handler::start) has asked a question, or sent more than a ring holds: that would
    /// wait until it has returned.
    #[error(
        "`Handler::start` cannot wait for an answer of the master, nor send more than `ring_size`: both go on \
         when it has returned. Have a future do it that `start` gives to `Worker::spawn_local`"
    )]
    NotReady,
    /// A question got no answer. The connections of before are closed; ask again.
    #[error("the master died before it answered, and its connections with it: ask again")]
    Lost,
}

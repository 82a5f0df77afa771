//! Messages that a function finds.

use std::{
    fmt,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use super::{
    error::{EncodeError, FrameError},
    framing::Found,
    length::MAX_HEADER,
};

/// A framing by functions of the user's.
#[derive(Clone)]
pub struct Custom {
    cut: Arc<CutFn>,
    encode: Option<Arc<EncodeFn>>,
}

type CutFn = dyn Fn(&[u8]) -> Cut + Send + Sync;
type EncodeFn = dyn Fn(&[u8], &mut Vec<u8>) -> Result<(), &'static str> + Send + Sync;

/// What the function of a [`Custom`] framing finds at the front of its input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cut {
    /// A whole message: `message` of the first `used` bytes, which are done with.
    Message {
        /// Bytes that the message takes in the stream; at least 1.
        used: usize,
        /// What of them is given.
        message: Range<usize>,
    },
    /// The message has not wholly arrived. The function is called again with more bytes, but not
    /// before there are `until` in all; 0 if that is not known. It spares a search in what was
    /// searched before.
    Incomplete {
        /// Bytes to wait for.
        until: usize,
    },
    /// This is no message, and why: the connection is closed.
    Invalid(&'static str),
}

impl Custom {
    /// `cut` gets the bytes that have arrived, at least one, and says whether the first message
    /// is whole.
    ///
    /// What it says must depend on nothing but the message's own bytes: more bytes behind them
    /// must not change it, and the same bytes must always be cut alike.
    pub fn new(cut: impl Fn(&[u8]) -> Cut + Send + Sync + 'static) -> Self {
        Self {
            cut: Arc::new(cut),
            encode: None,
        }
    }

    /// `encode` appends a message to the output as `cut` will find it, or says why it cannot be
    /// sent.
    #[must_use]
    pub fn encoder(
        self,
        encode: impl Fn(&[u8], &mut Vec<u8>) -> Result<(), &'static str> + Send + Sync + 'static,
    ) -> Self {
        Self {
            encode: Some(Arc::new(encode)),
            ..self
        }
    }

    /// The message at the front of `input`, or how many bytes to wait for.
    pub(super) fn find(&self, input: &[u8], max: u32) -> Result<Result<Found, usize>, FrameError> {
        let cut = catch_unwind(AssertUnwindSafe(|| (self.cut)(input)));
        let too_large = Err(FrameError::TooLarge { limit: max });
        let longest = max as usize + MAX_HEADER;
        match cut.map_err(|_| FrameError::Panicked)? {
            Cut::Invalid(why) => Err(FrameError::Refused(why)),
            Cut::Incomplete { .. } if input.len() > longest => too_large,
            Cut::Incomplete { until } => Ok(Err(until.min(longest + 1))),
            Cut::Message { used, message } => {
                let is_inside = message.start <= message.end && message.end <= used;
                if used == 0 || used > input.len() || !is_inside {
                    return Err(FrameError::BadCut);
                }
                if message.len() > max as usize || used > longest {
                    return too_large;
                }
                Ok(Ok(Found { used, message }))
            }
        }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>, message: &[u8]) -> Result<(), EncodeError> {
        let encode = self.encode.as_ref().ok_or(EncodeError::NoEncoder)?;
        let start = out.len();
        encode(message, out).map_err(|why| {
            out.truncate(start);
            EncodeError::Refused(why)
        })
    }
}

impl fmt::Debug for Custom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Custom(…)")
    }
}

/// Two are equal if they are clones of one.
impl PartialEq for Custom {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.cut, &other.cut)
    }
}

impl Eq for Custom {}

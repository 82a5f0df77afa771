//! From bytes to messages.

use std::{ops::Range, sync::Arc};

use super::{
    error::FrameError,
    framing::{Found, Framing, Rule},
};

/// Reads the messages of one connection.
///
/// ```
/// use std::sync::Arc;
///
/// use gannet_proto::tcp::{Decoder, Framing, Marker};
///
/// let framing = Arc::new(Framing::marker(Marker::lines(true)));
/// let mut decoder = Decoder::new(framing, 1024);
///
/// let mut input = *b"hello\r\nwor";
/// let decoded = decoder.decode(&mut input)?;
/// assert_eq!((decoded.used, decoded.message), (7, Some(&b"hello"[..])));
/// let decoded = decoder.decode(&mut input[7..])?;
/// assert_eq!((decoded.used, decoded.message), (3, None));
/// # Ok::<(), gannet_proto::tcp::FrameError>(())
/// ```
#[derive(Debug)]
pub struct Decoder {
    framing: Arc<Framing>,
    /// What has arrived of the unfinished message; not empty if there is one.
    kept: Vec<u8>,
    /// Bytes that the unfinished message takes in all, or for a custom framing those to wait for;
    /// 0: not known yet.
    need: usize,
    max: u32,
    state: State,
}

/// Idle connections pay for this.
const _: () = assert!(size_of::<Decoder>() <= 72);

/// What [`Decoder::decode`] found at the front of its input.
#[derive(Debug, PartialEq, Eq)]
pub struct Decoded<'a> {
    /// How many bytes of the input are done with.
    pub used: usize,
    /// A whole message; `None`: more bytes are needed, and all of the input was used.
    pub message: Option<&'a [u8]>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Goes on with `kept`, or with a new message if there is nothing.
    Ready,
    /// The last message was lent from `kept`, which the next call gives back.
    Lent,
    /// Stays as it is.
    Failed(FrameError),
}

/// Where a message is.
enum Place {
    Input(Range<usize>),
    Kept(Range<usize>),
}

impl Decoder {
    /// A decoder that refuses messages over `max_message_size` bytes, as they are given: a header
    /// or marker counts if it is kept. Values above 4 GiB - 1 count as 4 GiB - 1.
    ///
    /// Worst-case memory is this, and a header or marker, for a connection that is mid-message.
    pub fn new(framing: Arc<Framing>, max_message_size: usize) -> Self {
        Self {
            framing,
            kept: Vec::new(),
            need: 0,
            max: u32::try_from(max_message_size).unwrap_or(u32::MAX),
            state: State::Ready,
        }
    }

    /// Takes one message from the front of `input`.
    ///
    /// Call it again with the rest of the input until [`Decoded::message`] is `None`, or call
    /// [`Decoder::give_back`]: that gives back the memory of a message that came in pieces. The
    /// unused rest is empty then.
    ///
    /// A message that is whole in `input` is borrowed from it; only one that arrives in pieces is
    /// copied, once.
    ///
    /// # Errors
    ///
    /// The peer broke the framing or a limit. The decoder then holds no memory and returns the
    /// same error for ever.
    pub fn decode<'a>(&'a mut self, input: &'a mut [u8]) -> Result<Decoded<'a>, FrameError> {
        if let State::Failed(error) = self.state {
            return Err(error);
        }
        self.give_back();
        if input.is_empty() {
            return Ok(Decoded {
                used: 0,
                message: None,
            });
        }
        let advanced = match self.kept.is_empty() {
            true => self.begin(input),
            false => self.go_on(input),
        };
        let (used, place) = advanced.inspect_err(|&error| {
            self.forget();
            self.state = State::Failed(error);
        })?;
        let message = match place {
            None => None,
            Some(Place::Input(range)) => Some(&input[range]),
            Some(Place::Kept(range)) => {
                self.state = State::Lent;
                Some(&self.kept[range])
            }
        };
        Ok(Decoded { used, message })
    }

    /// The rule that it reads by.
    pub fn framing(&self) -> &Framing {
        &self.framing
    }

    /// Gives back the memory of the message that was given last, if it was copied.
    pub fn give_back(&mut self) {
        if let State::Lent = self.state {
            self.forget();
            self.state = State::Ready;
        }
    }

    /// Drops what has come of an unfinished message: nothing more is read.
    pub fn abandon(&mut self) {
        self.forget();
    }

    /// Whether no part of a message is held.
    pub fn is_idle(&self) -> bool {
        !matches!(self.state, State::Ready) || self.kept.is_empty()
    }

    /// Bytes of memory held beside the decoder itself.
    pub fn buffered(&self) -> usize {
        self.kept.capacity()
    }

    /// A message begins with the input.
    fn begin(&mut self, input: &[u8]) -> Result<(usize, Option<Place>), FrameError> {
        let found = match &self.framing.0 {
            Rule::Marker(marker) => marker.find(input, self.max)?.ok_or(0),
            Rule::Custom(custom) => custom.find(input, self.max)?,
            Rule::Length(prefix) => match prefix.frame(input, self.max)? {
                Some(found) if found.used <= input.len() => Ok(found),
                Some(found) => Err(found.used),
                None => Err(0),
            },
        };
        match found {
            Ok(Found { used, message }) => Ok((used, Some(Place::Input(message)))),
            Err(need) => {
                self.need = need;
                self.keep(input);
                Ok((input.len(), None))
            }
        }
    }

    /// The message that `kept` begins goes on with the input.
    fn go_on(&mut self, input: &[u8]) -> Result<(usize, Option<Place>), FrameError> {
        let framing = self.framing.clone();
        match &framing.0 {
            Rule::Marker(marker) => {
                let Some(used) = marker.find_behind(&self.kept, input) else {
                    marker.admit(self.kept.len() + input.len(), self.max)?;
                    self.keep(input);
                    return Ok((input.len(), None));
                };
                let at = self.kept.len() + used - marker.bytes().len();
                // Before anything that is too long is copied.
                marker.admit(at, self.max)?;
                self.keep(&input[..used]);
                let found = marker.end(&self.kept, at, self.max)?;
                Ok((used, Some(Place::Kept(found.message))))
            }
            Rule::Length(prefix) => {
                let mut used = 0;
                loop {
                    let lacks = match self.need {
                        0 => prefix.header_lacks(&self.kept),
                        need => need - self.kept.len(),
                    };
                    let piece = &input[used..][..lacks.min(input.len() - used)];
                    used += piece.len();
                    self.keep(piece);
                    if let Some(found) = prefix.frame(&self.kept, self.max)? {
                        if found.used == self.kept.len() {
                            return Ok((used, Some(Place::Kept(found.message))));
                        }
                        self.need = found.used;
                    }
                    if used == input.len() {
                        return Ok((used, None));
                    }
                }
            }
            Rule::Custom(custom) => {
                let before = self.kept.len();
                self.keep(input);
                if self.kept.len() < self.need {
                    return Ok((input.len(), None));
                }
                match custom.find(&self.kept, self.max)? {
                    // It said before that there was no message in these.
                    Ok(found) if found.used <= before => Err(FrameError::BadCut),
                    Ok(found) => Ok((found.used - before, Some(Place::Kept(found.message)))),
                    Err(need) => {
                        self.need = need;
                        Ok((input.len(), None))
                    }
                }
            }
        }
    }

    fn keep(&mut self, piece: &[u8]) {
        let needed = self.kept.len() + piece.len();
        if needed > self.kept.capacity() {
            // Doubles as bytes arrive, up to what the message will take: what a header announces
            // costs the peer nothing and so must cost us nothing.
            let doubled = (2 * self.kept.capacity()).max(needed);
            let capacity = match self.need {
                0 => doubled,
                need => doubled.min(need.max(needed)),
            };
            self.kept.reserve_exact(capacity - self.kept.len());
        }
        self.kept.extend_from_slice(piece);
    }

    fn forget(&mut self) {
        self.kept = Vec::new();
        self.need = 0;
    }
}

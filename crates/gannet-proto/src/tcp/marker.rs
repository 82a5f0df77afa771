//! Messages that end with a marker; lines are one kind of them.

use memchr::memmem::{self, Finder};

use super::{
    error::{EncodeError, FrameError, FramingError},
    framing::Found,
};

/// Every message ends with these bytes, which occur nowhere else in it.
#[derive(Clone, Debug)]
pub struct Marker {
    finder: Finder<'static>,
    keep: bool,
    strip_cr: bool,
}

impl Marker {
    /// Messages end with `marker`, 1 to [`MAX_MARKER`] bytes, and are given without it.
    ///
    /// # Errors
    ///
    /// The marker is empty or too long.
    pub fn new(marker: &[u8]) -> Result<Self, FramingError> {
        if marker.is_empty() || marker.len() > MAX_MARKER {
            return Err(FramingError::MarkerLength(marker.len()));
        }
        Ok(Self {
            finder: Finder::new(marker).into_owned(),
            keep: false,
            strip_cr: false,
        })
    }

    /// Messages are lines: they end with LF. With `strip_cr` a CR in front of it belongs to the
    /// end of the line as well.
    pub fn lines(strip_cr: bool) -> Self {
        Self {
            finder: Finder::new(b"\n").into_owned(),
            keep: false,
            strip_cr,
        }
    }

    /// Whether messages are given with their marker.
    #[must_use]
    pub fn keep(self, keep: bool) -> Self {
        Self { keep, ..self }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.finder.needle()
    }

    /// Where the message at the front of `input` ends, if it ends there.
    pub(super) fn find(&self, input: &[u8], max: u32) -> Result<Option<Found>, FrameError> {
        match self.finder.find(input) {
            Some(at) => self.end(input, at, max).map(Some),
            None => self.admit(input.len(), max).map(|()| None),
        }
    }

    /// As [`Marker::find`], where `kept` came before `input` and has no whole marker: how many
    /// bytes of the input belong to the message.
    pub(super) fn find_behind(&self, kept: &[u8], input: &[u8]) -> Option<usize> {
        let marker = self.bytes().len();
        let tail = &kept[kept.len().saturating_sub(marker - 1)..];
        let front = &input[..input.len().min(marker - 1)];
        // A marker across the border lies wholly in these; one that lies in either would have
        // been found before, or will be next.
        let mut border = [0; 2 * MAX_MARKER];
        border[..tail.len()].copy_from_slice(tail);
        border[tail.len()..][..front.len()].copy_from_slice(front);
        match self.finder.find(&border[..tail.len() + front.len()]) {
            Some(at) => Some(at + marker - tail.len()),
            None => self.finder.find(input).map(|at| at + marker),
        }
    }

    /// Refuses so many bytes without a whole marker if no message that begins so can be small
    /// enough.
    pub(super) fn admit(&self, len: usize, max: u32) -> Result<(), FrameError> {
        let most = match self.keep {
            true => max as usize,
            false => max as usize + self.bytes().len() + usize::from(self.strip_cr),
        };
        match len < most {
            true => Ok(()),
            false => Err(FrameError::TooLarge { limit: max }),
        }
    }

    /// The message whose marker lies at `at`.
    pub(super) fn end(&self, input: &[u8], at: usize, max: u32) -> Result<Found, FrameError> {
        let used = at + self.bytes().len();
        let end = match input[..at].last() {
            _ if self.keep => used,
            Some(b'\r') if self.strip_cr => at - 1,
            _ => at,
        };
        if end > max as usize {
            return Err(FrameError::TooLarge { limit: max });
        }
        Ok(Found {
            used,
            message: 0..end,
        })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>, message: &[u8]) -> Result<(), EncodeError> {
        let body = match self.keep {
            true => message.strip_suffix(self.bytes()).unwrap_or(message),
            false => message,
        };
        let start = out.len();
        out.extend_from_slice(body);
        out.extend_from_slice(self.bytes());
        let is_first = memmem::find(&out[start..], self.bytes()) == Some(body.len());
        if !is_first || self.strip_cr && body.ends_with(b"\r") {
            out.truncate(start);
            return Err(EncodeError::ContainsMarker);
        }
        Ok(())
    }
}

/// Two are equal if they frame alike.
impl PartialEq for Marker {
    fn eq(&self, other: &Self) -> bool {
        (self.bytes(), self.keep, self.strip_cr) == (other.bytes(), other.keep, other.strip_cr)
    }
}

impl Eq for Marker {}

/// Longest end marker, in bytes.
pub const MAX_MARKER: usize = 64;

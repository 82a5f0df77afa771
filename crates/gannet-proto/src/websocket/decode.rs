//! From bytes to messages and control frames.

use std::ops::Range;

use super::{
    close::CloseCode,
    deflate::Inflater,
    encode::MessageKind,
    error::ProtocolError,
    frame::{Header, Opcode, Role},
    mask::Mask,
};

/// What a peer may make the decoder hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest message, all fragments together, inflated, in bytes. Default 2 MiB.
    ///
    /// Worst-case memory is this times the connections that are mid-message. A larger
    /// message is refused with close code 1009 as soon as a frame header announces it; one
    /// that is compressed, as soon as so much has come out. Values above 4 GiB - 1 count as
    /// 4 GiB - 1.
    pub max_message_size: usize,
    /// Most frames that a message may have. Default 65,536.
    ///
    /// Frames cost work even when they are empty. A message in more of them is refused with
    /// close code 1008.
    pub max_fragments: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_message_size: 2 << 20,
            max_fragments: 1 << 16,
        }
    }
}

/// Reads the frames of one connection.
///
/// ```
/// use gannet_proto::websocket::{Decoder, Event, Limits, MessageKind, client};
///
/// let mut input = Vec::new();
/// client::encode_message(&mut input, MessageKind::Text, b"hello", [1, 2, 3, 4]);
///
/// let mut decoder = Decoder::new(Limits::default());
/// let decoded = decoder.decode(&mut input)?;
/// assert_eq!(decoded.event, Some(Event::Text("hello")));
/// assert_eq!(decoded.used, 11);
/// # Ok::<(), gannet_proto::websocket::ProtocolError>(())
/// ```
#[derive(Debug)]
pub struct Decoder {
    /// What has arrived of the unfinished message, unmasked and inflated.
    message: Vec<u8>,
    /// There while a compressed message arrives; with takeover also between messages.
    inflater: Option<Box<Inflater>>,
    state: State,
    max_message_size: u32,
    max_fragments: u32,
    /// Frames of the unfinished message, this one included.
    fragments: u32,
    /// How many bytes of `message` are known to be whole UTF-8 characters.
    checked: u32,
    /// The kind of the unfinished message; `None` between messages.
    kind: Option<MessageKind>,
    /// The unfinished message is compressed.
    compressed: bool,
    deflate: Compression,
    role: Role,
}

/// Idle connections pay for this, and there are very many of them.
const _: () = assert!(size_of::<Decoder>() <= 64);

/// What [`Decoder::decode`] found at the front of its input.
#[derive(Debug, PartialEq, Eq)]
pub struct Decoded<'a> {
    /// How many bytes of the input are done with. The rest comes again, with what
    /// arrives after it, in the next call.
    pub used: usize,
    /// What these bytes mean; `None` means that more bytes are needed.
    pub event: Option<Event<'a>>,
}

/// A message or control frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A whole text message.
    Text(&'a str),
    /// A whole binary message.
    Binary(&'a [u8]),
    /// A ping: answer with a pong that carries the same bytes, at most 125.
    Ping(&'a [u8]),
    /// A pong, asked for or not.
    Pong(&'a [u8]),
    /// The peer closes, with its code and reason if it gave them: answer with a close
    /// frame, then close the connection. Whatever follows is ignored.
    Close(Option<(u16, &'a str)>),
}

/// Whether messages may come compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compression {
    /// No: it was not negotiated.
    None,
    /// Each message for itself.
    Alone,
    /// A message may refer to those before it.
    Takeover,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// A frame header is next.
    Header,
    /// Payload of a data frame is next; it goes into `Decoder::message`.
    Payload { left: u32, mask: Mask, fin: bool },
    /// The last event was lent from `Decoder::message`, which the next call gives back.
    Lent,
    /// A close frame was read.
    Closed,
    /// Stays as it is.
    Failed(ProtocolError),
}

/// Where the payload of an event is.
enum Found {
    InInput(Opcode, Range<usize>),
    InMessage(MessageKind),
}

impl Decoder {
    /// A decoder for a server: every frame must be masked.
    pub fn new(limits: Limits) -> Self {
        Self::with_role(Role::Server, limits)
    }

    /// A decoder for a client: no frame may be masked.
    pub fn client(limits: Limits) -> Self {
        Self::with_role(Role::Client, limits)
    }

    /// Lets messages come compressed, as negotiated; with `takeover` the peer keeps its window
    /// from message to message, and so does the decoder (47 KiB, from the first such message on).
    #[must_use]
    pub fn with_deflate(mut self, takeover: bool) -> Self {
        self.deflate = match takeover {
            true => Compression::Takeover,
            false => Compression::Alone,
        };
        self
    }

    /// Takes one event from the front of `input`.
    ///
    /// Call it again with the rest of the input until [`Decoded::event`] is `None`: that
    /// call also gives back the memory of a reassembled message. Then keep the unused
    /// bytes, which are part of a frame header or a control frame and never more than
    /// 130. Payload of an unfinished message is used at once and kept inside, so no
    /// payload is presented twice.
    ///
    /// `input` is unmasked in place. A message that is whole in `input` is borrowed from
    /// it; only one that arrives in pieces is copied, and a compressed one inflated.
    ///
    /// # Errors
    ///
    /// The peer broke the protocol or a limit. Invalid text fails at its first invalid
    /// byte, not at the end of the message, compressed or not. The decoder then holds no memory and returns
    /// the same error for ever.
    pub fn decode<'a>(&'a mut self, input: &'a mut [u8]) -> Result<Decoded<'a>, ProtocolError> {
        let mut unlimited = usize::MAX;
        self.decode_within(input, &mut unlimited)
    }

    /// As [`Decoder::decode`], but inflates no more than `budget` bytes, give or take 64 KiB, and
    /// takes what it inflates off it.
    ///
    /// When the budget is used up, the call may say that it needs more bytes though some of the input is not used:
    /// call it with the same bytes and a new budget, when others have had their turn.
    ///
    /// # Errors
    ///
    /// As [`Decoder::decode`].
    pub fn decode_within<'a>(
        &'a mut self,
        input: &'a mut [u8],
        budget: &mut usize,
    ) -> Result<Decoded<'a>, ProtocolError> {
        let (used, found) = self
            .advance(input, budget)
            .inspect_err(|&error| self.fail(error))?;
        let event = match found {
            None => None,
            Some(Found::InInput(opcode, range)) => {
                let event = Event::from_frame(opcode, &input[range]);
                let event = event.inspect_err(|&error| self.fail(error))?;
                if let Event::Close(_) = event {
                    self.finish(State::Closed);
                }
                Some(event)
            }
            Some(Found::InMessage(MessageKind::Binary)) => Some(Event::Binary(&self.message)),
            Some(Found::InMessage(MessageKind::Text)) => {
                // `check_text` has looked at it piece by piece, to fail early. This second look
                // costs some 50 µs per MiB and buys a `str` without unsafe code.
                let text = simdutf8::basic::from_utf8(&self.message);
                Some(Event::Text(text.map_err(|_| ProtocolError::InvalidText)?))
            }
        };
        Ok(Decoded { used, event })
    }

    /// Takes a message from the front of `input` that is there as one frame and not compressed, as nearly all are: its kind,
    /// and where it lies, unmasked; what is behind it comes next.
    ///
    /// `None`: it is something else, or in no order; nothing was done, and [`Decoder::decode`] says what it is.
    #[inline]
    pub fn take_whole(&mut self, input: &mut [u8]) -> Option<(MessageKind, Range<usize>)> {
        if !matches!(self.state, State::Header) || self.kind.is_some() {
            return None;
        }
        let header = Header::parse(input, self.role, false).ok()??;
        let kind = header.opcode.message_kind().filter(|_| header.fin)?;
        let room = (input.len() - header.len).min(self.max_message_size as usize);
        if header.payload_len > room as u64 {
            return None;
        }
        let range = header.len..header.len + header.payload_len as usize;
        let payload = &mut input[range.clone()];
        let mut mask = header.mask;
        mask.apply(payload);
        if kind == MessageKind::Text && simdutf8::basic::from_utf8(payload).is_err() {
            // It is to be found as it came.
            let mut mask = header.mask;
            mask.apply(payload);
            return None;
        }
        Some((kind, range))
    }

    /// Gives back the memory of a message that the last event lent, if `decode` is not called soon.
    pub fn release(&mut self) {
        if let State::Lent = self.state {
            self.finish(State::Header);
        }
    }

    /// Whether no part of a message is held.
    pub fn is_idle(&self) -> bool {
        self.kind.is_none()
    }

    /// Bytes of memory held for the unfinished message, beside what inflating takes.
    pub fn buffered(&self) -> usize {
        self.message.capacity()
    }

    fn with_role(role: Role, limits: Limits) -> Self {
        Self {
            message: Vec::new(),
            inflater: None,
            state: State::Header,
            max_message_size: u32::try_from(limits.max_message_size).unwrap_or(u32::MAX),
            max_fragments: limits.max_fragments,
            fragments: 0,
            checked: 0,
            kind: None,
            compressed: false,
            deflate: Compression::None,
            role,
        }
    }

    /// Goes forward to the next event, or to the end of what `input` allows.
    fn advance(
        &mut self,
        input: &mut [u8],
        budget: &mut usize,
    ) -> Result<(usize, Option<Found>), ProtocolError> {
        let mut used = 0;
        loop {
            match self.state {
                State::Header => {
                    let deflate = self.deflate != Compression::None;
                    let header = Header::parse(&input[used..], self.role, deflate)?;
                    let Some(header) = header else {
                        return Ok((used, None));
                    };
                    let len = self.admit(&header)?;
                    let start = used + header.len;
                    let is_whole = input.len() - start >= len as usize;

                    let is_control = header.opcode.is_control();
                    let is_plain = header.fin && self.kind.is_none() && !header.compressed;
                    if is_whole && (is_control || is_plain) {
                        let range = start..start + len as usize;
                        let mut mask = header.mask;
                        mask.apply(&mut input[range.clone()]);
                        return Ok((range.end, Some(Found::InInput(header.opcode, range))));
                    }
                    if is_control {
                        return Ok((used, None));
                    }

                    used = start;
                    self.begin_frame(&header)?;
                    self.state = State::Payload {
                        left: len,
                        mask: header.mask,
                        fin: header.fin,
                    };
                }
                State::Payload {
                    left,
                    mut mask,
                    fin,
                } => {
                    let available = &mut input[used..];
                    let len = available.len().min(left as usize);
                    let payload = &mut available[..len];
                    let masked = mask;
                    mask.apply(payload);
                    let taken = self.append(payload, left as usize, budget)?;
                    used += taken;

                    let left = left - taken as u32;
                    if taken < len {
                        // What is left is to come again as it came.
                        mask = masked.after(taken);
                        let mut again = mask;
                        again.apply(&mut payload[taken..]);
                    }
                    if left > 0 {
                        self.state = State::Payload { left, mask, fin };
                        return Ok((used, None));
                    }
                    self.state = State::Header;
                    if fin && self.compressed {
                        self.finish_inflating()?;
                    }
                    if let Some(kind) = self.kind.take_if(|_| fin) {
                        self.state = State::Lent;
                        if kind == MessageKind::Text && (self.checked as usize) < self.message.len()
                        {
                            return Err(ProtocolError::InvalidText);
                        }
                        return Ok((used, Some(Found::InMessage(kind))));
                    }
                }
                State::Lent => self.finish(State::Header),
                State::Closed => return Ok((input.len(), None)),
                State::Failed(error) => return Err(error),
            }
        }
    }

    /// Whether the frame may come now and fits; gives its payload length.
    fn admit(&self, header: &Header) -> Result<u32, ProtocolError> {
        match header.opcode {
            Opcode::Continuation if self.kind.is_none() => {
                return Err(ProtocolError::UnexpectedContinuation);
            }
            Opcode::Text | Opcode::Binary if self.kind.is_some() => {
                return Err(ProtocolError::UnfinishedMessage);
            }
            _ => {}
        }
        let limit = self.max_message_size;
        let room = if header.opcode.is_control() {
            // The header has bounded its payload, which counts for no message.
            u64::from(u32::MAX)
        } else if self.compressed || header.compressed {
            // What comes out is what counts. Even what cannot be compressed grows by less.
            u64::from(limit.saturating_add(limit / 4).saturating_add(64))
        } else {
            u64::from(limit) - self.message.len() as u64
        };
        if header.payload_len > room {
            return Err(ProtocolError::MessageTooBig { limit });
        }
        Ok(header.payload_len as u32)
    }

    /// A data frame begins whose payload is to be kept.
    fn begin_frame(&mut self, header: &Header) -> Result<(), ProtocolError> {
        if self.kind.is_none() {
            self.kind = header.opcode.message_kind();
            self.compressed = header.compressed;
        }
        self.fragments += 1;
        match self.fragments > self.max_fragments {
            true => Err(ProtocolError::TooManyFragments {
                limit: self.max_fragments,
            }),
            false => Ok(()),
        }
    }

    /// Inflates the next bytes of the message, as far as the budget goes; gives how many.
    fn inflate(&mut self, payload: &[u8], budget: &mut usize) -> Result<usize, ProtocolError> {
        let limit = self.max_message_size;
        let inflater = self
            .inflater
            .get_or_insert_with(|| Box::new(Inflater::new()));
        let result = inflater.inflate(payload, &mut self.message, limit, budget);
        // What came out before it failed counts: the error must not depend on the cuts.
        self.check_text()?;
        result
    }

    /// Inflates the end of the message, which is not sent.
    fn finish_inflating(&mut self) -> Result<(), ProtocolError> {
        let limit = self.max_message_size;
        let inflater = self
            .inflater
            .get_or_insert_with(|| Box::new(Inflater::new()));
        let result = inflater.finish(&mut self.message, limit);
        self.check_text()?;
        result
    }

    /// Adds the next bytes of a frame that still has `left` of them, these included. Gives how many:
    /// all of them, unless inflating them has used up the budget.
    fn append(
        &mut self,
        payload: &[u8],
        left: usize,
        budget: &mut usize,
    ) -> Result<usize, ProtocolError> {
        if self.compressed {
            return self.inflate(payload, budget);
        }
        let needed = self.message.len() + payload.len();
        if needed > self.message.capacity() {
            // Doubles as bytes arrive, up to what the frame announces: the announcement
            // alone costs the peer nothing and so must cost us nothing.
            let announced = self.message.len() + left;
            let capacity = (2 * self.message.capacity()).clamp(needed, announced);
            self.message.reserve_exact(capacity - self.message.len());
        }
        self.message.extend_from_slice(payload);
        self.check_text()?;
        Ok(payload.len())
    }

    /// Checks what is new in a text message, so that it fails early.
    fn check_text(&mut self) -> Result<(), ProtocolError> {
        if self.kind == Some(MessageKind::Text) {
            let new = &self.message[self.checked as usize..];
            self.checked += match simdutf8::compat::from_utf8(new) {
                Ok(text) => text.len(),
                Err(error) if error.error_len().is_some() => {
                    return Err(ProtocolError::InvalidText);
                }
                // The last character has not wholly arrived.
                Err(error) => error.valid_up_to(),
            } as u32;
        }
        Ok(())
    }

    fn fail(&mut self, error: ProtocolError) {
        self.finish(State::Failed(error));
    }

    /// Gives the memory back.
    fn finish(&mut self, state: State) {
        self.message = Vec::new();
        self.checked = 0;
        self.fragments = 0;
        self.kind = None;
        self.compressed = false;
        let goes_on = matches!(state, State::Header);
        if self.deflate != Compression::Takeover || !goes_on {
            self.inflater = None;
        }
        self.state = state;
    }
}

impl<'a> Event<'a> {
    /// The event that a whole frame makes.
    fn from_frame(opcode: Opcode, payload: &'a [u8]) -> Result<Self, ProtocolError> {
        match opcode {
            Opcode::Text => simdutf8::basic::from_utf8(payload)
                .map(Event::Text)
                .map_err(|_| ProtocolError::InvalidText),
            Opcode::Binary | Opcode::Continuation => Ok(Event::Binary(payload)),
            Opcode::Ping => Ok(Event::Ping(payload)),
            Opcode::Pong => Ok(Event::Pong(payload)),
            Opcode::Close => parse_close(payload).map(Event::Close),
        }
    }
}

fn parse_close(payload: &[u8]) -> Result<Option<(u16, &str)>, ProtocolError> {
    let (code, reason) = match payload.split_first_chunk::<2>() {
        Some((code, reason)) => (u16::from_be_bytes(*code), reason),
        None if payload.is_empty() => return Ok(None),
        None => return Err(ProtocolError::TruncatedCloseCode),
    };
    if !CloseCode(code).is_sendable() {
        return Err(ProtocolError::InvalidCloseCode(code));
    }
    let reason = std::str::from_utf8(reason).map_err(|_| ProtocolError::InvalidCloseReason)?;
    Ok(Some((code, reason)))
}

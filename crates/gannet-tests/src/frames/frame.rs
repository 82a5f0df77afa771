//! Frames of HTTP/2 as bytes: right ones, and wrong ones on purpose.

/// A frame, to be sent or as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its type: see [`kind`].
    pub kind: u8,
    /// Its flags: see [`flag`].
    pub flags: u8,
    /// Its stream, with the reserved bit if that is set.
    pub stream: u32,
    /// What follows the nine bytes of the frame header.
    pub payload: Vec<u8>,
    /// The length that the header states, if that is not the payload's.
    length: Option<usize>,
}

/// A frame of any kind.
pub fn raw(kind: u8, flags: u8, stream: u32, payload: impl Into<Vec<u8>>) -> Frame {
    Frame {
        kind,
        flags,
        stream,
        payload: payload.into(),
        length: None,
    }
}

/// A part of a body.
pub fn data(stream: u32, payload: impl Into<Vec<u8>>) -> Frame {
    raw(kind::DATA, 0, stream, payload)
}

/// A whole field block: a request, or trailers.
pub fn headers(stream: u32, block: impl Into<Vec<u8>>) -> Frame {
    raw(kind::HEADERS, flag::END_HEADERS, stream, block)
}

/// The last part of a field block.
pub fn continuation(stream: u32, block: impl Into<Vec<u8>>) -> Frame {
    raw(kind::CONTINUATION, flag::END_HEADERS, stream, block)
}

/// A priority, of the kind that means nothing any more.
pub fn priority(stream: u32, depends_on: u32, weight: u8) -> Frame {
    let fields = [&depends_on.to_be_bytes()[..], &[weight]].concat();
    raw(kind::PRIORITY, 0, stream, fields)
}

/// Gives a stream up.
pub fn rst_stream(stream: u32, code: u32) -> Frame {
    raw(kind::RST_STREAM, 0, stream, code.to_be_bytes())
}

/// Settings: see [`setting`].
pub fn settings(values: &[(u16, u32)]) -> Frame {
    let entry = |&(id, value): &(u16, u32)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat();
    let payload: Vec<u8> = values.iter().flat_map(entry).collect();
    raw(kind::SETTINGS, 0, 0, payload)
}

/// Says that the server's settings hold from here on.
pub fn settings_ack() -> Frame {
    raw(kind::SETTINGS, flag::ACK, 0, [])
}

/// What a client must never send.
pub fn push_promise(stream: u32, promised: u32, block: impl AsRef<[u8]>) -> Frame {
    let payload = [&promised.to_be_bytes()[..], block.as_ref()].concat();
    raw(kind::PUSH_PROMISE, flag::END_HEADERS, stream, payload)
}

/// A ping.
pub fn ping(opaque: [u8; 8]) -> Frame {
    raw(kind::PING, 0, 0, opaque)
}

/// Says farewell.
pub fn goaway(last: u32, code: u32) -> Frame {
    let payload = [last.to_be_bytes(), code.to_be_bytes()].concat();
    raw(kind::GOAWAY, 0, 0, payload)
}

/// Lets the server send so much more.
pub fn window_update(stream: u32, increment: u32) -> Frame {
    raw(kind::WINDOW_UPDATE, 0, stream, increment.to_be_bytes())
}

impl Frame {
    /// The last frame of its stream.
    pub fn end_stream(self) -> Self {
        self.with(flag::END_STREAM)
    }

    /// With these flags too.
    pub fn with(mut self, flags: u8) -> Self {
        self.flags |= flags;
        self
    }

    /// Without these flags.
    pub fn without(mut self, flags: u8) -> Self {
        self.flags &= !flags;
        self
    }

    /// A field block that goes on in CONTINUATION frames.
    pub fn unfinished(self) -> Self {
        self.without(flag::END_HEADERS)
    }

    /// On another stream: wrong for many kinds.
    pub fn on(mut self, stream: u32) -> Self {
        self.stream = stream;
        self
    }

    /// With so much padding.
    pub fn padded(self, length: u8) -> Self {
        let padding = vec![0; usize::from(length)];
        self.padded_as(length, &padding)
    }

    /// With a padding that says it is `length` long, and is this one.
    pub fn padded_as(mut self, length: u8, padding: &[u8]) -> Self {
        self.payload.insert(0, length);
        self.payload.extend_from_slice(padding);
        self.with(flag::PADDED)
    }

    /// With the priority fields of HEADERS.
    pub fn prioritized(mut self, depends_on: u32, weight: u8) -> Self {
        let fields = [&depends_on.to_be_bytes()[..], &[weight]].concat();
        self.payload.splice(0..0, fields);
        self.with(flag::PRIORITY)
    }

    /// With a header that states another length than the payload has.
    pub fn claiming(mut self, length: usize) -> Self {
        self.length = Some(length);
        self
    }

    /// As it goes over the wire.
    pub fn bytes(&self) -> Vec<u8> {
        let length = u32::try_from(self.length.unwrap_or(self.payload.len())).expect("24 bits");
        let mut bytes = length.to_be_bytes()[1..].to_vec();
        bytes.extend([self.kind, self.flags]);
        bytes.extend(self.stream.to_be_bytes());
        bytes.extend(&self.payload);
        bytes
    }

    /// Whether it has this flag.
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// A number of four bytes in the payload.
    pub(super) fn number(&self, at: usize) -> u32 {
        let bytes = self.payload.get(at..at + 4).expect("four bytes");
        u32::from_be_bytes(bytes.try_into().expect("four bytes"))
    }

    /// The settings in the payload.
    pub(super) fn entries(&self) -> Vec<(u16, u32)> {
        let entry = |entry: &[u8]| {
            let (id, value) = entry.split_at(2);
            let id = u16::from_be_bytes(id.try_into().expect("two bytes"));
            (
                id,
                u32::from_be_bytes(value.try_into().expect("four bytes")),
            )
        };
        self.payload.chunks_exact(6).map(entry).collect()
    }
}

impl From<Frame> for Vec<u8> {
    fn from(frame: Frame) -> Self {
        frame.bytes()
    }
}

impl From<&Frame> for Vec<u8> {
    fn from(frame: &Frame) -> Self {
        frame.bytes()
    }
}

/// Takes the first whole frame off the bytes.
pub(super) fn split(bytes: &[u8]) -> Option<(Frame, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<9>()?;
    let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
    let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
    let payload = rest.get(..length)?;
    Some((raw(head[3], head[4], stream, payload), &rest[length..]))
}

/// Types of frames.
#[allow(missing_docs)]
pub mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PUSH_PROMISE: u8 = 5;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

/// Flags of frames.
#[allow(missing_docs)]
pub mod flag {
    pub const ACK: u8 = 0x1;
    pub const END_STREAM: u8 = 0x1;
    pub const END_HEADERS: u8 = 0x4;
    pub const PADDED: u8 = 0x8;
    pub const PRIORITY: u8 = 0x20;
}

/// Names of settings.
#[allow(missing_docs)]
pub mod setting {
    pub const HEADER_TABLE_SIZE: u16 = 1;
    pub const ENABLE_PUSH: u16 = 2;
    pub const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub const INITIAL_WINDOW_SIZE: u16 = 4;
    pub const MAX_FRAME_SIZE: u16 = 5;
    pub const MAX_HEADER_LIST_SIZE: u16 = 6;
    pub const ENABLE_CONNECT_PROTOCOL: u16 = 8;
}

/// Error codes.
#[allow(missing_docs)]
pub mod code {
    pub const NO_ERROR: u32 = 0;
    pub const PROTOCOL_ERROR: u32 = 1;
    pub const INTERNAL_ERROR: u32 = 2;
    pub const FLOW_CONTROL_ERROR: u32 = 3;
    pub const SETTINGS_TIMEOUT: u32 = 4;
    pub const STREAM_CLOSED: u32 = 5;
    pub const FRAME_SIZE_ERROR: u32 = 6;
    pub const REFUSED_STREAM: u32 = 7;
    pub const CANCEL: u32 = 8;
    pub const COMPRESSION_ERROR: u32 = 9;
    pub const CONNECT_ERROR: u32 = 10;
    pub const ENHANCE_YOUR_CALM: u32 = 11;
    pub const INADEQUATE_SECURITY: u32 = 12;
    pub const HTTP_1_1_REQUIRED: u32 = 13;
}

/// What every client sends first.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

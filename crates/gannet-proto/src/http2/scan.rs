//! The frames of a client, seen as they pass by (RFC 9113 section 4.1).
//!
//! The library that takes them bounds some of what a client may send; this makes it possible to
//! count the rest without a second parser: only the nine bytes in front of each frame are looked at.

/// What every connection begins with.
pub const PREFACE: [u8; 24] = *b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Sees where frames begin, however the bytes are cut.
#[derive(Clone, Debug)]
pub struct Scan {
    /// The bytes of a frame's head that have come.
    head: [u8; HEAD],
    len: u8,
    /// Bytes until the next frame.
    skip: u32,
}

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub kind: Kind,
    /// Its flags; what they mean depends on the kind.
    pub flags: u8,
    /// Bytes behind the head.
    pub len: u32,
    /// Its stream, 0 for the connection.
    pub stream: u32,
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "they have the names of the RFC")]
pub enum Kind {
    Data,
    Headers,
    Priority,
    ResetStream,
    Settings,
    PushPromise,
    Ping,
    GoAway,
    WindowUpdate,
    Continuation,
    Unknown,
}

impl Default for Scan {
    /// In front of the preface.
    fn default() -> Self {
        Scan {
            head: [0; HEAD],
            len: 0,
            skip: PREFACE.len() as u32,
        }
    }
}

impl Scan {
    /// What `input` has of the payload of the frame that was seen last (or of the preface); moves `input`
    /// behind it.
    pub fn payload<'a>(&mut self, input: &mut &'a [u8]) -> &'a [u8] {
        let (payload, rest) = input.split_at(input.len().min(self.skip as usize));
        self.skip -= payload.len() as u32;
        *input = rest;
        payload
    }

    /// Goes on in `input`: gives the next frame that begins in it, and moves `input` behind its head.
    pub fn next(&mut self, input: &mut &[u8]) -> Option<Frame> {
        let skipped = input.len().min(self.skip as usize);
        self.skip -= skipped as u32;
        *input = &input[skipped..];
        if self.skip > 0 {
            return None;
        }
        let missing = HEAD - usize::from(self.len);
        let taken = missing.min(input.len());
        let (now, later) = input.split_at(taken);
        self.head[usize::from(self.len)..][..taken].copy_from_slice(now);
        *input = later;
        self.len += taken as u8;
        if taken < missing {
            return None;
        }
        self.len = 0;
        let [a, b, c, kind, flags, s0, s1, s2, s3] = self.head;
        let frame = Frame {
            kind: Kind::of(kind),
            flags,
            len: u32::from_be_bytes([0, a, b, c]),
            stream: u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]),
        };
        self.skip = frame.len;
        Some(frame)
    }
}

impl Frame {
    /// `ACK` of SETTINGS and PING, `END_STREAM` of DATA and HEADERS.
    pub fn is_first_flag(self) -> bool {
        self.flags & 0x1 != 0
    }

    /// `END_HEADERS` of HEADERS and CONTINUATION.
    pub fn ends_headers(self) -> bool {
        self.flags & 0x4 != 0
    }
}

impl Kind {
    fn of(number: u8) -> Self {
        match number {
            0 => Kind::Data,
            1 => Kind::Headers,
            2 => Kind::Priority,
            3 => Kind::ResetStream,
            4 => Kind::Settings,
            5 => Kind::PushPromise,
            6 => Kind::Ping,
            7 => Kind::GoAway,
            8 => Kind::WindowUpdate,
            9 => Kind::Continuation,
            _ => Kind::Unknown,
        }
    }
}

const HEAD: usize = 9;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_the_same_however_the_bytes_are_cut() {
        let mut wire = PREFACE.to_vec();
        wire.extend_from_slice(&[0, 0, 0, 4, 1, 0, 0, 0, 0]);
        wire.extend_from_slice(&[0, 0, 3, 0, 1, 0x80, 0, 0, 5, 9, 9, 9]);
        wire.extend_from_slice(&[0, 0, 1, 77, 0, 0, 0, 1, 0, 9]);
        let all = |cut: usize| {
            let (mut scan, mut frames) = (Scan::default(), Vec::new());
            for mut piece in wire.chunks(cut) {
                while let Some(frame) = scan.next(&mut piece) {
                    frames.push(frame);
                }
                assert!(piece.is_empty());
            }
            frames
        };
        let whole = all(wire.len());
        let kinds: Vec<_> = whole.iter().map(|frame| frame.kind).collect();
        assert_eq!(kinds, [Kind::Settings, Kind::Data, Kind::Unknown]);
        assert!(whole[0].is_first_flag() && whole[0].stream == 0);
        assert_eq!((whole[1].len, whole[1].stream), (3, 5));
        assert_eq!(whole[2].stream, 256);
        for cut in 1..wire.len() {
            assert_eq!(all(cut), whole, "cut at {cut}");
        }
    }
}

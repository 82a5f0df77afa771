//! What the standard demands of a client's frames, and the library does not tell as it should.
//!
//! The library takes the frames, and most of what is wrong with them it says with `PROTOCOL_ERROR`, some
//! of it not at all. These rules look at each frame before it does, and give the code that RFC 9113
//! names:
//!
//! | rule | code | section |
//! |---|---|---|
//! | SETTINGS come first | `PROTOCOL_ERROR` | 3.4 |
//! | field blocks are not interrupted | `PROTOCOL_ERROR` | 4.3, 6.10 |
//! | frames have the size of their kind | `FRAME_SIZE_ERROR` | 4.2, 6 |
//! | field blocks can be decoded | `COMPRESSION_ERROR` | 4.3 |
//! | a window is 2^31-1 at most | `FLOW_CONTROL_ERROR` | 6.5.2 |
//! | nothing follows the end of a stream | `STREAM_CLOSED` | 5.1, 6.1 |
//! | trailers have no pseudo-header fields, a path no fragment | `PROTOCOL_ERROR` | 8.1, 8.3.1 |
//!
//! The last is an error of a stream, which may be one of the connection (section 5.4.1): the field block
//! has to be taken from the client whole, and the library does so only together with the request.
//!
//! What it does not know it leaves to the library: a frame that passes may still be wrong.

use std::collections::VecDeque;

use super::{
    hpack::Blocks,
    scan::{Frame, Kind},
};

/// The rules, and what they have to remember of a connection: the streams that its client has not
/// ended, those that it ended last, and sizes of fields.
#[derive(Debug)]
pub struct Rules {
    is_greeted: bool,
    /// The greatest stream.
    newest: u32,
    /// Streams that the client has opened, and neither ended nor given up.
    open: Vec<u32>,
    /// Streams that it ended, the newest last.
    ended: VecDeque<u32>,
    blocks: Blocks,
    /// The stream whose field block goes on in CONTINUATION.
    unfinished: Option<u32>,
    /// The block that is under way is one of trailers.
    is_trailers: bool,
    /// What has come of it.
    block: Vec<u8>,
    max_block: usize,
    /// The payload that is under way.
    payload: Payload,
    /// The setting that is under way.
    entry: Vec<u8>,
}

/// What the bytes behind a frame's head are.
#[derive(Clone, Copy, Debug)]
enum Payload {
    Settings,
    /// Of a field block: bytes before it (of which the first may be the length of the padding), of it,
    /// and behind it; and whether the block ends there.
    Block {
        before: u32,
        is_padded: bool,
        len: u32,
        ends: bool,
    },
    Other,
}

/// A frame that ends the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Violation {
    /// The error code of GOAWAY.
    pub code: u32,
    /// What is wrong.
    pub message: &'static str,
}

impl Rules {
    /// The rules for a connection whose field blocks have at most so many bytes.
    pub fn new(max_block: usize) -> Self {
        Rules {
            is_greeted: false,
            newest: 0,
            open: Vec::new(),
            ended: VecDeque::new(),
            blocks: Blocks::default(),
            unfinished: None,
            is_trailers: false,
            block: Vec::new(),
            max_block,
            payload: Payload::Other,
            entry: Vec::new(),
        }
    }

    /// Judges a frame by its head.
    ///
    /// # Errors
    ///
    /// The rule that it breaks.
    pub fn frame(&mut self, frame: Frame) -> Result<(), Violation> {
        self.payload = Payload::Other;
        let is_settings = frame.kind == Kind::Settings && !frame.is_first_flag();
        if !self.is_greeted && !is_settings {
            return Err(protocol("SETTINGS have to come first"));
        }
        self.is_greeted = true;
        if let Some(stream) = self.unfinished
            && (frame.kind != Kind::Continuation || frame.stream != stream)
        {
            return Err(protocol("a field block that is interrupted"));
        }
        check_size(frame)?;
        match frame.kind {
            Kind::Settings => self.payload = Payload::Settings,
            Kind::Headers => {
                self.opens(frame)?;
                self.begin_block(frame);
            }
            Kind::Continuation => self.begin_block(frame),
            Kind::Data => {
                // On stream 0, and on streams of the server, it is wrong in another way.
                let is_known = frame.stream % 2 == 1 && frame.stream <= self.newest;
                if is_known && !self.open.contains(&frame.stream) {
                    return Err(closed());
                }
                if frame.is_first_flag() {
                    self.ends(frame.stream);
                }
            }
            Kind::ResetStream => self.open.retain(|&stream| stream != frame.stream),
            _ => {}
        }
        match self.payload {
            Payload::Block { len: 0, .. } => self.end_block(&[]),
            _ => Ok(()),
        }
    }

    /// Judges a part of the payload of the frame before it.
    ///
    /// # Errors
    ///
    /// The rule that it breaks.
    pub fn payload(&mut self, part: &[u8]) -> Result<(), Violation> {
        match self.payload {
            _ if part.is_empty() => Ok(()),
            Payload::Settings => self.settings(part),
            Payload::Block { .. } => self.part_of_block(part),
            Payload::Other => Ok(()),
        }
    }

    fn settings(&mut self, part: &[u8]) -> Result<(), Violation> {
        for &byte in part {
            self.entry.push(byte);
            if let [0, INITIAL_WINDOW_SIZE, high, ..] = self.entry[..]
                && high & 0x80 != 0
            {
                let message = "a window over 2^31-1 in SETTINGS";
                return Err(Violation {
                    code: FLOW_CONTROL_ERROR,
                    message,
                });
            }
            if self.entry.len() == SETTING {
                self.entry.clear();
            }
        }
        Ok(())
    }

    /// HEADERS open a stream, or are trailers.
    fn opens(&mut self, frame: Frame) -> Result<(), Violation> {
        let stream = frame.stream;
        self.is_trailers = stream <= self.newest;
        if stream > self.newest {
            self.newest = stream;
            if self.open.len() == MOST_OPEN {
                let message = "too many streams that were not ended";
                return Err(Violation {
                    code: ENHANCE_YOUR_CALM,
                    message,
                });
            }
            self.open.push(stream);
        } else if self.ended.contains(&stream) {
            return Err(closed());
        }
        if frame.is_first_flag() {
            self.ends(stream);
        }
        Ok(())
    }

    fn ends(&mut self, stream: u32) {
        if let Some(at) = self.open.iter().position(|&it| it == stream) {
            self.open.swap_remove(at);
            if self.ended.len() == REMEMBERED {
                self.ended.pop_front();
            }
            self.ended.push_back(stream);
        }
    }

    fn begin_block(&mut self, frame: Frame) {
        self.unfinished = (!frame.ends_headers()).then_some(frame.stream);
        let is_headers = frame.kind == Kind::Headers;
        let is_padded = is_headers && frame.flags & PADDED != 0;
        let has_priority = is_headers && frame.flags & PRIORITY != 0;
        self.payload = Payload::Block {
            before: u32::from(is_padded) + if has_priority { 5 } else { 0 },
            is_padded,
            len: frame.len,
            ends: frame.ends_headers(),
        };
    }

    /// `len` counts down what is left of the payload, padding included until its length is known.
    fn part_of_block(&mut self, mut part: &[u8]) -> Result<(), Violation> {
        let Payload::Block {
            before,
            is_padded,
            len,
            ends,
        } = &mut self.payload
        else {
            return Ok(());
        };
        if *is_padded && let Some((&padding, rest)) = part.split_first() {
            *is_padded = false;
            *before -= 1;
            // Padding that is too long is the library's to tell.
            *len = (*len - 1).saturating_sub(u32::from(padding));
            part = rest;
        }
        let skipped = part.len().min(*before as usize);
        *before -= skipped as u32;
        *len = len.saturating_sub(skipped as u32);
        part = &part[skipped..];
        let taken = part.len().min(*len as usize);
        *len -= taken as u32;
        let is_whole = *len == 0 && *before == 0;
        let (ends, part) = (*ends, &part[..taken]);
        if is_whole && ends {
            return self.end_block(part);
        }
        if is_whole {
            self.payload = Payload::Other;
        }
        if self.block.len() + part.len() > self.max_block {
            let message = "a field block that is too large";
            return Err(Violation {
                code: ENHANCE_YOUR_CALM,
                message,
            });
        }
        self.block.extend_from_slice(part);
        Ok(())
    }

    fn end_block(&mut self, last: &[u8]) -> Result<(), Violation> {
        let Payload::Block { ends, .. } = std::mem::replace(&mut self.payload, Payload::Other)
        else {
            return Ok(());
        };
        if !ends {
            return Ok(());
        }
        // One that comes in one piece is not copied.
        let taken = if self.block.is_empty() {
            self.blocks.take(last)
        } else {
            let mut block = std::mem::take(&mut self.block);
            block.extend_from_slice(last);
            self.blocks.take(&block)
        };
        let found = taken.map_err(|message| Violation {
            code: COMPRESSION_ERROR,
            message,
        })?;
        if found.pseudo && self.is_trailers {
            return Err(protocol("trailers with a pseudo-header field"));
        }
        if found.wrong {
            return Err(protocol(":path has a fragment, or :scheme nothing"));
        }
        Ok(())
    }
}

/// The sizes of frames that have one. Those that are longer than the settings allow are the library's
/// to tell.
fn check_size(frame: Frame) -> Result<(), Violation> {
    let is_right = match frame.kind {
        Kind::Ping => frame.len == 8,
        Kind::ResetStream | Kind::WindowUpdate => frame.len == 4,
        Kind::Priority => frame.len == 5,
        Kind::GoAway => frame.len >= 8,
        Kind::Settings if frame.is_first_flag() => frame.len == 0,
        Kind::Settings => (frame.len as usize).is_multiple_of(SETTING),
        _ => true,
    };
    // A frame on a wrong stream is wrong in another way, whatever its size.
    let of_connection = matches!(frame.kind, Kind::Ping | Kind::GoAway | Kind::Settings);
    let is_lost = match frame.kind {
        Kind::WindowUpdate => false,
        _ => of_connection != (frame.stream == 0),
    };
    if is_right || is_lost {
        return Ok(());
    }
    let message = "a frame that has not the size of its kind";
    Err(Violation {
        code: FRAME_SIZE_ERROR,
        message,
    })
}

fn protocol(message: &'static str) -> Violation {
    Violation {
        code: PROTOCOL_ERROR,
        message,
    }
}

fn closed() -> Violation {
    let message = "a frame behind the end of its stream";
    Violation {
        code: STREAM_CLOSED,
        message,
    }
}

const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE_ERROR: u32 = 6;
const COMPRESSION_ERROR: u32 = 9;
const ENHANCE_YOUR_CALM: u32 = 11;

const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
const INITIAL_WINDOW_SIZE: u8 = 4;
/// Bytes of a setting.
const SETTING: usize = 6;
/// Streams that a client may leave without an end. Those that the server has reset count: that they
/// were reset is known only when the client ends them too.
const MOST_OPEN: usize = 4096;
/// Ended streams that are known as such. Of older ones the library says `PROTOCOL_ERROR`.
const REMEMBERED: usize = 256;

#[cfg(test)]
mod tests {
    use super::{
        super::scan::{PREFACE, Scan},
        *,
    };

    /// A frame as it goes over the wire.
    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut bytes = vec![len[1], len[2], len[3], kind, flags];
        bytes.extend(stream.to_be_bytes());
        bytes.extend(payload);
        bytes
    }

    /// What comes of these bytes behind preface and settings, however they are cut.
    fn judge(frames: &[Vec<u8>]) -> Option<u32> {
        let all = [&[frame(4, 0, 0, &[])], frames].concat();
        judge_all(&[PREFACE.to_vec(), all.concat()].concat())
    }

    fn judge_all(bytes: &[u8]) -> Option<u32> {
        let outcomes: Vec<_> = [1, 2, 7, bytes.len()]
            .into_iter()
            .map(|cut| {
                let (mut scan, mut rules) = (Scan::default(), Rules::new(1000));
                let mut run = |mut piece: &[u8]| {
                    loop {
                        rules.payload(scan.payload(&mut piece))?;
                        match scan.next(&mut piece) {
                            Some(frame) => rules.frame(frame)?,
                            None => return Ok::<(), Violation>(()),
                        }
                    }
                };
                let all = bytes.chunks(cut).try_for_each(&mut run);
                all.err().map(|it| it.code)
            })
            .collect();
        assert!(outcomes.iter().all(|it| *it == outcomes[0]), "{outcomes:?}");
        outcomes[0]
    }

    #[test]
    fn settings_come_first() {
        for (kind, flags, len) in [(6, 0, 8), (4, 1, 0), (1, 5, 0), (0, 0, 0), (200, 0, 0)] {
            let first = frame(kind, flags, 0, &vec![0; len]);
            let bytes = [PREFACE.to_vec(), first].concat();
            assert_eq!(judge_all(&bytes), Some(PROTOCOL_ERROR), "{kind}");
        }
        assert_eq!(judge(&[]), None);
    }

    #[test]
    fn frames_have_the_size_of_their_kind() {
        for (kind, flags, stream, right) in [
            (6, 0, 0, 8),
            (8, 0, 0, 4),
            (8, 0, 1, 4),
            (3, 0, 1, 4),
            (2, 0, 1, 5),
            (4, 1, 0, 0),
            (4, 0, 0, 6),
        ] {
            for len in 0..20 {
                let expected = (len != right && !(kind == 4 && flags == 0 && len % 6 == 0))
                    .then_some(FRAME_SIZE_ERROR);
                let payload = vec![0; len];
                assert_eq!(
                    judge(&[frame(kind, flags, stream, &payload)]),
                    expected,
                    "{kind} {len}"
                );
            }
        }
        assert_eq!(judge(&[frame(7, 0, 0, &[0; 7])]), Some(FRAME_SIZE_ERROR));
        assert_eq!(judge(&[frame(7, 0, 0, &[0; 30])]), None);
    }

    #[test]
    fn a_window_has_31_bits() {
        let window = |high: u8| frame(4, 0, 0, &[0, 3, 0xff, 0, 0, 0, 0, 4, high, 0xff, 0, 0]);
        assert_eq!(judge(&[window(0x7f)]), None);
        assert_eq!(judge(&[window(0x80)]), Some(FLOW_CONTROL_ERROR));
    }

    #[test]
    fn nothing_follows_the_end_of_a_stream() {
        let open = || frame(1, 4, 1, &[0x82]);
        let end = || frame(0, 1, 1, b"x");
        assert_eq!(judge(&[open(), frame(0, 0, 1, b"x"), end()]), None);
        assert_eq!(judge(&[open(), end(), end()]), Some(STREAM_CLOSED));
        assert_eq!(judge(&[open(), end(), open()]), Some(STREAM_CLOSED));
        assert_eq!(judge(&[open(), frame(1, 5, 1, &[0x93])]), None);
        let reset = || frame(3, 0, 1, &[0; 4]);
        assert_eq!(judge(&[open(), reset(), end()]), Some(STREAM_CLOSED));
        // These the library knows.
        assert_eq!(
            judge(&[end(), frame(0, 0, 0, b"x"), frame(0, 0, 2, b"x")]),
            None
        );
    }

    #[test]
    fn a_block_is_found_among_padding_priority_and_continuations() {
        let block = [0x82, 0x40, 1, b'x', 1, b'y'];
        let padded = [&[3, 0, 0, 0, 0, 9][..], &block, &[0; 3]].concat();
        let whole = frame(1, 0x2c, 1, &padded);
        // It has left an entry in the table, and no other.
        let known = |index| frame(1, 4, 3, &[index]);
        assert_eq!(judge(&[whole.clone(), known(0xbe)]), None);
        assert_eq!(judge(&[whole, known(0xbf)]), Some(COMPRESSION_ERROR));
        let cut = [
            frame(
                1,
                0x28,
                1,
                &[&[3, 0, 0, 0, 0, 9][..], &block[..2], &[0; 3]].concat(),
            ),
            frame(9, 0, 1, &[]),
            frame(9, 0, 1, &block[2..4]),
            frame(9, 4, 1, &block[4..]),
            known(0xbe),
        ];
        assert_eq!(judge(&cut), None);
        assert_eq!(judge(&[frame(1, 0, 1, &[0x82]), frame(9, 4, 1, &[])]), None);
        assert_eq!(
            judge(&[frame(1, 0, 1, &[0x40]), frame(9, 4, 1, &[])]),
            Some(COMPRESSION_ERROR)
        );
        assert_eq!(judge(&[frame(1, 4, 1, &[])]), None);
    }

    #[test]
    fn a_block_is_not_interrupted() {
        let begin = || frame(1, 0, 1, &[0x82]);
        for other in [
            frame(9, 4, 3, &[]),
            frame(1, 5, 1, &[]),
            frame(0, 0, 1, &[]),
            frame(6, 0, 0, &[]),
            frame(200, 0, 0, &[]),
        ] {
            assert_eq!(judge(&[begin(), other]), Some(PROTOCOL_ERROR));
        }
        let end = frame(9, 4, 1, &[]);
        assert_eq!(judge(&[begin(), end, frame(6, 0, 0, &[0; 8])]), None);
    }

    #[test]
    fn trailers_have_no_pseudo_header_fields() {
        let with = |flags, block: &[u8]| {
            let request = frame(1, 4, 1, &[0x82]);
            judge(&[request, frame(1, flags, 1, block)])
        };
        assert_eq!(with(5, &[0, 1, b'x', 0]), None);
        assert_eq!(with(5, &[0x84]), Some(PROTOCOL_ERROR));
        let fragment = frame(1, 5, 1, b"\x04\x02/#");
        assert_eq!(judge(&[fragment]), Some(PROTOCOL_ERROR));
    }

    #[test]
    fn a_block_has_a_limit() {
        let parts = |count| {
            let mut frames = vec![frame(1, 0, 1, &[0x82; 100])];
            frames.extend((0..count).map(|_| frame(9, 0, 1, &[0x82; 100])));
            frames
        };
        assert_eq!(judge(&parts(9)), None);
        assert_eq!(judge(&parts(10)), Some(ENHANCE_YOUR_CALM));
    }
}

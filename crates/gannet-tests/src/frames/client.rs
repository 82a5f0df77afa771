//! The connection: what was sent, what may come back, and what did.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    io,
    net::SocketAddr,
};

use super::{
    answer::{Response, check_fields},
    frame::{
        self, Frame, PREFACE, code, flag, goaway, headers, kind, ping, raw, setting, settings,
        settings_ack, window_update,
    },
    hpack::{Decoder, Field, get},
};
use crate::tcp::TcpClient;

/// A connection. A server that breaks the protocol fails the test.
#[derive(Debug)]
pub struct RawHttp2 {
    tcp: TcpClient,
    decoder: Decoder,
    streams: HashMap<u32, Stream>,
    /// Read, and not asked for yet.
    waiting: VecDeque<Event>,
    /// What was sent and is no whole frame yet.
    sent: Vec<u8>,
    /// The greatest stream that was opened.
    opened: u32,
    /// Settings that the server has not acknowledged, oldest first.
    unacknowledged: VecDeque<Vec<(u16, u32)>>,
    /// What the server may send on all streams together.
    window: i64,
    /// What the client may send on all streams together.
    room: i64,
    /// What the server may send on a new stream.
    initial_window: i64,
    max_frame_size: usize,
    server: BTreeMap<u16, u32>,
    greeted: bool,
    /// The last stream that the server says it has taken, once it has said farewell.
    last: Option<u32>,
    refills: bool,
    trusts: bool,
    ended: bool,
}

/// What the server said.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Event {
    /// A whole field block.
    Headers {
        stream: u32,
        fields: Vec<Field>,
        end: bool,
    },
    /// A part of a body, without its padding.
    Data {
        stream: u32,
        data: Vec<u8>,
        end: bool,
    },
    Reset {
        stream: u32,
        code: u32,
    },
    Settings(Vec<(u16, u32)>),
    SettingsAck,
    Ping([u8; 8]),
    Pong([u8; 8]),
    GoAway {
        last: u32,
        code: u32,
        debug: String,
    },
    WindowUpdate {
        stream: u32,
        increment: u32,
    },
    /// The end of the TCP stream; false for a reset.
    End(bool),
}

/// What is known of a stream on which the server has said something, or may.
#[derive(Debug, Default)]
struct Stream {
    /// What has come, less what was allowed with WINDOW_UPDATE.
    used: i64,
    /// What was sent, less what the server allowed with WINDOW_UPDATE.
    sent: i64,
    answered: bool,
    ended: bool,
    reset: bool,
}

impl RawHttp2 {
    /// Connects, sends the preface with empty settings, and waits until both sides have
    /// acknowledged the other's.
    pub fn connect(address: SocketAddr) -> Self {
        Self::connect_with(address, &[])
    }

    /// The same with these settings.
    pub fn connect_with(address: SocketAddr, values: &[(u16, u32)]) -> Self {
        let mut client = Self::silent(TcpClient::connect(address));
        client.greet(values);
        client
    }

    /// A connection on which nothing was sent.
    pub fn silent(tcp: TcpClient) -> Self {
        RawHttp2 {
            tcp,
            decoder: Decoder::default(),
            streams: HashMap::new(),
            waiting: VecDeque::new(),
            sent: Vec::new(),
            opened: 0,
            unacknowledged: VecDeque::new(),
            window: DEFAULT_WINDOW,
            room: DEFAULT_WINDOW,
            initial_window: DEFAULT_WINDOW,
            max_frame_size: 16_384,
            server: BTreeMap::new(),
            greeted: false,
            last: None,
            refills: true,
            trusts: false,
            ended: false,
        }
    }

    /// Sends the preface with these settings and waits until both sides have acknowledged the
    /// other's.
    pub fn greet(&mut self, values: &[(u16, u32)]) {
        self.tcp.send(PREFACE);
        self.send(settings(values));
        self.expect(|event| matches!(event, Event::Settings(_)));
        self.send(settings_ack());
        self.expect(|event| matches!(event, Event::SettingsAck));
    }

    /// Gives the server no window back for what is read.
    pub fn hold_windows(mut self) -> Self {
        self.refills = false;
        self
    }

    /// Sends frames, or any bytes.
    pub fn send(&mut self, bytes: impl Into<Vec<u8>>) {
        self.try_send(bytes).expect("send");
    }

    /// Sends frames, or any bytes, if the server still takes them.
    pub fn try_send(&mut self, bytes: impl Into<Vec<u8>>) -> io::Result<()> {
        let bytes = bytes.into();
        self.note(&bytes);
        self.tcp.try_send(bytes)
    }

    /// Sends what is no part of any frame.
    pub fn send_preface(&mut self, bytes: &[u8]) {
        self.tcp.send(bytes);
    }

    /// `GET path` on this stream, and the answer.
    pub fn get(&mut self, stream: u32, path: &str) -> Response {
        self.send(headers(stream, get(path)).end_stream());
        self.response(stream)
    }

    /// The next thing that the server says, in order.
    pub fn event(&mut self) -> Event {
        match self.waiting.pop_front() {
            Some(event) => event,
            None => self.read(),
        }
    }

    /// The next thing that was read and not asked for.
    pub fn waiting(&mut self) -> Option<Event> {
        self.waiting.pop_front()
    }

    /// Sends the rest of a body as far as the server's windows let it, and the end of the stream.
    pub fn upload(&mut self, stream: u32, body: &[u8]) {
        let most = self
            .server_setting(setting::MAX_FRAME_SIZE)
            .unwrap_or(16_384);
        let mut rest = body;
        while !rest.is_empty() {
            let room = self.room(stream).min(i64::from(most));
            let Some(room) = usize::try_from(room).ok().filter(|&room| room > 0) else {
                let event = self.read();
                assert!(!self.ended, "the connection has ended: {:?}", self.waiting);
                self.waiting.push_back(event);
                continue;
            };
            let (part, behind) = rest.split_at(room.min(rest.len()));
            self.send(frame::data(stream, part));
            rest = behind;
        }
        self.send(frame::data(stream, []).end_stream());
    }

    /// How much may be sent on this stream.
    pub fn room(&self, stream: u32) -> i64 {
        let sent = self.streams.get(&stream).map_or(0, |stream| stream.sent);
        let initial = self.server_setting(setting::INITIAL_WINDOW_SIZE);
        let initial = initial.map_or(DEFAULT_WINDOW, i64::from);
        (initial - sent).min(self.room)
    }

    /// The next thing that is like this; what comes before waits for its turn.
    ///
    /// # Panics
    ///
    /// If the connection ends before, or nothing comes.
    pub fn expect(&mut self, mut is: impl FnMut(&Event) -> bool) -> Event {
        if let Some(at) = self.waiting.iter().position(&mut is) {
            return self.waiting.remove(at).expect("found");
        }
        loop {
            let event = self.read();
            if is(&event) {
                return event;
            }
            assert!(
                !self.ended,
                "the connection has ended; before it: {:?}",
                self.waiting
            );
            self.waiting.push_back(event);
        }
    }

    /// The answer on this stream, to its end.
    pub fn response(&mut self, stream: u32) -> Response {
        self.try_response(stream)
            .unwrap_or_else(|code| panic!("stream {stream} was reset: {code}"))
    }

    /// The answer on this stream, or the code of its reset.
    pub fn try_response(&mut self, stream: u32) -> Result<Response, u32> {
        let mut response: Option<Response> = None;
        let mut interim = Vec::new();
        loop {
            let end = match self.expect(|event| event.is_on(stream)) {
                Event::Headers { fields, end, .. } => {
                    match &mut response {
                        None => {
                            let next = Response::new(fields);
                            if next.status < 200 {
                                interim.push(next.status);
                            } else {
                                response = Some(next);
                            }
                        }
                        Some(response) => response.trailers = fields,
                    }
                    end
                }
                Event::Data { data, end, .. } => {
                    let response = response.as_mut().expect("headers come first");
                    response.body.extend(data);
                    end
                }
                Event::Reset { code, .. } => return Err(code),
                _ => false,
            };
            if end {
                let mut response = response.expect("an answer before the end");
                response.interim = interim;
                response.check_length();
                return Ok(response);
            }
        }
    }

    /// The headers of the answer on this stream.
    pub fn head(&mut self, stream: u32) -> Response {
        let is_head = |event: &Event| {
            matches!(event, Event::Headers { .. } | Event::Reset { .. }) && event.is_on(stream)
        };
        match self.expect(is_head) {
            Event::Headers { fields, .. } => Response::new(fields),
            other => panic!("no answer on {stream}: {other:?}"),
        }
    }

    /// The next part of a body, and whether it is the last.
    pub fn data(&mut self, stream: u32) -> (Vec<u8>, bool) {
        match self.expect(|event| event.is_on(stream) && !event.is_update()) {
            Event::Data { data, end, .. } => (data, end),
            other => panic!("no part of a body on {stream}: {other:?}"),
        }
    }

    /// The next `count` bytes of a body, whatever parts they come in.
    pub fn body(&mut self, stream: u32, count: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < count {
            let (mut data, end) = self.data(stream);
            let more = data.split_off(data.len().min(count - bytes.len()));
            bytes.extend(data);
            if !more.is_empty() {
                // What is not asked for yet is the next thing to come.
                let data = more;
                self.waiting.push_front(Event::Data { stream, data, end });
            } else {
                assert!(!end || bytes.len() == count, "the body ends: {bytes:?}");
            }
        }
        bytes
    }

    /// The code with which the server resets this stream.
    pub fn reset(&mut self, stream: u32) -> u32 {
        let is = |event: &Event| matches!(event, Event::Reset { stream: on, .. } if *on == stream);
        match self.expect(is) {
            Event::Reset { code, .. } => code,
            _ => unreachable!("asked for"),
        }
    }

    /// Sends a ping and waits for its answer: what was sent before is taken by then.
    pub fn sync(&mut self) {
        self.send(ping(*b"in sync?"));
        self.expect(|event| *event == Event::Pong(*b"in sync?"));
    }

    /// The server says farewell with one of these codes, and nothing comes behind it.
    pub fn expect_error(&mut self, codes: &[u32]) {
        let farewell = self.farewell();
        match farewell {
            Some((code, debug)) if !codes.contains(&code) => {
                panic!("GOAWAY with {code} ({debug}), not {codes:?}")
            }
            Some(_) => {}
            None => panic!("closed without GOAWAY, not with {codes:?}"),
        }
    }

    /// Everything to the end of the connection: the code of the last GOAWAY, with its text.
    pub fn farewell(&mut self) -> Option<(u32, String)> {
        let mut farewell = None;
        loop {
            match self.event() {
                Event::GoAway { code, debug, .. } => farewell = Some((code, debug)),
                Event::End(clean) => {
                    assert!(clean, "a reset, and no end of the stream; {farewell:?}");
                    return farewell;
                }
                _ => {}
            }
        }
    }

    /// What the server has set, by the last of its settings.
    pub fn server_setting(&self, id: u16) -> Option<u32> {
        self.server.get(&id).copied()
    }

    /// Somebody else writes to the socket too: the server may have been asked for anything.
    pub fn trust(&mut self) {
        self.opened = STREAM;
        self.trusts = true;
    }

    /// Whether the answer on this stream has come to its end.
    pub fn is_answered(&self, stream: u32) -> bool {
        self.streams.get(&stream).is_some_and(|stream| stream.ended)
    }

    /// How much the server may send now on this stream, by what it has acknowledged.
    pub fn window(&self, stream: u32) -> i64 {
        let used = self.streams.get(&stream).map_or(0, |stream| stream.used);
        self.initial_window - used
    }

    /// The connection itself.
    pub fn tcp(&mut self) -> &mut TcpClient {
        &mut self.tcp
    }

    /// Remembers what was sent as far as it says what the server may do.
    fn note(&mut self, bytes: &[u8]) {
        let mut sent = std::mem::take(&mut self.sent);
        sent.extend_from_slice(bytes);
        let mut rest = &sent[..];
        if !self.greeted && rest.len() >= PREFACE.len() {
            rest = rest.strip_prefix(PREFACE).unwrap_or(rest);
        }
        while let Some((frame, behind)) = frame::split(rest) {
            rest = behind;
            let stream = frame.stream & STREAM;
            match frame.kind {
                kind::HEADERS => self.opened = self.opened.max(stream),
                kind::DATA => {
                    let length = i64::try_from(frame.payload.len()).expect("24 bits");
                    self.room -= length;
                    self.streams.entry(stream).or_default().sent += length;
                }
                kind::SETTINGS if !frame.has(flag::ACK) && frame.payload.len() % 6 == 0 => {
                    self.unacknowledged.push_back(frame.entries());
                }
                kind::WINDOW_UPDATE if frame.payload.len() == 4 => {
                    let more = i64::from(frame.number(0) & STREAM);
                    if stream == 0 {
                        self.window += more;
                    } else {
                        self.streams.entry(stream).or_default().used -= more;
                    }
                }
                _ => {}
            }
        }
        self.sent = rest.to_vec();
    }

    /// Reads the next frame, or field block, and checks it.
    fn read(&mut self) -> Event {
        assert!(!self.ended, "read behind the end");
        let mut frame = match self.read_frame() {
            Ok(frame) => frame,
            Err(error) => {
                let clean = match error.kind() {
                    io::ErrorKind::UnexpectedEof => true,
                    io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => false,
                    _ => panic!(
                        "the server says nothing: {error}; before: {:?}",
                        self.waiting
                    ),
                };
                self.ended = true;
                return Event::End(clean);
            }
        };
        assert!(
            self.greeted || (frame.kind == kind::SETTINGS && !frame.has(flag::ACK)),
            "the server begins with {frame:?}"
        );
        self.greeted = true;
        if frame.has(flag::PADDED) && matches!(frame.kind, kind::DATA | kind::HEADERS) {
            let padding = usize::from(frame.payload.remove(0));
            let at = frame.payload.len().checked_sub(padding).expect("padding");
            assert!(frame.payload[at..].iter().all(|&byte| byte == 0), "padding");
            frame.payload.truncate(at);
        }
        self.take(frame)
    }

    fn read_frame(&mut self) -> io::Result<Frame> {
        let head = self.tcp.try_bytes(9)?;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        assert!(
            length <= self.max_frame_size,
            "a frame of {length} bytes, over {}",
            self.max_frame_size
        );
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        assert!(stream & !STREAM == 0, "the reserved bit is set");
        let payload = self.tcp.try_bytes(length)?;
        if head[3] == kind::DATA {
            self.charge(stream, length);
        }
        Ok(raw(head[3], head[4], stream, payload))
    }

    fn take(&mut self, frame: Frame) -> Event {
        let allowed = match frame.kind {
            kind::DATA | kind::HEADERS => {
                flag::END_STREAM | flag::END_HEADERS | flag::PADDED | flag::PRIORITY
            }
            kind::SETTINGS | kind::PING => flag::ACK,
            _ => flag::END_HEADERS,
        };
        assert!(frame.flags & !allowed == 0, "unused flags: {frame:?}");
        let of_connection = matches!(frame.kind, kind::SETTINGS | kind::PING | kind::GOAWAY);
        assert!(
            frame.kind == kind::WINDOW_UPDATE || of_connection == (frame.stream == 0),
            "on a wrong stream: {frame:?}"
        );
        match frame.kind {
            kind::DATA => {
                let stream = self.on(&frame);
                assert!(stream.answered && !stream.ended, "DATA: {frame:?}");
                stream.ended = frame.has(flag::END_STREAM);
                self.refill(&frame);
                Event::Data {
                    stream: frame.stream,
                    end: frame.has(flag::END_STREAM),
                    data: frame.payload,
                }
            }
            kind::HEADERS => self.take_headers(frame),
            kind::RST_STREAM => {
                assert_eq!(frame.payload.len(), 4, "{frame:?}");
                assert!(frame.stream <= self.opened, "an idle stream: {frame:?}");
                self.on(&frame).reset = true;
                Event::Reset {
                    stream: frame.stream,
                    code: frame.number(0),
                }
            }
            kind::SETTINGS => self.take_settings(&frame),
            kind::PING => {
                let opaque = frame.payload.clone().try_into().expect("eight bytes");
                if frame.has(flag::ACK) {
                    return Event::Pong(opaque);
                }
                // It may have closed by now.
                let _ = self.try_send(ping(opaque).with(flag::ACK));
                Event::Ping(opaque)
            }
            kind::GOAWAY => {
                let (last, code) = (frame.number(0), frame.number(4));
                assert!(self.last.is_none_or(|before| last <= before), "{frame:?}");
                self.last = Some(last);
                Event::GoAway {
                    last,
                    code,
                    debug: String::from_utf8_lossy(&frame.payload[8..]).into_owned(),
                }
            }
            kind::WINDOW_UPDATE => {
                assert_eq!(frame.payload.len(), 4, "{frame:?}");
                let increment = frame.number(0);
                assert!((1..=STREAM).contains(&increment), "{frame:?}");
                if frame.stream == 0 {
                    self.room += i64::from(increment);
                } else {
                    self.on(&frame).sent -= i64::from(increment);
                }
                Event::WindowUpdate {
                    stream: frame.stream,
                    increment,
                }
            }
            _ => panic!("a server sends no such frame: {frame:?}"),
        }
    }

    fn take_headers(&mut self, mut frame: Frame) -> Event {
        while !frame.has(flag::END_HEADERS) {
            let next = self.read_frame().expect("a CONTINUATION");
            assert!(
                next.kind == kind::CONTINUATION && next.stream == frame.stream,
                "within a field block: {next:?}"
            );
            frame.payload.extend(next.payload);
            frame.flags |= next.flags & flag::END_HEADERS;
        }
        let fields = self.decoder.decode(&frame.payload);
        let fields = fields.unwrap_or_else(|error| panic!("HPACK: {error}: {frame:?}"));
        let end = frame.has(flag::END_STREAM);
        let stream = self.on(&frame);
        assert!(!stream.ended, "HEADERS behind the end: {fields:?}");
        if stream.answered {
            assert!(end, "trailers are the end: {fields:?}");
        } else {
            let interim = fields
                .iter()
                .any(|(n, v)| n == ":status" && v.starts_with('1'));
            assert!(!(interim && end), "no answer: {fields:?}");
            stream.answered = !interim;
        }
        let pseudo = if stream.answered && end && !fields.iter().any(|(n, _)| n == ":status") {
            0
        } else {
            1
        };
        stream.ended = end;
        check_fields(&fields, pseudo);
        Event::Headers {
            stream: frame.stream,
            fields,
            end,
        }
    }

    fn take_settings(&mut self, frame: &Frame) -> Event {
        if frame.has(flag::ACK) {
            assert!(frame.payload.is_empty(), "{frame:?}");
            let values = self.unacknowledged.pop_front();
            assert!(
                self.trusts || values.is_some(),
                "an acknowledgement of nothing"
            );
            for (id, value) in values.unwrap_or_default() {
                match id {
                    setting::HEADER_TABLE_SIZE => self.decoder.limit(value as usize),
                    setting::INITIAL_WINDOW_SIZE => self.initial_window = i64::from(value),
                    setting::MAX_FRAME_SIZE => self.max_frame_size = value as usize,
                    _ => {}
                }
            }
            return Event::SettingsAck;
        }
        assert_eq!(frame.payload.len() % 6, 0, "{frame:?}");
        let entries = frame.entries();
        for &(id, value) in &entries {
            let right = match id {
                setting::ENABLE_PUSH => value == 0,
                setting::INITIAL_WINDOW_SIZE => value <= STREAM,
                setting::MAX_FRAME_SIZE => (16_384..1 << 24).contains(&value),
                setting::ENABLE_CONNECT_PROTOCOL => value <= 1,
                _ => true,
            };
            assert!(right, "setting {id} is {value}");
            self.server.insert(id, value);
        }
        Event::Settings(entries)
    }

    /// The stream of a frame, which must be one that the client has opened and the server has not
    /// given up.
    fn on(&mut self, frame: &Frame) -> &mut Stream {
        assert!(
            frame.stream % 2 == 1 && frame.stream <= self.opened,
            "nobody has opened it: {frame:?}"
        );
        let stream = self.streams.entry(frame.stream).or_default();
        assert!(!stream.reset, "behind RST_STREAM: {frame:?}");
        stream
    }

    /// Counts bytes against the windows. Settings may hold before they are acknowledged.
    fn charge(&mut self, stream: u32, length: usize) {
        let length = i64::try_from(length).expect("24 bits");
        let pending = self.unacknowledged.iter().flatten();
        let windows = pending.filter(|(id, _)| *id == setting::INITIAL_WINDOW_SIZE);
        let initial = windows
            .map(|&(_, value)| i64::from(value))
            .fold(self.initial_window, i64::max);
        let used = &mut self.streams.entry(stream).or_default().used;
        assert!(
            length == 0 || *used + length <= initial,
            "{length} bytes in a window of {} on stream {stream}",
            initial - *used
        );
        *used += length;
        assert!(
            length <= self.window.max(0),
            "{length} bytes in a window of {} of the connection",
            self.window
        );
        self.window -= length;
    }

    fn refill(&mut self, frame: &Frame) {
        let read = u32::try_from(frame.payload.len()).expect("24 bits");
        if !self.refills || read == 0 {
            return;
        }
        let mut updates = window_update(0, read).bytes();
        if !frame.has(flag::END_STREAM) {
            updates.extend(window_update(frame.stream, read).bytes());
        }
        // It may have closed by now.
        let _ = self.try_send(updates);
    }

    /// Says farewell and closes.
    pub fn leave(mut self) {
        // It may have closed by now.
        let _ = self.try_send(goaway(0, code::NO_ERROR));
    }
}

impl Event {
    /// Whether it belongs to this stream.
    pub fn is_on(&self, wanted: u32) -> bool {
        match self {
            Event::Headers { stream, .. }
            | Event::Data { stream, .. }
            | Event::Reset { stream, .. }
            | Event::WindowUpdate { stream, .. } => *stream == wanted,
            _ => false,
        }
    }

    fn is_update(&self) -> bool {
        matches!(self, Event::WindowUpdate { .. })
    }
}

const DEFAULT_WINDOW: i64 = 65_535;
/// What of four bytes is a stream, or an increment.
const STREAM: u32 = 0x7fff_ffff;

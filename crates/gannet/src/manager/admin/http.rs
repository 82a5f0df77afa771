//! A connection to the admin listener: HTTP/1.1 without waiting, as strict as the engine's own.
//!
//! ```text
//!   Reading ──request is whole──▶ Writing ──written──▶ Reading
//!      │ malformed, too slow         │ written, and it is the last one
//!      └──────▶ Writing ─────────────▶ Draining ──end of file, time is up──▶ gone
//! ```
//!
//! One response at a time: the next request is looked at when the one before is answered. What a
//! client costs is bounded: a request by [`MAX_HEAD`], a response by its page, and each state by its
//! time.

use std::{
    io::{self, ErrorKind},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use gannet_proto::http1::{
    Decoder, Event, Framing, Limits, RequestError, ResponseHead, Version, encode_error,
    encode_response_head,
};
use rustix::{
    event::epoll::EventFlags,
    io::Errno,
    net::{RecvFlags, SendFlags, Shutdown},
};

use super::text::Format;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Connection {
    socket: OwnedFd,
    decoder: Decoder,
    state: State,
    deadline: Instant,
    /// What came of the next request.
    input: Vec<u8>,
    /// There is input that was not looked at, because the request before was answered first.
    unseen: bool,
    output: Vec<u8>,
    /// How much of it was sent.
    sent: usize,
    /// The request whose head was read, until it is whole.
    wanted: Option<Wanted>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Reading,
    /// Whether it is the last response.
    Writing {
        last: bool,
    },
    Draining,
}

/// What a request is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// `GET` or `HEAD`; another method is refused.
    pub(super) is_read: bool,
    /// Without its query.
    pub(super) path: String,
    pub(super) format: Format,
    is_head: bool,
    keep_alive: bool,
    version: Version,
}

/// The response to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) content_type: &'static str,
    pub(super) body: String,
}

impl Connection {
    pub(super) fn new(socket: OwnedFd, now: Instant) -> Self {
        Connection {
            socket,
            decoder: Decoder::new(Limits {
                max_head_size: MAX_HEAD,
                max_target: MAX_HEAD / 2,
                // There is no request with a body.
                max_body_size: 0,
                ..Limits::default()
            }),
            state: State::Reading,
            deadline: now + REQUEST_TIME,
            input: Vec::new(),
            unseen: false,
            output: Vec::new(),
            sent: 0,
            wanted: None,
        }
    }

    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// What it waits for.
    pub(super) fn interest(&self) -> EventFlags {
        match self.state {
            State::Reading | State::Draining => EventFlags::IN,
            State::Writing { .. } => EventFlags::OUT,
        }
    }

    /// When [`Connection::time_out`] is due.
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Whether it waits for a request and has nothing of it.
    pub(super) fn is_idle(&self) -> bool {
        self.state == State::Reading && self.input.is_empty() && self.decoder.is_idle()
    }

    /// Whether there may be a whole request in what was read.
    pub(super) fn has_more(&self) -> bool {
        self.state == State::Reading && self.unseen
    }

    /// Goes on as far as that is possible now, but for one request at most, which `answer` answers.
    /// An error, or `false`: it is over.
    pub(super) fn go_on(
        &mut self,
        now: Instant,
        answer: impl FnOnce(&Wanted) -> Answer,
        refused: impl FnOnce(u16),
    ) -> io::Result<bool> {
        match self.state {
            State::Draining => return self.drain(),
            State::Writing { .. } => {}
            State::Reading => {
                let open = self.read()?;
                self.unseen = false;
                match self.decode(now) {
                    Ok(Some(wanted)) => self.respond(now, &wanted, &answer(&wanted)),
                    Ok(None) if !open => return Ok(false),
                    Ok(None) => return Ok(true),
                    Err(error) => {
                        refused(error.status());
                        self.refuse(now, &error);
                    }
                }
            }
        }
        self.write(now)
    }

    /// The time of its state is up. `false`: it is over.
    pub(super) fn time_out(&mut self, now: Instant, refused: impl FnOnce(u16)) -> io::Result<bool> {
        if self.state != State::Reading || self.is_idle() {
            return Ok(false);
        }
        let error = RequestError::timeout();
        refused(error.status());
        self.refuse(now, &error);
        self.write(now)
    }

    /// Reads what there is, as far as a request may be long. `false`: nothing more will come.
    fn read(&mut self) -> io::Result<bool> {
        let mut buffer = [0; 4096];
        while self.input.len() < MAX_HEAD {
            match receive(self.socket(), &mut buffer)? {
                Some(0) => return Ok(false),
                Some(read) => self.input.extend_from_slice(&buffer[..read]),
                None => break,
            }
        }
        Ok(true)
    }

    /// The next request, if it is whole.
    fn decode(&mut self, now: Instant) -> Result<Option<Wanted>, RequestError> {
        let was_idle = self.decoder.is_idle();
        loop {
            let decoded = self.decoder.decode(&mut self.input)?;
            let used = decoded.used;
            let (wanted, is_whole) = match decoded.event {
                None => (None, None),
                Some(Event::Head(head)) => {
                    let path = head.target.split('?').next().unwrap_or_default();
                    let accept = head.headers.first("accept").unwrap_or_default();
                    let wanted = Wanted {
                        is_read: matches!(head.method, "GET" | "HEAD"),
                        path: path.to_owned(),
                        format: Format::accepted(accept),
                        is_head: head.method == "HEAD",
                        keep_alive: head.keep_alive,
                        version: head.version,
                    };
                    (Some(wanted), Some(false))
                }
                Some(Event::Body(_)) => (None, Some(false)),
                Some(Event::End { .. }) => (None, Some(true)),
            };
            if wanted.is_some() {
                self.wanted = wanted;
            }
            self.input.drain(..used);
            match is_whole {
                Some(true) => return Ok(self.wanted.take()),
                Some(false) => {}
                None => {
                    // The first byte begins the time of a request.
                    if was_idle && !self.is_idle() {
                        self.deadline = self.deadline.min(now + REQUEST_TIME);
                    }
                    return Ok(None);
                }
            }
        }
    }

    fn respond(&mut self, now: Instant, wanted: &Wanted, answer: &Answer) {
        let mut headers = format!(
            "Content-Type: {}\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n",
            answer.content_type
        );
        if !wanted.is_read {
            headers.push_str("Allow: GET, HEAD\r\n");
        }
        let head = ResponseHead {
            status: answer.status,
            headers: headers.as_bytes(),
            framing: Framing::Length(answer.body.len() as u64),
            keep_alive: wanted.keep_alive,
            version: wanted.version,
            date: None,
        };
        encode_response_head(&mut self.output, &head);
        if !wanted.is_head {
            self.output.extend_from_slice(answer.body.as_bytes());
        }
        self.writes(now, !wanted.keep_alive);
    }

    fn refuse(&mut self, now: Instant, error: &RequestError) {
        encode_error(&mut self.output, error, None);
        self.writes(now, true);
    }

    fn writes(&mut self, now: Instant, last: bool) {
        self.state = State::Writing { last };
        self.deadline = now + RESPONSE_TIME;
    }

    /// Writes what there is to write. `false`: it is over.
    fn write(&mut self, now: Instant) -> io::Result<bool> {
        while self.sent < self.output.len() {
            let rest = &self.output[self.sent..];
            match rustix::net::send(&self.socket, rest, SendFlags::NOSIGNAL) {
                Ok(sent) => self.sent += sent,
                Err(Errno::INTR) => {}
                Err(Errno::WOULDBLOCK) => return Ok(true),
                Err(error) => return Err(error.into()),
            }
        }
        // A page is long, and the next may come minutes later.
        (self.output, self.sent) = (Vec::new(), 0);
        if self.state == (State::Writing { last: true }) {
            // To close with unread bytes would take the response from the client.
            rustix::net::shutdown(&self.socket, Shutdown::Write)?;
            self.state = State::Draining;
            self.deadline = now + DRAIN_TIME;
            return self.drain();
        }
        self.state = State::Reading;
        self.unseen = !self.input.is_empty();
        self.deadline = now
            + match self.unseen {
                true => REQUEST_TIME,
                false => IDLE_TIME,
            };
        Ok(true)
    }

    /// Drops what still comes, a bounded piece at a time. `false`: that was all.
    fn drain(&mut self) -> io::Result<bool> {
        let mut buffer = [0; 4096];
        for _ in 0..16 {
            match receive(self.socket(), &mut buffer)? {
                Some(0) => return Ok(false),
                Some(_) => {}
                None => break,
            }
        }
        Ok(true)
    }
}

/// `None`: there is nothing now.
fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    loop {
        match rustix::net::recv(socket, &mut *buffer, RecvFlags::empty()) {
            Ok((read, _)) => return Ok(Some(read)),
            Err(Errno::INTR) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Largest head of a request, in bytes.
const MAX_HEAD: usize = 8 << 10;
/// How long a request may take from its first byte, and the first one from the connection on.
const REQUEST_TIME: Duration = Duration::from_secs(5);
/// How long the client may take to read a response.
const RESPONSE_TIME: Duration = Duration::from_secs(10);
/// How long a connection may be silent between requests: longer than scrapes are apart.
const IDLE_TIME: Duration = Duration::from_secs(180);
/// How long a client has to close after the last response.
const DRAIN_TIME: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        os::unix::net::UnixStream,
    };

    use super::*;

    struct Pair {
        client: UnixStream,
        connection: Connection,
        now: Instant,
        refused: Vec<u16>,
    }

    impl Pair {
        fn new() -> Self {
            let (client, server) = UnixStream::pair().unwrap();
            server.set_nonblocking(true).unwrap();
            client.set_nonblocking(true).unwrap();
            let now = Instant::now();
            Pair {
                client,
                connection: Connection::new(server.into(), now),
                now,
                refused: Vec::new(),
            }
        }

        fn send(&mut self, bytes: &[u8]) -> bool {
            self.client.write_all(bytes).unwrap();
            self.go_on("page")
        }

        fn go_on(&mut self, page: &str) -> bool {
            let answer = |wanted: &Wanted| Answer {
                status: 200,
                content_type: "text/plain",
                body: format!("{} {page}\n", wanted.path),
            };
            let refused = |code| self.refused.push(code);
            self.connection.go_on(self.now, answer, refused).unwrap()
        }

        fn said(&mut self) -> String {
            let mut text = Vec::new();
            // It ends with "would block", or the end.
            let _ = self.client.read_to_end(&mut text);
            String::from_utf8(text).unwrap()
        }

        /// Whether it goes on after so many seconds more.
        fn after(&mut self, seconds: u64) -> bool {
            self.now += Duration::from_secs(seconds);
            if self.connection.deadline() > self.now {
                return true;
            }
            let refused = |code| self.refused.push(code);
            self.connection.time_out(self.now, refused).unwrap()
        }
    }

    const GET: &[u8] = b"GET /metrics?a=b HTTP/1.1\r\nHost: a\r\n\r\n";

    #[test]
    fn requests_are_answered_one_after_another() {
        let mut pair = Pair::new();
        let twice = [GET, &GET[..10]].concat();
        assert!(pair.send(&twice));
        let said = pair.said();
        assert!(
            said.starts_with("HTTP/1.1 200 OK\r\nContent-Length: 14\r\n"),
            "{said}"
        );
        assert!(said.ends_with("\r\n\r\n/metrics page\n"), "{said}");
        assert!(pair.connection.has_more());
        assert!(pair.go_on("page"));
        assert!(!pair.connection.has_more(), "it waits for the rest");
        assert!(pair.send(&GET[10..]));
        assert!(pair.said().ends_with("/metrics page\n"));
        assert!(pair.connection.is_idle());

        assert!(pair.send(b"HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
        let said = pair.said();
        assert!(
            said.contains("Content-Length: 7\r\n") && said.ends_with("\r\n\r\n"),
            "{said}"
        );
        pair.client.shutdown(std::net::Shutdown::Write).unwrap();
        assert!(!pair.go_on(""));
    }

    #[test]
    fn what_is_malformed_or_has_a_body_is_refused_and_the_connection_closed() {
        let cases: [(&[u8], u16); 4] = [
            (b"GET / HTTP/1.1\r\n\r\n", 400),
            (b"\x16\x03\x01", 400),
            (
                b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n",
                413,
            ),
            (
                &[b"GET / HTTP/1.1\r\nHost: a\r\nA: ", &[b'x'; MAX_HEAD][..]].concat(),
                431,
            ),
        ];
        for (bytes, status) in cases {
            let mut pair = Pair::new();
            assert!(pair.send(bytes));
            assert_eq!(pair.refused, [status]);
            let said = pair.said();
            assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{said}");
            assert!(
                pair.after(0) && !pair.after(1),
                "it is closed after a moment"
            );
        }
    }

    #[test]
    fn slow_clients_are_cut() {
        // One that says nothing, one that says half a request, byte by byte.
        let mut silent = Pair::new();
        assert!(silent.after(4) && !silent.after(1));
        let mut dripping = Pair::new();
        assert!(dripping.send(GET) && !dripping.said().is_empty());
        assert!(dripping.after(170), "it may be silent between requests");
        for _ in 0..4 {
            assert!(dripping.send(b"GET"[..1].as_ref()));
            assert!(dripping.after(1));
        }
        dripping.after(1);
        assert_eq!(dripping.refused, [408]);
        assert!(dripping.said().starts_with("HTTP/1.1 408 "));

        // One that does not read.
        let mut deaf = Pair::new();
        deaf.client.write_all(GET).unwrap();
        assert!(deaf.go_on(&"x".repeat(8 << 20)));
        assert_eq!(deaf.connection.interest(), EventFlags::OUT);
        assert!(deaf.after(9) && !deaf.after(1));
    }
}

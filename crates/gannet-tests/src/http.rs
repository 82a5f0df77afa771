//! A scripted HTTP/1.1 client with a strict parser.

use std::{
    io::{self, BufRead, Read},
    net::SocketAddr,
};

use crate::tcp::TcpClient;

/// A keep-alive connection.
#[derive(Debug)]
pub struct HttpClient {
    tcp: TcpClient,
}

/// A response, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The minor version: 0 or 1.
    pub minor: u8,
    /// Header lines in order; names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, without its framing.
    pub body: Vec<u8>,
    /// Trailer lines of a chunked body.
    pub trailers: Vec<(String, String)>,
}

impl HttpClient {
    /// Connects.
    pub fn connect(address: SocketAddr) -> Self {
        HttpClient {
            tcp: TcpClient::connect(address),
        }
    }

    /// Connects, if the server lets it.
    pub fn try_connect(address: SocketAddr) -> io::Result<Self> {
        Ok(HttpClient {
            tcp: TcpClient::try_connect(address)?,
        })
    }

    /// Over a connection that exists.
    pub fn over(tcp: TcpClient) -> Self {
        HttpClient { tcp }
    }

    /// `GET path`.
    pub fn get(&mut self, path: &str) -> Response {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"));
        self.response()
    }

    /// `POST path` with a body of known length.
    pub fn post(&mut self, path: &str, body: impl AsRef<[u8]>) -> Response {
        self.send(post(path, body.as_ref()));
        self.response()
    }

    /// `POST path` with a chunked body.
    pub fn post_chunked(&mut self, path: &str, chunks: &[&[u8]]) -> Response {
        self.send(format!(
            "POST {path} HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n"
        ));
        for chunk in chunks {
            self.send(chunk_of(chunk));
        }
        self.send("0\r\n\r\n");
        self.response()
    }

    /// Sends these bytes as they are.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.tcp.send(bytes);
    }

    /// Sends these bytes as they are, if the server still takes them.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.tcp.try_send(bytes)
    }

    /// The next response to a method other than HEAD.
    pub fn response(&mut self) -> Response {
        self.try_response().expect("a response")
    }

    /// The next response, if one comes. What breaks the protocol still panics.
    pub fn try_response(&mut self) -> io::Result<Response> {
        let head = self.try_head()?;
        self.finish_response(head)
    }

    /// The rest of a response whose head was read.
    pub fn finish_response(&mut self, mut head: Response) -> io::Result<Response> {
        self.read_body(&mut head)?;
        Ok(head)
    }

    /// The next response's head (which is all of it for HEAD requests and 100).
    pub fn head(&mut self) -> Response {
        self.try_head().expect("the head of a response")
    }

    /// The next response's head, if one comes.
    pub fn try_head(&mut self) -> io::Result<Response> {
        let line = self.line()?;
        let minor = match line.get(..9) {
            Some("HTTP/1.1 ") => 1,
            Some("HTTP/1.0 ") => 0,
            _ => panic!("no status line: {line:?}"),
        };
        let status = line[9..].get(..3).and_then(|code| code.parse().ok());
        let status = status.filter(|code| (100..1000).contains(code));
        let status = status.unwrap_or_else(|| panic!("no status code: {line:?}"));
        assert!(
            line.as_bytes().get(12) == Some(&b' '),
            "no blank after the code: {line:?}"
        );
        let headers = self.lines()?;
        Ok(Response {
            status,
            minor,
            headers,
            body: Vec::new(),
            trailers: Vec::new(),
        })
    }

    /// The next chunk of a chunked body whose head was read; `None` at its end.
    pub fn chunk(&mut self) -> Option<Vec<u8>> {
        let chunk = self.try_chunk().expect("a chunk");
        if chunk.is_none() {
            self.lines().expect("the trailers");
        }
        chunk
    }

    /// Everything until the server closes.
    pub fn rest(&mut self) -> Vec<u8> {
        self.tcp.rest()
    }

    /// Expects that the server closes and sends nothing before it.
    pub fn expect_closed(&mut self) {
        self.tcp.expect_closed();
    }

    /// The connection, for what comes after an upgrade.
    pub fn into_tcp(self) -> TcpClient {
        self.tcp
    }

    /// The connection itself.
    pub fn tcp(&mut self) -> &mut TcpClient {
        &mut self.tcp
    }

    fn read_body(&mut self, response: &mut Response) -> io::Result<()> {
        if response.status < 200 || matches!(response.status, 204 | 304) {
            assert!(
                response
                    .header("content-length")
                    .is_none_or(|_| response.status == 304)
            );
            assert!(response.header("transfer-encoding").is_none());
            return Ok(());
        }
        match (
            response.header("transfer-encoding"),
            response.header("content-length"),
        ) {
            (Some("chunked"), None) => {
                assert_eq!(response.minor, 1, "chunks in HTTP/1.0");
                while let Some(chunk) = self.try_chunk()? {
                    response.body.extend(chunk);
                }
                response.trailers = self.lines()?;
            }
            (None, Some(length)) => {
                assert!(
                    length.bytes().all(|b| b.is_ascii_digit()),
                    "length {length:?}"
                );
                response.body = self.tcp.try_bytes(length.parse().expect("a length"))?;
            }
            (None, None) => {
                assert!(
                    !response.keeps_alive(),
                    "a response without end: {response:?}"
                );
                response.body = self.tcp.rest();
            }
            both => panic!("ambiguous framing: {both:?}"),
        }
        Ok(())
    }

    fn try_chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let line = self.line()?;
        let size = usize::from_str_radix(&line, 16)
            .unwrap_or_else(|_| panic!("no size of a chunk: {line:?}"));
        if size == 0 {
            return Ok(None);
        }
        let mut chunk = self.tcp.try_bytes(size + 2)?;
        assert!(chunk.ends_with(b"\r\n"), "a chunk without end");
        chunk.truncate(size);
        Ok(Some(chunk))
    }

    /// Header lines up to and with the empty one.
    fn lines(&mut self) -> io::Result<Vec<(String, String)>> {
        let mut lines = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(lines);
            }
            let (name, value) = line
                .split_once(':')
                .unwrap_or_else(|| panic!("header {line:?}"));
            let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
            assert!(
                !name.is_empty() && name.bytes().all(token),
                "header name {name:?}"
            );
            let value = value.trim_matches([' ', '\t']);
            assert!(
                !value.bytes().any(|b| b.is_ascii_control() && b != b'\t'),
                "{line:?}"
            );
            lines.push((name.to_ascii_lowercase(), value.to_owned()));
        }
    }

    /// A line that ends in CR LF, without them.
    fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        let limit = 64 << 10;
        self.tcp.reader().take(limit).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let text = String::from_utf8(line).expect("header lines in UTF-8");
        match text.strip_suffix("\r\n") {
            Some(line) => Ok(line.to_owned()),
            None if !text.ends_with('\n') => Err(io::ErrorKind::UnexpectedEof.into()),
            None => panic!("a bare line feed: {text:?}"),
        }
    }
}

impl Response {
    /// The value of a header that comes at most once.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self
            .headers
            .iter()
            .filter(|(n, _)| n == name)
            .map(|(_, v)| v.as_str());
        let value = values.next();
        assert!(values.next().is_none(), "{name} comes twice: {self:?}");
        value
    }

    /// The body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body in UTF-8")
    }

    /// Whether another request may follow.
    pub fn keeps_alive(&self) -> bool {
        match self
            .header("connection")
            .map(str::to_ascii_lowercase)
            .as_deref()
        {
            Some("close") => false,
            Some("keep-alive") => true,
            _ => self.minor == 1,
        }
    }
}

/// A POST request with a body of known length.
pub fn post(path: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let mut request =
        format!("POST {path} HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\n")
            .into_bytes();
    request.extend_from_slice(body);
    request
}

/// One chunk of a chunked body.
pub fn chunk_of(data: &[u8]) -> Vec<u8> {
    let mut chunk = format!("{:x}\r\n", data.len()).into_bytes();
    chunk.extend_from_slice(data);
    chunk.extend_from_slice(b"\r\n");
    chunk
}

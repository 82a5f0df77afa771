//! A client of HTTP/2, on the library's client half.

pub mod bridge;

use std::{future::Future, net::SocketAddr, time::Duration};

use bytes::Bytes;
use h2::{
    RecvStream,
    client::{Builder, ResponseFuture, SendRequest},
};
use http::{HeaderMap, Method, Request, StatusCode};
use tokio::{net::TcpStream, task::JoinHandle};

use crate::wait::DEADLINE;

/// Runs a test's clients; fails when they take too long.
///
/// # Panics
///
/// When the time is up.
pub fn run<F: Future>(clients: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(async {
            tokio::time::timeout(DEADLINE, clients)
                .await
                .expect("the clients wait for something that does not come")
        })
}

/// A connection.
#[derive(Debug)]
pub struct Http2 {
    send: SendRequest<Bytes>,
    /// Ends with the connection.
    pub driver: JoinHandle<Result<(), h2::Error>>,
}

/// A whole answer.
#[derive(Debug)]
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// All of its body.
    pub body: Vec<u8>,
    /// What followed it.
    pub trailers: Option<HeaderMap>,
}

impl Http2 {
    /// Connects without TLS, by prior knowledge.
    pub async fn connect(to: SocketAddr) -> Self {
        Self::with(to, &Builder::new()).await
    }

    /// The same, with settings of the client's.
    pub async fn with(to: SocketAddr, settings: &Builder) -> Self {
        let socket = TcpStream::connect(to).await.expect("to connect");
        socket.set_nodelay(true).expect("TCP_NODELAY");
        let (send, connection) = settings.handshake(socket).await.expect("the preface");
        let driver = tokio::spawn(connection);
        Http2 { send, driver }
    }

    /// Asks for a page.
    pub async fn get(&self, path: &str) -> Reply {
        let request = request(Method::GET, path);
        self.ask(request, None).await.expect("an answer")
    }

    /// Sends a body.
    pub async fn post(&self, path: &str, body: impl Into<Bytes>) -> Reply {
        let request = request(Method::POST, path);
        self.ask(request, Some(body.into()))
            .await
            .expect("an answer")
    }

    /// Sends a request, and its body if it has one.
    ///
    /// # Errors
    ///
    /// The stream or the connection ended before the answer.
    pub async fn ask(&self, request: Request<()>, body: Option<Bytes>) -> Result<Reply, h2::Error> {
        let (response, mut upload) = self.open(request, body.is_none()).await?;
        let upload = async {
            match body {
                Some(body) => send(&mut upload, body, true).await,
                None => Ok(()),
            }
        };
        // The answer may come while the body is sent, and nobody want the rest of it.
        let (sent, reply) = tokio::join!(upload, reply(response));
        match reply {
            Ok(reply) => Ok(reply),
            Err(error) => Err(sent.err().unwrap_or(error)),
        }
    }

    /// Opens a stream; `ends`: its request has no body.
    ///
    /// # Errors
    ///
    /// The connection takes no more.
    pub async fn open(
        &self,
        request: Request<()>,
        ends: bool,
    ) -> Result<(ResponseFuture, h2::SendStream<Bytes>), h2::Error> {
        self.send.clone().ready().await?.send_request(request, ends)
    }

    /// Whether the server lets WebSockets be opened.
    pub fn has_extended_connect(&self) -> bool {
        self.send.is_extended_connect_protocol_enabled()
    }
}

impl Reply {
    /// The body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// A request without headers.
pub fn request(method: Method, path: &str) -> Request<()> {
    Request::builder()
        .method(method)
        .uri(format!("http://test{path}"))
        .body(())
        .expect("a request")
}

/// Sends as the windows open.
///
/// # Errors
///
/// The stream ended.
pub async fn send(
    stream: &mut h2::SendStream<Bytes>,
    mut data: Bytes,
    ends: bool,
) -> Result<(), h2::Error> {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let room = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
        let room = match room {
            Some(room) => room?,
            // Reset: whoever awaits the answer is told.
            None => return Ok(()),
        };
        let piece = data.split_to(room.min(data.len()));
        stream.send_data(piece, ends && data.is_empty())?;
    }
    Ok(())
}

/// Reads a whole answer.
///
/// # Errors
///
/// It is not whole.
pub async fn reply(response: ResponseFuture) -> Result<Reply, h2::Error> {
    let (head, mut body) = response.await?.into_parts();
    let mut all = Vec::new();
    while let Some(piece) = next(&mut body).await? {
        all.extend_from_slice(&piece);
    }
    Ok(Reply {
        status: head.status,
        headers: head.headers,
        body: all,
        trailers: body.trailers().await?,
    })
}

/// The next piece of a body.
///
/// # Errors
///
/// It does not go on.
pub async fn next(body: &mut RecvStream) -> Result<Option<Bytes>, h2::Error> {
    let piece = body.data().await.transpose()?;
    if let Some(piece) = &piece {
        body.flow_control().release_capacity(piece.len())?;
    }
    Ok(piece)
}

/// Waits for a condition, while the clients go on; [`run`] says how long.
pub async fn until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

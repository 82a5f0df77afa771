//! Lets clients of WebSocket over HTTP/1 be clients over HTTP/2 (RFC 8441): whoever connects to the
//! bridge has a stream of one connection to the server.

use std::{net::SocketAddr, sync::mpsc, thread};

use bytes::Bytes;
use h2::{RecvStream, SendStream, ext::Protocol};
use http::{Method, Request};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

use super::{Http2, next};

/// Where to connect to. The bridge stays until the process ends.
///
/// # Panics
///
/// The server does not let WebSockets be opened.
pub fn websockets(server: SocketAddr) -> SocketAddr {
    let (told, address) = mpsc::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            // One that does not read is not to use up what all have together.
            let mut settings = h2::client::Builder::new();
            settings.initial_connection_window_size(16 << 20);
            let client = Http2::with(server, &settings).await;
            // Its SETTINGS say whether the server takes extended CONNECT.
            client.get("/").await;
            assert!(client.has_extended_connect(), "no extended CONNECT");
            told.send(listener.local_addr().expect("an address")).ok();
            let client = std::rc::Rc::new(client);
            loop {
                let (socket, _) = listener.accept().await.expect("a client");
                let client = client.clone();
                tokio::task::spawn_local(async move {
                    // What ends badly ends for the client too.
                    let _ = carry(&client, socket).await;
                });
            }
        });
    });
    address.recv().expect("the bridge")
}

async fn carry(client: &Http2, mut socket: TcpStream) -> Result<(), h2::Error> {
    socket.set_nodelay(true).expect("TCP_NODELAY");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.expect("a handshake"));
    }
    let (response, send) = client.open(connect(&head), false).await?;
    let (answer, mut receive) = response.await?.into_parts();
    let accepted = answer.status == 200;
    let mut lines = match accepted {
        true => "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
            .to_owned(),
        false => format!(
            "HTTP/1.1 {} -\r\nConnection: close\r\n",
            answer.status.as_u16()
        ),
    };
    for (name, value) in &answer.headers {
        lines += &format!("{name}: {}\r\n", value.to_str().expect("text"));
    }
    socket.write_all(lines.as_bytes()).await.expect("to tell");
    socket.write_all(b"\r\n").await.expect("to tell");
    if !accepted {
        while let Some(data) = next(&mut receive).await? {
            socket.write_all(&data).await.expect("to tell");
        }
        return Ok(());
    }
    let (reader, writer) = socket.into_split();
    let (up, down) = tokio::join!(upwards(reader, send), downwards(receive, writer));
    up.and(down)
}

/// The handshake of HTTP/1 as an extended CONNECT.
fn connect(head: &[u8]) -> Request<()> {
    let text = std::str::from_utf8(head).expect("text");
    let mut lines = text.split("\r\n");
    let path = lines
        .next()
        .and_then(|line| line.split(' ').nth(1))
        .expect("a path");
    let mut request = Request::builder()
        .method(Method::CONNECT)
        .uri(format!("http://test{path}"))
        .extension(Protocol::from_static("websocket"));
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        let name = name.to_ascii_lowercase();
        if !["host", "upgrade", "connection", "sec-websocket-key"].contains(&&*name) {
            request = request.header(name, value);
        }
    }
    request.body(()).expect("a request")
}

async fn upwards(mut from: OwnedReadHalf, mut to: SendStream<Bytes>) -> Result<(), h2::Error> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let len = from.read(&mut buffer).await.unwrap_or(0);
        if len == 0 {
            return to.send_data(Bytes::new(), true);
        }
        super::send(&mut to, Bytes::copy_from_slice(&buffer[..len]), false).await?;
    }
}

async fn downwards(mut from: RecvStream, mut to: OwnedWriteHalf) -> Result<(), h2::Error> {
    while let Some(data) = next(&mut from).await? {
        if to.write_all(&data).await.is_err() {
            // It does not read any more.
            break;
        }
    }
    let _ = to.shutdown().await;
    Ok(())
}

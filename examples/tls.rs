//! HTTPS and WSS on one port, plain HTTP on another; clients may have certificates, and are greeted by
//! the name in them.
//!
//!     cargo run -- cert ca && cargo run -- cert server && cargo run -- cert client ann
//!     cargo run --release --example tls
//!
//! In another terminal:
//!
//!     curl --cacert certs/ca.pem --cert certs/ann.pem --key certs/ann.key https://localhost:9508/
//!
//! docs/tls.md goes on with browsers, revocation and renewal.

use gannet::{
    ClientAuth, Conn, Handler, Listener, Message, Request, Response, Result, Server, Tls, Worker,
};

struct Greet;

impl Handler for Greet {
    async fn start(_worker: &Worker) -> Result<Self> {
        Ok(Greet)
    }

    async fn request(&self, conn: Conn, _request: Request) -> Result<Response> {
        Ok(Response::new(format!("Hello {}\n", who(&conn)).into()))
    }

    async fn message(&self, conn: Conn, message: Message) -> Result {
        let text = message.as_text().unwrap_or("(bytes)");
        conn.send(format!("{} says: {text}", who(&conn))).await
    }
}

/// What is known of a client, from its TLS handshake.
fn who(conn: &Conn) -> String {
    let Some(tls) = conn.info().and_then(|info| info.tls) else {
        return "whoever you are, in the clear".to_owned();
    };
    match tls.peer {
        Some(peer) => format!("{} ({})", peer.subject, &peer.fingerprint_hex()[..16]),
        None => format!("whoever you are, over TLS {}", tls.version.name()),
    }
}

fn main() -> Result {
    let mut tls = Tls::new("certs/server.pem", "certs/server.key").client_ca("certs/ca.pem");
    // Without this line nobody is let in without a certificate.
    tls.client_auth = ClientAuth::Optional;
    Server::websocket("127.0.0.1:9508")
        .tls(tls)
        .listen(Listener::http("127.0.0.1:9507"))
        .run::<Greet>()
}

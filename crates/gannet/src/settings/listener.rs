//! One address that a server listens on: its settings.

use gannet_proto::websocket::DeflatePolicy;
use serde::{Deserialize, Serialize};

use super::{Tls, framing::Framing};

/// One address that a server listens on, and what is spoken there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Listener {
    /// `127.0.0.1:9501`, `[::]:80`, or `host:port`; port 0 takes a free one. Or a Unix socket:
    /// `unix:/run/echo.sock`, or `unix:@echo` for one without a file (its name is in the abstract
    /// namespace, where file permissions do not hold). For Unix datagrams (`protocol` UDP)
    /// `unixgram:` in place of `unix:`.
    ///
    /// A socket file that nobody listens on is replaced at the start; the server's own is removed at
    /// the stop.
    pub address: String,

    /// What is spoken.
    pub protocol: Protocol,

    /// Where a message ends. Default: none, bytes come as they come. TCP only.
    ///
    /// With a framing a connection holds what has come of an incomplete message, up to
    /// `max_message_size`.
    pub framing: Framing,

    /// Permissions of a Unix socket's file. Default 0600: processes of the same user, and root.
    ///
    /// Who may write to the file may connect. `0o660` lets the file's group in.
    pub unix_mode: u32,

    /// Whether an IPv6 listener takes IPv6 only. Default false: `[::]:80` takes IPv4 as well, whatever
    /// the system's `net.ipv6.bindv6only` says; IPv4 clients have their IPv4 address.
    pub v6only: bool,

    /// Whether other servers, of the same user, may listen on the same address (`SO_REUSEPORT`).
    /// Default false: a second server is refused. The kernel then chooses a server for each client.
    pub reuse_port: bool,

    /// Name of the socket among those that the service manager passes (`LISTEN_FDNAMES`). Default
    /// empty: a passed socket with the listener's address is taken. Without passed sockets it means
    /// nothing.
    pub fd_name: String,

    /// Whether every connection begins with a PROXY header, version 1 or 2, that names its client.
    /// Default `off`: connections are their clients' own. Not for UDP.
    ///
    /// When `required`, only [`trusted_proxies`](Listener::trusted_proxies) may connect: a connection
    /// from elsewhere is closed at once (`proxy_untrusted`). The header has to come within
    /// `request_timeout_ms`, in front of everything else; a connection without a good one is closed
    /// (`proxy_failed`). Worst-case memory is 4 KiB for each connection whose header is not here.
    pub proxy_protocol: ProxyProtocol,

    /// The header in which a trusted proxy names the client of a request. Default `off`: nobody is
    /// believed. HTTP and WebSocket only.
    ///
    /// The client is the right-most address in it that is not in
    /// [`trusted_proxies`](Listener::trusted_proxies). From anybody else the header means nothing; one
    /// that cannot be read is passed over (`forwarded_malformed`).
    pub forwarded: Forwarded,

    /// The proxies that are believed: addresses and networks, such as `10.0.0.1`, `10.0.0.0/8`,
    /// `fd00::/8`, and `unix` for whoever may connect to a Unix socket. Default: none.
    ///
    /// Whoever connects from such an address can pretend to be any client: name proxies, and not
    /// networks that clients are in.
    pub trusted_proxies: Vec<String>,

    /// Connections that wait to be accepted, in the kernel. Default 1024 (cut by the kernel to
    /// `net.core.somaxconn`).
    pub backlog: u32,

    /// A connection from which nothing came for so long is closed, in milliseconds. Default 0: never.
    ///
    /// For WebSockets a ping is sent after half of it, and the pong counts.
    pub idle_timeout_ms: u64,

    /// How long a request head, a request body without progress, a WebSocket handshake or an idle
    /// keep-alive connection may take, in milliseconds. Default 60,000. HTTP and WebSocket only, but
    /// for a PROXY header, which has so long on TCP as well.
    ///
    /// A head that takes longer is answered with 408.
    pub request_timeout_ms: u64,

    /// Largest message a client may send, after reassembly and inflating, in bytes. Default 2 MiB.
    ///
    /// Worst-case memory is this times the connections that are mid-message. A compressed message
    /// counts as what it inflates to. A larger WebSocket message closes the connection (1009), and so
    /// does one of a TCP listener with a framing; a header or marker counts if the handler gets it. A
    /// larger datagram is dropped. At most a quarter of `arena_size`.
    pub max_message_size: usize,

    /// Frames that a message of a client may come in. Default 65,536. WebSocket only.
    ///
    /// Even empty ones cost work. A message in more of them closes the connection (1008).
    pub max_fragments: u32,

    /// Pings and pongs that a client may send in a second. Default 1,000; 0: any number. WebSocket
    /// and HTTP/2.
    ///
    /// Every ping is answered. More of them close the connection (1008). On a connection of HTTP/2
    /// these are PING, SETTINGS, PRIORITY, frames of unknown types, and empty DATA and CONTINUATION
    /// (`ENHANCE_YOUR_CALM`); WebSockets in its streams have a count of their own each.
    pub max_control_rate: u32,

    /// Bytes a second that a client must send, on average, while a request body, a WebSocket message
    /// or one of a TCP `framing` is on its way. Default 240; 0: any number.
    ///
    /// It counts from the beginning of the body or message, with `request_timeout_ms` on top. Who
    /// is slower is answered with 408, a WebSocket (1008) or TCP connection is closed: otherwise one byte a minute
    /// would hold a connection, and what has come of the message, for ever. Time in which the server
    /// does not read is not counted.
    pub min_receive_rate: u32,

    /// Bytes a second that a client must take of what waits for it, while its socket is full. Default
    /// 240; 0: none.
    ///
    /// It is looked at every `request_timeout_ms`, and every 5 s once the server stops. Who has
    /// taken less in that time is cut with a reset (reason `slow_reader`): otherwise a client that
    /// reads nothing holds what waits for it, up to `max_queued`, the body of its response and what
    /// that has open, for ever, and a stop for `max_wait_time_ms`. What counts is what the client has
    /// acknowledged. Nothing counts while the kernel takes all that is sent: some hundred KiB are
    /// in its hands, and cost the server nothing. Set it to 0 on a TCP listener whose clients may
    /// rightly pause for longer.
    pub min_send_rate: u32,

    /// Whether WebSocket messages are compressed (permessage-deflate, RFC 7692) for clients that
    /// ask for it. Default false.
    ///
    /// It saves bandwidth (JSON shrinks to a third or less) and costs time in the reactor, 7 µs for
    /// 1 KiB, on top of the 6 µs that a message takes in all, and 3 ms for 1 MiB, in which it
    /// serves nobody else; browsers then compress every message
    /// that they send, which costs 2 µs each to inflate. A published message is compressed once.
    /// Do not turn it on where one message mixes secrets with text that an attacker chooses: the
    /// length of the result tells about the secret.
    pub compression: bool,

    /// How hard it is tried, 1 (fast) to 9 (small). Default 5.
    ///
    /// 4 KiB of JSON: level 1 takes 4 µs and leaves 25 %, level 5 takes 14 µs and leaves 15 %,
    /// level 9 takes 19 µs for the same.
    pub compression_level: u32,

    /// Messages shorter than this many bytes are sent uncompressed. Default 1 KiB.
    pub compression_threshold: usize,

    /// Window of the compressors, as a power of two, 9 to 15. Default 15.
    ///
    /// A compressor takes 370 KiB with 15, 260 KiB with 12, 245 KiB with 9. Each reactor has one,
    /// and one more for each smaller window that clients ask for, at most 7 for each level.
    pub compression_window_bits: u32,

    /// Whether messages to a client may refer to those before, if the client lets them. Default false.
    ///
    /// Small messages that are alike shrink much better, but each connection then has a compressor
    /// of its own, 245 KiB to 370 KiB, from its first compressed message on.
    pub compression_server_takeover: bool,

    /// Whether messages from a client may refer to those before. Default false.
    ///
    /// The same from the other end: 47 KiB stay with each connection, from its first compressed
    /// message on. Without it they are there only while a compressed message arrives.
    pub compression_client_takeover: bool,

    /// Largest request body, in bytes. Default 64 MiB. A larger one is answered with 413.
    ///
    /// Bodies stream: this is no memory per request.
    pub max_body_size: u64,

    /// Largest request head, in bytes. Default 16 KiB. A larger one is answered with 431.
    pub max_head_size: usize,

    /// Whether HTTP/2 is spoken: where ALPN chooses it with TLS, and without TLS with clients that
    /// begin with its preface. Default true. HTTP and WebSocket only.
    ///
    /// A connection costs about 30 KiB, a stream about 2 KiB, and what the settings below allow.
    pub http2: bool,

    /// Streams that a connection of HTTP/2 may have open at a time. Default 128. 1 to 65,536.
    ///
    /// A client that opens more has them refused (`REFUSED_STREAM`).
    pub http2_max_streams: u32,

    /// Bytes that a client may send on a stream before the worker takes them. Default 256 KiB. 64 KiB
    /// less 1 to 16 MiB.
    ///
    /// A client reaches at most this in each round trip: larger windows make uploads over long ways
    /// faster. Memory is bounded by `http2_connection_window`.
    pub http2_stream_window: u32,

    /// The same for all streams of a connection together. Default 1 MiB. 64 KiB less 1 to 1 GiB.
    ///
    /// Worst-case memory is this for each connection. Streams whose workers are slow can use it up,
    /// and others then wait for them.
    pub http2_connection_window: u32,

    /// Largest frame that a client may send. Default 16 KiB, the least. At most 16 MiB less 1.
    ///
    /// Worst-case memory is this for each connection.
    pub http2_max_frame_size: u32,

    /// Streams that a client may cancel in a second, and those that must be reset because it breaks
    /// the protocol. Default 200 of each kind together; 0: any number.
    ///
    /// A cancelled request has cost the work of a request and holds none of the `http2_max_streams`:
    /// without a limit a client keeps workers busy for nothing. More of them close the connection
    /// (`ENHANCE_YOUR_CALM`, counted as `flood`).
    pub http2_max_reset_rate: u32,

    /// Bytes that may be queued for a connection that does not read. Default 4 MiB.
    ///
    /// At the limit the connection is cut, or, for messages published as droppable, the message is
    /// dropped for it. HTTP never reaches it: streamed responses wait, and so do pipelined requests.
    pub max_queued: usize,

    /// Whether an event may be given to a second worker when the first died with it. Default true.
    ///
    /// Then messages are handled at least once; otherwise at most once, and the client is told by
    /// a close. For HTTP: see docs.
    pub redeliver: bool,

    /// TLS under the protocol. Default: none. See [`Tls`] for what it costs.
    pub tls: Option<Tls>,
}

/// What a listener speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Protocol {
    /// Bytes as they come.
    Tcp,
    /// Datagrams: UDP, or Unix datagrams.
    Udp,
    /// HTTP/1.1.
    Http,
    /// HTTP/1.1 and WebSocket (RFC 6455) on the same port.
    Websocket,
}

/// Whether connections begin with a PROXY header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ProxyProtocol {
    /// None does: connections are their clients' own.
    Off,
    /// Every one does.
    Required,
}

/// The header in which a proxy names the client of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Forwarded {
    /// None: nobody is believed.
    Off,
    /// `X-Forwarded-For: 192.0.2.7, 10.0.0.3`, as most proxies write it.
    XForwardedFor,
    /// `Forwarded: for=192.0.2.7;proto=https` (RFC 7239).
    Forwarded,
}

impl Listener {
    /// A listener for plain TCP.
    pub fn tcp(address: impl Into<String>) -> Self {
        Listener {
            address: address.into(),
            protocol: Protocol::Tcp,
            ..Self::default()
        }
    }

    /// A listener for datagrams: UDP on `host:port`, or Unix datagrams on `unixgram:/path`.
    pub fn udp(address: impl Into<String>) -> Self {
        Listener {
            address: address.into(),
            protocol: Protocol::Udp,
            ..Self::default()
        }
    }

    /// Cuts the stream into messages: see [`Framing`].
    #[must_use]
    pub fn framing(mut self, framing: Framing) -> Self {
        self.framing = framing;
        self
    }

    /// A listener for HTTP/1.1.
    pub fn http(address: impl Into<String>) -> Self {
        Listener {
            address: address.into(),
            protocol: Protocol::Http,
            ..Self::default()
        }
    }

    /// A listener for WebSocket, and HTTP/1.1 on the same port.
    pub fn websocket(address: impl Into<String>) -> Self {
        Listener {
            address: address.into(),
            protocol: Protocol::Websocket,
            ..Self::default()
        }
    }

    /// The same, with TLS.
    pub fn with_tls(self, tls: Tls) -> Self {
        Listener {
            tls: Some(tls),
            ..self
        }
    }

    /// The scheme of its address: that of its protocol, with TLS `tls`, `https`, `wss`.
    pub fn scheme(&self) -> &'static str {
        self.protocol.scheme_with(self.tls.is_some())
    }
}

impl Listener {
    /// Behind proxies that begin every connection with a PROXY header; `trusted` are their
    /// addresses: see [`trusted_proxies`](Listener::trusted_proxies).
    #[must_use]
    pub fn behind_proxy_protocol<A: Into<String>>(
        mut self,
        trusted: impl IntoIterator<Item = A>,
    ) -> Self {
        self.proxy_protocol = ProxyProtocol::Required;
        self.trust(trusted);
        self
    }

    /// Behind proxies that name the client of a request in this header; `trusted` are their
    /// addresses: see [`trusted_proxies`](Listener::trusted_proxies).
    #[must_use]
    pub fn behind_proxy<A: Into<String>>(
        mut self,
        header: Forwarded,
        trusted: impl IntoIterator<Item = A>,
    ) -> Self {
        self.forwarded = header;
        self.trust(trusted);
        self
    }

    fn trust<A: Into<String>>(&mut self, trusted: impl IntoIterator<Item = A>) {
        self.trusted_proxies
            .extend(trusted.into_iter().map(Into::into));
    }
}

impl Listener {
    pub(crate) fn speaks_http2(&self) -> bool {
        self.http2 && matches!(self.protocol, Protocol::Http | Protocol::Websocket)
    }

    /// What to agree on with clients that want compression; `None`: nothing.
    pub(crate) fn deflate_policy(&self) -> Option<DeflatePolicy> {
        self.compression.then_some(DeflatePolicy {
            window_bits: self.compression_window_bits as u8,
            server_takeover: self.compression_server_takeover,
            client_takeover: self.compression_client_takeover,
        })
    }
}

impl Protocol {
    /// The scheme in addresses: `tcp`, `http`, `ws`.
    pub fn scheme(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Http => "http",
            Protocol::Websocket => "ws",
        }
    }

    /// The scheme in addresses, with TLS or without.
    pub(crate) fn scheme_with(self, tls: bool) -> &'static str {
        match self {
            _ if !tls => self.scheme(),
            Protocol::Tcp => "tls",
            // There is none with TLS: see `check`.
            Protocol::Udp => self.scheme(),
            Protocol::Http => "https",
            Protocol::Websocket => "wss",
        }
    }
}

impl Default for Listener {
    fn default() -> Self {
        Listener {
            address: "127.0.0.1:9501".to_owned(),
            protocol: Protocol::Tcp,
            framing: Framing::None,
            unix_mode: 0o600,
            v6only: false,
            reuse_port: false,
            fd_name: String::new(),
            proxy_protocol: ProxyProtocol::Off,
            forwarded: Forwarded::Off,
            trusted_proxies: Vec::new(),
            backlog: 1024,
            idle_timeout_ms: 0,
            request_timeout_ms: 60_000,
            max_message_size: 2 << 20,
            max_fragments: 1 << 16,
            max_control_rate: 1_000,
            min_receive_rate: 240,
            min_send_rate: 240,
            compression: false,
            compression_level: 5,
            compression_threshold: 1 << 10,
            compression_window_bits: 15,
            compression_server_takeover: false,
            compression_client_takeover: false,
            max_body_size: 64 << 20,
            max_head_size: 16 << 10,
            http2: true,
            http2_max_streams: 128,
            http2_stream_window: 256 << 10,
            http2_connection_window: 1 << 20,
            http2_max_frame_size: 16 << 10,
            http2_max_reset_rate: 200,
            max_queued: 4 << 20,
            redeliver: true,
            tls: None,
        }
    }
}

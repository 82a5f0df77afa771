//! Behind the proxies that people use: nginx and haproxy, as the operations manual sets them up.

use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
};

use gannet_tests::{
    http::HttpClient,
    server::Spec,
    tcp::{TcpClient, connect_from},
    wait::wait_for,
    websocket::WebSocket,
};

use crate::behave;

#[test]
fn behind_nginx_requests_and_websockets_have_their_client() {
    let spec = trusting(behave().websocket());
    let server = spec.with("forwarded", "x-forwarded-for").start();
    let nginx = Proxy::nginx(server.address(0));
    let mut http = HttpClient::over(nginx.client());
    http.send("GET /client HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n");
    let seen = http.response().text().to_owned();
    assert!(seen.starts_with("127.0.0.5:0 via 127.0.0.1:"), "{seen}");

    let spoof = ["X-Forwarded-For: 192.0.2.7, 127.0.0.1"];
    let socket = WebSocket::open(nginx.client(), "/", &spoof).unwrap();
    let mut socket = socket.expect("nginx passes the handshake on");
    let info = socket.ask("info");
    assert!(info.contains("peer=127.0.0.5:0 "), "{info}");
    assert!(info.contains("proxy=127.0.0.1:"), "{info}");
    socket.close(1000);
    server.stop();
}

#[test]
fn behind_haproxy_connections_have_their_client() {
    for how in [
        "send-proxy",
        "send-proxy-v2",
        "send-proxy-v2 proxy-v2-options crc32c,unique-id",
    ] {
        let spec = trusting(behave().websocket());
        let server = spec.with("proxy_protocol", "required").start();
        let haproxy = Proxy::haproxy(server.address(0), how);
        let client = haproxy.client();
        let own = client.local();
        let mut socket = WebSocket::open(client, "/", &[]).unwrap().unwrap();
        let info = socket.ask("info");
        let named = format!("peer={own} local={} ", haproxy.address);
        assert!(info.contains(&named), "{how}: {info}");
        assert!(info.contains("proxy=127.0.0.1:"), "{how}: {info}");
        assert_eq!(server.total("proxy_failed"), 0, "{how}");
        server.stop();
    }
}

/// A proxy's process, in front of a server.
struct Proxy {
    child: Child,
    address: SocketAddr,
    _home: tempfile::TempDir,
}

impl Proxy {
    fn nginx(server: SocketAddr) -> Self {
        Self::start("nginx", |home, address| {
            let home = home.display();
            let settings = format!(
                "daemon off; master_process off; pid {home}/pid; error_log {home}/log;\n\
                 events {{}}\n\
                 http {{\n\
                   access_log off;\n\
                   client_body_temp_path {home}/body; proxy_temp_path {home}/proxy;\n\
                   fastcgi_temp_path {home}/fastcgi; uwsgi_temp_path {home}/uwsgi;\n\
                   scgi_temp_path {home}/scgi;\n\
                   map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}\n\
                   server {{\n\
                     listen {address};\n\
                     location / {{\n\
                       proxy_pass http://{server};\n\
                       proxy_http_version 1.1;\n\
                       proxy_set_header Upgrade $http_upgrade;\n\
                       proxy_set_header Connection $connection_upgrade;\n\
                       proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n\
                     }}\n\
                   }}\n\
                 }}\n"
            );
            (
                settings,
                vec!["-e".to_owned(), format!("{home}/log"), "-c".to_owned()],
            )
        })
    }

    /// `how` it tells the server of the client.
    fn haproxy(server: SocketAddr, how: &str) -> Self {
        Self::start("haproxy", |_, address| {
            let settings = format!(
                "defaults\n  mode tcp\n  timeout connect 10s\n  timeout client 60s\n  \
                 timeout server 60s\nlisten gannet\n  bind {address}\n  \
                 server one {server} {how}\n"
            );
            (settings, vec!["-db".to_owned(), "-f".to_owned()])
        })
    }

    /// Starts it on a port that was free a moment ago; if somebody else was faster, on another.
    fn start(program: &str, describe: impl Fn(&Path, SocketAddr) -> (String, Vec<String>)) -> Self {
        for _ in 0..10 {
            let home = tempfile::tempdir().unwrap();
            let free = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = free.local_addr().unwrap();
            let (settings, arguments) = describe(home.path(), address);
            let file = home.path().join("settings");
            fs::write(&file, settings).unwrap();
            drop(free);
            let mut child = Command::new(program)
                .env(
                    "PATH",
                    "/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/sbin:/bin",
                )
                .args(arguments)
                .arg(file)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .spawn()
                .unwrap_or_else(|error| panic!("{program}: {error}: is it installed?"));
            let listens = wait_for(program, || match child.try_wait().unwrap() {
                Some(_) => Some(false),
                None => TcpStream::connect(address).ok().map(|_| true),
            });
            if listens {
                return Proxy {
                    child,
                    address,
                    _home: home,
                };
            }
        }
        panic!("{program} does not start");
    }

    /// A connection of a client with an address of its own.
    fn client(&self) -> TcpClient {
        let stream = connect_from("127.0.0.5".parse().unwrap(), self.address);
        TcpClient::over(stream.unwrap())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn trusting(spec: Spec) -> Spec {
    spec.with("trusted_proxies", vec![toml::Value::from("127.0.0.1")])
}

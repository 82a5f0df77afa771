//! HTTP/2: POST /echo, many streams at a time on each connection.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use bytes::Bytes;
use futures_util::future::try_join_all;
use gannet_tests::http2::{Http2, request};
use http::Method;

use crate::measured::Measured;

/// Connections that are ready for requests, and what runs them.
pub(crate) struct Clients {
    runtime: tokio::runtime::Runtime,
    clients: Vec<Http2>,
    streams: usize,
    body: Bytes,
}

impl Clients {
    pub(crate) fn connect(
        to: SocketAddr,
        connections: usize,
        streams: usize,
        size: usize,
    ) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("a runtime")?;
        let clients = runtime.block_on(async {
            let mut clients = Vec::new();
            for _ in 0..connections {
                clients.push(Http2::connect(to).await);
            }
            clients
        });
        let body = (0..size).map(|n| b'a' + (n % 26) as u8).collect();
        Ok(Clients {
            runtime,
            clients,
            streams,
            body,
        })
    }

    /// Asks for this long, as often as streams are free; then waits for the answers that are due.
    pub(crate) fn run(&self, length: Duration) -> Result<Measured> {
        self.runtime.block_on(async {
            let begin = Instant::now();
            let ask = async |client: &Http2| {
                let mut latencies = Vec::new();
                while begin.elapsed() < length {
                    let sent = Instant::now();
                    let request = request(Method::POST, "/echo");
                    let reply = client.ask(request, Some(self.body.clone())).await?;
                    anyhow::ensure!(reply.body == self.body, "another body came back");
                    latencies.push(sent.elapsed().as_micros() as u32);
                }
                anyhow::Ok(latencies)
            };
            let all = self.clients.iter();
            let all = all.flat_map(|client| (0..self.streams).map(|_| ask(client)));
            let all = try_join_all(all).await?;
            Ok(Measured {
                latencies: all.concat(),
            })
        })
    }
}

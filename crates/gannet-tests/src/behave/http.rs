//! Routes over HTTP.

use std::{collections::HashMap, process, thread, time::Duration};

use bytes::Bytes;
use gannet::{
    Body, Conn, Error, Peer, Request, Response, Result, ViaProxy, extend_request,
    http::{StatusCode, header},
};

use http_body_util::BodyExt;

use super::{Behave, commands::number, gates};

impl Behave {
    pub(super) async fn route(&self, conn: Conn, mut request: Request) -> Result<Response> {
        if self.reports {
            let seen = format!("{} {}\n", request.method(), request.uri());
            let body = request.into_body().collect(64 << 20).await?;
            return Ok(text([seen.as_bytes(), &body].concat()));
        }
        let path = request.uri().path().to_owned();
        let query = parse_query(request.uri().query().unwrap_or(""));
        let of = |name: &str| query.get(name).map_or("0", String::as_str);
        let milliseconds = || Ok::<_, Error>(Duration::from_millis(number(of("ms"))?));

        if let Some(mark) = path.strip_prefix("/mark/") {
            self.note(mark.as_bytes());
            return self
                .marked(of("then"), milliseconds()?, &conn, request)
                .await;
        }
        Ok(match path.as_str() {
            "/" => text("hello"),
            "/pid" => text(process::id().to_string()),
            "/version" => text(self.variant.version),
            "/worker" => text(self.worker.id().to_string()),
            "/http-version" => text(format!("{:?}", request.version())),
            "/method" => text(request.method().to_string()),
            "/host" => text(header_of(&request, header::HOST.as_str())),
            "/headers" => {
                let lines = request.headers().iter().map(|(name, value)| {
                    format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes()))
                });
                text(lines.collect::<String>())
            }
            "/info" => text(match conn.info() {
                Some(info) => format!("{} {}", info.peer, info.websocket),
                None => "gone".to_owned(),
            }),
            // Who the client of this request is, and through whom it came.
            "/client" => {
                let (peer, proxy) = (Peer::of(&request), ViaProxy::of(&request));
                extend_request(&mut request);
                let extensions = request.extensions();
                let told = extensions.get() == peer.as_ref() && extensions.get() == proxy.as_ref();
                text(match told {
                    true => format!(
                        "{} via {}",
                        peer.map_or("nobody".to_owned(), |peer| peer.to_string()),
                        proxy.map_or("nobody".to_owned(), |proxy| proxy.0.to_string()),
                    ),
                    false => format!("{peer:?} and {proxy:?} are not in {extensions:?}"),
                })
            }
            "/echo" => text(request.into_body().collect(64 << 20).await?),
            // Sends body and trailers back, the trailers as trailers.
            "/trailers" => {
                let whole = BodyExt::collect(request.into_body()).await?;
                let trailers = whole.trailers().cloned().unwrap_or_default();
                let (mut sender, body) = Body::channel(4);
                self.worker.spawn_local(async move {
                    if sender.send(whole.to_bytes()).await.is_ok() {
                        let _ = sender.trailers(trailers).await;
                    }
                });
                Response::new(body)
            }
            // Sends each piece back as it comes.
            "/pipe" => {
                let (mut sender, body) = Body::channel(4);
                let mut upload = request.into_body();
                self.worker.spawn_local(async move {
                    while let Some(Ok(piece)) = upload.chunk().await {
                        if sender.send(piece).await.is_err() {
                            return;
                        }
                    }
                });
                Response::new(body)
            }
            // `n` pieces of `size` bytes, `ms` apart.
            "/stream" => {
                let (count, size) = (number::<usize>(of("n"))?, number::<usize>(of("size"))?);
                let (pause, (mut sender, body)) = (milliseconds()?, Body::channel(4));
                self.worker.spawn_local(async move {
                    for n in 0..count {
                        let mut piece = format!("{n} ").into_bytes();
                        piece.resize(size.max(piece.len()), b's');
                        if sender.send(Bytes::from(piece)).await.is_err() {
                            return;
                        }
                        if !pause.is_zero() {
                            tokio::time::sleep(pause).await;
                        }
                    }
                });
                Response::new(body)
            }
            "/big" => text(vec![b'b'; number(of("n"))?]),
            "/empty" => {
                let mut response = Response::new(Body::default());
                *response.status_mut() = StatusCode::NO_CONTENT;
                response
            }
            "/sleep" => {
                tokio::time::sleep(milliseconds()?).await;
                text("slept")
            }
            "/gate" => {
                gates::wait_at(of("file")).await;
                text("passed")
            }
            "/block" => {
                thread::sleep(milliseconds()?);
                text("blocked")
            }
            "/ignore-body" => text("ignored"),
            "/panic" => panic!("as asked"),
            "/error" => return Err(Error::new("as asked")),
            "/truncate" => {
                let (mut sender, body) = Body::channel(4);
                self.worker.spawn_local(async move {
                    let _ = sender.send(Bytes::from_static(b"beginning")).await;
                    sender.abort("as asked").await;
                });
                Response::new(body)
            }
            "/publish" => {
                let message = of("message").to_owned();
                self.worker.publish(of("topic"), message).await?;
                text("published")
            }
            _ => {
                let mut response = text("no such page");
                *response.status_mut() = StatusCode::NOT_FOUND;
                response
            }
        })
    }

    /// What a `/mark/` request does once it is noted.
    async fn marked(
        &self,
        then: &str,
        pause: Duration,
        conn: &Conn,
        request: Request,
    ) -> Result<Response> {
        match then {
            "abort" => process::abort(),
            "abort-once" if !conn.is_redelivered() => process::abort(),
            "sleep" => tokio::time::sleep(pause).await,
            "block" => thread::sleep(pause),
            "read" => drop(request.into_body().collect(64 << 20).await?),
            _ => {}
        }
        Ok(text(format!("marked {}", conn.is_redelivered())))
    }
}

fn text(body: impl Into<Body>) -> Response {
    Response::new(body.into())
}

fn header_of(request: &Request, name: &str) -> String {
    let value = request.headers().get(name);
    value
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        .unwrap_or_default()
}

fn parse_query(query: &str) -> HashMap<String, String> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

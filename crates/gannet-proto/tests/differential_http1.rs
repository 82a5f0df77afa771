//! hyper reads every request that the decoder accepts the same way: no request can mean
//! one thing here and another one there. (What only hyper accepts is no concern: the
//! decoder is stricter on purpose.)

mod support;

use std::{
    cell::RefCell,
    convert::Infallible,
    future::poll_fn,
    pin::{Pin, pin},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use gannet_proto::http1::{Limits, Version};
use hyper::{
    Request, Response,
    body::{Body, Incoming},
    rt::{Read, ReadBufCursor, Write},
    server::conn::http1::Builder,
    service::service_fn,
};
use support::{
    http1::{Head, Pairs, Seen, Transcript, random_input, read},
    random::Random,
};

/// What both sides must agree on. Names of headers are in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Exchange {
    method: String,
    target: String,
    is_1_0: bool,
    headers: Pairs,
    body: Vec<u8>,
    trailers: Pairs,
}

/// A stream that has this input, then nothing more for now; what is written is dropped.
struct Input(Vec<u8>);

impl Read for Input {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut into: ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        let len = self.0.len().min(into.remaining());
        if len == 0 {
            return Poll::Pending;
        }
        into.put_slice(&self.0[..len]);
        self.0.drain(..len);
        Poll::Ready(Ok(()))
    }
}

impl Write for Input {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Poll::Ready(Ok(from.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The requests that hyper reads to their end, and whether it then refused the input.
fn hyper(input: &[u8]) -> (Vec<Exchange>, bool) {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let service = service_fn(|request: Request<Incoming>| {
        let seen = Rc::clone(&seen);
        async move {
            if let Some(exchange) = exchange(request).await {
                seen.borrow_mut().push(exchange);
            }
            Ok::<_, Infallible>(Response::new(String::new()))
        }
    });
    let connection = Builder::new()
        .half_close(true)
        .serve_connection(Input(input.to_vec()), service);
    let mut connection = pin!(connection);

    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let failed = loop {
        match connection.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(result) => break result.is_err(),
            Poll::Pending if woken.0.swap(false, Ordering::Relaxed) => {}
            Poll::Pending => break false,
        }
    };
    let seen = seen.borrow().clone();
    (seen, failed)
}

async fn exchange(request: Request<Incoming>) -> Option<Exchange> {
    let pairs = |headers: &hyper::HeaderMap| {
        headers
            .iter()
            .map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()))
            .collect()
    };
    let (head, body) = request.into_parts();
    let mut exchange = Exchange {
        method: head.method.to_string(),
        target: head.uri.to_string(),
        is_1_0: head.version == hyper::Version::HTTP_10,
        headers: pairs(&head.headers),
        ..Exchange::default()
    };
    let mut body = pin!(body);
    while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        match frame.ok()?.into_data() {
            Ok(data) => exchange.body.extend_from_slice(&data),
            Err(frame) => exchange.trailers = pairs(frame.trailers_ref()?),
        }
    }
    Some(exchange)
}

/// The requests of a transcript that were read to their end.
fn exchanges(transcript: &Transcript) -> Vec<Exchange> {
    let mut exchanges = Vec::new();
    let mut current = Exchange::default();
    for event in &transcript.events {
        match event {
            Seen::Head(head) => current = Exchange::from(&**head),
            Seen::Body(data) => current.body.extend_from_slice(data),
            Seen::End(trailers) => {
                current.trailers = lower(trailers);
                exchanges.push(std::mem::take(&mut current));
            }
        }
    }
    exchanges
}

impl From<&Head> for Exchange {
    fn from(head: &Head) -> Self {
        Self {
            method: head.method.clone(),
            target: head.target.clone(),
            is_1_0: head.version == Version::Http10,
            headers: lower(&head.headers),
            ..Self::default()
        }
    }
}

fn lower(pairs: &Pairs) -> Pairs {
    pairs
        .iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), value.clone()))
        .collect()
}

impl Exchange {
    /// hyper groups headers of one name, and writes an absolute target its own way.
    fn normal(mut self) -> Self {
        self.headers.sort();
        self.trailers.sort();
        for scheme in ["http://", "https://"] {
            if self.target.to_ascii_lowercase().starts_with(scheme) {
                let (start, rest) = self.target.split_at(scheme.len());
                let path = if rest.contains(['/', '?']) { "" } else { "/" };
                self.target =
                    format!("{}{rest}{path}", start.to_ascii_lowercase()).replace("/?", "?");
            }
        }
        self
    }
}

#[test]
fn hyper_reads_what_the_decoder_accepts_the_same_way() {
    let cases = 20_000;
    let mut agreed = 0;
    for seed in 0..cases {
        let input = random_input(&mut Random::new(seed));
        let transcript = read(Limits::default(), &input, &[]);
        let (theirs, failed) = hyper(&input);
        let context = || {
            format!(
                "seed {seed}: {} {:?}",
                input.escape_ascii(),
                transcript.error
            )
        };
        let mut theirs = theirs.into_iter();
        for ours in exchanges(&transcript) {
            let Some(theirs) = theirs.next() else {
                assert!(
                    has_later_minor_version(&input),
                    "hyper stops before {ours:?}, failed: {failed}\n{}",
                    context()
                );
                break;
            };
            let is_connect = ours.method == "CONNECT";
            assert_eq!(ours.normal(), theirs.normal(), "{}", context());
            agreed += 1;
            if is_connect {
                // hyper makes a tunnel of it and reads no further.
                break;
            }
        }
    }
    assert!(agreed > cases / 3, "{agreed} requests agreed");
}

/// The one exception: httparse refuses HTTP/1.2 and later, RFC 9110 section 2.5 does not.
fn has_later_minor_version(input: &[u8]) -> bool {
    input
        .windows(8)
        .any(|part| part.starts_with(b"HTTP/1.") && part[7] > b'1')
}

/// The engine hands targets on as `http::Uri`: what is accepted here must be one.
#[test]
fn every_accepted_target_is_a_uri() {
    for byte in 0u8..=255 {
        for place in ["/", "/?", "http://a/", "http://a/?", "http://", "http://a:"] {
            for method in ["GET", "CONNECT"] {
                let target = [place.as_bytes(), &[byte], b"b"].concat();
                let input = [method.as_bytes(), b" ", &target, b" HTTP/1.0\r\n\r\n"].concat();
                if read(Limits::default(), &input, &[]).error.is_none() {
                    let uri = target
                        .as_slice()
                        .try_into()
                        .map(|uri: hyper::Uri| uri.to_string());
                    assert!(uri.is_ok(), "{}", target.escape_ascii());
                }
            }
        }
    }
}

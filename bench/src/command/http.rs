//! `http`: requests on connections that are kept.

use super::{
    Load,
    load::{Spec, header, size},
};
use crate::{
    Error, Report, Target,
    payload::Alphabet,
    protocol::http::{self, ExpectedBody, Request},
    target::Scheme,
};

/// Requests over HTTP/1.1: GET, or POST of a body that must come back
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Http {
    /// http://HOST:PORT/PATH or https://HOST:PORT/PATH
    #[arg(value_name = "URL")]
    target: Target,
    #[command(flatten)]
    pub(crate) load: Load,
    /// Send a body of so many bytes (POST); several sizes take turns
    #[arg(long, short = 's', value_name = "BYTES", value_delimiter = ',', value_parser = size)]
    size: Vec<usize>,
    /// The method [default: GET, with --size POST]
    #[arg(long, value_name = "METHOD", value_parser = method)]
    method: Option<String>,
    /// A header of every request, as `Name: value`; may be repeated
    #[arg(long = "header", short = 'H', value_name = "HEADER", value_parser = header)]
    headers: Vec<String>,
    /// The status that every response must have
    #[arg(long, value_name = "STATUS", default_value_t = 200, value_parser = clap::value_parser!(u16).range(200..600))]
    expect_status: u16,
    /// The body that every response must have [default: what was sent; without --size, any]
    #[arg(long, value_name = "TEXT", conflicts_with = "any_body")]
    expect_body: Option<String>,
    /// With --size: whatever body the response has is right
    #[arg(long)]
    any_body: bool,
}

impl Http {
    pub(crate) fn run(&self) -> Result<Report, Error> {
        let target = &self.target;
        let sizes = (!self.size.is_empty()).then_some(self.size.as_slice());
        let body = match &self.expect_body {
            Some(text) => ExpectedBody::Exactly(text.clone().into_bytes()),
            None if self.any_body || sizes.is_none() => ExpectedBody::Any,
            None => ExpectedBody::Echo,
        };
        let default = if sizes.is_some() { "POST" } else { "GET" };
        let http = http::Http::new(&Request {
            method: self.method.as_deref().unwrap_or(default),
            path: &target.path,
            host: &target.authority(),
            headers: &self.headers.concat(),
            sizes,
            status: self.expect_status,
            body,
        });
        let spec = Spec {
            what: "http",
            target,
            schemes: &[Scheme::Http, Scheme::Https],
            alpn: &[b"http/1.1"],
            sizes: sizes.unwrap_or_default(),
            alphabet: Alphabet::Bytes,
        };
        self.load.run(&spec, |_| http.clone())
    }
}

fn method(text: &str) -> Result<String, String> {
    match !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        true => Ok(text.to_ascii_uppercase()),
        false => Err("a method is letters: GET, PUT".into()),
    }
}

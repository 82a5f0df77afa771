//! HTTP to the collector, on the thread that exports: it may wait.

use std::{pin::Pin, sync::Arc, time::Duration};

use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;

use super::export::Losses;

/// Sends one request after the other, over connections that are kept.
#[derive(Debug)]
pub(super) struct Client {
    agent: ureq::Agent,
    losses: Arc<Losses>,
}

impl Client {
    pub(super) fn new(timeout: Duration, losses: Arc<Losses>) -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(timeout))
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .user_agent(concat!("gannet/", env!("CARGO_PKG_VERSION")))
            .build();
        let agent = config.new_agent();
        Client { agent, losses }
    }

    fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, ureq::Error> {
        let (parts, body) = request.into_parts();
        let answer = self.agent.run(Request::from_parts(parts, &body[..]))?;
        let (parts, mut body) = answer.into_parts();
        let body = body.with_config().limit(LONGEST_ANSWER).read_to_vec()?;
        if parts.status.is_success()
            && let Ok(answer) = ExportTraceServiceResponse::decode(&body[..])
            && let Some(partial) = answer.partial_success
            && partial.rejected_spans > 0
        {
            let rejected = partial.rejected_spans as u64;
            self.losses.refused(rejected, &partial.error_message);
        }
        Ok(Response::from_parts(parts, body.into()))
    }
}

impl HttpClient for Client {
    fn send_bytes<'a, 'b>(
        &'a self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move {
            self.send(request).map_err(|error| {
                // The exporter says only that there was one.
                self.losses.note(&error.to_string());
                error.into()
            })
        })
    }
}

/// Bytes of an answer that are read.
const LONGEST_ANSWER: u64 = 64 << 10;

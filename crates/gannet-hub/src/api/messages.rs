//! `POST /v1/messages`: a message from the application.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::Response,
};
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use ulid::Ulid;

use super::{Api, Authorized, fresh};
use crate::{
    address::{Address, User},
    error::{Code, Error},
    hub::Outgoing,
    net::Net,
    protocol::from_json,
};

/// The body of the request.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Post {
    to: Address,
    from: Option<User>,
    event: Option<Arc<str>>,
    data: Box<RawValue>,
    key: Option<Arc<str>>,
}

/// The body of the response.
#[derive(Serialize)]
struct Accepted {
    id: Ulid,
    time: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    /// Connections of the user that it was pushed to.
    #[serde(skip_serializing_if = "Option::is_none")]
    reached: Option<usize>,
    repeated: bool,
}

pub(super) async fn send<N: Net>(
    _: Authorized,
    State(api): State<Arc<Api<N>>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Error> {
    let hub = &api.hub;
    is_json(&headers)?;
    let body = read(body, &headers, hub.settings.max_data + ENVELOPE).await?;
    let body = std::str::from_utf8(&body)
        .map_err(|error| Error::new(Code::BadJson, format!("the body is no UTF-8: {error}")))?;
    let Post {
        to,
        from,
        event,
        data,
        key,
    } = from_json(body)?;

    let reached = match &to {
        Address::User(_) => Some(hub.net.members(&to.topic()).await?.len()),
        Address::Channel(_) => None,
    };
    let appended = hub
        .publish(Outgoing {
            to,
            from,
            device: None,
            event,
            data,
            key,
        })
        .await?;
    let accepted = Accepted {
        id: appended.id,
        time: appended.time,
        offset: appended.offset,
        // A repeat to a user is not pushed: the first was, and nothing was kept of it.
        reached: reached.map(|reached| {
            if appended.message.is_some() {
                reached
            } else {
                0
            }
        }),
        repeated: appended.repeated,
    };
    Ok(fresh(StatusCode::ACCEPTED, &accepted))
}

fn is_json(headers: &HeaderMap) -> Result<(), Error> {
    let value = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let kind = value
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default()
        .trim_ascii();
    match kind.eq_ignore_ascii_case("application/json") {
        true => Ok(()),
        false => Err(Error::new(
            Code::NotJson,
            format!("the Content-Type is to be application/json, not {kind:?}"),
        )),
    }
}

async fn read(body: Body, headers: &HeaderMap, limit: usize) -> Result<Vec<u8>, Error> {
    let too_long = || {
        Error::new(
            Code::TooLong,
            format!("the body has more than {limit} bytes"),
        )
    };
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok());
    if announced
        .and_then(|text| text.parse().ok())
        .is_some_and(|announced: usize| announced > limit)
    {
        return Err(too_long());
    }
    let mut bytes = Vec::new();
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk
            .map_err(|error| Error::new(Code::BadJson, format!("the body broke off: {error}")))?;
        if bytes.len() + chunk.len() > limit {
            return Err(too_long());
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// Bytes of a request beside its `data`.
const ENVELOPE: usize = 4096;

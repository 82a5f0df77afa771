//! `GET /v1/channels/{channel}/…`: what was said and who is there.

use std::sync::Arc;

use axum::{
    extract::{
        Path, Query, State,
        rejection::{PathRejection, QueryRejection},
    },
    http::StatusCode,
    response::Response,
};
use serde::{Deserialize, Serialize};
use ulid::Ulid;

use super::{Api, Authorized, fresh};
use crate::{
    address::Channel,
    error::Error,
    net::Net,
    protocol::{History, Position, Present},
};

/// The parameters of the query.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Range {
    before: Option<u64>,
    since: Option<u64>,
    epoch: Option<Ulid>,
    limit: Option<usize>,
}

pub(super) async fn history<N: Net>(
    _: Authorized,
    State(api): State<Arc<Api<N>>>,
    channel: Result<Path<String>, PathRejection>,
    range: Result<Query<Range>, QueryRejection>,
) -> Result<Response, Error> {
    let Query(Range {
        before,
        since,
        epoch,
        limit,
    }) = range.map_err(|error| Error::field("query", error.body_text()))?;
    let epoch = epoch.unwrap_or_else(|| api.hub.store.epoch());
    let since = since.map(|offset| Position { epoch, offset });
    let history = History {
        channel: named(channel)?,
        before,
        since,
        limit,
    };
    Ok(fresh(StatusCode::OK, &api.hub.history(&history).await?))
}

pub(super) async fn presence<N: Net>(
    _: Authorized,
    State(api): State<Arc<Api<N>>>,
    channel: Result<Path<String>, PathRejection>,
) -> Result<Response, Error> {
    #[derive(Serialize)]
    struct Body {
        channel: Channel,
        #[serde(flatten)]
        present: Present,
    }
    let channel = named(channel)?;
    let present = api.hub.present(&channel).await?;
    Ok(fresh(StatusCode::OK, &Body { channel, present }))
}

fn named(path: Result<Path<String>, PathRejection>) -> Result<Channel, Error> {
    let Path(name) = path.map_err(|error| Error::field("channel", error.body_text()))?;
    Ok(name.parse()?)
}

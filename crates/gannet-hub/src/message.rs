//! A message, and how the wire shows it.

use std::sync::Arc;

use serde::Serialize;
use serde_json::value::RawValue;
use ulid::Ulid;

use crate::address::{Channel, User};

/// What somebody said: to a channel or to a user.
#[derive(Clone, Debug, Serialize)]
pub struct Message {
    /// Its place in the channel's history, from 1 without gaps; messages to users have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// Its name in the whole world.
    pub id: Ulid,
    /// Who said it; nobody: the application, over HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<User>,
    /// What kind of thing it is, for the application. `message` unless the sender said more.
    pub event: Arc<str>,
    /// What was said: any JSON, kept as it was written.
    pub data: Arc<RawValue>,
    /// When the server took it, in milliseconds since 1970.
    pub time: u64,
    /// The key that its sender gave it. The sender knows its own message by it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Arc<str>>,
}

/// The event name of a message that has none.
pub const DEFAULT_EVENT: &str = "message";

impl Message {
    /// The push that tells a channel's subscribers.
    pub(crate) fn push_to_channel(&self, channel: &Channel) -> String {
        to_json(&ChannelPush {
            op: "msg",
            channel,
            message: self,
        })
    }

    /// The push that tells a user's connections.
    pub(crate) fn push_to_user(&self, user: &User) -> String {
        to_json(&UserPush {
            op: "msg",
            user,
            message: self,
        })
    }
}

#[derive(Serialize)]
struct ChannelPush<'a> {
    op: &'static str,
    channel: &'a Channel,
    #[serde(flatten)]
    message: &'a Message,
}

#[derive(Serialize)]
struct UserPush<'a> {
    op: &'static str,
    user: &'a User,
    #[serde(flatten)]
    message: &'a Message,
}

/// Serialises what cannot fail to: no map with keys other than text, no float that is no number.
pub(crate) fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|error| {
        tracing::error!(%error, "a message was not serialised");
        String::from("{}")
    })
}

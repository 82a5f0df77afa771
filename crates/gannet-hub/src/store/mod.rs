//! Where messages are kept.
//!
//! [`Store`] is the contract; [`sqlite`] keeps it in a file. `conformance` runs against every
//! implementation.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde_json::value::RawValue;
use ulid::Ulid;

use crate::{
    address::{Address, Channel, Device, User},
    message::Message,
};

#[cfg(test)]
pub(crate) mod conformance;
pub mod sqlite;

/// What the hub needs of a database. Several processes use one store at a time.
///
/// **Order.** The messages of a channel have the offsets 1, 2, 3, … without gaps, in the order
/// in which they were committed, whatever process appended them. A reader that sees offset *n*
/// sees every kept offset below it.
///
/// **Durability.** When `append` returns `Ok`, the message survives the death of the process,
/// and of the machine as far as the store's documentation says. When it returns `Err`, the message
/// may or may not be stored: whoever wants to be sure appends it again with the same key.
///
/// **Once.** Two appends with the same origin and key store one message. This is remembered for
/// [`Limits::key_ms`] at least, also when the message itself is no longer kept.
///
/// **Bounds.** Of each channel the newest [`Limits::history`] messages are kept.
pub trait Store: Send + Sync {
    /// The name of this history. A store that was lost and begun anew has another, so that
    /// offsets of the old one are not mistaken for its own.
    fn epoch(&self) -> Ulid;

    /// Stores a message, or finds what was stored under its key. A message to a user is not
    /// kept, only its key is.
    fn append(&self, append: Append) -> BoxFuture<'_, Result<Appended, StoreError>>;

    /// Reads a part of a channel's history, as of one moment.
    fn page<'a>(
        &'a self,
        channel: &'a Channel,
        part: Part,
        limit: usize,
    ) -> BoxFuture<'a, Result<Page, StoreError>>;

    /// The newest messages of all channels that were stored at this time (in milliseconds since
    /// 1970) or later; at most `limit`, oldest first within a channel.
    fn recent(
        &self,
        since: u64,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<(Channel, Message)>, StoreError>>;
}

/// How much a store keeps.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Messages kept of each channel.
    pub history: u64,
    /// How long a key is remembered, in milliseconds.
    pub key_ms: u64,
}

/// A message to be stored.
#[derive(Clone, Debug)]
pub struct Append {
    /// Where it goes.
    pub to: Address,
    /// Who sends it.
    pub from: Option<User>,
    /// Of whom `key` is one; [`None`] for the HTTP interface.
    pub device: Option<(User, Device)>,
    /// The event's name.
    pub event: Arc<str>,
    /// The content.
    pub data: Arc<RawValue>,
    /// The sender's own name for this message.
    pub key: Option<Arc<str>>,
}

/// What became of an [`Append`].
#[derive(Clone, Debug)]
pub struct Appended {
    /// The message's name.
    pub id: Ulid,
    /// Its place in the channel; none for messages to users.
    pub offset: Option<u64>,
    /// When it was stored first.
    pub time: u64,
    /// It was stored before, under the same key.
    pub repeated: bool,
    /// The message as it is stored; none if it was a repeat and is no longer kept.
    pub message: Option<Message>,
}

/// Which part of a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The newest messages.
    Newest,
    /// The newest messages below this offset.
    Before(u64),
    /// The oldest messages above this offset.
    Since(u64),
}

/// Messages of a channel, by ascending offset.
#[derive(Clone, Debug)]
pub struct Page {
    /// The messages, without gaps.
    pub messages: Vec<Message>,
    /// Offset of the newest message of the channel; 0 if there never was one.
    pub last: u64,
    /// Offset of the oldest message that is kept; `last + 1` if none is.
    pub first: u64,
}

/// Why a store did not do it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Others were writing for too long. Try again.
    #[error("the database is locked by another process")]
    Busy,
    /// Nothing can be stored until somebody makes room.
    #[error("the disk is full")]
    Full,
    /// The key was used for another address.
    #[error("the key was used for a message to {to}")]
    KeyUsed {
        /// The address of the first use.
        to: String,
    },
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

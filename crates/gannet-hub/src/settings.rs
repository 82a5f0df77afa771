//! The settings of a hub.

use std::path::PathBuf;

/// What a hub keeps and allows.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settings {
    /// The directory with all that the hub keeps. Default `gannet-data`.
    pub data: PathBuf,

    /// Messages kept of each channel. Default 1,000.
    ///
    /// Disk space is this times the channels times what people write. A client that was away for
    /// longer than this is told that it has missed some.
    pub history: u64,

    /// How long the key of a message is remembered, in hours. Default 24.
    ///
    /// A message sent again with its key within this time is stored once. Each takes some 150
    /// bytes on disk.
    pub key_hours: u64,

    /// Largest `data` of a message, in bytes of JSON. Default 64 KiB.
    pub max_data: usize,

    /// Requests in one WebSocket message. Default 100.
    pub max_lines: usize,

    /// Channels that one connection subscribes to. Default 100.
    pub max_subscriptions: usize,

    /// Origins of other sites whose pages may connect, such as `https://shop.example`. Default
    /// none: only pages that the hub served itself may.
    ///
    /// Programs that are no browsers send no origin and are not held back by this.
    pub origins: Vec<String>,
}

impl Settings {
    /// The defaults, with this data directory.
    pub fn new(data: impl Into<PathBuf>) -> Self {
        Settings {
            data: data.into(),
            ..Settings::default()
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            data: PathBuf::from("gannet-data"),
            history: 1000,
            key_hours: 24,
            max_data: 64 << 10,
            max_lines: 100,
            max_subscriptions: 100,
            origins: Vec::new(),
        }
    }
}

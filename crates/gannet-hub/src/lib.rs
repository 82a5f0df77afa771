//! The Gannet hub: push and chat, ready to run.
//!
//! People connect with a WebSocket, subscribe to channels, write, read what was written while they
//! were away, and see who is there. Programs push to users and channels over HTTP. docs/hub.md is
//! the guide, docs/protocol.md and docs/http-api.md are the specifications.
//!
//! # Main types
//!
//! - [`serve`] runs a hub on a [`gannet::Server`] until it is stopped; [`Settings`] say what it keeps
//!   and allows.
//! - [`DataDir`] is the directory with the database and the [`ApiKey`] that programs show.
//! - [`store::Store`] is what a database has to do.
//!
//! # Layout
//!
//! - `address`, `message`, `error`: the words of the protocol. `protocol`: its lines.
//! - `hub` does what is asked; `ops` has its operations, `presence` who is there. They know the
//!   engine by the trait in `net`, what a connection has said of itself by `session`, and the database
//!   by [`store::Store`].
//! - `handler` ties the hub to the engine, `api` to HTTP, `data_dir` to a directory.
//!
//! # Example
//!
//! ```no_run
//! use gannet::Server;
//! use gannet_hub::Settings;
//!
//! fn main() -> gannet::Result {
//!     gannet_hub::serve(Settings::new("data"), Server::websocket("127.0.0.1:9500"))
//! }
//! ```
#![forbid(unsafe_code)]

pub use crate::{
    api_key::ApiKey,
    data_dir::{DataDir, DataError},
    handler::serve,
    settings::Settings,
};

pub mod address;
mod api;
mod api_key;
mod data_dir;
pub mod error;
mod handler;
mod hub;
pub mod message;
mod metrics;
mod net;
mod ops;
mod presence;
mod protocol;
mod session;
mod settings;
pub mod store;

//! TLS apart from sockets: from files to what a handshake needs, and what is known after one.
//!
//! | file       | idea                                                                      |
//! |------------|---------------------------------------------------------------------------|
//! | `material` | the files' contents; read and checked by the manager, sent to the master  |
//! | `config`   | from material to a `rustls::ServerConfig`                                 |
//! | `depth`    | how long a client's chain may be                                          |
//! | `names`    | which certificate a client gets (SNI)                                     |
//! | `serving`  | what reactors use, and how it is renewed while they do                    |
//! | `turns`    | handshakes in a second                                                    |
//! | `info`     | what handlers are told of a connection                                    |
//!
//! The manager reads files, because it is what answers `reload`, and what survives a death of the
//! master: a new master gets the material that was good last, whatever lies on disk by then. It
//! tries the material out before anybody else gets it. It goes to the master in a sealed memfd;
//! workers have neither file nor key. The connections are the reactors': `master/tls`.

mod config;
mod depth;
mod info;
mod material;
mod names;
mod serving;
mod turns;

pub use self::info::{PeerCertificate, TlsInfo};
pub(crate) use self::{
    info::row_words,
    material::Material,
    serving::{Serving, TlsListener},
    turns::{Place, Turn},
};

//! `ws`: every message comes back.

use gannet_proto::websocket::MessageKind;

use super::{
    Load,
    load::{Spec, header, size},
};
use crate::{
    Error, Report, Target, payload::Alphabet, protocol::websocket::WebSocket, target::Scheme,
};

/// Echo over WebSocket: every message must come back
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Ws {
    /// ws://HOST:PORT/PATH or wss://HOST:PORT/PATH
    #[arg(value_name = "URL")]
    target: Target,
    #[command(flatten)]
    pub(crate) load: Load,
    /// Bytes of a message; several sizes take turns
    #[arg(long, short = 's', value_name = "BYTES", default_value = "64", value_delimiter = ',', value_parser = size)]
    size: Vec<usize>,
    /// Send text messages, of capitals and digits, in place of binary ones
    #[arg(long)]
    text: bool,
    /// A header of the handshake, as `Name: value`; may be repeated
    #[arg(long = "header", short = 'H', value_name = "HEADER", value_parser = header)]
    headers: Vec<String>,
}

impl Ws {
    pub(crate) fn run(&self) -> Result<Report, Error> {
        let (kind, alphabet) = match self.text {
            true => (MessageKind::Text, Alphabet::Text),
            false => (MessageKind::Binary, Alphabet::Bytes),
        };
        let target = &self.target;
        let socket = WebSocket::new(
            kind,
            &target.authority(),
            &target.path,
            &self.headers.concat(),
            SEED,
        );
        let spec = Spec {
            what: "ws",
            target,
            schemes: &[Scheme::Ws, Scheme::Wss],
            alpn: &[b"http/1.1"],
            sizes: &self.size,
            alphabet,
        };
        self.load
            .run(&spec, |thread| socket.reseeded(thread as u64))
    }
}

/// Of keys and masks. They are to be the same in every run.
const SEED: u64 = 0x6761_6e6e_6574;

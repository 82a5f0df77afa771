//! `tcp`: what is sent comes back.

use super::{
    Load,
    load::{Spec, size},
};
use crate::{
    Error, Report, Target,
    payload::Alphabet,
    protocol::tcp::{self, Framing},
    target::Scheme,
};

/// Echo over TCP or TLS: what is sent must come back
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Tcp {
    /// HOST:PORT; tls://HOST:PORT for TLS
    #[arg(value_name = "TARGET")]
    target: Target,
    #[command(flatten)]
    pub(crate) load: Load,
    /// Bytes of a message; several sizes take turns
    #[arg(long, short = 's', value_name = "BYTES", default_value = "64", value_delimiter = ',', value_parser = size)]
    size: Vec<usize>,
    /// What shows the server where a message ends. With `line`, messages are capitals and digits
    #[arg(long, value_enum, default_value_t)]
    framing: Framing,
}

impl Tcp {
    pub(crate) fn run(&self) -> Result<Report, Error> {
        let framing = self.framing;
        let (least, most) = match framing {
            Framing::None => (1, usize::MAX),
            Framing::Line | Framing::Length32 => (0, usize::MAX),
            Framing::Length16 => (0, usize::from(u16::MAX)),
        };
        if let Some(size) = self.size.iter().find(|size| !(least..=most).contains(size)) {
            return Err(Error::Usage(format!(
                "--size {size}: that cannot be with this --framing"
            )));
        }
        let spec = Spec {
            what: "tcp",
            target: &self.target,
            schemes: &[Scheme::Tcp, Scheme::Tls],
            alpn: &[],
            sizes: &self.size,
            alphabet: match framing {
                Framing::None => Alphabet::Bytes,
                _ => Alphabet::Text,
            },
        };
        self.load.run(&spec, |_| tcp::Tcp { framing })
    }
}

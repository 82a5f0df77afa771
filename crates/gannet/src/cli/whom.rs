//! Whom a command is about, and what it sends: arguments that several commands have.

use std::{
    io::{self, Read},
    path::PathBuf,
};

use clap::Args;

use crate::{
    ConnId, Error, Result,
    control::{Filter, MAX_DATA, Payload, from_hex},
};

/// Connections: those to which all that is given applies
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Whom {
    /// Connections of this listener, by its number in `clients`
    #[arg(long, value_name = "N")]
    pub listener: Option<usize>,

    /// Connections from this address or network: 10.0.0.1, 10.0.0.0/8, fd00::/8, or `unix`
    #[arg(long, value_name = "ADDRESS")]
    pub address: Option<String>,

    /// Connections that are bound to this uid
    #[arg(long, value_name = "UID")]
    pub uid: Option<String>,

    /// Connections that have subscribed to this topic
    #[arg(long, value_name = "TOPIC")]
    pub topic: Option<String>,
}

/// What is sent
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct What {
    /// Send these bytes, two hexadecimal digits each, as a binary message
    #[arg(long, value_name = "DIGITS", conflicts_with = "file")]
    pub hex: Option<String>,

    /// Send the content of this file: text if it is UTF-8, else binary
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,

    /// Send as a binary message what else would be text
    #[arg(long)]
    pub binary: bool,
}

impl Whom {
    /// As [`filter`](Whom::filter), for commands that are about nobody unless they are told.
    pub(super) fn somebody(&self, conn: Option<ConnId>, all: bool) -> Result<Filter> {
        let filter = self.filter(conn, all);
        if filter.is_empty() {
            let message = "say whom: a connection, --uid, --address, --listener, --topic or --all";
            return Err(Error::usage(message));
        }
        Ok(filter)
    }

    pub(super) fn filter(&self, conn: Option<ConnId>, all: bool) -> Filter {
        Filter {
            conn,
            listener: self.listener,
            address: self.address.clone(),
            uid: self.uid.clone(),
            topic: self.topic.clone(),
            all,
        }
    }
}

impl What {
    /// How many words on the command line it takes: the text, if it does not come otherwise.
    pub(super) fn words(&self) -> usize {
        usize::from(self.hex.is_none() && self.file.is_none())
    }

    /// What is to be sent; `text` is the word on the command line, and `-` means standard input.
    pub(super) fn payload(&self, text: Option<&str>) -> Result<Payload> {
        let bytes = match (text, &self.hex, &self.file) {
            (Some("-"), ..) => read(io::stdin().lock(), "standard input")?,
            (Some(text), ..) => text.as_bytes().to_vec(),
            (None, Some(digits), _) => {
                let bytes = from_hex(digits).ok_or_else(|| {
                    Error::usage("--hex has two hexadecimal digits for each byte")
                })?;
                return Ok(Payload::Binary(bytes));
            }
            (None, None, Some(path)) => {
                let name = path.display().to_string();
                let file = std::fs::File::open(path);
                read(
                    file.map_err(|error| Error::from(error).context(&name))?,
                    &name,
                )?
            }
            (None, None, None) => return Err(Error::usage("there is nothing to send: see --help")),
        };
        Ok(match self.binary {
            true => Payload::Binary(bytes),
            false => match String::from_utf8(bytes) {
                Ok(text) => Payload::Text(text),
                Err(error) => Payload::Binary(error.into_bytes()),
            },
        })
    }
}

/// The number of a connection as somebody wrote it.
pub(super) fn conn(word: &str) -> std::result::Result<ConnId, String> {
    let number = word.parse().map(ConnId::from_u64);
    number.map_err(|_| format!("{word:?} is no number of a connection (see `clients`)"))
}

fn read(from: impl Read, name: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = from.take(MAX_DATA as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|error| Error::from(error).context(name))?;
    match bytes.len() {
        len if len > MAX_DATA => Err(Error::new(format!(
            "{name}: at most {MAX_DATA} bytes can be sent"
        ))),
        _ => Ok(bytes),
    }
}

//! The error of handlers and of the server.

use std::{error::Error as StdError, fmt};

/// What handlers and [`Server::run`](crate::Server::run) return.
pub type Result<T = ()> = std::result::Result<T, Error>;

/// Any error, with what was being done when it happened.
///
/// It is made from every error type by `?`. A handler that returns one has failed: the engine
/// logs it, counts it and tells the client (HTTP 500, WebSocket 1011, TCP close).
pub struct Error {
    source: Box<dyn StdError + Send + Sync>,
    kind: Kind,
}

/// What a program's exit code is to say of the error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Other,
    /// The user asked for something that cannot be: exit code 2.
    Usage,
    /// What was asked for has not ended in time: exit code 3.
    Late,
}

impl Error {
    /// An error that says `message`.
    pub fn new(message: impl fmt::Display) -> Self {
        Error {
            source: message.to_string().into(),
            kind: Kind::Other,
        }
    }

    /// An error in the command line or the settings; a program ends with exit code 2.
    pub fn usage(message: impl fmt::Display) -> Self {
        Error {
            source: message.to_string().into(),
            kind: Kind::Usage,
        }
    }

    /// Something has not ended in time; a program ends with exit code 3.
    pub fn late(message: impl fmt::Display) -> Self {
        Error {
            source: message.to_string().into(),
            kind: Kind::Late,
        }
    }

    /// Whether the user is to change the command line or the settings.
    pub fn is_usage(&self) -> bool {
        self.kind == Kind::Usage
    }

    /// What a program that ends with this error says to who has called it: 2 if the command line or
    /// the settings are to be changed, 3 if something took too long, else 1.
    pub fn exit_code(&self) -> u8 {
        match self.kind {
            Kind::Other => 1,
            Kind::Usage => 2,
            Kind::Late => 3,
        }
    }

    /// The same error, with what was being done in front of it.
    pub fn context(self, doing: impl fmt::Display) -> Self {
        Error {
            source: format!("{doing}: {}", self.source).into(),
            kind: self.kind,
        }
    }

    /// The error inside, if it is an `E`.
    pub fn downcast_ref<E: StdError + 'static>(&self) -> Option<&E> {
        self.source.downcast_ref()
    }
}

// `Error` itself is no `std::error::Error`, or this would collide with `From<T> for T`.
impl<E: StdError + Send + Sync + 'static> From<E> for Error {
    fn from(error: E) -> Self {
        Error {
            source: Box::new(error),
            kind: Kind::Other,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.fmt(f)?;
        let mut source = self.source.source();
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}

/// As `Display`, so that `fn main() -> gannet::Result` prints a sentence.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

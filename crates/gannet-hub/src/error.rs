//! What can go wrong for a client, as the wire shows it.
//!
//! One list for the socket and for HTTP. docs/protocol.md explains each code; a test keeps the
//! two in step. A code never changes its meaning; new ones may come.

use std::time::Duration;

use axum::http::StatusCode;
use serde::{Serialize, Serializer, ser::SerializeStruct};

use crate::{address::BadName, net::NetError, store::StoreError};

/// A refused or failed request: `{"code": …, "msg": …, "retry_ms": …}`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {msg}", code.as_str())]
pub struct Error {
    /// The stable name.
    pub code: Code,
    /// What was wrong and where, for people.
    pub msg: String,
    /// The same request may succeed if it is sent again after this time.
    pub retry: Option<Duration>,
}

/// The stable names of errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The text is not JSON.
    BadJson,
    /// A field is missing, of the wrong type, or has a value that cannot be.
    BadRequest,
    /// No such operation.
    UnknownOp,
    /// A WebSocket message was binary.
    NotText,
    /// Over a limit in bytes.
    TooLong,
    /// Over a limit in number: lines in a frame, subscriptions.
    TooMany,
    /// The connection has not said `hello`, or the server does not know it any more.
    HelloFirst,
    /// The connection is another user's.
    OtherUser,
    /// The key was used before, for a message to somewhere else.
    KeyUsed,
    /// No key, or not the right one.
    Unauthorized,
    /// No such page.
    NotFound,
    /// The page has no such method.
    MethodNotAllowed,
    /// The request's body is not `application/json`.
    NotJson,
    /// Somebody else is writing for too long.
    Busy,
    /// No room on the disk.
    StorageFull,
    /// The server's fault; the log says more.
    Internal,
}

impl Code {
    /// Every code.
    pub const ALL: [Code; 16] = [
        Code::BadJson,
        Code::BadRequest,
        Code::UnknownOp,
        Code::NotText,
        Code::TooLong,
        Code::TooMany,
        Code::HelloFirst,
        Code::OtherUser,
        Code::KeyUsed,
        Code::Unauthorized,
        Code::NotFound,
        Code::MethodNotAllowed,
        Code::NotJson,
        Code::Busy,
        Code::StorageFull,
        Code::Internal,
    ];

    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Code::BadJson => "bad_json",
            Code::BadRequest => "bad_request",
            Code::UnknownOp => "unknown_op",
            Code::NotText => "not_text",
            Code::TooLong => "too_long",
            Code::TooMany => "too_many",
            Code::HelloFirst => "hello_first",
            Code::OtherUser => "other_user",
            Code::KeyUsed => "key_used",
            Code::Unauthorized => "unauthorized",
            Code::NotFound => "not_found",
            Code::MethodNotAllowed => "method_not_allowed",
            Code::NotJson => "not_json",
            Code::Busy => "busy",
            Code::StorageFull => "storage_full",
            Code::Internal => "internal",
        }
    }

    /// The status of an HTTP response with this error.
    pub fn status(self) -> StatusCode {
        match self {
            Code::BadJson | Code::NotText => StatusCode::BAD_REQUEST,
            Code::BadRequest | Code::UnknownOp => StatusCode::UNPROCESSABLE_ENTITY,
            Code::TooLong => StatusCode::PAYLOAD_TOO_LARGE,
            Code::TooMany => StatusCode::TOO_MANY_REQUESTS,
            Code::HelloFirst | Code::Unauthorized => StatusCode::UNAUTHORIZED,
            Code::OtherUser | Code::KeyUsed => StatusCode::CONFLICT,
            Code::NotFound => StatusCode::NOT_FOUND,
            Code::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Code::NotJson => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Code::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Code::StorageFull => StatusCode::INSUFFICIENT_STORAGE,
            Code::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl Error {
    pub(crate) fn new(code: Code, msg: impl Into<String>) -> Self {
        Error {
            code,
            msg: msg.into(),
            retry: None,
        }
    }

    fn retry(code: Code, msg: &str, after: Duration) -> Self {
        Error {
            code,
            msg: msg.to_owned(),
            retry: Some(after),
        }
    }

    /// Something is wrong with the value of `field`.
    pub(crate) fn field(field: &str, what: impl std::fmt::Display) -> Self {
        Error::new(Code::BadRequest, format!("{field}: {what}"))
    }

    /// `retry` as the wire has it.
    pub fn retry_ms(&self) -> Option<u64> {
        self.retry
            .map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX))
    }
}

impl From<BadName> for Error {
    fn from(bad: BadName) -> Self {
        Error::new(Code::BadRequest, bad.to_string())
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        match &error {
            StoreError::Busy => {
                Error::retry(Code::Busy, "the store is busy", Duration::from_millis(500))
            }
            StoreError::Full => Error::retry(
                Code::StorageFull,
                "the server's disk is full: nothing was stored",
                Duration::from_secs(5),
            ),
            StoreError::KeyUsed { to } => Error::new(
                Code::KeyUsed,
                format!("key: was used for a message to {to}"),
            ),
            StoreError::Other(reason) => {
                tracing::error!(%reason, "store");
                Error::retry(
                    Code::Internal,
                    "the server could not store or read",
                    RETRY_INTERNAL,
                )
            }
        }
    }
}

impl From<NetError> for Error {
    fn from(error: NetError) -> Self {
        tracing::error!(%error, "engine");
        Error::retry(
            Code::Internal,
            "the server could not pass it on",
            RETRY_INTERNAL,
        )
    }
}

impl Serialize for Error {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let retry = self.retry_ms();
        let mut fields = serializer.serialize_struct("Error", 2 + usize::from(retry.is_some()))?;
        fields.serialize_field("code", self.code.as_str())?;
        fields.serialize_field("msg", &self.msg)?;
        if let Some(retry) = retry {
            fields.serialize_field("retry_ms", &retry)?;
        }
        fields.end()
    }
}

const RETRY_INTERNAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_code_and_text_and_says_when_to_retry() {
        let error = Error::from(StoreError::Full);
        assert_eq!(
            serde_json::to_string(&error).unwrap(),
            r#"{"code":"storage_full","msg":"the server's disk is full: nothing was stored","retry_ms":5000}"#
        );
        let error = Error::field("channel", "missing");
        assert_eq!(
            serde_json::to_string(&error).unwrap(),
            r#"{"code":"bad_request","msg":"channel: missing"}"#
        );
    }

    #[test]
    fn every_code_is_documented() {
        let page = include_str!("../../../docs/protocol.md");
        for code in Code::ALL {
            let row = format!("| `{}` | {} |", code.as_str(), code.status().as_u16());
            assert!(page.contains(&row), "docs/protocol.md has no row {row}");
        }
    }
}

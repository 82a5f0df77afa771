//! The client protocol: lines of JSON to requests, outcomes to lines of JSON.
//!
//! docs/protocol.md is its specification.

use std::{borrow::Cow, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_json::{error::Category, value::RawValue};
use ulid::Ulid;

use crate::{
    address::{Channel, Device, User},
    error::{Code, Error},
    message::{Message, to_json},
};

/// The version of the protocol, as `hello` tells it.
pub(crate) const VERSION: u32 = 1;

/// A line from a client.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    /// What the reply repeats, so that the client knows what it answers.
    pub(crate) id: Option<&'a RawValue>,
    /// What the client wants, if that could be made out.
    pub(crate) op: Result<Op, Error>,
}

/// What a client wants.
#[derive(Debug)]
pub(crate) enum Op {
    Hello(Hello),
    Sub(Sub),
    Unsub(OfChannel),
    Pub(Pub),
    History(History),
    Presence(OfChannel),
    Ping,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Hello {
    pub(crate) user: User,
    pub(crate) device: Device,
}

#[derive(Debug, Deserialize)]
pub(crate) struct OfChannel {
    pub(crate) channel: Channel,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Sub {
    pub(crate) channel: Channel,
    pub(crate) since: Option<Position>,
    pub(crate) limit: Option<usize>,
}

/// How far a client knows a channel's history.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Position {
    pub(crate) epoch: Ulid,
    pub(crate) offset: u64,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Pub {
    pub(crate) channel: Channel,
    pub(crate) event: Option<Arc<str>>,
    pub(crate) data: Box<RawValue>,
    pub(crate) key: Arc<str>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct History {
    pub(crate) channel: Channel,
    pub(crate) before: Option<u64>,
    pub(crate) since: Option<Position>,
    pub(crate) limit: Option<usize>,
}

impl<'a> Request<'a> {
    /// Reads one line.
    pub(crate) fn parse(line: &'a str) -> Self {
        /// What all requests have. Parsed on its own, so that an error in the rest has the id.
        #[derive(Deserialize)]
        struct Envelope<'a> {
            #[serde(borrow)]
            id: Option<&'a RawValue>,
            #[serde(borrow)]
            op: Option<Cow<'a, str>>,
        }

        let envelope: Envelope<'a> = match from_json(line) {
            Ok(envelope) => envelope,
            Err(error) => {
                return Request {
                    id: None,
                    op: Err(error),
                };
            }
        };
        let id = match envelope.id {
            Some(id) if id.get().len() > MAX_ID => {
                let error = Error::new(Code::TooLong, format!("id: longer than {MAX_ID} bytes"));
                return Request {
                    id: None,
                    op: Err(error),
                };
            }
            Some(id) if id.get().starts_with(['[', '{']) => {
                let error = Error::field("id", "is to be a number or a text");
                return Request {
                    id: None,
                    op: Err(error),
                };
            }
            id => id,
        };
        let op = match envelope.op.as_deref() {
            Some("hello") => from_json(line).map(Op::Hello),
            Some("sub") => from_json(line).map(Op::Sub),
            Some("unsub") => from_json(line).map(Op::Unsub),
            Some("pub") => from_json(line).map(Op::Pub),
            Some("history") => from_json(line).map(Op::History),
            Some("presence") => from_json(line).map(Op::Presence),
            Some("ping") => Ok(Op::Ping),
            Some(other) => {
                let other: String = other.chars().take(MAX_ID).collect();
                Err(Error::new(
                    Code::UnknownOp,
                    format!("op: there is no operation {other:?}"),
                ))
            }
            None => Err(Error::field("op", "missing")),
        };
        Request { id, op }
    }

    /// Whether it may be run at the same time as the request before it.
    pub(crate) fn is_pub(&self) -> bool {
        matches!(self.op, Ok(Op::Pub(_)))
    }

    /// The reply line.
    pub(crate) fn reply(&self, outcome: Result<Reply, Error>) -> String {
        #[derive(Serialize)]
        struct Good<'a> {
            re: Option<&'a RawValue>,
            ok: Reply,
        }
        #[derive(Serialize)]
        struct Bad<'a> {
            re: Option<&'a RawValue>,
            err: Error,
        }
        match outcome {
            Ok(ok) => to_json(&Good { re: self.id, ok }),
            Err(err) => to_json(&Bad { re: self.id, err }),
        }
    }
}

/// What a request brought: the `ok` of the reply.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Reply {
    Hello {
        v: u32,
        user: User,
        device: Device,
        /// Number of the connection.
        conn: u64,
        epoch: Ulid,
        /// The server's clock.
        time: u64,
        max_data: usize,
        max_lines: usize,
    },
    Sub {
        #[serde(flatten)]
        page: HistoryPage,
        #[serde(flatten)]
        present: Present,
    },
    Unsub {
        channel: Channel,
    },
    Pub {
        channel: Channel,
        offset: Option<u64>,
        id: Ulid,
        time: u64,
    },
    History(HistoryPage),
    Presence {
        channel: Channel,
        #[serde(flatten)]
        present: Present,
    },
    Ping {
        time: u64,
    },
}

/// A part of a channel's history, as the wire shows it.
#[derive(Debug, Serialize)]
pub(crate) struct HistoryPage {
    pub(crate) channel: Channel,
    pub(crate) epoch: Ulid,
    /// Offset of the channel's newest message.
    pub(crate) last: u64,
    pub(crate) messages: Vec<Message>,
    /// There are more in the direction that was asked for.
    pub(crate) more: bool,
    /// Between the position asked for and the first message some are missing for good.
    pub(crate) gap: bool,
}

/// Who is there.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Present {
    /// By name, each once; cut to the first thousand.
    pub(crate) users: Vec<User>,
    /// How many they are.
    pub(crate) count: usize,
}

/// Someone came or went.
#[derive(Debug, Serialize)]
pub(crate) struct PresencePush<'a> {
    /// `join` or `leave`.
    pub(crate) op: &'static str,
    pub(crate) channel: &'a Channel,
    pub(crate) user: &'a User,
}

/// A reply to something that is no request, and so has no id.
pub(crate) fn refuse(error: Error) -> String {
    Request {
        id: None,
        op: Err(error.clone()),
    }
    .reply(Err(error))
}

/// Parses, and says whether the text is no JSON at all or only not what was wanted.
pub(crate) fn from_json<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, Error> {
    serde_json::from_str(text).map_err(|error| match error.classify() {
        Category::Data => Error::new(Code::BadRequest, without_line(&error, text)),
        Category::Io | Category::Syntax | Category::Eof => {
            Error::new(Code::BadJson, without_line(&error, text))
        }
    })
}

/// The error's text; in a text of one line only the column is of interest.
fn without_line(error: &serde_json::Error, text: &str) -> String {
    let says = error.to_string();
    match text.contains('\n') {
        true => says,
        false => says.replace(" at line 1 column ", " at column "),
    }
}

/// Bytes of a request's `id`.
const MAX_ID: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn error(line: &str) -> (Option<&str>, Code, String) {
        let request = Request::parse(line);
        let error = request.op.unwrap_err();
        (request.id.map(RawValue::get), error.code, error.msg)
    }

    #[test]
    fn requests_are_read() {
        let request = Request::parse(
            r#"{"op":"pub","id":7,"channel":"a","data":{"b": [1, 2.50]},"key":"k","new":1}"#,
        );
        assert_eq!(request.id.unwrap().get(), "7");
        assert!(request.is_pub());
        let Ok(Op::Pub(publish)) = request.op else {
            panic!("{:?}", request.op)
        };
        assert_eq!((publish.channel.as_str(), &*publish.key), ("a", "k"));
        assert_eq!(publish.data.get(), r#"{"b": [1, 2.50]}"#);
        assert!(publish.event.is_none());

        let epoch = Ulid::generate();
        let line = format!(
            r#"{{"op":"sub","id":"x","channel":"a","since":{{"epoch":"{epoch}","offset":5}}}}"#
        );
        let request = Request::parse(&line);
        assert_eq!(request.id.unwrap().get(), r#""x""#);
        let Ok(Op::Sub(Sub {
            since: Some(since),
            limit: None,
            ..
        })) = request.op
        else {
            panic!()
        };
        assert_eq!((since.epoch, since.offset), (epoch, 5));

        assert!(matches!(
            Request::parse(r#"{"op":"ping"}"#),
            Request {
                id: None,
                op: Ok(Op::Ping)
            }
        ));
    }

    #[test]
    fn errors_say_what_and_where_and_keep_the_id() {
        assert_eq!(error("").1, Code::BadJson);
        assert_eq!(error("[1").1, Code::BadJson);
        assert_eq!(error(r#"{"op":"ping"} {"#).1, Code::BadJson);
        assert_eq!(error("7").1, Code::BadRequest);
        assert_eq!(
            error(r#"{"op":"ping","id":7,}"#),
            (
                None,
                Code::BadJson,
                String::from("trailing comma at column 21")
            )
        );
        let missing = String::from("op: missing");
        assert_eq!(error(r#"{"id":7}"#), (Some("7"), Code::BadRequest, missing));
        let (id, code, msg) = error(r#"{"id":"é","op":"dance"}"#);
        assert_eq!((id, code), (Some("\"é\""), Code::UnknownOp));
        assert_eq!(msg, r#"op: there is no operation "dance""#);
        let (id, code, msg) = error(r#"{"id":7,"op":"sub"}"#);
        assert_eq!((id, code), (Some("7"), Code::BadRequest));
        assert!(msg.contains("`channel`"), "{msg}");
        let (_, code, msg) = error(r#"{"id":7,"op":"sub","channel":"a b"}"#);
        assert_eq!(code, Code::BadRequest);
        assert!(msg.contains("this has ' '"), "{msg}");
        assert_eq!(error(r#"{"id":[7],"op":"ping"}"#).1, Code::BadRequest);
        let long = format!(r#"{{"id":"{}","op":"ping"}}"#, "x".repeat(64));
        assert_eq!(error(&long).1, Code::TooLong);
        assert_eq!(
            error(r#"{"op":"pub","channel":"a","data":1,"key":7}"#).1,
            Code::BadRequest
        );
    }

    #[test]
    fn replies_repeat_the_id_as_it_came() {
        let request = Request::parse(r#"{"id":"\u0041","op":"ping"}"#);
        assert_eq!(
            request.reply(Ok(Reply::Ping { time: 5 })),
            r#"{"re":"\u0041","ok":{"time":5}}"#
        );
        let request = Request::parse("nonsense");
        let error = Error::new(Code::BadJson, "no");
        assert_eq!(
            request.reply(Err(error)),
            r#"{"re":null,"err":{"code":"bad_json","msg":"no"}}"#
        );
    }
}

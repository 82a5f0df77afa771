//! How the body of a request is framed (RFC 9112 section 6).

use super::{error::RequestError, head::Version};

/// Where the body of a request ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    /// There is no body.
    None,
    /// After so many bytes.
    Length(u64),
    /// After the last chunk: `Transfer-Encoding: chunked`.
    Chunked,
}

/// Collects the headers that frame a body, then decides.
#[derive(Debug, Default)]
pub(super) struct BodyFacts<'a> {
    content_length: Option<&'a [u8]>,
    is_repeated: bool,
    codings: Option<Codings>,
}

/// What the `Transfer-Encoding` lines list, taken together.
#[derive(Debug, Default)]
struct Codings {
    chunked: usize,
    is_chunked_last: bool,
    has_unknown: bool,
    has_malformed: bool,
}

impl<'a> BodyFacts<'a> {
    pub(super) fn add_content_length(&mut self, value: &'a [u8]) {
        self.is_repeated |= self.content_length.replace(value).is_some();
    }

    pub(super) fn add_transfer_encoding(&mut self, value: &[u8]) {
        let codings = self.codings.get_or_insert_default();
        for coding in value.split(|&byte| byte == b',') {
            let coding = coding.trim_ascii();
            codings.is_chunked_last = coding.eq_ignore_ascii_case(b"chunked");
            codings.chunked += usize::from(codings.is_chunked_last);
            codings.has_unknown |= !codings.is_chunked_last;
            codings.has_malformed |= coding.is_empty();
        }
    }

    pub(super) fn decide(&self, version: Version, limit: u64) -> Result<BodyLength, RequestError> {
        if self.is_repeated {
            return Err(RequestError::bad(
                "Content-Length is there twice: send it once",
            ));
        }
        let Some(codings) = &self.codings else {
            return match self.content_length {
                None => Ok(BodyLength::None),
                Some(value) => parse_content_length(value, limit),
            };
        };
        if self.content_length.is_some() {
            return Err(RequestError::bad(
                "Content-Length and Transfer-Encoding are both there: send one of them",
            ));
        }
        if version == Version::Http10 {
            return Err(RequestError::bad(
                "HTTP/1.0 has no Transfer-Encoding: send Content-Length, or speak HTTP/1.1",
            ));
        }
        if codings.has_malformed || codings.chunked != 1 || !codings.is_chunked_last {
            return Err(RequestError::bad(
                "Transfer-Encoding must end with `chunked`, and name it once",
            ));
        }
        if codings.has_unknown {
            return Err(RequestError::new(
                501,
                "the only transfer coding known here is `chunked`",
            ));
        }
        Ok(BodyLength::Chunked)
    }
}

fn parse_content_length(value: &[u8], limit: u64) -> Result<BodyLength, RequestError> {
    let digits = std::str::from_utf8(value).ok();
    let digits = digits.filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    let Some(length) = digits.and_then(|digits| digits.parse::<u64>().ok()) else {
        return Err(RequestError::bad(
            "Content-Length is not a decimal number below 2^64",
        ));
    };
    if length > limit {
        return Err(too_large(limit));
    }
    Ok(match length {
        0 => BodyLength::None,
        length => BodyLength::Length(length),
    })
}

pub(super) fn too_large(limit: u64) -> RequestError {
    RequestError::new(
        413,
        format!("the body is larger than {limit} bytes: send less"),
    )
}

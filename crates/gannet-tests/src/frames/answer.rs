//! Answers, and what a server may send in them.

use super::hpack::Field;

/// An answer, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Fields in order, without `:status`.
    pub headers: Vec<Field>,
    /// The body.
    pub body: Vec<u8>,
    /// What came behind the body.
    pub trailers: Vec<Field>,
    /// Answers with a status below 200 that came before.
    pub interim: Vec<u16>,
}

impl Response {
    /// The value of a header that comes at most once.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(n, _)| n == name);
        let value = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "{name} comes twice: {self:?}");
        value
    }

    /// The body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body in UTF-8")
    }

    pub(super) fn new(mut fields: Vec<Field>) -> Self {
        let (_, status) = fields.remove(0);
        Response {
            status: status.parse().expect("a status"),
            headers: fields,
            body: Vec::new(),
            trailers: Vec::new(),
            interim: Vec::new(),
        }
    }

    /// A length that is stated is the body's, or there is no body.
    pub(super) fn check_length(&self) {
        if let Some(length) = self.header("content-length") {
            let right = self.body.is_empty() || length.parse() == Ok(self.body.len());
            assert!(right, "a length of {length} and {} bytes", self.body.len());
        }
    }
}

/// Checks what a server may send: a status in front of an answer (`pseudo`), lower case, no field
/// that belongs to one connection.
pub(super) fn check_fields(fields: &[Field], pseudo: usize) {
    let front = fields.iter().take_while(|(n, _)| n.starts_with(':'));
    let front: Vec<_> = front.map(|(name, _)| name.as_str()).collect();
    assert_eq!(front, &[":status"][..pseudo], "{fields:?}");
    for (name, value) in &fields[pseudo..] {
        let right = |b: u8| (0x21..0x7f).contains(&b) && !b.is_ascii_uppercase() && b != b':';
        assert!(
            !name.is_empty() && name.bytes().all(right),
            "{name:?}: {value}"
        );
        assert!(!FORBIDDEN.contains(&name.as_str()), "{name}: {value}");
        let blank = |c| matches!(c, ' ' | '\t');
        assert!(
            !value.contains(['\0', '\r', '\n']) && value.trim_matches(blank) == value,
            "{name}: {value:?}"
        );
    }
}

/// Fields that belong to a connection, and have no meaning here.
const FORBIDDEN: [&str; 6] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
];

//! What a client may make the decoder accept.

/// The limits of one listener. The worst-case memory of a connection is its unfinished
/// head or trailer section, which the caller keeps: body bytes are passed on at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest head: request line, headers and the empty line, in bytes. Default 16 KiB.
    ///
    /// A larger head is refused with 431.
    pub max_head_size: usize,
    /// Most header lines of a head, and of a trailer section. Default 100, at most 128.
    ///
    /// More are refused with 431.
    pub max_headers: usize,
    /// Longest request target, in bytes. Default 8 KiB.
    ///
    /// A longer target is refused with 414. The type `http::Uri` holds at most 65,534 bytes.
    pub max_target: usize,
    /// Largest body, in bytes without chunk framing. Default 2 MiB; `u64::MAX` means
    /// without limit.
    ///
    /// A larger body is refused with 413, as soon as its length or the size of a chunk
    /// announces it.
    pub max_body_size: u64,
    /// Most bytes of chunk extensions in one body. Default 4 KiB.
    ///
    /// Extensions mean nothing here, but have to be read. More are refused with 400.
    pub max_chunk_extensions: usize,
    /// Largest trailer section with its empty line, in bytes. Default 8 KiB.
    ///
    /// A larger one is refused with 431.
    pub max_trailer_size: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_head_size: 16 << 10,
            max_headers: 100,
            max_target: 8 << 10,
            max_body_size: 2 << 20,
            max_chunk_extensions: 4 << 10,
            max_trailer_size: 8 << 10,
        }
    }
}

/// Longest method name, in bytes. The longest registered one has 17.
pub(super) const MAX_METHOD: usize = 32;

/// Most headers that the parser has room for.
pub(super) const MAX_HEADERS: usize = 128;

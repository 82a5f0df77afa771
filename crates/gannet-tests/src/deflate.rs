//! permessage-deflate from the client's end.
//!
//! What is inflated here must not refer further back than the window that was agreed, nor to
//! messages before when the server has promised not to: the test fails then.

use zlib_rs::{Deflate, DeflateFlush, Inflate, InflateFlush};

use crate::http::Response;

/// What the server has agreed to, and the state of both directions.
pub struct Compression {
    inflate: Inflate,
    deflate: Deflate,
    server_bits: u8,
    server_takeover: bool,
    client_takeover: bool,
}

impl Compression {
    /// What this answer to the handshake agrees to; `None`: no compression.
    ///
    /// # Panics
    ///
    /// If the answer has anything that RFC 7692 does not know.
    pub fn agreed(accepted: &Response) -> Option<Self> {
        let answer = accepted.header("sec-websocket-extensions")?;
        let (mut server_bits, mut client_bits) = (15, 15);
        let (mut server_takeover, mut client_takeover) = (true, true);
        let mut parts = answer.split(';').map(str::trim);
        assert_eq!(parts.next(), Some("permessage-deflate"), "{answer}");
        for part in parts {
            match part.split_once('=') {
                None if part == "server_no_context_takeover" => server_takeover = false,
                None if part == "client_no_context_takeover" => client_takeover = false,
                Some(("server_max_window_bits", bits)) => server_bits = bits.parse().unwrap(),
                Some(("client_max_window_bits", bits)) => client_bits = bits.parse().unwrap(),
                _ => panic!("{part} in {answer}"),
            }
        }
        assert!((8..=15).contains(&server_bits) && (8..=15).contains(&client_bits));
        Some(Compression {
            inflate: Inflate::new(false, server_bits),
            // A window of 8 bits cannot be had; what 9 makes of short messages fits it.
            deflate: Deflate::new(6, false, client_bits.max(9)),
            server_bits,
            server_takeover,
            client_takeover,
        })
    }

    /// The payload of a whole message.
    pub fn compress(&mut self, data: &[u8]) -> Vec<u8> {
        if !self.client_takeover {
            self.deflate.reset();
        }
        if data.is_empty() {
            // A flush of nothing says nothing (RFC 7692 section 7.2.3.6).
            return vec![0];
        }
        let before = self.deflate.total_out();
        let mut out = vec![0; data.len() + data.len() / 8 + 100];
        self.deflate
            .compress(data, &mut out, DeflateFlush::SyncFlush)
            .expect("it is compressed");
        out.truncate((self.deflate.total_out() - before) as usize);
        assert!(out.ends_with(&[0, 0, 0xff, 0xff]), "a flush");
        out.truncate(out.len() - 4);
        out
    }

    /// What a compressed payload of the server stands for.
    pub fn inflate(&mut self, payload: &[u8]) -> Vec<u8> {
        if !self.server_takeover {
            self.inflate = Inflate::new(false, self.server_bits);
        }
        let input = [payload, &[0, 0, 0xff, 0xff]].concat();
        let mut input = &input[..];
        let mut out = Vec::new();
        // Pieces that are smaller than any window: what is referred to is then in the window.
        let mut piece = [0; 128];
        loop {
            let before = (self.inflate.total_in(), self.inflate.total_out());
            self.inflate
                .decompress(input, &mut piece, InflateFlush::SyncFlush)
                .expect("it inflates");
            let made = (self.inflate.total_out() - before.1) as usize;
            input = &input[(self.inflate.total_in() - before.0) as usize..];
            out.extend_from_slice(&piece[..made]);
            if input.is_empty() && made < piece.len() {
                return out;
            }
        }
    }

    /// Whether the server keeps its window from message to message.
    pub fn server_takeover(&self) -> bool {
        self.server_takeover
    }

    /// Whether this client may keep its window from message to message.
    pub fn client_takeover(&self) -> bool {
        self.client_takeover
    }

    /// The server's window in bits.
    pub fn server_bits(&self) -> u8 {
        self.server_bits
    }
}

impl std::fmt::Debug for Compression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compression")
            .field("server_bits", &self.server_bits)
            .field("server_takeover", &self.server_takeover)
            .field("client_takeover", &self.client_takeover)
            .finish_non_exhaustive()
    }
}

//! Messages on a stream: a length of four bytes, little endian, then as many bytes.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{io::AsyncReadExt, net::unix::OwnedReadHalf};

use crate::{Error, Result};

/// Takes messages from a stream.
pub(super) struct FrameReader {
    stream: OwnedReadHalf,
    buffer: BytesMut,
    max: usize,
}

impl FrameReader {
    pub(super) fn new(stream: OwnedReadHalf, max: usize) -> Self {
        FrameReader {
            stream,
            buffer: BytesMut::new(),
            max,
        }
    }

    /// The next message; `None` at the end. Cancel safe. What is cut off at the end (its sender was
    /// killed) is no message.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            if let Some(frame) = self.take()? {
                return Ok(Some(frame));
            }
            match self.stream.read_buf(&mut self.buffer).await {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {
                    return Ok(None);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The next message if it is there already. `None`: it is not.
    pub(super) fn next_now(&mut self) -> Result<Option<Bytes>> {
        loop {
            if let Some(frame) = self.take()? {
                return Ok(Some(frame));
            }
            match self.stream.try_read_buf(&mut self.buffer) {
                Ok(1..) => {}
                // The end, or the like of it.
                Ok(0) | Err(_) => return Ok(None),
            }
        }
    }

    fn take(&mut self) -> Result<Option<Bytes>> {
        let Some(head) = self.buffer.first_chunk::<HEAD>() else {
            self.buffer.reserve(HEAD);
            return Ok(None);
        };
        let len = u32::from_le_bytes(*head) as usize;
        if len > self.max {
            return Err(too_large(len, self.max));
        }
        if self.buffer.len() < HEAD + len {
            self.buffer.reserve(HEAD + len - self.buffer.len());
            return Ok(None);
        }
        self.buffer.advance(HEAD);
        Ok(Some(self.buffer.split_to(len).freeze()))
    }
}

/// A message as it goes on the stream.
pub(super) fn encode(message: &impl Serialize, max: usize) -> Result<Bytes> {
    let mut frame = BytesMut::zeroed(HEAD).writer();
    serde_json::to_writer(&mut frame, message)
        .map_err(|error| Error::from(error).context("a message cannot be written as JSON"))?;
    let mut frame = frame.into_inner();
    let len = frame.len() - HEAD;
    if len > max {
        return Err(too_large(len, max));
    }
    frame[..HEAD].copy_from_slice(&(len as u32).to_le_bytes());
    Ok(frame.freeze())
}

/// A message that was taken from a stream.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| {
        Error::from(error).context(
            "a message is not of the type that is expected (was the program replaced by one with \
             other types?)",
        )
    })
}

fn too_large(len: usize, max: usize) -> Error {
    Error::new(format!(
        "a message of {len} bytes is larger than `max_message` = {max}: send it in parts, or raise \
         that with PoolOptions::max_message"
    ))
}

const HEAD: usize = 4;

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncWriteExt, net::UnixStream};

    use super::*;

    fn run(test: impl Future<Output = ()>) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().build().unwrap().block_on(test);
    }

    #[test]
    fn messages_are_whole_at_every_split() {
        run(async {
            let mut bytes = encode(&"one", 100).unwrap().to_vec();
            bytes.extend_from_slice(&encode(&vec![1, 2, 3], 100).unwrap());
            for split in 0..=bytes.len() {
                let (ours, mut theirs) = UnixStream::pair().unwrap();
                let mut reader = FrameReader::new(ours.into_split().0, 100);
                theirs.write_all(&bytes[..split]).await.unwrap();
                // To give up waiting loses nothing.
                let mut found = Vec::new();
                let soon = std::time::Duration::from_micros(1);
                while let Ok(frame) = tokio::time::timeout(soon, reader.next()).await {
                    found.extend(frame.unwrap());
                }
                theirs.write_all(&bytes[split..]).await.unwrap();
                drop(theirs);
                while let Some(frame) = reader.next().await.unwrap() {
                    found.push(frame);
                }
                assert_eq!(found, [&b"\"one\""[..], b"[1,2,3]"], "{split}");
            }
        });
    }

    #[test]
    fn a_message_too_large_is_refused_at_both_ends() {
        let error = encode(&"123456789", 10).unwrap_err().to_string();
        assert!(
            error.contains("11 bytes is larger than `max_message` = 10"),
            "{error}"
        );
        run(async {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            let mut reader = FrameReader::new(ours.into_split().0, 10);
            let frame = encode(&"123456789", 11).unwrap();
            theirs.write_all(&frame).await.unwrap();
            assert!(reader.next().await.is_err());
        });
    }

    #[test]
    fn a_message_cut_off_is_none() {
        run(async {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            let mut reader = FrameReader::new(ours.into_split().0, 10);
            theirs
                .write_all(&encode(&1, 10).unwrap()[..4])
                .await
                .unwrap();
            drop(theirs);
            assert!(reader.next().await.unwrap().is_none());
        });
    }
}

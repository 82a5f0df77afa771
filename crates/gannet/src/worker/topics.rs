//! Topics: one command for each reactor, whatever the number of subscribers.

use bytes::{BufMut, Bytes, BytesMut};

use super::{Worker, shared::Command};
use crate::{
    ConnId, Error, Message, Result,
    wire::{
        TEXT,
        command::{CommandHeader, CommandKind, DROPPABLE, Query},
    },
};

impl Worker {
    /// Sends a message to every connection that is subscribed to `topic` (1 to 255 bytes).
    ///
    /// It goes out as each connection speaks: as a WebSocket message, as one message of the
    /// listener's framing, or as bytes.
    ///
    /// A subscriber that does not read, and has more than `max_queued` waiting, is cut.
    pub async fn publish(&self, topic: &str, message: impl Into<Message>) -> Result {
        self.publish_to(topic, message.into(), 0, ConnId::from_u64(0))
            .await
    }

    /// The same, but a subscriber that is slow only misses this message.
    pub async fn publish_droppable(&self, topic: &str, message: impl Into<Message>) -> Result {
        self.publish_to(topic, message.into(), DROPPABLE, ConnId::from_u64(0))
            .await
    }

    /// As [`Worker::publish`], to all but one: mostly whoever said it.
    pub async fn publish_except(
        &self,
        topic: &str,
        message: impl Into<Message>,
        except: ConnId,
    ) -> Result {
        self.publish_to(topic, message.into(), 0, except).await
    }

    /// How many connections are subscribed to a topic.
    pub async fn topic_count(&self, topic: &str) -> Result<usize> {
        check_topic(topic)?;
        let topic = Bytes::copy_from_slice(topic.as_bytes());
        let mut count = 0;
        for reactor in 0..self.shared().lanes.len() {
            let none = ConnId::from_u64(0);
            let reply = self
                .shared()
                .ask(reactor, Query::TopicCount, none, topic.clone())
                .await?;
            count += reply
                .first_chunk()
                .map_or(0, |bytes| u64::from_le_bytes(*bytes) as usize);
        }
        Ok(count)
    }

    /// Which connections are subscribed to a topic.
    pub async fn topic_members(&self, topic: &str) -> Result<Vec<ConnId>> {
        check_topic(topic)?;
        let topic = Bytes::copy_from_slice(topic.as_bytes());
        Ok(self
            .shared()
            .ask_for_conns(Query::TopicMembers, topic)
            .await?)
    }

    async fn publish_to(&self, topic: &str, message: Message, flags: u8, except: ConnId) -> Result {
        check_topic(topic)?;
        let text = if message.is_text() { TEXT } else { 0 };
        let header = CommandHeader {
            flags: flags | text,
            ..CommandHeader::new(CommandKind::Publish, except)
        };
        let mut head = BytesMut::with_capacity(2 + topic.len());
        head.put_u16_le(topic.len() as u16);
        head.put_slice(topic.as_bytes());
        let command = Command {
            header,
            head: head.freeze(),
            payload: message.into_bytes(),
        };
        for reactor in 0..self.shared().lanes.len() {
            self.shared().push(reactor, command.clone()).await?;
        }
        Ok(())
    }
}

pub(crate) fn check_topic(topic: &str) -> Result {
    if topic.is_empty() || topic.len() > MAX_TOPIC {
        let len = topic.len();
        return Err(Error::new(format!(
            "a topic has 1 to {MAX_TOPIC} bytes, this one has {len}"
        )));
    }
    Ok(())
}

const MAX_TOPIC: usize = 255;

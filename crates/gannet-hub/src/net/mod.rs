//! What the hub needs of the engine: the seam between the two.
//!
//! [`gannet::Worker`] is the real one. The tests have one in memory, so that every operation can
//! be tested without sockets and processes.

use gannet::ConnId;

use crate::address::User;

#[cfg(test)]
pub(crate) mod fake;

/// Connections and topics.
pub(crate) trait Net: Clone + Send + Sync + 'static {
    /// Sends a text to one connection; nothing happens if it is gone.
    fn send(&self, conn: ConnId, text: String)
    -> impl Future<Output = Result<(), NetError>> + Send;

    /// Sends a text to every subscriber of a topic.
    fn publish(
        &self,
        topic: &str,
        text: String,
    ) -> impl Future<Output = Result<(), NetError>> + Send;

    /// Subscribes a connection: it gets what is published after a later call of
    /// [`members`](Net::members) returned.
    fn subscribe(
        &self,
        conn: ConnId,
        topic: &str,
    ) -> impl Future<Output = Result<(), NetError>> + Send;

    /// Takes a subscription back.
    fn unsubscribe(
        &self,
        conn: ConnId,
        topic: &str,
    ) -> impl Future<Output = Result<(), NetError>> + Send;

    /// Says whose connection it is.
    fn bind(&self, conn: ConnId, user: &User) -> impl Future<Output = Result<(), NetError>> + Send;

    /// The connections that are subscribed to a topic. What this process asked for before
    /// (subscriptions too) has been done when it returns.
    fn members(&self, topic: &str) -> impl Future<Output = Result<Vec<ConnId>, NetError>> + Send;

    /// Whose connection it is; none if nobody's or gone.
    fn user(&self, conn: ConnId) -> Option<User>;

    /// Counts one more of what is counted for all workers together: see
    /// [`METRICS`](crate::metrics::METRICS).
    fn count(&self, _what: &'static str) {}
}

/// The engine could not do it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct NetError(pub(crate) String);

impl From<gannet::Error> for NetError {
    fn from(error: gannet::Error) -> Self {
        NetError(error.to_string())
    }
}

impl Net for gannet::Worker {
    fn count(&self, what: &'static str) {
        // They are declared where the server is.
        if let Ok(counter) = self.counter(what) {
            counter.add(1);
        }
    }

    async fn send(&self, conn: ConnId, text: String) -> Result<(), NetError> {
        Ok(gannet::Worker::send(self, conn, gannet::Message::Text(text.into())).await?)
    }

    async fn publish(&self, topic: &str, text: String) -> Result<(), NetError> {
        Ok(gannet::Worker::publish(self, topic, gannet::Message::Text(text.into())).await?)
    }

    async fn subscribe(&self, conn: ConnId, topic: &str) -> Result<(), NetError> {
        Ok(self.conn(conn).subscribe(topic).await?)
    }

    async fn unsubscribe(&self, conn: ConnId, topic: &str) -> Result<(), NetError> {
        Ok(self.conn(conn).unsubscribe(topic).await?)
    }

    async fn bind(&self, conn: ConnId, user: &User) -> Result<(), NetError> {
        Ok(self.conn(conn).bind(user).await?)
    }

    async fn members(&self, topic: &str) -> Result<Vec<ConnId>, NetError> {
        Ok(self.topic_members(topic).await?)
    }

    fn user(&self, conn: ConnId) -> Option<User> {
        self.conn(conn).info()?.uid?.parse().ok()
    }
}

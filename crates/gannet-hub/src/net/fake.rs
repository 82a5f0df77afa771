//! An engine in memory: it does what [`Net`] promises, at once.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard},
};

use gannet::ConnId;
use serde_json::Value;

use super::{Net, NetError};
use crate::address::User;

/// Connections and topics in memory; clones share them.
#[derive(Clone, Default)]
pub(crate) struct FakeNet(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    connections: HashMap<ConnId, Connection>,
    topics: HashMap<String, BTreeSet<ConnId>>,
}

#[derive(Default)]
struct Connection {
    user: Option<User>,
    /// Lines sent to it and not taken yet.
    lines: Vec<Value>,
}

impl FakeNet {
    /// Somebody connects.
    pub(crate) fn connect(&self, conn: ConnId) {
        self.state().connections.entry(conn).or_default();
    }

    /// Somebody is gone, and all that the engine knew of them.
    pub(crate) fn disconnect(&self, conn: ConnId) {
        let mut state = self.state();
        state.connections.remove(&conn);
        for members in state.topics.values_mut() {
            members.remove(&conn);
        }
    }

    /// Takes the lines that a connection got and that are wanted; forgets none of the others.
    pub(crate) fn take(&self, conn: ConnId, wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
        let mut state = self.state();
        let lines = &mut state.connections.get_mut(&conn).unwrap().lines;
        let (taken, left) = std::mem::take(lines).into_iter().partition(wanted);
        *lines = left;
        taken
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

impl State {
    fn deliver(&mut self, conn: ConnId, text: &str) {
        if let Some(connection) = self.connections.get_mut(&conn) {
            // A frame is lines of JSON; anything else fails the test.
            connection
                .lines
                .extend(text.lines().map(|line| serde_json::from_str(line).unwrap()));
        }
    }
}

impl Net for FakeNet {
    async fn send(&self, conn: ConnId, text: String) -> Result<(), NetError> {
        self.state().deliver(conn, &text);
        Ok(())
    }

    async fn publish(&self, topic: &str, text: String) -> Result<(), NetError> {
        let mut state = self.state();
        for conn in state.topics.get(topic).cloned().unwrap_or_default() {
            state.deliver(conn, &text);
        }
        Ok(())
    }

    async fn subscribe(&self, conn: ConnId, topic: &str) -> Result<(), NetError> {
        let mut state = self.state();
        if state.connections.contains_key(&conn) {
            state
                .topics
                .entry(topic.to_owned())
                .or_default()
                .insert(conn);
        }
        Ok(())
    }

    async fn unsubscribe(&self, conn: ConnId, topic: &str) -> Result<(), NetError> {
        if let Some(members) = self.state().topics.get_mut(topic) {
            members.remove(&conn);
        }
        Ok(())
    }

    async fn bind(&self, conn: ConnId, user: &User) -> Result<(), NetError> {
        if let Some(connection) = self.state().connections.get_mut(&conn) {
            connection.user = Some(user.clone());
        }
        Ok(())
    }

    async fn members(&self, topic: &str) -> Result<Vec<ConnId>, NetError> {
        let members = self.state().topics.get(topic).cloned().unwrap_or_default();
        Ok(members.into_iter().collect())
    }

    fn user(&self, conn: ConnId) -> Option<User> {
        self.state().connections.get(&conn)?.user.clone()
    }
}

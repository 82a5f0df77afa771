//! Who is there.
//!
//! Derived, never stored: the subscribers of a channel's topic that have a row in the connection
//! table, by the user bound to them. Both are the engine's and end with the connection, so there
//! are no ghosts.
//!
//! `join` and `leave` are pushed when that changes. Each says how it is now, so one too many does
//! no harm, and one too few must not happen. Hence `join` is pushed at every subscription, also when
//! the user is there in another tab; and after a `leave` has been pushed the members are looked at
//! again, in case the user came back in that moment.

use std::collections::BTreeSet;

use gannet::ConnId;

use crate::{
    address::{Channel, User},
    error::Error,
    hub::Hub,
    message::to_json,
    net::Net,
    protocol::{PresencePush, Present},
};

impl<N: Net> Hub<N> {
    /// Who is in a channel.
    pub(crate) async fn present(&self, channel: &Channel) -> Result<Present, Error> {
        let users: BTreeSet<User> = self
            .net
            .members(&channel.topic())
            .await?
            .into_iter()
            .filter_map(|conn| self.net.user(conn))
            .collect();
        let count = users.len();
        Ok(Present {
            users: users.into_iter().take(MAX_LISTED).collect(),
            count,
        })
    }

    /// Tells a channel that somebody subscribed, unless it is so full that nobody wants to know.
    pub(crate) async fn joined(
        &self,
        channel: &Channel,
        user: &User,
        present: &Present,
    ) -> Result<(), Error> {
        if present.count > MAX_LISTED {
            return Ok(());
        }
        self.push_presence("join", channel, user).await
    }

    /// Tells a channel that a connection of this user has left it, unless the user has another.
    pub(crate) async fn left(
        &self,
        conn: ConnId,
        channel: &Channel,
        user: &User,
    ) -> Result<(), Error> {
        let Some(rest) = self.others(conn, channel, user).await? else {
            return Ok(());
        };
        if rest > MAX_LISTED {
            return Ok(());
        }
        self.push_presence("leave", channel, user).await?;
        if self.others(conn, channel, user).await?.is_none() {
            self.push_presence("join", channel, user).await?;
        }
        Ok(())
    }

    /// How many connections a channel has, or nothing if one of them is another of this user.
    async fn others(
        &self,
        conn: ConnId,
        channel: &Channel,
        user: &User,
    ) -> Result<Option<usize>, Error> {
        let members = self.net.members(&channel.topic()).await?;
        let there =
            |&member: &ConnId| member != conn && self.net.user(member).as_ref() == Some(user);
        Ok(if members.iter().any(there) {
            None
        } else {
            Some(members.len())
        })
    }

    async fn push_presence(
        &self,
        op: &'static str,
        channel: &Channel,
        user: &User,
    ) -> Result<(), Error> {
        let push = to_json(&PresencePush { op, channel, user });
        Ok(self.net.publish(&channel.topic(), push).await?)
    }
}

/// Users that a list of who is there names. In a channel with more, comings and goings are not
/// pushed: each would go to everyone.
const MAX_LISTED: usize = 1000;

//! What few connections have, or few at a time: it stands apart, so that the others do not pay for it.
//!
//! Reading is the same for all: who has nothing of it has an empty one that all share.

use std::{borrow::Cow, net::SocketAddr};

use super::conn::{Closed, Conn};
use crate::wire::event::EventKind;

/// States that do not last.
#[derive(Default)]
pub(super) struct Rare {
    /// Nothing more is taken from its client; it is closed so when its events are done.
    pub(super) ending: Option<Ending>,
    /// An event that found no room.
    pub(super) held: Option<Held>,
    /// In the phases closing and lingering: when the connection is cut. While it closes, it moves on
    /// as long as the client reads.
    pub(super) cut_at: u64,
    /// In the phase lingering: since when, ms.
    pub(super) lingers: u64,
    /// When its PROXY header is to be here at the latest, ms; 0: none is awaited.
    pub(super) header_due: u64,
    /// The client of the current request, where a proxy has named another than the table has.
    pub(super) forwarded: Option<SocketAddr>,
}

/// What handlers have tied the connection to.
#[derive(Default)]
pub(super) struct Ties {
    /// Topics, each with this connection's place among its subscribers.
    pub(super) topics: Vec<(u32, u32)>,
    pub(super) uid: Option<Box<str>>,
}

/// How a connection is to be closed whose client has sent a close frame, or what is no frame or
/// framed message.
pub(super) struct Ending {
    pub(super) closed: Closed,
    pub(super) text: Cow<'static, str>,
}

/// An event kept until there is room for it.
pub(super) struct Held {
    pub(super) kind: EventKind,
    pub(super) flags: u8,
    pub(super) aux: u64,
    pub(super) payload: Vec<u8>,
}

/// Received and not yet understood: the beginning of something, or what came during a stall.
#[derive(Default)]
#[expect(
    clippy::box_collection,
    reason = "most have none, and it takes one word"
)]
pub(super) struct Input(Option<Box<Vec<u8>>>);

impl Conn {
    /// What it has of this.
    pub(super) fn rare(&self) -> &Rare {
        self.rare.as_deref().unwrap_or(&NOTHING_RARE)
    }

    /// The same, to be changed. Memory: see [`Conn::tidy`].
    pub(super) fn rare_mut(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    /// Gives the memory back if nothing is in it: to be called where something ends that has outlived
    /// a turn.
    pub(super) fn tidy(&mut self) {
        self.rare.take_if(|rare| rare.is_empty());
        self.ties.take_if(|ties| ties.is_empty());
    }

    /// The event that found no room.
    pub(super) fn take_held(&mut self) -> Option<Held> {
        self.rare.as_mut()?.held.take()
    }

    /// How it is to be closed now that its events are done.
    pub(super) fn take_ending(&mut self) -> Option<Ending> {
        self.rare.as_mut()?.ending.take()
    }

    /// Topics and uid.
    pub(super) fn ties(&self) -> &Ties {
        self.ties.as_deref().unwrap_or(&NO_TIES)
    }

    /// The same, to be changed.
    pub(super) fn ties_mut(&mut self) -> &mut Ties {
        self.ties.get_or_insert_default()
    }
}

impl Rare {
    const EMPTY: Rare = Rare {
        ending: None,
        held: None,
        cut_at: 0,
        lingers: 0,
        header_due: 0,
        forwarded: None,
    };

    fn is_empty(&self) -> bool {
        let Rare {
            ending,
            held,
            cut_at,
            lingers,
            header_due,
            forwarded,
        } = self;
        let nothing = ending.is_none() && held.is_none() && forwarded.is_none();
        nothing && (*cut_at, *lingers, *header_due) == (0, 0, 0)
    }
}

impl Ties {
    const NONE: Ties = Ties {
        topics: Vec::new(),
        uid: None,
    };

    fn is_empty(&self) -> bool {
        self.topics.is_empty() && self.uid.is_none()
    }
}

impl Input {
    pub(super) fn extend_from_slice(&mut self, bytes: &[u8]) {
        self.0.get_or_insert_default().extend_from_slice(bytes);
    }

    /// Empties it, and keeps its memory for what comes next.
    pub(super) fn clear(&mut self) {
        if let Some(bytes) = &mut self.0 {
            bytes.clear();
        }
    }

    /// Empties it, and gives its memory back.
    pub(super) fn release(&mut self) {
        self.0 = None;
    }
}

impl std::ops::Deref for Input {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.as_deref().map_or(&[], Vec::as_slice)
    }
}

static NOTHING_RARE: Rare = Rare::EMPTY;
static NO_TIES: Ties = Ties::NONE;

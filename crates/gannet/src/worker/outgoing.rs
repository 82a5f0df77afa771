//! The ring of commands to a reactor of another process or thread: the worker's end.

use std::collections::VecDeque;

use gannet_shm::{Arena, Block, Position, Producer, RingSpec};

use super::shared::Shared;
use crate::{
    direct::Full,
    wire::{
        ARENA, HEADER, block_bytes,
        command::{CommandHeader, DONE_OFFSET},
    },
};

pub(crate) struct Outgoing {
    ring: Producer,
    arena: Arena,
    /// Blocks that records name which the reactor has not read, oldest first.
    blocks: VecDeque<(Position, Block)>,
    inline_limit: usize,
}

impl Outgoing {
    pub(crate) fn attach(shared: &Shared, reactor: usize) -> Self {
        let (region, dimensions) = (&shared.region, &shared.dimensions);
        Outgoing {
            ring: Producer::attach(region.clone(), dimensions.command_ring(reactor)),
            arena: Arena::attach(region.clone(), dimensions.command_arena(reactor)),
            blocks: VecDeque::new(),
            inline_limit: shared.inline_limit(),
        }
    }

    /// Writes a command. Nobody sees it before [`Outgoing::publish`].
    #[inline]
    pub(crate) fn write(
        &mut self,
        header: &CommandHeader,
        head: &[u8],
        payload: &[u8],
    ) -> Result<Position, Full> {
        if head.len() + payload.len() > self.inline_limit {
            return self.write_large(*header, head, payload);
        }
        let pushed = self.ring.push_headed(&header.encode(), &[head, payload]);
        pushed.map_err(|_| Full)
    }

    /// Has a command finish an event, if nobody can have seen it.
    pub(crate) fn amend(&mut self, position: Position, seq: u64) -> bool {
        let done = seq.to_le_bytes();
        self.ring.amend_word(position, DONE_OFFSET, done)
    }

    /// Makes everything written visible with one store. Whether the reactor is to be woken.
    pub(crate) fn publish(&mut self) -> bool {
        self.ring.publish()
    }

    /// Whether half of the ring waits to be published.
    pub(crate) fn is_heavy(&self) -> bool {
        let unpublished = self.ring.head().0 - self.ring.published().0;
        unpublished as usize > self.ring.capacity() / 2
    }

    /// Where the next command will be.
    pub(crate) fn written(&self) -> Position {
        self.ring.head()
    }

    /// How far the reactor has read.
    pub(crate) fn taken(&self) -> Position {
        self.ring.consumer_position()
    }

    /// Gives blocks back that the reactor has read.
    pub(crate) fn reclaim(&mut self) {
        if self.blocks.is_empty() {
            return;
        }
        let read = self.ring.consumer_position();
        while self
            .blocks
            .front()
            .is_some_and(|(position, _)| *position < read)
        {
            if let Some((_, block)) = self.blocks.pop_front() {
                self.arena.free(block);
            }
        }
    }

    /// Writes a command whose payload goes into the arena.
    fn write_large(
        &mut self,
        mut header: CommandHeader,
        head: &[u8],
        payload: &[u8],
    ) -> Result<Position, Full> {
        // First the ring, so that nothing is copied in vain.
        if self.ring.free() < RingSpec::record_bytes(HEADER + 16) {
            return Err(Full);
        }
        self.reclaim();
        let block = self.arena.alloc(head.len() + payload.len()).ok_or(Full)?;
        let reference = block.reference();
        header.flags |= ARENA;
        let written = self.arena.write(&block, &[head, payload]);
        let reference = block_bytes(reference.offset, reference.len);
        let pushed = self.ring.push_headed(&header.encode(), &[&reference]);
        match (written, pushed) {
            (Ok(()), Ok(position)) => {
                self.blocks.push_back((position, block));
                Ok(position)
            }
            _ => {
                self.arena.free(block);
                Err(Full)
            }
        }
    }
}

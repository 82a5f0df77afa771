//! Carrying out what workers ask for.

use super::{conn::Closed, link::Way, reactor::Reactor, rings::Rings};
use crate::{
    close::CloseReason,
    direct::{Batch, Direct, Taken},
    id::ConnId,
    layout::ReactorCounter,
    wire::{
        self, HEADER, TEXT,
        command::{ABORT, CommandHeader, CommandKind, DROPPABLE, HANDLER_FAILED, MAX_UID, Query},
    },
};

/// How much may be taken at a time.
struct Bounds {
    limit: usize,
    compressed: usize,
    /// What was compressed before.
    before: usize,
}

impl Reactor {
    /// Takes at most `limit` commands from a link, and none after those that made it compress so many
    /// bytes. Where that is bounded, none either while the topics have enough to give out.
    pub(super) fn take_commands(&mut self, index: usize, limit: usize, compressed: usize) {
        let bounds = Bounds {
            limit,
            compressed,
            before: self.compressors.taken(),
        };
        match self.links[index].as_mut().map(|link| &mut link.way) {
            Some(Way::Rings(_)) => self.take_from_ring(index, bounds),
            Some(Way::Direct(own)) if own.direct.has_commands() => {
                let (direct, batch) = (own.direct.clone(), std::mem::take(&mut own.batch));
                self.take_from_batch(index, bounds, &direct, batch);
            }
            Some(Way::Direct(_)) | None => {}
        }
    }

    fn take_from_ring(&mut self, index: usize, bounds: Bounds) {
        let mut payload = std::mem::take(&mut self.payload);
        let mut taken = 0;
        while self.may_take(taken, &bounds) {
            let Some(rings) = self.rings(index) else {
                break;
            };
            let Some(record) = rings.commands.next() else {
                break;
            };
            taken += 1;
            payload.clear();
            let header = record
                .array::<HEADER>(0)
                .as_ref()
                .and_then(CommandHeader::decode);
            let whole = match &header {
                Some(header) if header.has(wire::ARENA) => record
                    .array(HEADER)
                    .map(wire::block_from)
                    .is_some_and(|(offset, len)| {
                        let block = gannet_shm::BlockRef { offset, len };
                        rings.command_arena.append_to(block, &mut payload).is_ok()
                    }),
                Some(_) => record.append_to(HEADER.., &mut payload).is_ok(),
                None => false,
            };
            match header {
                Some(header) if whole => self.carry_out(index, &header, &payload),
                _ => tracing::error!(link = index, "a worker sent a command that makes no sense"),
            }
            if taken % COMMIT == 0
                && let Some(rings) = self.rings(index)
            {
                rings.commands_taken();
            }
        }
        if taken > 0
            && let Some(rings) = self.rings(index)
        {
            rings.commands_taken();
        }
        if payload.capacity() > KEEP {
            payload = Vec::new();
        }
        self.payload = payload;
    }

    /// The same for what the worker of this thread has written. It is not in this link meanwhile: what is
    /// carried out may look at that, or write to it.
    fn take_from_batch(&mut self, index: usize, bounds: Bounds, direct: &Direct, mut batch: Batch) {
        let (mut count, mut taken) = (0, Taken::default());
        while self.may_take(count, &bounds) {
            if batch.is_empty() {
                // What was left over last time goes first.
                direct.exchange(&mut batch);
            }
            let Some((header, payload)) = batch.next() else {
                break;
            };
            count += 1;
            direct.note(&mut taken, &payload);
            self.carry_out(index, &header, batch.payload(payload));
        }
        direct.took(&taken);
        if let Some(link) = self.links[index].as_mut()
            && let Way::Direct(own) = &mut link.way
        {
            own.batch = batch;
        }
    }

    /// Whether one more command may be taken in this turn.
    #[inline]
    fn may_take(&mut self, taken: usize, bounds: &Bounds) -> bool {
        if taken >= bounds.limit {
            return false;
        }
        let gives_out = bounds.compressed < usize::MAX && self.topics.logs.is_full();
        let compressed = self.compressors.taken().wrapping_sub(bounds.before);
        if gives_out || compressed >= bounds.compressed {
            // If there are more, the next turn comes at once.
            self.count(ReactorCounter::Yields);
            return false;
        }
        true
    }

    fn rings(&mut self, index: usize) -> Option<&mut Rings> {
        match &mut self.links[index].as_mut()?.way {
            Way::Rings(rings) => Some(rings),
            Way::Direct(_) => None,
        }
    }

    /// Nearly all commands send something, or end an event, or both.
    #[inline]
    fn carry_out(&mut self, index: usize, command: &CommandHeader, payload: &[u8]) {
        match command.kind {
            CommandKind::Send => self.send(command.conn, command.has(TEXT), payload),
            CommandKind::Response => self.respond(command, payload),
            CommandKind::Done => {}
            _ => self.carry_out_other(index, command, payload),
        }
        if command.done != 0 {
            self.carry_out_done(index, command);
        }
    }

    fn carry_out_other(&mut self, index: usize, command: &CommandHeader, payload: &[u8]) {
        let conn = command.conn;
        match command.kind {
            CommandKind::Done | CommandKind::Send | CommandKind::Response => {}
            CommandKind::Publish => self.carry_out_publish(command, payload),
            CommandKind::Subscribe | CommandKind::Unsubscribe | CommandKind::Bind => {
                if let (Some(slot), Ok(name)) = (self.conns.find(conn), str::from_utf8(payload)) {
                    match command.kind {
                        CommandKind::Subscribe => self.subscribe(slot, name),
                        CommandKind::Unsubscribe => self.unsubscribe(slot, name),
                        _ => self.bind(slot, name),
                    }
                }
            }
            CommandKind::Close => self.carry_out_close(command, payload),
            CommandKind::Query => self.carry_out_query(index, command, payload),
            CommandKind::TaskSubmit => self.desk_submit(index, command, payload),
            CommandKind::TaskDone => {
                self.desk_done(index, command, payload);
            }
            CommandKind::TaskCancel => self.desk_cancel(index, command.aux),
            CommandKind::Datagram => self.send_packet(usize::from(command.code), payload),
            CommandKind::Pipe => self.pipe(index, command.code, payload),
            CommandKind::ResponseBody
            | CommandKind::ResponseEnd
            | CommandKind::ResponseAbort
            | CommandKind::Continue
            | CommandKind::Accept => {
                if let Some(slot) = self.conns.find(conn) {
                    match command.kind {
                        CommandKind::ResponseBody => self.respond_body(slot, payload),
                        CommandKind::ResponseEnd => self.respond_end(slot, payload),
                        CommandKind::ResponseAbort => self.respond_abort(slot),
                        CommandKind::Continue => self.send_continue(slot),
                        _ => self.accept_handshake(slot, payload),
                    }
                }
            }
        }
    }

    #[inline(never)]
    fn carry_out_done(&mut self, index: usize, command: &CommandHeader) {
        let finished = self.links[index]
            .as_mut()
            .and_then(|link| link.finish(command.done));
        let Some(whose) = finished else { return };
        if command.has(HANDLER_FAILED) {
            self.count(ReactorCounter::HandlerFailed);
        }
        let Some((slot, conn)) = self.conns.find_mut(whose) else {
            return;
        };
        conn.in_flight = conn.in_flight.saturating_sub(1);
        if command.has(HANDLER_FAILED) {
            self.handler_failed(slot);
        } else if conn.is_calm() && self.stopping.is_none() {
            // Nothing has waited for it.
            return;
        }
        self.event_done(slot);
    }

    fn handler_failed(&mut self, slot: usize) {
        self.fail_request(slot, 500, "the handler failed");
        let is_http = self
            .conns
            .get(slot)
            .is_some_and(|conn| matches!(conn.speaks, super::conn::Speaks::Http(_)));
        if !is_http {
            self.begin_close(
                slot,
                Closed::of(CloseReason::HandlerFailed),
                "the handler failed",
            );
        }
    }

    fn carry_out_close(&mut self, command: &CommandHeader, reason: &[u8]) {
        let Some(slot) = self.conns.find(command.conn) else {
            return;
        };
        let closed = Closed {
            reason: CloseReason::Handler,
            code: command.code,
        };
        if command.has(ABORT) {
            self.leave(slot, closed);
        } else {
            self.begin_close(slot, closed, &String::from_utf8_lossy(reason));
        }
    }

    fn carry_out_publish(&mut self, command: &CommandHeader, payload: &[u8]) {
        let Some((len, rest)) = payload.split_at_checked(2) else {
            return;
        };
        let Some((topic, data)) = rest.split_at_checked(usize::from(wire::u16_at(len, 0))) else {
            return;
        };
        let Ok(topic) = str::from_utf8(topic) else {
            return;
        };
        let message = (command.has(TEXT), data);
        self.publish_to(topic, message, command.has(DROPPABLE), command.conn);
    }

    fn carry_out_query(&mut self, index: usize, command: &CommandHeader, payload: &[u8]) {
        let Some(link) = self.links[index].as_ref().map(|link| link.incarnation) else {
            return;
        };
        let name = || String::from_utf8_lossy(payload);
        let ids = |ids: Vec<ConnId>| {
            ids.iter()
                .flat_map(|id| id.as_u64().to_le_bytes())
                .collect::<Vec<u8>>()
        };
        let answer = match Query::from_u16(command.code) {
            Some(Query::TopicCount) => (self.topics.count(&name()) as u64).to_le_bytes().to_vec(),
            Some(Query::TopicMembers) => {
                ids(self.ids_of(self.topics.subscribers(&name()).collect()))
            }
            Some(Query::Bound) => {
                let slots = self.uids.get(&*name()).cloned().unwrap_or_default();
                ids(self.ids_of(slots))
            }
            Some(Query::Drained) => {
                let limit = payload
                    .first_chunk()
                    .map_or(0, |bytes| u64::from_le_bytes(*bytes));
                return self.tell_when_drained(command.conn, limit as usize, link, command.aux);
            }
            None => Vec::new(),
        };
        self.reply(link, command.aux, &answer);
    }

    pub(super) fn ids_of(&self, slots: Vec<u32>) -> Vec<ConnId> {
        slots
            .iter()
            .filter_map(|&slot| Some(self.conns.get(slot as usize)?.id))
            .collect()
    }

    /// Binds a connection to a uid; an empty one ends the binding.
    fn bind(&mut self, slot: usize, uid: &str) {
        self.unbind(slot);
        let Some(conn) = self.conns.get_mut(slot) else {
            return;
        };
        if conn.is_gone() || uid.len() > MAX_UID {
            return;
        }
        if !uid.is_empty() {
            conn.ties_mut().uid = Some(uid.into());
            self.uids.entry(uid.into()).or_default().push(slot as u32);
        }
        if let Some(row) = self.table.row_of(conn.id) {
            self.table.set_uid(row, uid);
        }
    }

    /// Forgets who a connection was bound to; its row keeps it.
    pub(super) fn unbind(&mut self, slot: usize) {
        let Some(conn) = self.conns.get_mut(slot) else {
            return;
        };
        let Some(uid) = conn.ties.as_mut().and_then(|ties| ties.uid.take()) else {
            return;
        };
        conn.tidy();
        if let Some(slots) = self.uids.get_mut(&uid) {
            slots.retain(|&other| other as usize != slot);
            if slots.is_empty() {
                self.uids.remove(&uid);
            }
        }
    }
}

/// Commands after which the ring's room is given back.
const COMMIT: usize = 64;
/// A payload buffer larger than this is not kept.
const KEEP: usize = 1 << 20;

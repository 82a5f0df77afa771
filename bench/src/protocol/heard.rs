//! What a broadcast says to everybody, as one connection has heard it.
//!
//! A server sends the same bytes to all. Whoever receives a message first has it taken apart and compared
//! with what was published; its bytes, frame and all, are kept here, behind those of the message before. The
//! others have only to receive the same bytes: a whole read is one comparison, and still no byte goes
//! unchecked. What differs (a ping in between, other frames, another order) is taken apart as the first one
//! was.
//!
//! A connection has a place in what was heard: how many messages of it, counted from the beginning of the
//! run, it has received. The place is a hint. That the message there is the one this connection has to get
//! next, its caller sees by the number.

use crate::payload::MessageId;

/// Messages as they stood on the wire, each checked.
#[derive(Clone, Debug, Default)]
pub(super) struct Heard {
    bytes: Vec<u8>,
    /// Each with where in `bytes` it ends.
    messages: Vec<(MessageId, usize)>,
    /// The place of the first of them: so many are not kept any more.
    first: u64,
}

/// Messages of one publisher with consecutive numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) first: MessageId,
    pub(super) count: u64,
    /// Bytes of all of them.
    pub(super) length: usize,
}

impl Heard {
    /// What the input begins with, if it is what was heard at this place.
    pub(super) fn again(&self, place: u64, input: &[u8]) -> Option<Run> {
        let at = usize::try_from(place.checked_sub(self.first)?).ok()?;
        let messages = self.messages.get(at..)?;
        let &(first, _) = messages.first()?;
        let begin = self.begin(at);
        let (mut count, mut end) = (0, begin);
        for &(id, message_end) in messages {
            let goes_on = id.connection == first.connection && id.number == first.number + count;
            if !goes_on || message_end - begin > input.len() {
                break;
            }
            (count, end) = (count + 1, message_end);
        }
        let length = end - begin;
        (count > 0 && input[..length] == self.bytes[begin..end]).then_some(Run {
            first,
            count,
            length,
        })
    }

    /// A connection at this place has received a message, which was checked; `wire` is how it came, if it
    /// came in one piece. Where the connection is now.
    pub(super) fn learn(&mut self, place: u64, id: MessageId, wire: Option<&[u8]>) -> u64 {
        let is_at_end = place == self.end();
        if !is_at_end && let Some(at) = self.find(id) {
            return self.first + at as u64 + 1;
        }
        let Some(wire) = wire.filter(|wire| wire.len() <= KEPT) else {
            return NOWHERE;
        };
        if !is_at_end {
            // Who lags behind what is kept has nothing to say to the others.
            let is_old = |&(other, _): &(MessageId, usize)| {
                other.connection == id.connection && other.number > id.number
            };
            if self.messages.iter().any(is_old) {
                return NOWHERE;
            }
            self.forget(self.messages.len());
        }
        while self.bytes.len() + wire.len() > KEPT {
            self.forget(self.messages.len().div_ceil(2));
        }
        self.bytes.extend_from_slice(wire);
        self.messages.push((id, self.bytes.len()));
        self.end()
    }

    /// The place behind all that is kept.
    fn end(&self) -> u64 {
        self.first + self.messages.len() as u64
    }

    fn begin(&self, at: usize) -> usize {
        at.checked_sub(1)
            .map_or(0, |before| self.messages[before].1)
    }

    fn find(&self, id: MessageId) -> Option<usize> {
        self.messages.iter().rposition(|&(other, _)| other == id)
    }

    fn forget(&mut self, count: usize) {
        let length = self.begin(count);
        self.bytes.drain(..length);
        self.messages.drain(..count);
        for (_, end) in &mut self.messages {
            *end -= length;
        }
        self.first += count as u64;
    }
}

/// The place of a connection that has received what others have not.
const NOWHERE: u64 = u64::MAX;

/// Bytes that are kept at most: far more than what is under way between the first connection and the last,
/// unless messages are so large that taking them apart is nothing beside comparing them.
const KEPT: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn id(connection: u32, number: u64) -> MessageId {
        MessageId { connection, number }
    }

    /// Learns these messages of publisher 0, each of one byte.
    fn heard(numbers: std::ops::Range<u64>) -> Heard {
        let mut heard = Heard::default();
        let mut place = 0;
        for number in numbers {
            place = heard.learn(place, id(0, number), Some(&[number as u8]));
        }
        heard
    }

    #[test]
    fn the_same_bytes_are_known_again_as_far_as_they_came() {
        let heard = heard(0..4);
        let run = |first, count: usize| {
            Some(Run {
                first: id(0, first),
                count: count as u64,
                length: count,
            })
        };
        assert_eq!(heard.again(0, &[0, 1, 2, 3, 4]), run(0, 4));
        assert_eq!(heard.again(0, &[0, 1]), run(0, 2));
        assert_eq!(heard.again(2, &[2, 3]), run(2, 2));
        assert_eq!(heard.again(2, &[2, 9]), None, "another byte");
        assert_eq!(heard.again(4, &[4]), None, "nobody has heard it");
        assert_eq!(heard.again(0, &[]), None);
        assert_eq!(heard.again(NOWHERE, &[0]), None);
    }

    #[test]
    fn a_run_is_of_one_publisher_without_a_gap() {
        let mut heard = Heard::default();
        let ids = [id(0, 0), id(0, 1), id(1, 0), id(1, 2)];
        for (place, &one) in ids.iter().enumerate() {
            heard.learn(place as u64, one, Some(b"x"));
        }
        let counts = [0, 2, 3].map(|place| heard.again(place, b"xxxx").map(|run| run.count));
        assert_eq!(counts, [Some(2), Some(1), Some(1)]);
    }

    #[test]
    fn who_has_lost_his_place_finds_it_again() {
        let mut heard = heard(0..4);
        // In two pieces, so that nobody learns of it.
        assert_eq!(heard.learn(4, id(0, 4), None), NOWHERE);
        assert_eq!(heard.learn(NOWHERE, id(0, 2), None), 3);
        // Newer than all that is kept: from there on.
        let place = heard.learn(NOWHERE, id(0, 7), Some(b"7"));
        assert_eq!(
            heard.again(place - 1, b"7").map(|run| run.first),
            Some(id(0, 7))
        );
        assert_eq!(heard.again(3, &[3]), None, "it is forgotten");
        assert_eq!(heard.learn(NOWHERE, id(0, 5), Some(b"5")), NOWHERE);
        assert!(heard.again(place - 1, b"7").is_some(), "it is kept");
    }

    #[test]
    fn what_is_kept_is_bounded_and_places_stay_what_they_are() {
        let (mut heard, mut place) = (Heard::default(), 0);
        let wire = |number: u64| [number as u8; 1000];
        for number in 0..1000 {
            place = heard.learn(place, id(0, number), Some(&wire(number)));
            assert!(heard.bytes.len() <= KEPT);
        }
        assert_eq!(place, 1000);
        assert_eq!(heard.again(0, &wire(0)), None);
        let run = heard.again(990, &[wire(990), wire(991)].concat());
        assert_eq!(run.map(|run| (run.first, run.count)), Some((id(0, 990), 2)));
        assert_eq!(
            heard.learn(place, id(0, 1000), Some(&vec![0; KEPT + 1])),
            NOWHERE
        );
    }
}

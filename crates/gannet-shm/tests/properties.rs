//! The ring and the arena against simple models, with operations at random.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use gannet_shm::{
    Arena, ArenaReader, ArenaSpec, Block, Consumer, Position, Producer, Region, RingSpec,
};
use proptest::prelude::*;
use proptest::sample::Index;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn the_ring_behaves_like_a_queue(
        capacity in prop::sample::select(vec![64usize, 128, 512, 4096]),
        steps in prop::collection::vec(step(), 1..400),
    ) {
        let mut pair = Pair::new(capacity);
        for step in steps {
            pair.run(step)?;
        }
        pair.finish()?;
    }

    #[test]
    fn a_corrupt_ring_is_refused_and_nothing_panics(
        warm_up in 0..20usize,
        scribbles in prop::collection::vec(
            (scribble_place(), prop_oneof![any::<u64>(), 0..1000u64, any::<u32>().prop_map(|n| u64::from(n) * 8)]),
            1..20,
        ),
    ) {
        let (region, spec) = ring(512);
        let mut producer = Producer::attach(region.clone(), spec);
        let mut consumer = Consumer::attach(region.clone(), spec);
        let mut held = None;
        let mut use_both = |rounds: usize| {
            for round in 0..rounds {
                let pushed = producer.push(&[&[7; 100][..round * 13 % 100]]);
                if let Ok(at) = pushed {
                    producer.amend(at, 0, &[8]);
                    held.get_or_insert(at);
                }
                producer.publish();
                if round % 5 == 0 && let Some(at) = held.take() {
                    let mut out = Vec::new();
                    producer.read_back(at, &mut out);
                    let _ = producer.take_back(at);
                }
                assert!(producer.free() <= producer.capacity());
                let mut out = Vec::new();
                while let Some(record) = consumer.next() {
                    assert!(record.len() <= RingSpec::max_record(512));
                    record.append_to(.., &mut out).unwrap();
                    assert!(out.len() <= 512, "more than the ring holds");
                }
                consumer.commit();
            }
        };
        use_both(warm_up);
        for (place, value) in scribbles {
            region.word(place).store(value, Ordering::Relaxed);
            use_both(3);
            let mut late = Consumer::attach(region.clone(), spec);
            while late.next().is_some() {}
            let _ = late.is_empty();
            Producer::attach(region.clone(), spec).free();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn blocks_of_an_arena_do_not_overlap_and_all_memory_comes_back(
        units in 1..80usize,
        steps in prop::collection::vec((any::<bool>(), 0..200_000usize, any::<Index>()), 1..120),
    ) {
        let len = units * ArenaSpec::UNIT;
        let region = Region::create("arena", 1, len).unwrap();
        let spec = ArenaSpec { offset: 0, len };
        let mut arena = Arena::attach(region.clone(), spec);
        let reader = ArenaReader::attach(region, spec);
        let mut blocks: Vec<(Block, u8)> = Vec::new();
        for (n, (alloc, len, which)) in steps.into_iter().enumerate() {
            let fill = n as u8;
            if alloc {
                let used = arena.used();
                if let Some(block) = arena.alloc(len) {
                    arena.write(&block, &[&vec![fill; len]]).unwrap();
                    blocks.push((block, fill));
                    prop_assert!(arena.used() >= used + len);
                }
            } else if !blocks.is_empty() {
                let (block, fill) = blocks.swap_remove(which.index(blocks.len()));
                check(&reader, &block, fill)?;
                arena.free(block);
            }
            prop_assert!(arena.used() + arena.idle() <= arena.capacity());
            prop_assert!(arena.idle() <= 2 * arena.keep());
        }
        for (block, fill) in blocks {
            check(&reader, &block, fill)?;
            arena.free(block);
        }
        prop_assert_eq!(arena.used(), 0);
        let largest = 1usize << units.ilog2();
        prop_assert!(arena.alloc(largest * ArenaSpec::UNIT).is_some(), "fragments remain");
    }
}

fn check(reader: &ArenaReader, block: &Block, fill: u8) -> Result<(), TestCaseError> {
    let mut bytes = Vec::new();
    reader.append_to(block.reference(), &mut bytes).unwrap();
    prop_assert_eq!(bytes.len() as u64, block.len());
    prop_assert!(
        bytes.iter().all(|&byte| byte == fill),
        "another block's bytes"
    );
    Ok(())
}

#[derive(Clone, Debug)]
enum Step {
    Push(Vec<u8>, Index),
    Amend(Index, Index, Vec<u8>),
    AmendWord(Index, Index, [u8; 8]),
    Publish,
    /// Reads that many records without committing them.
    Take(usize),
    Commit,
    Hold(Index),
    HoldAll,
    Release,
    ReadBack(Index),
    /// The consumer dies; its successor goes on.
    NewConsumer,
    /// The consumer dies; its successor gets some of what is held again.
    TakeBack(Index),
    /// The producer dies; its successor goes on.
    NewProducer,
}

fn step() -> impl Strategy<Value = Step> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..200);
    prop_oneof![
        10 => (bytes(), any::<Index>()).prop_map(|(bytes, cut)| Step::Push(bytes, cut)),
        2 => (any::<Index>(), any::<Index>(), prop::collection::vec(any::<u8>(), 0..20))
            .prop_map(|(record, offset, bytes)| Step::Amend(record, offset, bytes)),
        2 => any::<(Index, Index, [u8; 8])>()
            .prop_map(|(record, offset, word)| Step::AmendWord(record, offset, word)),
        6 => Just(Step::Publish),
        6 => (0..6usize).prop_map(Step::Take),
        6 => Just(Step::Commit),
        3 => any::<Index>().prop_map(Step::Hold),
        1 => Just(Step::HoldAll),
        2 => Just(Step::Release),
        3 => any::<Index>().prop_map(Step::ReadBack),
        1 => Just(Step::NewConsumer),
        1 => any::<Index>().prop_map(Step::TakeBack),
        1 => Just(Step::NewProducer),
    ]
}

/// Both ends, and what should be in between.
struct Pair {
    region: Arc<Region>,
    spec: RingSpec,
    producer: Producer,
    consumer: Consumer,
    /// Every record that is still kept for someone, oldest first.
    records: VecDeque<(Position, Vec<u8>)>,
    hold: Option<Position>,
    published: Position,
    cursor: Position,
    committed: Position,
}

impl Pair {
    fn new(capacity: usize) -> Pair {
        let (region, spec) = ring(capacity);
        Pair {
            producer: Producer::attach(region.clone(), spec),
            consumer: Consumer::attach(region.clone(), spec),
            region,
            spec,
            records: VecDeque::new(),
            hold: None,
            published: Position(0),
            cursor: Position(0),
            committed: Position(0),
        }
    }

    fn run(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Push(bytes, cut) => self.push(bytes, cut)?,
            Step::Amend(record, offset, bytes) => {
                self.amend(record, offset, &bytes, |producer, at, offset| {
                    producer.amend(at, offset, &bytes)
                })?
            }
            Step::AmendWord(record, offset, word) => {
                self.amend(record, offset, &word, |producer, at, offset| {
                    let amended = producer.amend_word(at, offset, word);
                    // Elsewhere it is refused; so that the model holds, the other does it.
                    amended || !offset.is_multiple_of(8) && producer.amend(at, offset, &word)
                })?
            }
            Step::Publish => {
                let new = self.producer.head() != self.published;
                prop_assert_eq!(self.producer.publish(), new);
                self.published = self.producer.head();
            }
            Step::Take(count) => {
                for _ in 0..count {
                    self.take()?;
                }
            }
            Step::Commit => {
                self.consumer.commit();
                self.committed = self.cursor;
            }
            Step::Hold(which) => {
                if let Some(at) = self.some_record(which) {
                    self.hold_from(Some(at));
                }
            }
            Step::HoldAll => self.hold_from(Some(self.floor())),
            Step::Release => self.hold_from(None),
            Step::ReadBack(which) => {
                if let Some(at) = self.some_record(which) {
                    let mut out = vec![1];
                    prop_assert!(self.producer.read_back(at, &mut out));
                    let record = self.records.iter().find(|(position, _)| *position == at);
                    prop_assert_eq!(&out[1..], &record.unwrap().1[..]);
                }
            }
            Step::NewConsumer => {
                self.consumer = Consumer::attach(self.region.clone(), self.spec);
                self.cursor = self.committed;
            }
            Step::TakeBack(which) => {
                if let Some(at) = self.some_record(which) {
                    let possible = at <= self.published;
                    prop_assert_eq!(self.producer.take_back(at), possible);
                    if possible {
                        self.committed = self.committed.min(at);
                        self.published = at;
                    }
                    self.consumer = Consumer::attach(self.region.clone(), self.spec);
                    self.cursor = self.committed;
                }
            }
            Step::NewProducer => {
                self.producer = Producer::attach(self.region.clone(), self.spec);
                self.records.retain(|(at, _)| *at < self.published);
                self.hold_from(None);
            }
        }
        self.check()
    }

    fn push(&mut self, bytes: Vec<u8>, cut: Index) -> Result<(), TestCaseError> {
        let (first, second) = bytes.split_at(cut.index(bytes.len() + 1));
        let at = self.producer.head();
        let needed = RingSpec::record_bytes(bytes.len());
        let fits = bytes.len() <= self.producer.max_record() && needed <= self.producer.free();
        match self.producer.push(&[first, second]) {
            Ok(position) => {
                prop_assert!(fits && position == at);
                prop_assert_eq!(self.producer.head(), Position(at.0 + needed as u64));
                self.records.push_back((at, bytes));
            }
            Err(full) => {
                prop_assert!(!fits);
                prop_assert_eq!((full.len, full.free), (bytes.len(), self.producer.free()));
            }
        }
        Ok(())
    }

    fn amend(
        &mut self,
        record: Index,
        offset: Index,
        new: &[u8],
        act: impl FnOnce(&mut Producer, Position, usize) -> bool,
    ) -> Result<(), TestCaseError> {
        let Some(at) = self.some_record(record) else {
            return Ok(());
        };
        let published = self.published;
        let (_, bytes) = self
            .records
            .iter_mut()
            .find(|(position, _)| *position == at)
            .unwrap();
        let offset = offset.index(bytes.len() + 1);
        let possible = at >= published && offset + new.len() <= bytes.len();
        prop_assert_eq!(act(&mut self.producer, at, offset), possible);
        if possible {
            bytes[offset..offset + new.len()].copy_from_slice(new);
        }
        Ok(())
    }

    fn take(&mut self) -> Result<(), TestCaseError> {
        let expected = self
            .records
            .iter()
            .find(|(at, _)| *at >= self.cursor && *at < self.published);
        prop_assert_eq!(self.consumer.is_empty(), expected.is_none());
        let Some(record) = self.consumer.next() else {
            prop_assert!(expected.is_none());
            return Ok(());
        };
        let (at, bytes) = expected.unwrap();
        prop_assert_eq!((record.position(), record.len()), (*at, bytes.len()));
        let mut whole = Vec::new();
        record.append_to(.., &mut whole).unwrap();
        prop_assert_eq!(&whole, bytes);
        let half = bytes.len() / 2;
        let mut end = bytes::BytesMut::new();
        record.append_to(half.., &mut end).unwrap();
        prop_assert_eq!(&end[..], &bytes[half..]);
        let mut start = vec![0; half];
        record.read(0, &mut start).unwrap();
        prop_assert_eq!(&start[..], &bytes[..half]);
        prop_assert!(record.read(bytes.len(), &mut [0]).is_err());
        prop_assert!(record.append_to(..=bytes.len(), &mut whole).is_err());
        prop_assert!(record.append_to(usize::MAX.., &mut whole).is_err());
        self.cursor = Position(at.0 + RingSpec::record_bytes(bytes.len()) as u64);
        Ok(())
    }

    /// Everything published arrives in the end.
    fn finish(&mut self) -> Result<(), TestCaseError> {
        self.producer.publish();
        self.published = self.producer.head();
        while self.cursor < self.published {
            self.take()?;
        }
        prop_assert!(self.consumer.next().is_none());
        prop_assert!(!self.consumer.corrupt() && !self.producer.is_corrupt());
        Ok(())
    }

    fn hold_from(&mut self, oldest: Option<Position>) {
        self.producer.hold_from(oldest);
        self.hold = oldest;
    }

    fn check(&mut self) -> Result<(), TestCaseError> {
        let floor = self.floor();
        self.records.retain(|(at, _)| *at >= floor);
        prop_assert_eq!(self.producer.published(), self.published);
        prop_assert_eq!(self.producer.consumer_position(), self.committed);
        prop_assert_eq!(self.consumer.position(), self.cursor);
        let kept = (self.producer.head().0 - floor.0) as usize;
        prop_assert_eq!(self.producer.free(), self.producer.capacity() - kept);
        Ok(())
    }

    /// Records before it are kept for no one.
    fn floor(&self) -> Position {
        self.committed.min(self.hold.unwrap_or(Position(u64::MAX)))
    }

    fn some_record(&self, which: Index) -> Option<Position> {
        (!self.records.is_empty()).then(|| self.records[which.index(self.records.len())].0)
    }
}

fn ring(capacity: usize) -> (Arc<Region>, RingSpec) {
    let spec = RingSpec {
        offset: 128,
        capacity,
    };
    (
        Region::create("ring", 1, 128 + RingSpec::bytes(capacity)).unwrap(),
        spec,
    )
}

/// Offsets of the cursors, and of words in the data.
fn scribble_place() -> impl Strategy<Value = usize> {
    prop_oneof![
        Just(128),
        Just(256),
        (0..64usize).prop_map(|word| 384 + word * 8)
    ]
}

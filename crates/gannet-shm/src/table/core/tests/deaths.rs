//! A process dies in front of every single store of every operation.

use std::collections::BTreeMap;

use super::*;

type Model = BTreeMap<u64, u64>;

/// A table with rows under these keys, and a twin of it.
fn filled(
    stripes: usize,
    first: usize,
    max: usize,
    keys: std::ops::Range<u64>,
) -> (Mortals, Model) {
    let table = table(stripes, first, max);
    for key in keys.clone() {
        table.set(key, key).unwrap();
    }
    (table, keys.map(|key| (key, key)).collect())
}

/// Lets `change` die at every store, and checks that it was done or was not; that all other rows are
/// as they were; and that the table works to its last slot.
fn dies_anywhere(
    make: impl Fn() -> (Mortals, Model),
    change: impl Fn(&Mortals),
    changed: impl Fn(&mut Model),
) {
    let (mut undone, mut done) = (0, 0);
    for stores in 0.. {
        let (table, before) = make();
        let mut after = before.clone();
        changed(&mut after);
        if !dying_after(stores, || change(&table)) {
            assert_eq!(table.all(), after);
            assert!(
                undone > 0 && done > 0,
                "{undone} times undone, {done} times done"
            );
            return;
        }

        // The dead one holds a lock: only what needs none may be asked.
        let all = table.all();
        assert!(all == before || all == after, "{stores}: {all:?}");
        let sweep = |table: &Mortals| {
            for stripe in 0..table.plan.stripes {
                drop(table.lock(stripe).unwrap());
            }
        };
        // Who cleans up dies too, a little later each time.
        for later in 0.. {
            if !dying_after(later, || sweep(&table)) {
                break;
            }
        }
        let all = table.all();
        assert!(all == before || all == after, "{stores}: {all:?}");
        if all == after {
            done += 1;
        } else {
            undone += 1;
        }

        for (key, value) in &all {
            assert_eq!(table.get(*key), Some(*value), "{stores}");
        }
        assert_eq!(table.len(), all.len(), "{stores}");
        table.assert_links();
        let mut model = all;
        for key in 1000.. {
            if table.set(key, key).is_err() {
                break;
            }
            model.insert(key, key);
        }
        assert_eq!(
            model.len(),
            table.plan.max_rows,
            "{stores}: a slot was lost"
        );
        assert_eq!(table.all(), model, "{stores}");
        for (key, value) in &model {
            assert_eq!(table.get(*key), Some(*value), "{stores}");
            table.delete(*key);
            table.assert_links();
        }
        assert_eq!((table.len(), table.all().len()), (0, 0));
    }
}

#[test]
fn while_it_replaces_a_row() {
    dies_anywhere(
        || filled(2, 4, 9, 0..7),
        |table| table.set(3, 33).unwrap(),
        |model| *model.get_mut(&3).unwrap() = 33,
    );
}

#[test]
fn while_it_changes_a_word_in_place() {
    // Of rows of one word, as it were: the second is put right for `get` in the same manner.
    let (table, _) = filled(1, 4, 9, 0..7);
    for stores in 0..2 {
        assert!(dying_after(stores, || {
            table
                .entry(RawKey::U64(3), |entry| entry.put_word(0, 33))
                .unwrap();
        }));
        let word = |n| table.read(RawKey::U64(3), |words| words.load(n)).unwrap();
        assert_eq!((word(0), word(1)), (Some(3), Some(!3)));
    }
}

#[test]
fn while_it_adds_a_row() {
    // With room in the buckets: the bucket is not split.
    dies_anywhere(
        || filled(2, 9, 9, 0..7),
        |table| table.set(7, 7).unwrap(),
        |model| assert_eq!(model.insert(7, 7), None),
    );
}

#[test]
fn while_it_adds_a_row_and_splits_a_bucket() {
    // In one stripe the split comes with the row that exceeds the buckets.
    for first in 1..=6 {
        dies_anywhere(
            || filled(1, first, 12, 0..6),
            |table| table.set(7, 7).unwrap(),
            |model| assert_eq!(model.insert(7, 7), None),
        );
    }
}

#[test]
fn while_it_removes_a_row() {
    for key in 0..7 {
        dies_anywhere(
            || filled(2, 1, 9, 0..7),
            |table| table.delete(key),
            |model| assert_eq!(model.remove(&key), Some(key)),
        );
    }
}

/// Rows that all belong to one bucket of six: the first have links, the others are in the chain.
fn crowded() -> (Mortals, Model) {
    let table = table(1, 6, 12);
    let keys: [u64; 5] = table.keys(0, 6);
    table.crowd(&keys);
    (table, keys.map(|key| (key, key)).into())
}

#[test]
fn while_it_removes_a_row_with_a_link_or_in_a_chain() {
    for key in crowded().1.into_keys() {
        dies_anywhere(
            crowded,
            |table| table.delete(key),
            |model| assert_eq!(model.remove(&key), Some(key)),
        );
    }
}

#[test]
fn while_it_adds_a_row_to_a_chain_or_where_a_link_is_free() {
    // With 0 and 4, in a slot of the chain that now has a link.
    for goes in [&[][..], &[0], &[4], &[0, 4]] {
        let before = || {
            let (table, mut model) = crowded();
            let [.., comes] = table.keys::<6>(0, 6);
            for goes in goes {
                let key = table.keys::<5>(0, 6)[*goes];
                table.delete(key);
                model.remove(&key);
            }
            (comes, (table, model))
        };
        let comes = before().0;
        dies_anywhere(
            || before().1,
            |table| table.set(comes, 7).unwrap(),
            |model| assert_eq!(model.insert(comes, 7), None),
        );
    }
}

/// Whichever rows move, from links and from the chain, to links and to a chain.
#[test]
fn while_it_splits_a_bucket_with_a_chain() {
    for moving in 0..32_usize {
        let before = || {
            let table = table(1, 1, 12);
            let rows: [[u64; 5]; 2] = [table.keys(0, 2), table.keys(1, 2)];
            let keys: [u64; 5] = std::array::from_fn(|row| rows[moving >> row & 1][row]);
            table.crowd(&keys[..4]);
            let model = keys[..4].iter().map(|key| (*key, *key)).collect();
            (keys[4], (table, model))
        };
        let comes = before().0;
        dies_anywhere(
            || before().1,
            |table| {
                table.set(comes, 7).unwrap();
                assert!(is_dead() || table.buckets() == 2);
            },
            |model| assert_eq!(model.insert(comes, 7), None),
        );
    }
}

#[test]
fn while_it_adds_a_row_where_one_was() {
    dies_anywhere(
        || {
            let (table, mut model) = filled(1, 4, 5, 0..5);
            table.delete(2);
            model.remove(&2);
            (table, model)
        },
        |table| table.set(2, 22).unwrap(),
        |model| assert_eq!(model.insert(2, 22), None),
    );
}

#[test]
fn while_it_finds_no_room() {
    let (table, model) = filled(1, 4, 5, 0..5);
    for stores in 0.. {
        if !dying_after(stores, || assert_eq!(table.set(9, 9), Err(Full))) {
            break;
        }
        assert_eq!((table.all(), table.get(9)), (model.clone(), None));
    }
    table.delete(4);
    assert_eq!(table.set(9, 9), Ok(()));
}

#[test]
fn a_function_that_panics_or_fails_changes_nothing() {
    let (table, model) = filled(1, 4, 6, 0..5);
    for key in [3, 9] {
        let failed: Result<(), Failed> = table
            .entry(RawKey::U64(key), |entry| {
                entry.put(|room| {
                    room.put(0, 1);
                    Err(Failed)
                })
            })
            .unwrap();
        assert!(failed.is_err());
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            table.entry(RawKey::U64(key), |entry| {
                entry.put(|room| -> Result<(), Failed> {
                    room.put(0, 1);
                    panic!("on purpose")
                })
            })
        }));
        assert!(panicked.is_err());
        assert_eq!((table.all(), table.len()), (model.clone(), 5));
    }
    assert_eq!((table.set(9, 9), table.set(10, 10)), (Ok(()), Err(Full)));
}

#[derive(Debug)]
struct Failed;

impl From<Full> for Failed {
    fn from(_: Full) -> Self {
        Failed
    }
}

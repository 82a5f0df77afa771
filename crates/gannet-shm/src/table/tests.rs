//! The operations, against a `HashMap`; and what is refused.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

/// A row as the derive would make it.
#[derive(Clone, Debug, Default, PartialEq)]
struct Session {
    user: u64,
    hits: i64,
    name: Str<20>,
    note: String,
}

impl Session {
    const USER: Column<Session, u64> = Column::at(0);
    const HITS: Column<Session, i64> = Column::at(1);
    const NAME: Column<Session, Str<20>> = Column::at(2);

    fn of(user: u64) -> Session {
        Session {
            user,
            name: Str::new(&format!("user {user}")).unwrap(),
            ..Session::default()
        }
    }
}

impl Row for Session {
    const COLUMNS: &'static [ColumnSpec] = &[
        column("user", ColumnKind::U64),
        column("hits", ColumnKind::I64),
        column("name", ColumnKind::Text(20)),
        column("note", ColumnKind::Text(10)),
    ];
    const WORDS: usize = 9;

    fn store(&self, mut put: impl FnMut(usize, u64)) -> Result<(), ValueTooLong> {
        self.user.store(&mut put);
        self.hits.store(|word, value| put(1 + word, value));
        self.name.store(|word, value| put(2 + word, value));
        cell::store_text("note", 10, &self.note, |word, value| put(6 + word, value))
    }

    fn load(word: impl Fn(usize) -> u64) -> Self {
        Session {
            user: Cell::load(&word),
            hits: Cell::load(|index| word(1 + index)),
            name: Cell::load(|index| word(2 + index)),
            note: cell::load_text(10, |index| word(6 + index)),
        }
    }
}

const fn column(name: &'static str, kind: ColumnKind) -> ColumnSpec {
    ColumnSpec { name, kind }
}

fn table(max: usize) -> Table<Session> {
    Table::create("sessions", Rows::up_to(max)).unwrap()
}

#[derive(Clone, Debug)]
enum Op {
    Set(u8, u64),
    Insert(u8, u64),
    Incr(u8, i64),
    Rename(u8, u64),
    CompareSet(u8, u64, u64),
    Remove(u8),
    RemoveIf(u8, u64),
    Retain(u64),
    Clear,
}

fn op() -> impl Strategy<Value = Op> {
    let (key, user) = (any::<u8>(), 0..4_u64);
    prop_oneof![
        8 => (key, user.clone()).prop_map(|(key, user)| Op::Set(key, user)),
        8 => (key, user.clone()).prop_map(|(key, user)| Op::Insert(key, user)),
        4 => (key, -2..2_i64).prop_map(|(key, by)| Op::Incr(key, by)),
        2 => (key, user.clone()).prop_map(|(key, user)| Op::Rename(key, user)),
        4 => (key, user.clone(), user.clone()).prop_map(|(key, a, b)| Op::CompareSet(key, a, b)),
        8 => key.prop_map(Op::Remove),
        2 => (key, user.clone()).prop_map(|(key, user)| Op::RemoveIf(key, user)),
        1 => user.prop_map(Op::Retain),
        1 => Just(Op::Clear),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn behaves_as_a_hash_map(ops in prop::collection::vec(op(), 0..600), max in 1..200_usize) {
        let table = Table::<Session>::create("t", Rows::up_to(max).first(1)).unwrap();
        let mut model = HashMap::<String, Session>::new();
        for op in ops {
            let full = |error: TableError| assert!(matches!(error, TableError::Full { .. }));
            match op {
                Op::Set(key, user) => {
                    let key = key.to_string();
                    match table.set(&key, &Session::of(user)) {
                        Ok(()) => drop(model.insert(key, Session::of(user))),
                        Err(error) => {
                            full(error);
                            prop_assert!(model.len() == max && !model.contains_key(&key));
                        }
                    }
                }
                Op::Insert(key, user) => {
                    let key = key.to_string();
                    let absent = !model.contains_key(&key);
                    match table.insert(&key, &Session::of(user)) {
                        Ok(inserted) => {
                            prop_assert_eq!(inserted, absent);
                            model.entry(key).or_insert(Session::of(user));
                        }
                        Err(error) => {
                            full(error);
                            prop_assert!(model.len() == max && absent);
                        }
                    }
                }
                Op::Incr(key, by) => {
                    let key = key.to_string();
                    let sum = model.get_mut(&key).map(|row| { row.hits += by; row.hits });
                    prop_assert_eq!(table.incr(&key, Session::HITS, by).unwrap(), sum);
                }
                Op::Rename(key, user) => {
                    let (key, name) = (key.to_string(), Session::of(user).name);
                    let there = model.get_mut(&key).map(|row| row.name = name).is_some();
                    prop_assert_eq!(table.set_column(&key, Session::NAME, &name).unwrap(), there);
                }
                Op::CompareSet(key, current, new) => {
                    let key = key.to_string();
                    let (current, new) = (Session::of(current), Session::of(new));
                    let same = model.get(&key) == Some(&current);
                    if same {
                        model.insert(key.clone(), new.clone());
                    }
                    prop_assert_eq!(table.compare_set(&key, &current, &new).unwrap(), same);
                }
                Op::Remove(key) => {
                    let key = key.to_string();
                    prop_assert_eq!(table.remove(&key).unwrap(), model.remove(&key));
                }
                Op::RemoveIf(key, user) => {
                    let key = key.to_string();
                    let fits = model.get(&key).is_some_and(|row| row.user == user);
                    let removed = if fits { model.remove(&key) } else { None };
                    prop_assert_eq!(table.remove_if(&key, |row| row.user == user).unwrap(), removed);
                }
                Op::Retain(user) => {
                    table.retain(|_, row| row.user != user).unwrap();
                    model.retain(|_, row| row.user != user);
                }
                Op::Clear => {
                    table.clear().unwrap();
                    model.clear();
                }
            }
            prop_assert_eq!(table.len(), model.len());
        }
        let rows: HashMap<_, _> = table.iter().map(Result::unwrap).collect();
        prop_assert_eq!(&rows, &model);
        for (key, row) in &model {
            prop_assert_eq!(table.get(key).unwrap(), Some(row.clone()));
        }
    }
}

#[test]
fn every_slot_is_usable_and_then_it_says_so() {
    for max in [1, 63, 64, 1000, 5000] {
        let table = Table::<Session, u64>::create("t", Rows::up_to(max).first(1)).unwrap();
        for round in 0..3 {
            for key in 0..max as u64 {
                table.set(&(key + round), &Session::of(key)).unwrap();
            }
            let error = table.set(&u64::MAX, &Session::of(0)).unwrap_err();
            let says = format!("table `t` is full: it has the {max} rows");
            assert!(error.to_string().starts_with(&says), "{error}");
            assert_eq!(table.len(), max);
            table.remove(&round).unwrap().unwrap();
        }
    }
}

#[test]
fn a_table_grows_with_its_rows() {
    let table = Table::<Session, u64>::create("t", Rows::up_to(100_000).first(16)).unwrap();
    let empty = table.stats();
    for key in 0..50_000 {
        table.set(&key, &Session::of(key)).unwrap();
    }
    let stats = table.stats();
    assert!(
        stats.buckets > 25_000 / core::plan::ROWS_PER_BUCKET,
        "{stats:?}"
    );
    assert!(empty.bytes < 1 << 20, "{empty:?}");
    assert_eq!((stats.rows, stats.max_rows), (50_000, 100_000));
    for key in 0..50_000 {
        assert_eq!(table.get(&key).unwrap(), Some(Session::of(key)));
    }
    assert_eq!(table.get(&50_000).unwrap(), None);
}

#[test]
fn a_value_that_is_too_long_changes_nothing() {
    let table = table(10);
    let long = Session {
        note: "eleven byte".into(),
        ..Session::of(9)
    };
    for _ in 0..20 {
        let error = table.set("new", &long).unwrap_err();
        let says = "table `sessions`: column `note` holds 10 bytes, the value has 11";
        assert_eq!(error.to_string(), says);
    }
    assert_eq!((table.len(), table.get("new").unwrap()), (0, None));
    table.set("old", &Session::of(1)).unwrap();
    table.set("old", &long).unwrap_err();
    table.update("old", |row| *row = long.clone()).unwrap_err();
    assert_eq!(table.get("old").unwrap(), Some(Session::of(1)));
}

#[test]
fn keys_of_every_kind() {
    let bytes = Table::<Session, [u8]>::create("t", Rows::up_to(10)).unwrap();
    for key in [&b""[..], b"\0", b"\0\0", &[255; 64]] {
        assert_eq!(bytes.get(key).unwrap(), None);
        assert!(bytes.insert(key, &Session::of(key.len() as u64)).unwrap());
    }
    let mut keys: Vec<_> = bytes.iter().map(|row| row.unwrap().0).collect();
    keys.sort();
    assert_eq!(keys, [vec![], vec![0], vec![0, 0], vec![255; 64]]);
    let error = bytes.get(&[0; 65]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "a key of 65 bytes is too long for table `t`: 64 are possible"
    );
}

#[test]
fn updates_return_what_they_say() {
    let table = table(10);
    assert_eq!(table.update("a", |_| ()).unwrap(), None);
    let made = table
        .upsert("a", |row| row.unwrap_or(Session::of(1)))
        .unwrap();
    assert_eq!(made, Session::of(1));
    let made = table
        .upsert("a", |row| Session {
            hits: 5,
            ..row.unwrap()
        })
        .unwrap();
    assert_eq!((made.user, made.hits), (1, 5));
    assert_eq!(
        table
            .update("a", |row| std::mem::take(&mut row.hits))
            .unwrap(),
        Some(5)
    );
    assert_eq!(table.column("a", Session::HITS).unwrap(), Some(0));
    assert!(table.compare_exchange("a", Session::USER, &1, &2).unwrap());
    assert!(!table.compare_exchange("a", Session::USER, &1, &3).unwrap());
    assert!(!table.compare_exchange("b", Session::USER, &1, &3).unwrap());
    assert_eq!(table.decr("a", Session::HITS, 2).unwrap(), Some(-2));
    assert!(table.contains("a").unwrap() && !table.contains("b").unwrap());
}

#[test]
fn a_number_that_overflows_stays() {
    let table = table(10);
    table
        .set(
            "a",
            &Session {
                hits: i64::MAX,
                ..Session::of(0)
            },
        )
        .unwrap();
    assert!(matches!(
        table.incr("a", Session::HITS, 1),
        Err(TableError::Overflow { .. })
    ));
    assert!(matches!(
        table.decr("a", Session::USER, 1),
        Err(TableError::Overflow { .. })
    ));
    let row = table.get("a").unwrap().unwrap();
    assert_eq!((row.hits, row.user), (i64::MAX, 0));
}

#[test]
fn a_panic_in_an_update_leaves_the_row_and_frees_the_lock() {
    let table = table(10);
    table.set("a", &Session::of(1)).unwrap();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        table.update("a", |row| {
            row.user = 9;
            panic!("on purpose");
        })
    }));
    assert!(panicked.is_err());
    assert_eq!(table.update("a", |row| row.user).unwrap(), Some(1));
}

#[test]
fn writing_to_a_table_from_its_own_update_is_an_error() {
    let table = Table::<Session, u64>::create("t", Rows::up_to(1)).unwrap();
    table.set(&1, &Session::of(1)).unwrap();
    table
        .update(&1, |_| {
            assert!(matches!(
                table.remove(&1),
                Err(TableError::Reentrant { .. })
            ));
            // Reading takes no lock.
            assert_eq!(table.get(&1).unwrap(), Some(Session::of(1)));
            assert_eq!(table.get(&2).unwrap(), None);
        })
        .unwrap();
    assert!(table.remove(&1).unwrap().is_some());
}

#[test]
fn another_schema_is_refused_and_both_are_named() {
    let table = table(10);
    let fd = || table.fd().try_clone_to_owned().unwrap();
    assert!(Table::<Session>::attach("sessions", fd()).is_ok());
    assert!(Table::<Record>::attach("sessions", fd()).is_ok());
    let error = Table::<Session, u64>::attach("sessions", fd()).unwrap_err();
    let columns = "user u64, hits i64, name text(20), note text(10)";
    let says = error.to_string();
    assert!(
        says.contains(&format!("It has: key text, {columns}.")),
        "{says}"
    );
    assert!(
        says.contains(&format!("Declared: key u64, {columns}.")),
        "{says}"
    );
}

#[test]
fn what_is_no_table_is_refused() {
    let region = crate::Region::create("t", 1, 4096).unwrap();
    let fd = region.fd().try_clone_to_owned().unwrap();
    let refused = Table::<Session>::attach("t", fd);
    assert!(matches!(refused, Err(TableError::Memory { .. })));

    let table = table(10);
    let region =
        crate::Region::attach(table.fd().try_clone_to_owned().unwrap(), 0x7ab1_e002).unwrap();
    for (word, value) in [
        (0, 0),
        (0, 11),
        (1, 0),
        (1, u64::MAX),
        (2, 0),
        (2, u64::MAX),
        (8, 1),
    ] {
        let there = region
            .word(word * 8)
            .swap(value, std::sync::atomic::Ordering::Relaxed);
        let refused = Table::<Session>::attach("t", table.fd().try_clone_to_owned().unwrap());
        assert!(
            matches!(refused, Err(TableError::Header { .. })),
            "{word} {value}"
        );
        region
            .word(word * 8)
            .store(there, std::sync::atomic::Ordering::Relaxed);
    }
}

#[test]
fn numbers_of_rows_that_cannot_be_are_refused() {
    for rows in [
        Rows::up_to(0),
        Rows::up_to(Rows::MAX + 1),
        Rows::up_to(5).first(6),
        Rows::up_to(5).first(0),
    ] {
        let refused = Table::<Session>::create("t", rows);
        assert!(matches!(refused, Err(TableError::Rows { .. })), "{rows:?}");
    }
}

#[test]
fn the_largest_columns_and_rows_are_refused_with_a_way_out() {
    let columns = (0..Schema::MAX_COLUMNS).map(|index| format!("c{index}"));
    let schema = columns.fold(Schema::new(KeyKind::Text), |schema, name| {
        schema.bytes(&name, Schema::MAX_VALUE)
    });
    let create = |rows| Table::<Record>::create_with("t", schema.clone(), Rows::up_to(rows));
    let refused = create(Rows::MAX).unwrap_err();
    assert!(matches!(refused, TableError::TooLarge { .. }), "{refused}");
    assert!(refused.to_string().contains("declare fewer rows"));
    // What is possible works, to its last byte.
    let table = create(2).unwrap();
    let mut row = table.record();
    for index in 0..Schema::MAX_COLUMNS {
        row.set(&format!("c{index}"), vec![7; Schema::MAX_VALUE])
            .unwrap();
    }
    for key in ["a", "b"] {
        table.set(key, &row).unwrap();
    }
    assert_eq!(table.get("b").unwrap(), Some(row));
}

/// Whatever is in the memory, nobody panics or does not return.
#[test]
fn memory_that_somebody_overwrote_does_no_harm() {
    use std::sync::atomic::Ordering::Relaxed;

    let table = Table::<Session, u64>::create("t", Rows::up_to(64).first(4)).unwrap();
    for key in 0..64 {
        table.set(&key, &Session::of(key)).unwrap();
    }
    let region =
        crate::Region::attach(table.fd().try_clone_to_owned().unwrap(), 0x7ab1_e002).unwrap();
    let mut random = u64::from(std::process::id());
    println!("seed {random}");
    let mut next = || {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        random >> 16
    };
    // Not the header, which was read, nor the locks, which are the C library's.
    let words: Vec<_> = (40..region.len() / 8)
        .filter(|word| word % 32 >= 6 || *word >= 4096 / 8)
        .collect();
    for _ in 0..2000 {
        let word = words[next() as usize % words.len()];
        region
            .word(word * 8)
            .store((next() % 70) << (next() % 3 * 16), Relaxed);
        let key = next() % 80;
        let _ = table.get(&key);
        let _ = table.set(&key, &Session::of(key));
        let _ = table.remove(&(next() % 80));
        let _ = (table.iter().count(), table.len());
    }
    let _ = table.clear();
}

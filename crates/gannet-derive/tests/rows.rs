//! Structs that are rows, in tables.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashMap;

use gannet_derive::Row;
use gannet_shm::table::{Bin, Cell, ColumnKind, Row, Rows, Schema, Str, Table, TableError};

#[derive(Clone, Debug, PartialEq, Row)]
#[row(crate = "gannet_shm")]
struct Session {
    user: u64,
    hits: i64,
    score: f64,
    online: bool,
    name: Str<32>,
    token: [u8; 9],
    key: Bin<3>,
    #[row(max = 64)]
    note: String,
    #[row(max = 5)]
    data: Vec<u8>,
    last: u64,
}

fn session() -> Session {
    Session {
        user: u64::MAX,
        hits: i64::MIN,
        score: -0.5,
        online: true,
        name: Str::new("Zoë").unwrap(),
        token: *b"123456789",
        key: Bin::new(&[0, 255]).unwrap(),
        note: "ü".repeat(32),
        data: vec![1, 2, 3, 4, 5],
        last: 42,
    }
}

#[test]
fn a_row_comes_back_as_it_was_put() {
    let table = Table::<Session>::create("sessions", Rows::up_to(10)).unwrap();
    table.set("a", &session()).unwrap();
    assert_eq!(table.get("a").unwrap(), Some(session()));
}

#[test]
fn the_columns_are_the_fields_in_order() {
    assert_eq!(
        Schema::of::<Session, u64>().to_string(),
        "key u64, user u64, hits i64, score f64, online bool, name text(32), token array(9), key \
         bytes(3), note text(64), data bytes(5), last u64"
    );
}

#[test]
fn every_word_is_put_once() {
    let mut words = HashMap::new();
    let stored = session().store(|word, value| {
        assert_eq!(words.insert(word, value), None, "word {word} was put twice");
    });
    assert_eq!(stored, Ok(()));
    // Of the name, 4 bytes of 32 are there: what is behind them need not be put.
    let name = 5..9;
    for word in (0..Session::WORDS).filter(|word| !name.contains(word) || *word == name.start) {
        assert!(words.contains_key(&word), "word {word}");
    }
    assert_eq!(words.keys().max(), Some(&(Session::WORDS - 1)));
    assert_eq!(words[&(Session::WORDS - 1)], 42);
}

#[test]
fn constants_name_the_columns() {
    let table = Table::<Session, u64>::create("sessions", Rows::up_to(10)).unwrap();
    table.set(&1, &session()).unwrap();
    assert_eq!(
        table.incr(&1, Session::HITS, 1).unwrap(),
        Some(i64::MIN + 1)
    );
    assert_eq!(table.decr(&1, Session::LAST, 2).unwrap(), Some(40));
    assert_eq!(table.column(&1, Session::USER).unwrap(), Some(u64::MAX));
    assert_eq!(table.column(&1, Session::SCORE).unwrap(), Some(-0.5));
    assert_eq!(table.column(&1, Session::ONLINE).unwrap(), Some(true));
    assert_eq!(
        table.column(&1, Session::NAME).unwrap(),
        Some(session().name)
    );
    assert_eq!(
        table.column(&1, Session::TOKEN).unwrap(),
        Some(session().token)
    );
    assert_eq!(table.column(&1, Session::KEY).unwrap(), Some(session().key));
}

#[test]
fn a_value_that_is_too_long_stores_nothing() {
    let mut long = session();
    long.data.push(6);
    let error = long
        .store(|word, _| panic!("word {word} was put"))
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "column `data` holds 5 bytes, the value has 6"
    );

    let table = Table::<Session>::create("sessions", Rows::up_to(10)).unwrap();
    table.set("a", &session()).unwrap();
    let refused = table.set("a", &long);
    assert!(
        matches!(refused, Err(TableError::ValueTooLong { .. })),
        "{refused:?}"
    );
    assert_eq!(table.get("a").unwrap(), Some(session()));
}

mod names {
    /// Fields that are called as what the derive writes.
    #[derive(Debug, PartialEq, gannet_derive::Row)]
    #[row(crate = "gannet_shm")]
    pub(super) struct Odd {
        pub(super) r#type: i64,
        pub(super) put: u64,
        pub(super) word: u64,
        pub(super) value: u64,
        pub(super) index: u64,
        pub(super) words: u64,
        pub(super) columns: u64,
        pub(super) at: u64,
    }
}

#[test]
fn names_of_fields_do_not_matter() {
    use names::Odd;

    let odd = || Odd {
        r#type: 1,
        put: 2,
        word: 3,
        value: 4,
        index: 5,
        words: 6,
        columns: 7,
        at: 8,
    };
    let table = Table::<Odd>::create("odd", Rows::up_to(1)).unwrap();
    table.set("", &odd()).unwrap();
    assert_eq!(table.get("").unwrap(), Some(odd()));
    assert_eq!(table.column("", Odd::TYPE).unwrap(), Some(1));
    assert_eq!(table.column("", Odd::WORDS).unwrap(), Some(6));
    assert_eq!(table.schema().find("type"), Some((0, 0, ColumnKind::I64)));
}

/// A type of one's own that is a column.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Point(f64, f64);

impl Cell for Point {
    const KIND: ColumnKind = ColumnKind::Array(16);

    fn store(&self, mut put: impl FnMut(usize, u64)) {
        put(0, self.0.to_bits());
        put(1, self.1.to_bits());
    }

    fn load(word: impl Fn(usize) -> u64) -> Self {
        Point(f64::from_bits(word(0)), f64::from_bits(word(1)))
    }
}

#[test]
fn a_struct_in_a_function_is_a_row_too() {
    #[derive(Debug, PartialEq, Row)]
    #[row(crate = "gannet_shm")]
    struct Place {
        from: Point,
        to: Point,
    }

    let place = || Place {
        from: Point(1.0, 2.0),
        to: Point(3.0, 4.0),
    };
    let table = Table::<Place>::create("places", Rows::up_to(1)).unwrap();
    table.set("a", &place()).unwrap();
    assert_eq!(table.get("a").unwrap(), Some(place()));
    assert_eq!(table.column("a", Place::TO).unwrap(), Some(Point(3.0, 4.0)));
}

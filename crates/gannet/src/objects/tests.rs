use gannet_shm::table::{KeyKind, Rows, Schema, TableSpec};

use super::*;

fn counter(name: &str) -> Declaration {
    Declaration::Counter(name.to_owned())
}

fn lock(name: &str) -> Declaration {
    Declaration::Lock(name.to_owned())
}

fn table(name: &str, schema: Schema) -> Declaration {
    let (name, rows) = (name.to_owned(), Rows::up_to(100));
    Declaration::Table(TableSpec { name, schema, rows })
}

fn users() -> Schema {
    Schema::new(KeyKind::Text).i64("hits")
}

fn declared(declarations: impl IntoIterator<Item = Declaration>) -> Declared {
    let mut declared = Declared::default();
    declarations
        .into_iter()
        .for_each(|declaration| declared.push(declaration));
    declared
}

/// A server that was started with one of each.
fn started() -> Shared {
    Shared::create(&declared([
        counter("hits"),
        table("users", users()),
        lock("till"),
    ]))
    .unwrap()
}

fn refused(declarations: impl IntoIterator<Item = Declaration>) -> String {
    let error = Shared::create(&declared(declarations)).unwrap_err();
    assert!(error.is_usage(), "{error}");
    error.to_string()
}

#[test]
fn refuse_names_that_are_none() {
    for name in ["", "two words", "ä", "a/b", &"x".repeat(65)] {
        let error = refused([lock(name)]);
        assert!(
            error.contains("cannot be the name of a lock: 1 to 64"),
            "{error}"
        );
    }
    let longest = "x".repeat(64);
    assert!(Shared::create(&declared([counter("A-z_0.9:x"), counter(&longest)])).is_ok());
}

#[test]
fn refuse_a_name_that_is_declared_twice_whatever_it_stands_for() {
    let error = refused([counter("hits"), lock("hits")]);
    assert!(error.starts_with("`hits` is declared twice"), "{error}");
}

#[test]
fn refuse_more_than_there_can_be() {
    let names = (0..=Shared::MAX_COUNTERS_AND_LOCKS).map(|n| counter(&n.to_string()));
    let error = refused(names);
    assert!(
        error.starts_with("1025 counters and locks are declared: at most 1024"),
        "{error}"
    );
    let names = (0..=Shared::MAX_TABLES).map(|n| table(&n.to_string(), users()));
    let error = refused(names);
    assert!(error.starts_with("129 tables are declared"), "{error}");
}

#[test]
fn refuse_a_table_that_cannot_be() {
    let error = refused([table("users", users().i64("hits"))]);
    assert!(error.contains("users") && error.contains("hits"), "{error}");
}

#[test]
fn objects_do_not_overlap() {
    let names: Vec<String> = (0..Shared::MAX_COUNTERS_AND_LOCKS)
        .map(|n| n.to_string())
        .collect();
    let kinds = names.iter().enumerate();
    let shared = Shared::create(&declared(kinds.map(|(n, name)| match n % 2 {
        0 => counter(name),
        _ => lock(name),
    })))
    .unwrap();
    let mut held = Vec::new();
    for (n, name) in names.iter().enumerate() {
        if n % 2 == 0 {
            shared.counter(name).unwrap().store(n as i64);
        } else {
            held.push(shared.lock(name).unwrap().try_lock().expect("it is free"));
        }
    }
    for (n, name) in names.iter().enumerate() {
        if n % 2 == 0 {
            assert_eq!(shared.counter(name).unwrap().load(), n as i64);
        } else {
            assert!(shared.lock(name).unwrap().try_lock().is_none());
        }
    }
}

#[test]
fn what_is_not_there_is_told_with_what_is() {
    let shared = started();
    let error = shared.counter("clicks").unwrap_err();
    assert_eq!(
        error.to_string(),
        "there is no counter `clicks` (the server has hits): declare it by `Server::counter` in \
         `main`, and stop and start the server; a reload cannot add it"
    );
    assert!(matches!(
        error.downcast_ref(),
        Some(SharedError::Unknown { .. })
    ));
    let error = shared.lock("hits").unwrap_err();
    assert_eq!(error.to_string(), "`hits` is a counter, not a lock");
    let error = Shared::default().lock("till").unwrap_err();
    assert!(error.to_string().contains("(the server has no lock)"));
}

#[test]
fn a_program_that_declares_the_same_or_less_fits() {
    let shared = started();
    shared.fits(&Declared::default()).unwrap();
    shared.fits(&declared([lock("till")])).unwrap();
    shared
        .fits(&declared([
            lock("till"),
            table("users", users()),
            counter("hits"),
        ]))
        .unwrap();
    let more = Declaration::Table(TableSpec {
        name: "users".to_owned(),
        schema: users(),
        rows: Rows::up_to(200),
    });
    shared.fits(&declared([more])).unwrap();
}

#[test]
fn a_program_that_declares_something_else_does_not_fit() {
    let misfit = |declaration| {
        let error = started().fits(&declared([declaration])).unwrap_err();
        error.to_string()
    };
    assert_eq!(
        misfit(counter("clicks")),
        "this program declares the counter `clicks`, which the running server was not started with \
         (it has counter hits, table users, lock till): stop and start the server instead of \
         reloading it"
    );
    assert_eq!(
        misfit(lock("hits")),
        "this program declares `hits` as a lock, in the running server it is a counter: stop and \
         start the server instead of reloading it"
    );
    let other = misfit(table("users", users().f64("score")));
    for schema in ["key text, hits i64.", "key text, hits i64, score f64"] {
        assert!(other.contains(schema), "{other}");
    }
}

#[test]
fn status_has_everything_in_the_order_of_its_declaration() {
    let shared = started();
    shared.counter("hits").unwrap().add(3);
    let held = shared.lock("till").unwrap().try_lock();
    let status = shared.status();
    assert_eq!(status.counters[0].value, 3);
    assert_eq!(status.locks[0].held_by, Some(std::process::id()));
    assert_eq!(status.tables[0].schema, "key text, hits i64");
    assert_eq!((status.tables[0].rows, status.tables[0].max_rows), (0, 100));
    drop(held);
    assert_eq!(shared.status().locks[0].held_by, None);
}

//! What the derive writes, and what it says, and where, if it writes nothing.

use proc_macro2::TokenStream;
use quote::quote;

use crate::expand;

/// What is said about this source, and the part of the source that is marked for it.
fn errors(source: &str) -> Vec<(String, String)> {
    let item: TokenStream = source.parse().unwrap();
    let written = expand(item).map(|written| written.to_string());
    let errors = written.expect_err("this is no row");
    errors
        .into_iter()
        .map(|error| (error.span().source_text().unwrap(), error.to_string()))
        .collect()
}

#[track_caller]
fn assert_refused(source: &str, marked: &str, message: &str) {
    assert_eq!(errors(source), [(marked.to_owned(), message.to_owned())]);
}

#[test]
fn refuse_what_has_no_named_fields() {
    let refuse = |source, marked, what| {
        let message = format!("a row is a struct with named fields; `R` is {what}");
        assert_refused(source, marked, &message);
    };
    refuse("enum R { A, B }", "enum", "an enum");
    refuse("union R { a: u64, b: i64 }", "union", "a union");
    refuse("struct R(u64, i64);", "(u64, i64)", "a tuple struct");
}

#[test]
fn refuse_a_row_without_columns() {
    for source in ["struct Nothing;", "struct Nothing {}"] {
        assert_refused(
            source,
            "Nothing",
            "a row needs at least one column: give the struct a field",
        );
    }
}

#[test]
fn refuse_generics() {
    let message = "a row cannot be generic: all processes have to agree on its columns";
    assert_refused("struct R<T> { a: T }", "<T>", message);
    assert_refused("struct R<'a> { a: &'a u64 }", "<'a>", message);
    assert_refused(
        "struct R<const N: usize> { a: [u8; N] }",
        "<const N: usize>",
        message,
    );
    assert_refused(
        "struct R where u64: Copy { a: u64 }",
        "where u64: Copy",
        message,
    );
}

#[test]
fn ask_for_max_where_a_value_can_grow() {
    let message = "how long can it get? Put `#[row(max = 64)]` in front, with the most bytes; every \
                   row of the table has room for so many";
    for ty in [
        "String",
        "std::string::String",
        "::alloc::string::String",
        "Vec<u8>",
        "std::vec::Vec<u8>",
    ] {
        assert_refused(&format!("struct R {{ a: u64, b: {ty} }}"), ty, message);
    }
}

#[test]
fn refuse_a_max_out_of_range() {
    for max in ["0", "65536", "99999999999999999999999", "64u8"] {
        assert_refused(
            &format!("struct R {{ #[row(max = {max})] a: String }}"),
            max,
            "`max` is a number of bytes, from 1 to 65535",
        );
    }
    for max in ["1", "65_535"] {
        let source = format!("struct R {{ #[row(max = {max})] a: String }}");
        expand(source.parse().unwrap()).unwrap();
    }
}

#[test]
fn refuse_max_at_other_types() {
    for ty in [
        "u64",
        "[u8; 4]",
        "Str<4>",
        "Vec<u16>",
        "my::String",
        "&'static str",
        "<u64 as T>::String",
    ] {
        assert_refused(
            &format!("struct R {{ #[row(max = 4)] a: {ty} }}"),
            "max",
            "`max` is for `String` and `Vec<u8>`; the room of other columns is in their type",
        );
    }
}

#[test]
fn refuse_attributes_that_mean_nothing() {
    for (source, marked, message) in [
        (
            "struct R { #[row(maximum = 4)] a: String }",
            "maximum",
            "unknown: a field can have `max = BYTES`",
        ),
        (
            "struct R { #[row(crate = \"x\")] a: u64 }",
            "crate",
            "`crate` belongs to the struct",
        ),
        (
            "struct R { #[row(max = 4, max = 5)] a: String }",
            "max",
            "`max` is given twice",
        ),
        (
            "#[row(name = 4)] struct R { a: u64 }",
            "name",
            "unknown: a struct can have `crate = \"path\"`",
        ),
        (
            "#[row(max = 4)] struct R { a: u64 }",
            "max",
            "`max` belongs to a field",
        ),
        (
            "#[row(crate = \"a\")] #[row(crate = \"b\")] struct R { a: u64 }",
            "crate",
            "`crate` is given twice",
        ),
        (
            "#[row(crate = \"a b\")] struct R { a: u64 }",
            "\"a b\"",
            "not a path of modules, such as \"gannet\" or \"crate::shared\"",
        ),
        (
            "#[row(crate = a)] struct R { a: u64 }",
            "a",
            "expected string literal",
        ),
        (
            "struct R { #[row(max = MAX)] a: String }",
            "MAX",
            "expected integer literal",
        ),
    ] {
        assert_refused(source, marked, message);
    }
}

#[test]
fn refuse_names_that_differ_in_case_only() {
    assert_refused(
        "struct R { user: u64, User: u64 }",
        "User",
        "`User` and `user` differ in case only: both columns would be called `USER`",
    );
}

#[test]
fn refuse_names_that_no_column_can_have() {
    let long = "x".repeat(65);
    for name in ["größe", &long] {
        assert_refused(
            &format!("struct R {{ {name}: u64 }}"),
            name,
            &format!(
                "`{name}` cannot be the name of a column: 1 to 64 ASCII letters, digits and `_` can"
            ),
        );
    }
}

#[test]
fn refuse_more_columns_than_a_table_can_have() {
    let row = |columns: usize| {
        let columns: String = (0..columns).map(|n| format!("c{n}: u64, ")).collect();
        format!("struct R {{ {columns} }}")
    };
    assert_refused(
        &row(258),
        "c256: u64",
        "258 columns are too many: a table can have 256",
    );
    expand(row(256).parse().unwrap()).unwrap();
}

#[test]
fn report_all_errors_at_once() {
    let source = "struct R<T> { a: String, #[row(max = 1)] b: T, #[row(max = 0)] c: Vec<u8> }";
    let errors = errors(source);
    let marked: Vec<&str> = errors.iter().map(|(marked, _)| marked.as_str()).collect();
    assert_eq!(marked, ["<T>", "String", "max", "0"]);
}

#[test]
fn write_an_implementation_and_a_handle_for_each_cell() {
    let written = expand(quote! {
        #[row(crate = "crate::shared")]
        struct Session {
            hits: i64,
            #[row(max = 64)]
            note: String,
            pub r#type: Str<32>,
        }
    });
    let expected = quote! {
        const _: () = {
            const __GANNET_AT: [usize; 3usize + 1] = {
                let mut at = [0; 3usize + 1];
                let mut column = 0;
                while column < 3usize {
                    let kind = <Session as crate::shared::Row>::COLUMNS[column].kind;
                    at[column + 1] = at[column] + kind.words();
                    column += 1;
                }
                at
            };

            #[automatically_derived]
            impl crate::shared::Row for Session {
                const COLUMNS: &'static [crate::shared::ColumnSpec] = &[
                    crate::shared::ColumnSpec {
                        name: "hits",
                        kind: <i64 as crate::shared::Cell>::KIND
                    },
                    crate::shared::ColumnSpec {
                        name: "note",
                        kind: crate::shared::ColumnKind::Text(64usize)
                    },
                    crate::shared::ColumnSpec {
                        name: "type",
                        kind: <Str<32> as crate::shared::Cell>::KIND
                    }
                ];
                const WORDS: usize = __GANNET_AT[3usize];

                #[inline]
                fn store(
                    &self,
                    mut put: impl ::core::ops::FnMut(usize, u64),
                ) -> ::core::result::Result<(), crate::shared::ValueTooLong> {
                    crate::shared::cell::store_text("note", 64usize, &self.note, |_, _| ())?;
                    <i64 as crate::shared::Cell>::store(
                        &self.hits,
                        |word, value| put(const { __GANNET_AT[0usize] } + word, value)
                    );
                    crate::shared::cell::store_text(
                        "note",
                        64usize,
                        &self.note,
                        |word, value| put(const { __GANNET_AT[1usize] } + word, value)
                    )?;
                    <Str<32> as crate::shared::Cell>::store(
                        &self.r#type,
                        |word, value| put(const { __GANNET_AT[2usize] } + word, value)
                    );
                    ::core::result::Result::Ok(())
                }

                #[inline]
                fn load(word: impl ::core::ops::Fn(usize) -> u64) -> Self {
                    Self {
                        hits: <i64 as crate::shared::Cell>::load(
                            |index| word(const { __GANNET_AT[0usize] } + index)
                        ),
                        note: crate::shared::cell::load_text(
                            64usize,
                            |index| word(const { __GANNET_AT[1usize] } + index)
                        ),
                        r#type: <Str<32> as crate::shared::Cell>::load(
                            |index| word(const { __GANNET_AT[2usize] } + index)
                        )
                    }
                }
            }

            #[automatically_derived]
            #[allow(dead_code)]
            impl Session {
                #[doc = "The column `hits`."]
                const HITS: crate::shared::Column<Self, i64> =
                    crate::shared::Column::at(__GANNET_AT[0usize]);
                #[doc = "The column `type`."]
                pub const TYPE: crate::shared::Column<Self, Str<32> > =
                    crate::shared::Column::at(__GANNET_AT[2usize]);
            }
        };
    };
    assert_eq!(written.unwrap().to_string(), expected.to_string());
}

//! What the derive writes, and its limits. What it says about structs beyond them: `tests/ui`.

use proc_macro2::TokenStream;
use quote::quote;

use crate::expand;

#[test]
fn max_goes_from_1_to_65535() {
    let row = |max: u32| -> TokenStream {
        let source = format!("struct R {{ #[row(max = {max})] a: String }}");
        source.parse().unwrap()
    };
    for max in [1, 65_535] {
        expand(row(max)).unwrap();
    }
    for max in [0, 65_536] {
        expand(row(max)).map(|_| max).unwrap_err();
    }
}

#[test]
fn a_row_has_256_columns_at_most() {
    let row = |columns: usize| -> TokenStream {
        let columns: String = (0..columns).map(|n| format!("c{n}: u64, ")).collect();
        format!("struct R {{ {columns} }}").parse().unwrap()
    };
    expand(row(256)).unwrap();
    let error = expand(row(257)).map(|_| ()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "257 columns are too many: a table can have 256"
    );
}

#[test]
fn a_string_by_any_path_of_the_standard_library_can_grow() {
    for ty in [
        "String",
        "std::string::String",
        "::alloc::string::String",
        "std::vec::Vec<u8>",
    ] {
        let source = format!("struct R {{ #[row(max = 8)] a: {ty} }}");
        expand(source.parse().unwrap()).unwrap();
    }
}

#[test]
fn write_an_implementation_and_a_handle_for_each_cell() {
    let written = expand(quote! {
        #[row(crate = "my::gannet")]
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
                    let kind = <Session as my::gannet::table::Row>::COLUMNS[column].kind;
                    at[column + 1] = at[column] + kind.words();
                    column += 1;
                }
                at
            };

            #[automatically_derived]
            impl my::gannet::table::Row for Session {
                const COLUMNS: &'static [my::gannet::table::ColumnSpec] = &[
                    my::gannet::table::ColumnSpec {
                        name: "hits",
                        kind: <i64 as my::gannet::table::Cell>::KIND
                    },
                    my::gannet::table::ColumnSpec {
                        name: "note",
                        kind: my::gannet::table::ColumnKind::Text(64usize)
                    },
                    my::gannet::table::ColumnSpec {
                        name: "type",
                        kind: <Str<32> as my::gannet::table::Cell>::KIND
                    }
                ];
                const WORDS: usize = __GANNET_AT[3usize];

                #[inline]
                fn store(
                    &self,
                    mut put: impl ::core::ops::FnMut(usize, u64),
                ) -> ::core::result::Result<(), my::gannet::table::ValueTooLong> {
                    my::gannet::table::cell::store_text("note", 64usize, &self.note, |_, _| ())?;
                    <i64 as my::gannet::table::Cell>::store(
                        &self.hits,
                        |word, value| put(const { __GANNET_AT[0usize] } + word, value)
                    );
                    my::gannet::table::cell::store_text(
                        "note",
                        64usize,
                        &self.note,
                        |word, value| put(const { __GANNET_AT[1usize] } + word, value)
                    )?;
                    <Str<32> as my::gannet::table::Cell>::store(
                        &self.r#type,
                        |word, value| put(const { __GANNET_AT[2usize] } + word, value)
                    );
                    ::core::result::Result::Ok(())
                }

                #[inline]
                fn load(word: impl ::core::ops::Fn(usize) -> u64) -> Self {
                    Self {
                        hits: <i64 as my::gannet::table::Cell>::load(
                            |index| word(const { __GANNET_AT[0usize] } + index)
                        ),
                        note: my::gannet::table::cell::load_text(
                            64usize,
                            |index| word(const { __GANNET_AT[1usize] } + index)
                        ),
                        r#type: <Str<32> as my::gannet::table::Cell>::load(
                            |index| word(const { __GANNET_AT[2usize] } + index)
                        )
                    }
                }
            }

            #[automatically_derived]
            #[allow(dead_code)]
            impl Session {
                #[doc = "The column `hits`."]
                const HITS: my::gannet::table::Column<Self, i64> =
                    my::gannet::table::Column::at(__GANNET_AT[0usize]);
                #[doc = "The column `type`."]
                pub const TYPE: my::gannet::table::Column<Self, Str<32> > =
                    my::gannet::table::Column::at(__GANNET_AT[2usize]);
            }
        };
    };
    assert_eq!(written.unwrap().to_string(), expected.to_string());
}

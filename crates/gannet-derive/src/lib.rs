//! `#[derive(Row)]`: makes a struct the row of a shared table.
//!
//! The columns of the table are the fields of the struct, in order:
//!
//! | type of the field | column | bytes in the table |
//! |---|---|---|
//! | `i64`, `u64`, `f64`, `bool` | a number, a truth value | 8 |
//! | `Str<N>` | text of up to `N` bytes, without a heap allocation | 8, and `N` rounded up to 8 |
//! | `Bin<N>` | up to `N` bytes, without a heap allocation | 8, and `N` rounded up to 8 |
//! | `[u8; N]` | exactly `N` bytes | `N` rounded up to 8 |
//! | `String` with `#[row(max = N)]` | text of up to `N` bytes | 8, and `N` rounded up to 8 |
//! | `Vec<u8>` with `#[row(max = N)]` | up to `N` bytes | 8, and `N` rounded up to 8 |
//! | what implements `Cell` | as its `Cell::KIND` says | as its `Cell::KIND` says |
//!
//! The derive writes the implementation of the trait `Row`. For every field that is no `String` and no
//! `Vec<u8>` it also writes a constant of type `Column`, named as the field in capitals and visible as
//! the field: it names the column where a table works on one of them (`incr`, for one).
//!
//! It is made for use through the crate `gannet`, whose paths it writes. Who has the tables from
//! elsewhere says where: `#[row(crate = "gannet_shm")]`.
//!
//! # Example
//!
//! ```
//! use gannet_derive::Row;
//! use gannet_shm::table::{Rows, Str, Table};
//!
//! #[derive(Row)]
//! #[row(crate = "gannet_shm")]
//! struct Session {
//!     user: u64,
//!     hits: i64,
//!     name: Str<16>,
//!     #[row(max = 200)]
//!     note: String,
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let sessions = Table::<Session>::create("sessions", Rows::up_to(1000))?;
//! let ann = Session { user: 7, hits: 0, name: Str::new("Ann")?, note: "is new here".into() };
//! sessions.set("1f", &ann)?;
//!
//! assert_eq!(sessions.incr("1f", Session::HITS, 1)?, Some(1));
//! assert_eq!(
//!     sessions.schema().to_string(),
//!     "key text, user u64, hits i64, name text(16), note text(200)",
//! );
//! # Ok(())
//! # }
//! ```
//!
//! # Layout
//!
//! | module | idea |
//! |---|---|
//! | `input` | what the struct says, checked: every error that the derive has is here |
//! | `output` | the code that is written |
#![forbid(unsafe_code)]

use proc_macro2::TokenStream;

mod input;
mod output;

/// Makes a struct with named fields the row of a shared table. See the [crate] for the types
/// that fields can have.
///
/// # Attributes
///
/// - `#[row(max = N)]` at a `String` or `Vec<u8>`: the most bytes that it may have, 1 to 65,535. The
///   table keeps that much room in every row. Storing a longer value is an error, it is not cut.
/// - `#[row(crate = "path")]` at the struct: where the module `table` is. Default `::gannet`.
///
/// # Errors
///
/// The compiler says so, at the place, if the type is an enum, a union, a tuple struct, generic, or has
/// no field or more than 256; if `max` is missing, 0, above 65,535, or at another type; if two
/// fields differ in case only; or if a name has characters other than letters, digits and `_`.
#[proc_macro_derive(Row, attributes(row))]
pub fn derive_row(item: proc_macro::TokenStream) -> proc_macro::TokenStream {
    expand(item.into())
        .unwrap_or_else(|error| error.to_compile_error())
        .into()
}

fn expand(item: TokenStream) -> syn::Result<TokenStream> {
    let row = input::RowType::parse(syn::parse2(item)?)?;
    Ok(output::write(&row))
}

#[cfg(test)]
mod tests;

//! Tables in shared memory that every process of a server reads and writes.
//!
//! A [`Table`] maps keys to rows. A row is a struct with [`#[derive(Row)]`](macro@Row), or a [`Record`]
//! if the columns are known at run time only. `docs/table.md` teaches how to use them.

pub use gannet_derive::Row;
pub use gannet_shm::table::*;

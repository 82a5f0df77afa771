//! A pool of processes without a server: a program starts children that run a function, and they
//! talk in typed messages.
//!
//! ```no_run
//! use gannet::{Child, Pool, PoolEvent, Result};
//!
//! fn main() -> Result {
//!     let squares = Pool::define("squares", async |child: Child<u64, u64>| {
//!         while let Some(n) = child.recv().await? {
//!             child.send(&(n * n)).await?;
//!         }
//!         Ok(())
//!     });
//!     // Only the parent comes by here.
//!     let mut pool = squares.processes(8).start()?;
//!     for n in 0..8 {
//!         pool.send_blocking(n, &(n as u64))?;
//!     }
//!     pool.stop();
//!     while let Some(event) = pool.recv_blocking()? {
//!         if let PoolEvent::Reply { child, reply } = event {
//!             println!("child {child}: {reply}");
//!         }
//!     }
//!     Ok(())
//! }
//! ```
//!
//! - [`options`]: what a pool is made of, and how `main` finds out that it is in a child.
//! - [`parent`]: the handle in the parent. [`slot`]: a child as its parent sees it, from start to
//!   restart, on a thread of the pool.
//! - [`child`]: the handle in a child, and its life.
//! - [`frame`]: messages on the stream between them.
//!
//! # Two connections
//!
//! Parent and child share two sockets: a stream with the messages of the user, and a seqpacket socket
//! (`crate::channel`) with `ready` and `failed` from the child, and `stop` to it. The end of file
//! on either means that the other is gone. The child's standard output is a third, if it is captured.

mod child;
mod frame;
mod options;
mod parent;
mod slot;

pub use self::{
    child::Child,
    options::PoolOptions,
    parent::{Pool, PoolEvent, PoolSender},
};

//! Memory shared between the processes of a Gannet server.
//!
//! Every process is the same binary, started by exec; a [`Region`] is made by one and its
//! descriptor inherited by, or passed to, the others. What lies inside is found by offsets that
//! both sides plan alike ([`Layout`]).
//!
//! - [`Producer`] and [`Consumer`]: a byte ring of records, one writer, one reader. The producer
//!   can hold records that were read but not finished, and give them to a successor of a reader
//!   that died.
//! - [`Doorbell`]: wakes a consumer, by an eventfd, only if it sleeps.
//! - [`Arena`] and [`ArenaReader`]: blocks for payloads that are too large for a ring.
//! - [`Counter`]: a number that processes change and wait for.
//! - [`Lock`]: a lock for users, that belongs to a process; [`Life`] tells whether that lives.
//! - [`Slots`]: rows of words with one writer each that anyone reads, never torn.
//! - [`table::Table`]: typed rows under keys that all processes read and write; it grows, and survives
//!   whoever writes to it.
//!
//! # Example
//!
//! ```
//! use gannet_shm::{Consumer, Doorbell, Layout, Producer, Region, RingSpec};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! const EVENTS: u32 = 1;
//! let capacity = 64 << 10;
//! let mut layout = Layout::new();
//! let bell = layout.take(Doorbell::BYTES, 128);
//! let ring = RingSpec { offset: layout.take(RingSpec::bytes(capacity), 128), capacity };
//!
//! // The master makes the region ...
//! let region = Region::create("events", EVENTS, layout.total())?;
//! let doorbell = Doorbell::create(region.clone(), bell)?;
//! let mut producer = Producer::attach(region.clone(), ring);
//! let position = producer.push(&[b"hello, ", b"worker"])?;
//! if producer.publish() {
//!     doorbell.ring();
//! }
//!
//! // ... and the worker maps it.
//! let region = Region::attach(region.fd().try_clone_to_owned()?, EVENTS)?;
//! let mut consumer = Consumer::attach(region, ring);
//! let mut payload = Vec::new();
//! while let Some(record) = consumer.next() {
//!     assert_eq!(record.position(), position);
//!     record.append_to(.., &mut payload)?;
//! }
//! consumer.commit();
//! assert_eq!(payload, b"hello, worker");
//! # Ok(())
//! # }
//! ```
//!
//! # Unsafe code
//!
//! Shared bytes are only ever accessed as atomics, so no peer can cause undefined behaviour, and
//! all but the mapping and the filling of private buffers is safe code. `region.rs` states the
//! rules. The exception are the stripes' locks of tables, POSIX mutexes in shared memory (`robust.rs`):
//! the C library keeps pointers of their holder there, and follows them. So whoever has a table's
//! memory, and writes to it past this crate, can crash its holders, or worse: hand tables to processes
//! of the same trust only. The protocols, with the memory order of every access and why it suffices, are in the
//! module comments of `ring`, `doorbell`, `slots` and `arena`, and in docs/internals/rings.md.

mod arena;
mod buffer;
mod counter;
mod doorbell;
mod layout;
mod life;
mod lock;
mod memory;
mod region;
mod ring;
mod robust;
mod sleepers;
mod slots;
pub mod table;
mod watch;
mod words;

pub use arena::{Arena, ArenaReader, ArenaSpec, Block, BlockRef};
pub use buffer::Append;
pub use counter::Counter;
pub use doorbell::{Bell, Doorbell};
pub use layout::Layout;
pub use life::Life;
pub use lock::{Lock, LockGuard, LockWord, Taken};
pub use memory::{Memory, Word};
pub use region::{Region, RegionError};
pub use ring::{Consumer, Full, OutOfBounds, Position, Producer, Record, RingSpec};
pub use robust::LockError;
pub use sleepers::{Futex, Sleep, Sleepers, Ticket};
pub use slots::Slots;
pub use words::{WordRows, Words};

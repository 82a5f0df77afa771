use gannet_derive::Row;

#[derive(Row)]
enum Enum {
    A,
}

#[derive(Row)]
union Union {
    a: u64,
    b: i64,
}

#[derive(Row)]
struct Tuple(u64, i64);

#[derive(Row)]
struct Unit;

#[derive(Row)]
struct Empty {}

#[derive(Row)]
struct OfType<T> {
    a: T,
}

#[derive(Row)]
struct OfLifetime<'a> {
    a: &'a u64,
}

#[derive(Row)]
struct OfNumber<const N: usize> {
    a: [u8; N],
}

#[derive(Row)]
struct Where
where
    u64: Copy,
{
    a: u64,
}

#[derive(Row)]
struct Unbounded {
    a: String,
    b: std::string::String,
    c: Vec<u8>,
}

#[derive(Row)]
struct OutOfRange {
    #[row(max = 0)]
    a: String,
    #[row(max = 65_536)]
    b: Vec<u8>,
    #[row(max = 99999999999999999999999)]
    c: String,
    #[row(max = -1)]
    d: String,
    #[row(max = "1")]
    e: String,
    #[row(max)]
    f: String,
    #[row(max = 1u8)]
    g: String,
}

#[derive(Row)]
struct NeedsNoMax {
    #[row(max = 4)]
    a: u64,
    #[row(max = 4)]
    b: [u8; 4],
    #[row(max = 4)]
    c: Vec<u16>,
    #[row(max = 4)]
    d: my::String,
    #[row(max = 4)]
    e: &'static str,
}

#[derive(Row)]
#[row(max = 4)]
struct OddAttributes {
    #[row(maximum = 4)]
    a: String,
    #[row(crate = "gannet_shm")]
    b: u64,
    #[row(max = 4, max = 5)]
    c: String,
    #[row(max = 4)]
    #[row(max = 4)]
    d: String,
    #[row]
    e: String,
}

#[derive(Row)]
#[row(name = "sessions")]
struct OddAttribute {
    a: u64,
}

#[derive(Row)]
#[row(crate = "a", crate = "b")]
struct TwoCrates {
    a: u64,
}

#[derive(Row)]
#[row(crate = "a b")]
struct NoPath {
    a: u64,
}

#[derive(Row)]
#[row(crate = gannet_shm)]
struct NoText {
    a: u64,
}

#[derive(Row)]
struct Alike {
    user: u64,
    User: u64,
}

#[derive(Row)]
struct Names {
    größe: u64,
    x2345678901234567890123456789012345678901234567890123456789012345: u64,
}

#[derive(Row)]
struct Several<T> {
    a: String,
    #[row(max = 1)]
    b: T,
    #[row(max = 0)]
    c: Vec<u8>,
}

fn main() {}

//! What a byte may be a part of, and where a run of such bytes ends.

/// A character of methods and header names (RFC 9110 section 5.6.2).
pub(super) const TOKEN: u8 = 1;
/// A character of the path of a target.
pub(super) const PATH: u8 = 2;
/// A character of the query of a target, or the `?` in front of it.
pub(super) const QUERY: u8 = 4;
/// A character of a host name, but for percent-encodings.
pub(super) const HOST: u8 = 8;

/// Whether a byte is of this class.
#[inline]
pub(super) fn is(byte: u8, class: u8) -> bool {
    CLASSES[usize::from(byte)] & class != 0
}

/// How many bytes at the front are of this class.
///
/// They are looked up one by one: what is looked at is mostly short. Where eight are there, no look is lost on where
/// they end.
// It is compiled for each class, where it stands: passed as an argument, the class costs as much as the look.
#[inline(always)]
pub(super) fn run<const CLASS: u8>(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(eight) = bytes[at..].first_chunk::<8>() {
        for (index, &byte) in eight.iter().enumerate() {
            if !is(byte, CLASS) {
                return at + index;
            }
        }
        at += 8;
    }
    let rest = bytes[at..].iter().position(|&byte| !is(byte, CLASS));
    rest.map_or(bytes.len(), |rest| at + rest)
}

/// How many of these bytes in front, the highest first, are digits.
#[inline]
pub(super) fn digits(bytes: u64) -> usize {
    // What is not 0 to 9 has its highest bit, or gets it; nothing goes beyond its byte.
    let values = bytes ^ (u64::from(b'0') * ONES);
    let sums = (values & (0x7f * ONES)) + u64::from(0x80 - 10u8) * ONES;
    let others = (values | sums) & (0x80 * ONES);
    others.leading_zeros() as usize / 8
}

/// Where the first byte stands that no header value may hold, such as the CR behind it. `None`: there
/// is none.
///
/// Looks at eight bytes at once: values are long, and all others were looked at before.
#[inline]
pub(super) fn value_end(bytes: &[u8]) -> Option<usize> {
    find(bytes, |byte| is_control(byte) && byte != b'\t', controls)
}

/// The same, but for bytes beyond ASCII, which end it too.
#[inline]
pub(super) fn text_end(bytes: &[u8]) -> Option<usize> {
    let is_end = |byte| is_control(byte) && byte != b'\t' || !byte.is_ascii();
    find(bytes, is_end, |eight| {
        controls(eight) | eight & (0x80 * ONES)
    })
}

/// Where the first colon stands.
#[inline]
pub(super) fn find_colon(bytes: &[u8]) -> Option<usize> {
    find(
        bytes,
        |byte| byte == b':',
        |eight| zeros(eight ^ (u64::from(b':') * ONES)),
    )
}

/// Where the first byte is that `is_it`. `among` looks at eight of them at once, and gives the highest bit of the
/// first that may be it, and maybe of others behind that.
#[inline]
fn find(bytes: &[u8], is_it: impl Fn(u8) -> bool, among: impl Fn(u64) -> u64) -> Option<usize> {
    let mut at = 0;
    loop {
        let Some(eight) = bytes[at..].first_chunk::<8>() else {
            let rest = bytes[at..].iter().position(|&byte| is_it(byte));
            return rest.map(|rest| at + rest);
        };
        let found = among(u64::from_le_bytes(*eight));
        if found == 0 {
            at += 8;
            continue;
        }
        at += found.trailing_zeros() as usize / 8;
        if is_it(bytes[at]) {
            return Some(at);
        }
        at += 1;
    }
}

/// Control characters, the tab too.
fn is_control(byte: u8) -> bool {
    byte < b' ' || byte == 0x7f
}

/// The highest bit of the first control character in these bytes, and maybe of others behind it.
#[inline]
fn controls(bytes: u64) -> u64 {
    (below(bytes, b' ') | zeros(bytes ^ (0x7f * ONES))) & (0x80 * ONES)
}

/// The highest bit of the first byte that is 0, and maybe of others behind it.
#[inline]
fn zeros(bytes: u64) -> u64 {
    below(bytes, 1) & (0x80 * ONES)
}

/// Has the highest bit of the first byte below `limit`, which is 128 at most.
#[inline]
fn below(bytes: u64, limit: u8) -> u64 {
    bytes.wrapping_sub(u64::from(limit) * ONES) & !bytes
}

const ONES: u64 = 0x0101_0101_0101_0101;

const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 128 {
        classes[byte] = class(byte as u8);
        byte += 1;
    }
    classes
};

const fn class(byte: u8) -> u8 {
    let mut class = 0;
    if byte.is_ascii_alphanumeric() {
        class |= TOKEN | HOST;
    }
    if matches!(
        byte,
        b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
    ) {
        class |= TOKEN;
    }
    if matches!(byte, b'-' | b'.' | b'_' | b'~') {
        class |= HOST;
    }
    // Printable ASCII without what could end or split a URL. RFC 3986 would have some more characters
    // encoded, such as `|` and `[`: browsers send those as they are. They encode a backtick in a path,
    // but not in a query.
    if byte.is_ascii_graphic() && !matches!(byte, b'"' | b'#' | b'<' | b'>') {
        class |= QUERY;
        if !matches!(byte, b'`' | b'?') {
            class |= PATH;
        }
    }
    class
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_those_of_the_standards() {
        for byte in 0..=u8::MAX {
            let word = byte.is_ascii_alphanumeric();
            assert_eq!(is(byte, TOKEN), word || b"!#$%&'*+-.^_`|~".contains(&byte));
            assert_eq!(is(byte, HOST), word || b"-._~".contains(&byte));
            let query = matches!(byte, b'!'..=b'~') && !b"\"#<>".contains(&byte);
            assert_eq!(is(byte, QUERY), query);
            assert_eq!(is(byte, PATH), query && !b"`?".contains(&byte));
        }
    }

    #[test]
    fn a_run_ends_at_the_first_byte_of_another_class() {
        type Run = fn(&[u8]) -> usize;
        let runs: [(u8, Run); _] = [
            (TOKEN, run::<TOKEN>),
            (PATH, run::<PATH>),
            (QUERY, run::<QUERY>),
            (HOST, run::<HOST>),
        ];
        for (class, run) in runs {
            for byte in 0..=u8::MAX {
                for at in 0..20 {
                    for filler in [b'a', b'Z', b'0', b'9', b'-', b'.', b'/', b'_'] {
                        let mut bytes = vec![filler; 20];
                        bytes[at] = byte;
                        let expected = bytes.iter().position(|&byte| !is(byte, class));
                        let expected = expected.unwrap_or(bytes.len());
                        assert_eq!(run(&bytes), expected, "{class} {byte} {at}");
                    }
                }
            }
        }
    }

    #[test]
    fn digits_end_at_the_first_byte_that_is_none() {
        for byte in 0..=u8::MAX {
            for at in 0..8 {
                for filler in b'0'..=b'9' {
                    let mut bytes = [filler; 8];
                    bytes[at] = byte;
                    let expected = bytes.iter().position(|byte| !byte.is_ascii_digit());
                    let expected = expected.unwrap_or(bytes.len());
                    assert_eq!(digits(u64::from_be_bytes(bytes)), expected, "{byte} {at}");
                }
            }
        }
    }

    #[test]
    fn a_value_ends_at_its_first_control_character_wherever_that_stands() {
        for len in 0..20 {
            for byte in 0..=u8::MAX {
                for filler in [b'a', b'\t', b' ', b'~', 0x80, 0xff] {
                    let mut bytes = vec![filler; len];
                    assert_eq!(value_end(&bytes), None);
                    bytes.extend([byte, b'\r', b'\n', 0x7f, 0, 0, 0, 0, 0]);
                    let ends = |byte| byte < b' ' && byte != b'\t' || byte == 0x7f;
                    let expected = bytes.iter().position(|&byte| ends(byte));
                    assert_eq!(value_end(&bytes), expected, "{len} {filler} {byte}");
                    let expected = bytes.iter().position(|&byte| ends(byte) || byte > 0x7f);
                    assert_eq!(text_end(&bytes), expected, "{len} {filler} {byte}");
                    let expected = bytes.iter().position(|&byte| byte == b':');
                    assert_eq!(find_colon(&bytes), expected, "{len} {filler} {byte}");
                }
            }
        }
    }
}

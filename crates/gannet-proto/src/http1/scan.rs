//! Finds the lines of a head or trailer section, wherever the input was cut.

use std::ops::Range;

use memchr::memchr2;

use super::error::RequestError;

/// How far the search for line ends has come. Kept between calls, so that a head which
/// arrives byte by byte is searched once and not once per byte.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Scan {
    /// Where the current line begins.
    line_start: usize,
    /// Nothing before this needs to be looked at again.
    searched: usize,
    /// Lines that have ended.
    lines: usize,
}

impl Scan {
    /// The next line without its CRLF, or `None` when its end has not come yet.
    pub(super) fn next_line(&mut self, input: &[u8]) -> Result<Option<Range<usize>>, RequestError> {
        let Some(found) = memchr2(b'\r', b'\n', &input[self.searched..]) else {
            self.searched = input.len();
            return Ok(None);
        };
        let end = self.searched + found;
        self.searched = end;
        if input[end] == b'\n' {
            return Err(self.fail("ends with LF alone: end lines with CR LF"));
        }
        match input.get(end + 1) {
            None => Ok(None),
            Some(b'\n') => {
                let line = self.line_start..end;
                self.line_start = end + 2;
                self.searched = end + 2;
                self.lines += 1;
                Ok(Some(line))
            }
            Some(_) => Err(self.fail("holds CR without LF: end lines with CR LF")),
        }
    }

    /// Whether nothing was searched yet.
    pub(super) fn is_fresh(&self) -> bool {
        self.searched == 0
    }

    /// Lines found so far.
    pub(super) fn lines(&self) -> usize {
        self.lines
    }

    /// Bytes of the lines found so far, with their line ends.
    pub(super) fn len(&self) -> usize {
        self.line_start
    }

    fn fail(&self, what: &str) -> RequestError {
        RequestError::bad(format!("line {} {what}", self.lines + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_also_when_bytes_arrive_one_by_one() {
        let input = b"first\r\n\r\nrest";
        let mut scan = Scan::default();
        let mut lines = Vec::new();
        for end in 0..=input.len() {
            while let Some(line) = scan.next_line(&input[..end]).unwrap() {
                lines.push(&input[line]);
            }
        }
        assert_eq!(lines, [b"first".as_slice(), b""]);
        assert_eq!((scan.lines(), scan.len()), (2, 9));
    }

    #[test]
    fn what_was_searched_is_not_searched_again() {
        let mut scan = Scan::default();
        assert_eq!(scan.next_line(b"0123456789").unwrap(), None);
        assert_eq!(scan.searched, 10);
        assert_eq!(scan.next_line(b"0123456789\r").unwrap(), None);
        assert_eq!(scan.searched, 10);
    }

    #[test]
    fn bare_line_feeds_and_carriage_returns_are_refused_with_their_line() {
        let message = |input: &[u8]| {
            let mut scan = Scan::default();
            let result = scan.next_line(input).and_then(|_| scan.next_line(input));
            result.unwrap_err().to_string()
        };
        assert_eq!(
            message(b"a\r\nb\n"),
            "line 2 ends with LF alone: end lines with CR LF"
        );
        assert_eq!(
            message(b"a\rb\r\n"),
            "line 1 holds CR without LF: end lines with CR LF"
        );
    }
}

//! Cutting what a program writes into lines.

/// Joins pieces of output to lines of at most so many bytes, as a rule [`LINE`]; longer ones are cut
/// there.
#[derive(Debug)]
pub(crate) struct Lines {
    /// A line that has no end yet.
    line: Vec<u8>,
    most: usize,
}

impl Default for Lines {
    fn default() -> Self {
        Lines::up_to(LINE)
    }
}

impl Lines {
    /// Lines of at most so many bytes.
    pub(crate) fn up_to(most: usize) -> Self {
        let line = Vec::new();
        Lines { line, most }
    }

    /// Takes what was written; hands out every line that is whole, without its end.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], mut deliver: impl FnMut(&[u8])) {
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            self.extend(&bytes[..end], &mut deliver);
            deliver(&self.line);
            self.line.clear();
            bytes = &bytes[end + 1..];
        }
        self.extend(bytes, &mut deliver);
    }

    /// Hands out what is left.
    pub(crate) fn finish(&mut self, mut deliver: impl FnMut(&[u8])) {
        if !self.line.is_empty() {
            deliver(&self.line);
            self.line.clear();
        }
    }

    fn extend(&mut self, mut bytes: &[u8], deliver: &mut impl FnMut(&[u8])) {
        while self.line.len() + bytes.len() > self.most {
            let (piece, rest) = bytes.split_at(self.most - self.line.len());
            self.line.extend_from_slice(piece);
            deliver(&self.line);
            self.line.clear();
            bytes = rest;
        }
        self.line.extend_from_slice(bytes);
    }
}

/// Longest line, in bytes.
pub(crate) const LINE: usize = 8 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines of what is written in pieces of this length.
    fn lines(text: &[u8], piece: usize) -> Vec<Vec<u8>> {
        let (mut lines, mut found) = (Lines::default(), Vec::new());
        for piece in text.chunks(piece) {
            lines.feed(piece, |line| found.push(line.to_vec()));
        }
        lines.finish(|line| found.push(line.to_vec()));
        found
    }

    #[test]
    fn lines_are_whole_however_they_are_written() {
        let text = b"one\n\ntwo\nthree";
        let expected = [&b"one"[..], b"", b"two", b"three"];
        for piece in 1..=text.len() {
            assert_eq!(lines(text, piece), expected, "{piece}");
        }
    }

    #[test]
    fn a_line_too_long_comes_in_pieces() {
        let mut text = vec![b'x'; 2 * LINE + 5];
        text.push(b'\n');
        for piece in [1, 1000, LINE, text.len()] {
            let lengths: Vec<_> = lines(&text, piece).iter().map(Vec::len).collect();
            assert_eq!(lengths, [LINE, LINE, 5], "{piece}");
        }
    }
}

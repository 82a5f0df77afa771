//! Random numbers that are the same in every run.

/// xorshift64*: small and good enough to choose test cases.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    pub fn chance(&mut self, one_in: usize) -> bool {
        self.below(one_in) == 0
    }

    pub fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }

    /// Changes, removes, repeats or inserts a few bytes.
    pub fn mutate(&mut self, input: &mut Vec<u8>, interesting: &[u8]) {
        for _ in 0..=self.below(3) {
            let at = self.below(input.len());
            match self.below(6) {
                _ if input.is_empty() => input.push(self.pick(interesting)),
                0 => input[at] = self.pick(interesting),
                1 => input[at] ^= 1 << self.below(8),
                2 => drop(input.remove(at)),
                3 => input.insert(at, self.pick(interesting)),
                4 => {
                    let end = (at + 1 + self.below(24)).min(input.len());
                    let piece = input[at..end].to_vec();
                    let to = self.below(input.len());
                    input.splice(to..to, piece);
                }
                _ => drop(input.drain(at..(at + 1 + self.below(12)).min(input.len()))),
            }
        }
    }

    /// Lengths of pieces that make up `len` bytes; some are empty.
    pub fn cuts(&mut self, len: usize) -> Vec<usize> {
        let longest = self.pick(&[1, 2, 3, 8, 64, 1024]);
        let mut cuts = Vec::new();
        let mut left = len;
        while left > 0 {
            let cut = self.below(longest + 1).min(left);
            cuts.push(cut);
            left -= cut;
        }
        cuts
    }
}

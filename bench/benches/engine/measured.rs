//! What a client of this program, and not the generator, has measured.

/// Latencies.
#[derive(Debug, Default)]
pub(crate) struct Measured {
    /// Of each message, in microseconds.
    pub(crate) latencies: Vec<u32>,
}

impl Measured {
    pub(crate) fn percentile(&mut self, percent: usize) -> u32 {
        if self.latencies.is_empty() {
            return 0;
        }
        let at = (self.latencies.len() - 1) * percent / 100;
        *self.latencies.select_nth_unstable(at).1
    }
}

//! Offsets handed out one behind the other.

/// Plans what lies where in a [`Region`](crate::Region).
///
/// Both sides run the same plan over the same settings, so only the settings need to agree.
///
/// ```
/// use gannet_shm::{Layout, RingSpec};
///
/// let mut layout = Layout::new();
/// let bell = layout.take(8, 128);
/// let ring = layout.take(RingSpec::bytes(64 << 10), 128);
/// assert_eq!((bell, ring), (0, 128));
/// assert_eq!(layout.total(), 128 + RingSpec::bytes(64 << 10));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Layout {
    total: usize,
}

impl Layout {
    /// Nothing taken yet.
    pub fn new() -> Layout {
        Layout::default()
    }

    /// Takes `size` bytes at the next multiple of `align` and returns their offset.
    ///
    /// # Panics
    ///
    /// If `align` is not a power of two or the total exceeds the address space: a plan is made
    /// from checked settings, at start.
    pub fn take(&mut self, size: usize, align: usize) -> usize {
        assert!(
            align.is_power_of_two(),
            "alignment {align} is not a power of two"
        );
        let offset = self.total.checked_next_multiple_of(align);
        let end = offset.and_then(|offset| offset.checked_add(size));
        let (Some(offset), Some(end)) = (offset, end) else {
            panic!(
                "a region cannot hold {size} bytes more behind {}",
                self.total
            );
        };
        self.total = end;
        offset
    }

    /// The bytes that the region needs for everything taken so far.
    pub fn total(&self) -> usize {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_aligned_and_do_not_overlap() {
        let mut layout = Layout::new();
        assert_eq!(layout.take(3, 1), 0);
        assert_eq!(layout.take(8, 8), 8);
        assert_eq!(layout.take(1, 4096), 4096);
        assert_eq!(layout.take(0, 128), 4224);
        assert_eq!(layout.total(), 4224);
    }

    #[test]
    #[should_panic(expected = "cannot hold")]
    fn refuse_more_than_the_address_space() {
        let mut layout = Layout::new();
        layout.take(8, 8);
        layout.take(usize::MAX, 8);
    }
}

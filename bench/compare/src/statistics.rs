//! A few figures of the same thing.

/// The middle one, and how far the others are from it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Figures {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    /// How many there are.
    pub(crate) count: usize,
}

impl Figures {
    pub(crate) fn times(self, factor: f64) -> Self {
        Figures {
            median: self.median * factor,
            min: self.min * factor,
            max: self.max * factor,
            count: self.count,
        }
    }
}

/// `None` if there are none.
pub(crate) fn figures(all: impl IntoIterator<Item = f64>) -> Option<Figures> {
    let mut all: Vec<f64> = all.into_iter().collect();
    all.sort_unstable_by(f64::total_cmp);
    let (&min, &max) = (all.first()?, all.last()?);
    let upper = all.len() / 2;
    let median = match all.len() % 2 {
        1 => all[upper],
        _ => f64::midpoint(all[upper - 1], all[upper]),
    };
    Some(Figures {
        median,
        min,
        max,
        count: all.len(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_has_no_median() {
        assert_eq!(figures([]), None);
    }

    #[test]
    fn the_median_is_the_middle_one_or_between_the_two_in_the_middle() {
        let of = |all: &[f64]| figures(all.iter().copied());
        let odd = of(&[9.0, 1.0, 4.0]).unwrap();
        assert_eq!(
            (odd.min, odd.median, odd.max, odd.count),
            (1.0, 4.0, 9.0, 3)
        );
        assert_eq!(of(&[4.0, 2.0]).unwrap().median, 3.0);
    }
}

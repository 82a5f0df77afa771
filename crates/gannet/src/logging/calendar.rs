//! Times in the log: UTC, by the calendar.

use std::{
    fmt,
    time::{SystemTime, UNIX_EPOCH},
};

use crate::settings::LogRotation;

/// A moment as year, month and so on. Years before 1970 are 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment {
    year: u64,
    month: u64,
    day: u64,
    /// Seconds of the day.
    second: u64,
    micros: u32,
}

impl Moment {
    pub(super) fn of(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (days, second) = (since.as_secs() / DAY, since.as_secs() % DAY);
        // Counted from 0000-03-01, so that a leap day is the last of its year; in eras of 400 years.
        let days = days + 719_468;
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month + 2) / 5 + 1;
        let month = if month < 10 { month + 3 } else { month - 9 };
        Moment {
            year: era * 400 + year_of_era + u64::from(month <= 2),
            month,
            day,
            second,
            micros: since.subsec_micros(),
        }
    }

    /// Which one of the periods in which a file is written this is in; they count up.
    pub(super) fn period(&self, every: LogRotation) -> u64 {
        let month = self.year * 12 + self.month - 1;
        let day = month * 31 + self.day - 1;
        match every {
            LogRotation::Never => 0,
            LogRotation::Minute => day * 24 * 60 + self.second / 60,
            LogRotation::Hour => day * 24 + self.second / 3600,
            LogRotation::Day => day,
            LogRotation::Month => month,
        }
    }

    /// `20261121T025801.197Z`: for names of files, in order of time.
    pub(super) fn stamp(&self) -> String {
        let (hour, minute, second) = self.clock();
        let Moment {
            year, month, day, ..
        } = self;
        let millis = self.micros / 1000;
        format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}.{millis:03}Z")
    }

    fn clock(&self) -> (u64, u64, u64) {
        (self.second / 3600, self.second / 60 % 60, self.second % 60)
    }
}

/// `2026-11-21T02:58:01.197211Z`
impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (hour, minute, second) = self.clock();
        let Moment {
            year,
            month,
            day,
            micros,
            ..
        } = self;
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z"
        )
    }
}

const DAY: u64 = 24 * 60 * 60;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::of(UNIX_EPOCH + Duration::from_secs(seconds))
    }

    #[test]
    fn moments_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_399, "2000-02-28T23:59:59.000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000Z"),
            (951_868_800, "2000-03-01T00:00:00.000000Z"),
            (1_709_251_199, "2024-02-29T23:59:59.000000Z"),
            (1_795_229_881, "2026-11-21T02:58:01.000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000Z"),
        ] {
            assert_eq!(at(seconds).to_string(), text);
        }
        let fraction = UNIX_EPOCH + Duration::from_micros(1_795_229_881_197_211);
        assert_eq!(Moment::of(fraction).stamp(), "20261121T025801.197Z");
    }

    #[test]
    fn a_period_ends_when_the_calendar_says_so() {
        let changes = |every, before: u64| at(before).period(every) != at(before + 1).period(every);
        // 2026-11-21T02:58:59, T02:59:59, T23:59:59; the last second of November.
        let (minute, hour, day, month) = (
            1_795_229_939,
            1_795_229_999,
            1_795_305_599,
            1_796_083_199_u64,
        );
        let all = [minute, hour, day, month];
        let of = |every| all.map(|before| changes(every, before));
        assert_eq!(of(LogRotation::Minute), [true; 4]);
        assert_eq!(of(LogRotation::Hour), [false, true, true, true]);
        assert_eq!(of(LogRotation::Day), [false, false, true, true]);
        assert_eq!(of(LogRotation::Month), [false, false, false, true]);
        assert_eq!(of(LogRotation::Never), [false; 4]);
        assert!(!changes(LogRotation::Minute, 1_795_229_881));
    }
}

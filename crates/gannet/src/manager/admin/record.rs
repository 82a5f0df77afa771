//! What the manager keeps for the metrics beyond what it keeps for `status`: so that nothing is
//! lost, and no counter goes back, when a process ends.

use std::time::{SystemTime, UNIX_EPOCH};

use super::processes::Usage;
use crate::{
    control::Reloaded,
    histogram::{Durations, Histograms},
    layout::Dimensions,
    manager::children::Shared,
};

/// See the module's documentation.
#[derive(Debug)]
pub(in crate::manager) struct Record {
    /// Of workers that are gone.
    pub(super) departed: Histograms,
    /// Clock ticks of processes that are gone: by place, then that of masters.
    ticks: Vec<u64>,
    pub(super) reloads: Durations,
    pub(super) reloads_failed: u64,
    pub(super) last_successful: bool,
    /// Unix time, in seconds; 0 for never.
    pub(super) last_success: f64,
    /// Unix time, in seconds.
    pub(super) started: f64,
}

impl Record {
    pub(in crate::manager) fn new(places: usize) -> Self {
        Record {
            departed: Histograms::default(),
            ticks: vec![0; places + 1],
            reloads: Durations::default(),
            reloads_failed: 0,
            last_successful: true,
            last_success: 0.0,
            started: unix(),
        }
    }

    /// A process was reaped; this is what it had taken. `place`: none for the master.
    pub(in crate::manager) fn ended(&mut self, place: Option<usize>, usage: Option<Usage>) {
        let index = place.unwrap_or(self.ticks.len() - 1);
        if let (Some(ticks), Some(usage)) = (self.ticks.get_mut(index), usage) {
            *ticks += usage.ticks;
        }
    }

    /// A worker is gone; this is its memory.
    pub(in crate::manager) fn departs(&mut self, shared: &Shared, dimensions: &Dimensions) {
        self.departed.add(&shared.region, dimensions.histograms());
    }

    /// A reload has ended, well or not, or was refused before it began.
    pub(in crate::manager) fn reloaded(&mut self, reloaded: &Reloaded) {
        let well = reloaded.error.is_none();
        if !well && reloaded.workers.is_empty() {
            return;
        }
        self.reloads
            .record(reloaded.took_ms.saturating_mul(1_000_000));
        self.last_successful = well;
        if well {
            self.last_success = unix();
        } else {
            self.reloads_failed += 1;
        }
    }

    /// Of the processes of a place that are gone; of masters without a place.
    pub(super) fn ticks(&self, place: Option<usize>) -> u64 {
        let index = place.unwrap_or(self.ticks.len() - 1);
        self.ticks.get(index).copied().unwrap_or_default()
    }
}

/// Seconds since 1970.
fn unix() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn processor_time_of_the_dead_is_kept() {
        let mut record = Record::new(2);
        let mut child = std::process::Command::new("sh")
            .args(["-c", "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done"])
            .spawn()
            .unwrap();
        let stat = format!("/proc/{}/stat", child.id());
        while !std::fs::read_to_string(&stat).unwrap().contains(") Z ") {
            std::thread::sleep(Duration::from_millis(5));
        }
        record.ended(Some(1), Usage::of(child.id()));
        child.wait().unwrap();
        record.ended(Some(1), Usage::of(child.id()));
        assert!(record.ticks(Some(1)) > 0);
        assert_eq!((record.ticks(Some(0)), record.ticks(None)), (0, 0));
    }
}

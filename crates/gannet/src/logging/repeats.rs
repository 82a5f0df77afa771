//! Events that repeat: each place in the code may log so many in a second, further ones are counted.
//!
//! A window of a place begins with an event and is [`WINDOW`] long. The first `limit` events in it are
//! written, whatever was before. The message of the next is kept, and when the window is over, one
//! line tells it and how many there were. A thread does that, which lives as long as there is something
//! to tell. A process that ends tells what is left; one that is killed takes a count with it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use tracing::{Metadata, callsite::Identifier};

use super::{layer::Scribe, line::Said};

/// Counts events by place.
#[derive(Debug)]
pub(super) struct Repeats {
    /// Events of a place in a window; 0: any number.
    limit: u64,
    state: Mutex<State>,
}

/// What becomes of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is written.
    Written,
    /// It is the first that is not: [`Repeats::note`] wants its message.
    First,
    /// It is counted.
    Counted,
}

#[derive(Debug, Default)]
struct State {
    /// One for each place in the code that has logged: their number is fixed by the program.
    sites: HashMap<Identifier, Site>,
    /// A thread waits to tell.
    teller: bool,
}

#[derive(Debug)]
struct Site {
    since: Instant,
    events: u64,
    /// The message of the first that was not written.
    message: Option<(&'static Metadata<'static>, String)>,
}

impl Repeats {
    pub(super) fn new(limit: u64) -> Self {
        Repeats {
            limit,
            state: Mutex::default(),
        }
    }

    /// What becomes of an event that happens now.
    pub(super) fn judge(&self, metadata: &'static Metadata<'static>) -> Verdict {
        self.judge_at(metadata, Instant::now())
    }

    fn judge_at(&self, metadata: &'static Metadata<'static>, now: Instant) -> Verdict {
        if self.limit == 0 {
            return Verdict::Written;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let site = state.sites.entry(metadata.callsite()).or_insert(Site {
            since: now,
            events: 0,
            message: None,
        });
        // What is not told yet stays in its window.
        if site.message.is_none() && now.saturating_duration_since(site.since) >= WINDOW {
            (site.since, site.events) = (now, 0);
        }
        site.events += 1;
        if site.events <= self.limit {
            Verdict::Written
        } else if site.message.is_none() {
            Verdict::First
        } else {
            Verdict::Counted
        }
    }

    /// Keeps the message of the first event that was not written, and sees to it that it is told.
    pub(super) fn note(
        &self,
        scribe: &Arc<Scribe>,
        metadata: &'static Metadata<'static>,
        message: String,
    ) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(site) = state.sites.get_mut(&metadata.callsite()) {
            site.message.get_or_insert((metadata, message));
        }
        if !state.teller {
            let scribe = scribe.clone();
            let thread = thread::Builder::new().name("log repeats".to_owned());
            // Without a thread it is told when the next one can be started.
            state.teller = thread
                .spawn(move || while scribe.repeats.tell_later(&scribe) {})
                .is_ok();
        }
    }

    /// Waits until a window is over and tells what was not written. `false`: nothing is left to tell.
    fn tell_later(&self, scribe: &Scribe) -> bool {
        let next = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let open = state.sites.values().filter(|site| site.message.is_some());
            let next = open.map(|site| site.since + WINDOW).min();
            state.teller = next.is_some();
            next
        };
        let Some(next) = next else { return false };
        thread::sleep(next.saturating_duration_since(Instant::now()));
        for (metadata, said) in self.over(Instant::now(), scribe) {
            scribe.write(*metadata.level(), metadata.target(), &said);
        }
        true
    }

    /// Tells at once what is left to tell: the process ends.
    pub(super) fn tell_rest(&self, scribe: &Scribe) {
        for (metadata, said) in self.over(Instant::now() + WINDOW, scribe) {
            scribe.write(*metadata.level(), metadata.target(), &said);
        }
    }

    /// What there is to tell of windows that are over; they begin anew.
    fn over(&self, now: Instant, scribe: &Scribe) -> Vec<(&'static Metadata<'static>, Said)> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut told = Vec::new();
        for site in state.sites.values_mut() {
            if now.saturating_duration_since(site.since) < WINDOW {
                continue;
            }
            let Some((metadata, message)) = site.message.take() else {
                continue;
            };
            let count = site.events - self.limit;
            (site.since, site.events) = (now, 0);
            let text = format!("repeated {} times: {message}", grouped(count));
            let mut said = Said::message(scribe.style, &text);
            said.number("repeated", count);
            told.push((metadata, said));
        }
        told
    }
}

/// `12,345`
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

const WINDOW: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use tracing::{Callsite, callsite::DefaultCallsite, metadata::Kind};

    use super::*;
    use crate::logging::{
        layer::Sink,
        line::{Style, Who},
    };

    static CALLSITE: DefaultCallsite = DefaultCallsite::new(&METADATA);
    static METADATA: Metadata<'static> = tracing::metadata! {
        name: "test",
        target: "test",
        level: tracing::Level::INFO,
        fields: &[],
        callsite: &CALLSITE,
        kind: Kind::EVENT,
    };

    #[test]
    fn numbers_are_grouped() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn the_first_are_written_and_the_rest_is_counted_and_told() {
        let style = Style {
            json: false,
            ansi: false,
        };
        let scribe = Scribe {
            who: Who::manager(),
            style,
            sink: Sink::Errors,
            repeats: Repeats::new(2),
        };
        let metadata = CALLSITE.metadata();
        let begin = Instant::now();
        let judge = |at| scribe.repeats.judge_at(metadata, at);
        let keep = |message: &str| {
            let mut state = scribe.repeats.state.lock().unwrap();
            let site = state.sites.get_mut(&metadata.callsite()).unwrap();
            site.message = Some((metadata, message.to_owned()));
        };
        assert_eq!([judge(begin), judge(begin)], [Verdict::Written; 2]);
        assert_eq!(judge(begin), Verdict::First);
        keep("the third");
        assert_eq!([judge(begin), judge(begin)], [Verdict::Counted; 2]);
        assert!(scribe.repeats.over(begin, &scribe).is_empty(), "too early");
        // Nothing of the next second is written before the one before was told.
        assert_eq!(judge(begin + WINDOW), Verdict::Counted);
        let told = scribe.repeats.over(begin + WINDOW, &scribe);
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].1.message, "repeated 4 times: the third");
        assert_eq!(judge(begin + WINDOW), Verdict::Written);
        assert_eq!(judge(begin + 3 * WINDOW), Verdict::Written);
        assert!(scribe.repeats.over(begin + 9 * WINDOW, &scribe).is_empty());
    }

    #[test]
    fn without_a_limit_all_are_written() {
        let repeats = Repeats::new(0);
        for _ in 0..10 {
            assert_eq!(repeats.judge(CALLSITE.metadata()), Verdict::Written);
        }
    }
}

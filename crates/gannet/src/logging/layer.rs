//! The layer of the subscriber that writes lines.

use std::{sync::Arc, time::SystemTime};

use tracing::{
    Event, Level, Subscriber,
    span::{Attributes, Id, Record},
};
use tracing_subscriber::{Layer, layer::Context, registry::LookupSpan};

use super::{
    line::{LONGEST_PART, Said, Style, Who},
    pipe::Pipe,
    queue::Queue,
    repeats::{Repeats, Verdict},
};

/// What writes the lines of this process.
#[derive(Debug)]
pub(super) struct Scribe {
    pub(super) who: Who,
    pub(super) style: Style,
    pub(super) sink: Sink,
    pub(super) repeats: Repeats,
}

/// Where lines go.
#[derive(Debug)]
pub(super) enum Sink {
    /// In the manager: to the thread that writes.
    Queue(Queue),
    /// In its children: to the manager.
    Pipe(Pipe),
    /// Without a manager: to standard error.
    Errors,
}

/// See [`Scribe`].
pub(super) struct Lines(pub(super) Arc<Scribe>);

/// The fields of a span, as lines have them.
struct Fields(String);

impl Scribe {
    /// Writes a line of this process.
    pub(super) fn write(&self, level: Level, target: &str, said: &Said) {
        let thread = std::thread::current();
        let thread = thread.name().filter(|&name| name != "main");
        let line = said.line(&self.who, SystemTime::now(), level, target, thread);
        self.sink.write(line.as_bytes());
    }
}

impl Sink {
    pub(super) fn write(&self, line: &[u8]) {
        match self {
            Sink::Queue(queue) => queue.push(line),
            Sink::Pipe(pipe) => pipe.write(line),
            Sink::Errors => {
                use std::io::Write;
                // There is nobody to tell.
                let _ = std::io::stderr().write_all(line);
            }
        }
    }
}

impl<S> Layer<S> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut said = Said::new(self.0.style);
            attributes.record(&mut said);
            span.extensions_mut().insert(Fields(said.into_fields()));
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut said = Said::new(self.0.style);
        values.record(&mut said);
        if let Some(fields) = span.extensions_mut().get_mut::<Fields>() {
            let more = said.into_fields();
            // A span may live as long as the process, and be told things all the time.
            if fields.0.len() + more.len() >= LONGEST_PART {
                return;
            }
            if self.0.style.json && !fields.0.is_empty() && !more.is_empty() {
                fields.0.push(',');
            }
            fields.0.push_str(&more);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let metadata = event.metadata();
        let verdict = self.0.repeats.judge(metadata);
        if verdict == Verdict::Counted {
            return;
        }
        let mut said = Said::new(self.0.style);
        event.record(&mut said);
        if verdict == Verdict::First {
            return self.0.repeats.note(&self.0, metadata, said.message);
        }
        let scope = context.event_scope(event);
        for span in scope.into_iter().flat_map(|scope| scope.from_root()) {
            let extensions = span.extensions();
            let fields = extensions.get::<Fields>().map_or("", |fields| &fields.0);
            said.span(span.name(), fields);
        }
        self.0.write(*metadata.level(), metadata.target(), &said);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    /// Notes how much the span around an event keeps.
    struct Kept(Arc<AtomicUsize>);

    impl<S> Layer<S> for Kept
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
            let span = context.event_span(event).unwrap();
            let extensions = span.extensions();
            self.0
                .store(extensions.get::<Fields>().unwrap().0.len(), Relaxed);
        }
    }

    #[test]
    fn a_span_that_is_told_things_for_ever_keeps_a_bounded_piece() {
        let scribe = Arc::new(Scribe {
            who: Who::manager(),
            style: Style {
                json: true,
                ansi: false,
            },
            sink: Sink::Errors,
            repeats: Repeats::new(0),
        });
        let kept = Arc::new(AtomicUsize::new(0));
        let layers = tracing_subscriber::registry()
            .with(Lines(scribe))
            .with(Kept(kept.clone()));
        tracing::subscriber::with_default(layers, || {
            let span = tracing::info_span!("long", n = tracing::field::Empty);
            for n in 0..100_000 {
                span.record("n", n);
            }
            span.in_scope(|| tracing::info!("now"));
        });
        let kept = kept.load(Relaxed);
        assert!((LONGEST_PART / 2..LONGEST_PART).contains(&kept), "{kept}");
    }
}

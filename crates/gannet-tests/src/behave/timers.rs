//! Timers.
//!
//! `BEHAVE_TIMER=MS`: every worker and task worker notes `tick PID` at `BEHAVE_RUNS` that often.

use std::{process, time::Duration};

use gannet::{Conn, Error, Result, Worker};

use super::{
    Behave,
    commands::{number, two},
};

impl Behave {
    /// Sets the timer of every process.
    pub(super) fn begin_ticking(&self) -> Result {
        let (Ok(ms), Some(runs)) = (std::env::var("BEHAVE_TIMER"), &self.runs) else {
            return Ok(());
        };
        let runs = runs.try_clone()?;
        let tick = async move || {
            let line = format!("tick {}\n", process::id());
            std::io::Write::write_all(&mut &runs, line.as_bytes())?;
            Ok(())
        };
        let period = Duration::from_millis(number(&ms)?);
        self.worker.every(period, tick).detach();
        Ok(())
    }
}

/// `after MS TEXT`, `every MS TEXT`: sends the text; `fail-after MS`, `panic-after MS`.
pub(super) fn set(worker: &Worker, conn: &Conn, text: &str) -> Result<String> {
    let (word, rest) = two(text)?;
    let (ms, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    let delay = Duration::from_millis(number(ms)?);
    let (conn, text) = (conn.clone(), rest.to_owned());
    let timer = match word {
        "after" => worker.after(delay, async move || conn.send(text).await),
        "every" => worker.every(delay, async move || conn.send(text.clone()).await),
        "fail-after" => worker.after(delay, async || Err(Error::new("as asked"))),
        "panic-after" => worker.after(delay, async || panic!("as asked")),
        word => return Err(Error::new(format!("no kind of timer: {word}"))),
    };
    timer.detach();
    Ok("set".to_owned())
}

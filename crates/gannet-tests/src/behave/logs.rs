//! Commands that print and log: `print TEXT`, `complain TEXT`, `log LEVEL TEXT`, `log-many COUNT TEXT`,
//! `print-many COUNT TEXT`, `print-and-die TEXT`.

use std::io::Write;

use gannet::{Error, Result};

use super::commands::{number, two};

/// Does what `word` says, if it is one of these; the answer.
pub(super) fn command(word: &str, rest: &str) -> Result<Option<String>> {
    match word {
        "print" => println!("{rest}"),
        "complain" => eprintln!("{rest}"),
        "log" => {
            let (level, text) = two(rest)?;
            match level {
                "debug" => tracing::debug!("{text}"),
                "info" => tracing::info!("{text}"),
                "warn" => tracing::warn!(length = text.len(), "{text}"),
                _ => return Err(Error::new(format!("no level: {level}"))),
            }
        }
        "log-many" => {
            let (count, text) = two(rest)?;
            for n in 0..number::<usize>(count)? {
                tracing::info!("{n} {text}");
            }
        }
        "print-many" => {
            let (count, text) = two(rest)?;
            for n in 0..number::<usize>(count)? {
                println!("{n} {text}");
            }
        }
        // A line, and a piece of one.
        "print-and-die" => {
            println!("{rest}");
            tracing::info!("and logged {rest}");
            print!("half of {rest}");
            std::io::stdout().flush()?;
            let this = rustix::process::getpid();
            rustix::process::kill_process(this, rustix::process::Signal::KILL)?;
        }
        _ => return Ok(None),
    }
    Ok(Some("done".to_owned()))
}

//! Swoole's table, by way of a script in PHP.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail};

use super::{
    Operation, Options,
    link::{Link, Sample, start_and_window},
};

/// A PHP process with the table, and the processes that it has made.
pub(super) struct Swoole {
    version: String,
    link: Link,
}

impl Swoole {
    /// `None`: nobody asked for it, and there is none.
    pub(super) fn find(options: &Options) -> Result<Option<Self>> {
        let asked = options.php.is_some() || options.swoole_so.is_some();
        let php = options.php.clone().unwrap_or_else(|| PathBuf::from("php"));
        let version = match version(&php, options.swoole_so.as_deref()) {
            Ok(version) => version,
            Err(error) if asked => return Err(error),
            Err(_) => return Ok(None),
        };
        let mut command = command(&php, options.swoole_so.as_deref());
        command.arg(SCRIPT).arg(options.rows.to_string());
        Ok(Some(Swoole {
            version,
            link: Link::start(&mut command)?,
        }))
    }

    pub(super) fn version(&self) -> &str {
        &self.version
    }

    /// Less what the loop takes without the operation, measured right before.
    pub(super) fn measure(
        &mut self,
        operation: Operation,
        processes: usize,
        window: Duration,
    ) -> Result<Vec<Sample>> {
        let empty = match operation {
            Operation::Set => "loop_set",
            Operation::Get | Operation::Incr | Operation::Iterate => "loop",
        };
        let empty = self.run(empty, processes, window / 4)?;
        let all = self.run(&operation.to_string(), processes, window)?;
        Ok(all
            .into_iter()
            .zip(empty)
            .map(|(all, empty)| all.less(empty))
            .collect())
    }

    fn run(&mut self, operation: &str, processes: usize, window: Duration) -> Result<Vec<Sample>> {
        let when = start_and_window(window);
        self.link.say(&format!("{operation} {processes} {when}"))?;
        (0..processes)
            .map(|_| Sample::parse(&self.link.answer()?))
            .collect()
    }
}

impl Sample {
    /// As if each operation had taken less, by what each of `empty` took.
    fn less(self, empty: Sample) -> Sample {
        let times = self.operations as f64 / empty.operations as f64;
        Sample {
            operations: self.operations,
            wall: self.wall.saturating_sub(empty.wall.mul_f64(times)),
            processor: self
                .processor
                .saturating_sub(empty.processor.mul_f64(times)),
        }
    }
}

fn command(php: &Path, extension: Option<&Path>) -> Command {
    let mut command = Command::new(php);
    if let Some(extension) = extension {
        // A relative path would be looked for among PHP's extensions.
        let path = extension.canonicalize();
        let path = path.as_deref().unwrap_or(extension);
        command
            .arg("-d")
            .arg(format!("extension={}", path.display()));
    }
    command
}

fn version(php: &Path, extension: Option<&Path>) -> Result<String> {
    let output = command(php, extension)
        .args([
            "-r",
            "echo function_exists('pcntl_fork') ? phpversion('swoole') : '';",
        ])
        .output()
        .with_context(|| format!("start {}", php.display()))?;
    let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if !output.status.success() || version.is_empty() || version.contains(char::is_whitespace) {
        bail!(
            "{} has no Swoole, or no pcntl: {version} {}",
            php.display(),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(version)
}

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/swoole_table.php");

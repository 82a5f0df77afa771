//! User processes that do what messages tell them.
//!
//! `BEHAVE_PROCESSES` names them: `NAME RESTART OUTPUT`, with `;` between them. RESTART is `always`,
//! `on-failure` or `never`; OUTPUT is `inherit`, `log`, `to NAME` or `worker N`, and is that of
//! standard error, too, if it is `log`. The command `tell NAME COMMAND` sends one a message; it
//! answers the connection. With `BEHAVE_PROCESS=fails` its function fails at once.

use std::{env, fs::OpenOptions, io::Write, process as os, time::Duration};

use gannet::{
    ConnId, Error, Output, Process, ProcessMessage, ProcessOptions, Restart, Result, Server,
    WorkerId,
};

use super::{
    VARIANT,
    commands::{number, two},
    shared, timers,
};

pub(super) fn add(mut server: Server) -> Result<Server> {
    for process in env::var("BEHAVE_PROCESSES").unwrap_or_default().split(';') {
        if process.is_empty() {
            continue;
        }
        let (name, rest) = two(process)?;
        let (restart, output) = two(rest)?;
        let restart = match restart {
            "always" => Restart::Always,
            "on-failure" => Restart::OnFailure,
            _ => Restart::Never,
        };
        let output = match output.split_once(' ') {
            Some(("to", name)) => Output::ToProcess(name.to_owned()),
            Some((_, id)) => Output::ToWorker(WorkerId(number(id)?)),
            None if output == "log" => Output::Log,
            None => Output::Inherit,
        };
        let mut options = ProcessOptions::new()
            .restart(restart)
            .output(output.clone());
        if output == Output::Log {
            options = options.errors(output);
        }
        // The build that knows no processes.
        if VARIANT
            .get()
            .is_some_and(|variant| variant.version != "no processes")
        {
            server = server.add_process(name, options, obey);
        }
    }
    Ok(server)
}

/// The function of all of them.
async fn obey(process: Process) -> Result {
    note(&format!("begin {}", process.name()))?;
    if env::var("BEHAVE_PROCESS").is_ok_and(|how| how == "fails") {
        return Err(Error::new("this process fails at once"));
    }
    while let Some(message) = process.recv().await {
        if !command(&process, message).await? {
            return Ok(());
        }
    }
    note(&format!("end {}", process.name()))
}

/// Does what a message says; `false`: the function is to return.
async fn command(process: &Process, message: ProcessMessage) -> Result<bool> {
    let text = String::from_utf8_lossy(message.data()).into_owned();
    let Some((conn, text)) = text
        .split_once(' ')
        .and_then(|(conn, text)| Some((conn.parse::<ConnId>().ok()?, text)))
    else {
        // A line of another process's output.
        let line = format!("{} heard from {}: {text}", process.name(), message.from());
        process.publish("heard", line).await?;
        return Ok(true);
    };
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    let answer = match word {
        "echo" => rest.to_owned(),
        "pid" => os::id().to_string(),
        "id" => process.id().to_string(),
        "version" => VARIANT
            .get()
            .map_or("", |variant| variant.version)
            .to_owned(),
        "generation" => process.generation().to_string(),
        "redelivered" => message.is_redelivered().to_string(),
        "note" => {
            note(rest)?;
            rest.to_owned()
        }
        "abort" => {
            note(text)?;
            os::abort()
        }
        "abort-once" if !message.is_redelivered() => os::abort(),
        "abort-once" => format!("survived {rest}"),
        "panic-once" if !message.is_redelivered() => panic!("as asked"),
        "panic-once" => format!("survived {rest}"),
        // A task of its own has the message, and panics.
        "panic-aside" => {
            let process = process.clone();
            tokio::task::spawn_local(async move {
                let redelivered = message.is_redelivered();
                process
                    .send(conn, format!("redelivered {redelivered}"))
                    .await?;
                panic!("as asked");
                #[allow(unreachable_code, reason = "the type of the task")]
                Result::Ok(())
            });
            return Ok(true);
        }
        // At its end it writes more than its pipe holds and the manager takes in a moment.
        "babble" => {
            process.send(conn, "babbling").await?;
            process.stopping().await;
            for _ in 0..600 {
                println!("{}", "b".repeat(1000));
            }
            println!("last words");
            note("babbled")?;
            return Ok(false);
        }
        "error" => return Err(Error::new(format!("as asked: {rest}"))),
        "return" => return Ok(false),
        "sleep" => {
            tokio::time::sleep(Duration::from_millis(number(rest)?)).await;
            "slept".to_owned()
        }
        // Hears no stop.
        "deaf" => {
            process.send(conn, "what?").await?;
            std::future::pending().await
        }
        // Hears the stop beside messages.
        "linger" => {
            process.send(conn, "lingering").await?;
            process.stopping().await;
            note("lingered")?;
            return Ok(true);
        }
        "task" => match process.task(rest.to_owned()).await {
            Ok(result) => String::from_utf8_lossy(&result).into_owned(),
            Err(error) => format!("error: {error}"),
        },
        "task-detach" => process.detach_task(rest.to_owned()).await?.to_string(),
        "publish" => {
            let (topic, text) = two(rest)?;
            process.publish(topic, text.to_owned()).await?;
            return Ok(true);
        }
        "pipe" => {
            let (to, text) = two(rest)?;
            process.pipe(WorkerId(number(to)?), text.to_owned()).await?;
            "piped".to_owned()
        }
        "shared" => shared::command(process, rest).await?,
        "timer" => timers::set(process, &process.conn(conn), rest)?,
        "connections" => process.connections().count().to_string(),
        "print" => {
            println!("{rest}");
            "printed".to_owned()
        }
        "complain" => {
            eprintln!("{rest}");
            "complained".to_owned()
        }
        // `lines COUNT SIZE`
        "lines" => {
            let (count, size) = two(rest)?;
            let line = "l".repeat(number(size)?);
            for _ in 0..number::<usize>(count)? {
                println!("{line}");
            }
            "printed".to_owned()
        }
        _ => format!("unknown command: {text}"),
    };
    process.send(conn, answer).await?;
    Ok(true)
}

/// As the handler's: so that a test can count.
fn note(text: &str) -> Result {
    if let Some(path) = env::var_os("BEHAVE_RUNS") {
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        file.write_all(format!("{text}\n").as_bytes())?;
    }
    Ok(())
}

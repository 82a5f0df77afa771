//! A program with a pool of children. Its argument says what is to happen; it prints what did.
// A test program fails by panicking.
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, io::Write, path::PathBuf, process, time::Duration};

use gannet::{Child, Pool, PoolEvent, PoolOptions, Restart, Result};
use serde::{Deserialize, Serialize};

/// What a child is to do.
#[derive(Serialize, Deserialize)]
enum Request {
    Echo(String),
    Square(u64),
    Pid,
    Abort,
    Fail,
    Return,
    Print(String),
    /// Sends as many bytes as it can, until that waits; says so on standard error.
    Flood(usize),
    /// Sends so many bytes in one message.
    Large(usize),
    Sleep(u64),
    Deaf,
    Lingers,
    /// Panics while a thread of its own blocks.
    Panic,
    /// Reads nothing before this file is there.
    Until(PathBuf),
}

#[derive(Debug, Serialize, Deserialize)]
enum Reply {
    Text(String),
    Number(u64),
}

type Event = PoolEvent<Reply>;

fn main() -> Result {
    let scenario = std::env::args().nth(1).unwrap_or_default();
    if scenario == "never-comes" && std::env::var_os("GANNET_POOL").is_some() {
        return Ok(());
    }
    // What `main` starts before it comes to the definition has the child's descriptors.
    if scenario == "helper" && std::env::var_os("GANNET_POOL").is_some() {
        process::Command::new("sleep").arg("1000").spawn()?;
    }
    let pool = Pool::define("pool", obey).processes(2);
    match scenario.as_str() {
        "talk" => talk(pool),
        "restart" => restart(pool),
        "panic" => panic_with_a_thread(pool),
        "helper" => helper(pool),
        "policies" => policies(pool),
        "back-pressure" => back_pressure(pool),
        "flood" => flood(pool),
        "stop" => stop(pool),
        "deaf" => deaf(pool),
        "lines" => lines(pool),
        "large" => large(pool),
        "wait" => wait(pool),
        "twice" => {
            let again = Pool::define("pool", obey);
            drop(pool.start()?);
            again.start().map(drop)
        }
        "late" => {
            let _pool = pool.start()?;
            Pool::define("late", obey).processes(1).start().map(drop)
        }
        "numbers" => pool.processes(0).start().map(drop),
        _ => pool.start().map(drop),
    }
}

/// The function of the children.
async fn obey(child: Child<Request, Reply>) -> Result {
    while let Some(request) = child.recv().await? {
        let reply = match request {
            Request::Echo(text) => text,
            Request::Square(n) => {
                child.send(&Reply::Number(n * n)).await?;
                continue;
            }
            Request::Pid => process::id().to_string(),
            Request::Abort => process::abort(),
            Request::Fail => return Err(gannet::Error::new("as asked")),
            Request::Return => return Ok(()),
            Request::Print(text) => {
                println!("{text}");
                "printed".to_owned()
            }
            Request::Flood(size) => {
                let message = Reply::Text("f".repeat(size));
                let mut sent = 0;
                let patience = Duration::from_millis(500);
                while sent < BOUND
                    && tokio::time::timeout(patience, child.send(&message))
                        .await
                        .is_ok()
                {
                    sent += 1;
                }
                eprintln!("waits after {sent}");
                format!("sent {sent}")
            }
            Request::Large(size) => match child.send(&Reply::Text("l".repeat(size))).await {
                Ok(()) => "sent".to_owned(),
                Err(error) => error.to_string(),
            },
            Request::Sleep(ms) => {
                tokio::time::sleep(Duration::from_millis(ms)).await;
                "slept".to_owned()
            }
            Request::Until(file) => {
                while !file.exists() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                "went on".to_owned()
            }
            Request::Panic => {
                let (blocks, has_begun) = std::sync::mpsc::channel();
                tokio::task::spawn_blocking(move || {
                    blocks.send(()).unwrap();
                    std::thread::sleep(Duration::from_secs(1000));
                });
                has_begun.recv().unwrap();
                panic!("as asked")
            }
            Request::Deaf => std::future::pending().await,
            Request::Lingers => {
                child.send(&Reply::Text("lingering".to_owned())).await?;
                child.stopping().await;
                "lingered".to_owned()
            }
        };
        child.send(&Reply::Text(reply)).await?;
    }
    Ok(())
}

fn next(pool: &mut Pool<Request, Reply>) -> Result<Event> {
    pool.recv_blocking()?
        .ok_or_else(|| gannet::Error::new("the pool has ended"))
}

fn say(event: &Event) {
    match event {
        PoolEvent::Reply {
            child,
            reply: Reply::Text(text),
        } => println!("{child}: {text}"),
        PoolEvent::Reply {
            child,
            reply: Reply::Number(number),
        } => println!("{child}: number {number}"),
        PoolEvent::Line { child, line } => println!("{child} wrote: {line}"),
        PoolEvent::Exited {
            child,
            how,
            restarts,
        } => println!("{child} exited: {how}, restarts: {restarts}"),
        _ => println!("something else"),
    }
    let _ = std::io::stdout().flush();
}

fn to_the_end(pool: &mut Pool<Request, Reply>) -> Result {
    pool.stop();
    while let Some(event) = pool.recv_blocking()? {
        say(&event);
    }
    println!("the end");
    Ok(())
}

/// Many messages to both, and back in order.
fn talk(pool: PoolOptions<Request, Reply>) -> Result {
    let mut pool = pool.queue(4).start()?;
    let sender = pool.sender();
    let sending = std::thread::spawn(move || {
        (0..1000).try_for_each(|n| sender.send_blocking((n % 2) as usize, &Request::Square(n)))
    });
    let mut got: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
    for _ in 0..1000 {
        if let PoolEvent::Reply {
            child,
            reply: Reply::Number(number),
        } = next(&mut pool)?
        {
            got.entry(child).or_default().push(number);
        }
    }
    let _ = sending.join();
    for (child, numbers) in got {
        let right = (0..1000).filter(|n| n % 2 == child as u64).map(|n| n * n);
        println!("{child}: {}", numbers.into_iter().eq(right));
    }
    println!("{}", pool.send_blocking(2, &Request::Pid).unwrap_err());
    to_the_end(&mut pool)
}

fn restart(pool: PoolOptions<Request, Reply>) -> Result {
    let mut pool = pool.start()?;
    for request in [Request::Abort, Request::Fail, Request::Return] {
        pool.send_blocking(0, &request)?;
        say(&next(&mut pool)?);
        pool.send_blocking(0, &Request::Echo("back".to_owned()))?;
        say(&next(&mut pool)?);
    }
    // The other was not touched.
    pool.send_blocking(1, &Request::Echo("unharmed".to_owned()))?;
    say(&next(&mut pool)?);
    pool.finish_blocking()
}

fn panic_with_a_thread(pool: PoolOptions<Request, Reply>) -> Result {
    let mut pool = pool.start()?;
    pool.send_blocking(0, &Request::Panic)?;
    say(&next(&mut pool)?);
    pool.finish_blocking()
}

fn helper(pool: PoolOptions<Request, Reply>) -> Result {
    let mut pool = pool.processes(1).start()?;
    // What was sent before the end comes before its news.
    for n in 0..3 {
        pool.send_blocking(0, &Request::Square(n))?;
    }
    pool.send_blocking(0, &Request::Abort)?;
    for _ in 0..4 {
        say(&next(&mut pool)?);
    }
    pool.send_blocking(0, &Request::Echo("back".to_owned()))?;
    say(&next(&mut pool)?);
    to_the_end(&mut pool)
}

fn policies(pool: PoolOptions<Request, Reply>) -> Result {
    let mut pool = pool.restart(Restart::OnFailure).start()?;
    pool.send_blocking(0, &Request::Fail)?;
    say(&next(&mut pool)?);
    pool.send_blocking(0, &Request::Return)?;
    say(&next(&mut pool)?);
    println!("{}", pool.send_blocking(0, &Request::Pid).unwrap_err());
    pool.send_blocking(1, &Request::Return)?;
    say(&next(&mut pool)?);
    println!("{}", pool.recv_blocking()?.is_none());
    Ok(())
}

/// A child that does not read.
fn back_pressure(pool: PoolOptions<Request, Reply>) -> Result {
    let mut pool = pool.queue(4).max_message(200_000).start()?;
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("go on");
    pool.send_blocking(0, &Request::Until(file.clone()))?;
    let message = || Request::Echo("x".repeat(100_000));
    let (mut sent, mut refused) = (0, 0);
    while refused < 200 && sent < BOUND {
        match pool.try_send(0, &message())? {
            true => {
                sent += 1;
                refused = 0;
            }
            false => {
                refused += 1;
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }
    println!("sent {sent}");
    // Another child has room.
    pool.send_blocking(1, &Request::Echo("unharmed".to_owned()))?;
    say(&next(&mut pool)?);
    std::fs::write(file, "")?;
    say(&next(&mut pool)?);
    for _ in 0..sent {
        next(&mut pool)?;
    }
    println!("all answered");
    pool.finish_blocking()
}

/// Children that send more than is received, until the test ends the wait.
fn flood(pool: PoolOptions<Request, Reply>) -> Result {
    let mut pool = pool.queue(4).max_message(200_000).start()?;
    for child in 0..2 {
        pool.send_blocking(child, &Request::Flood(100_000))?;
    }
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    let mut floods = 0;
    let mut ended = 0;
    while ended < 2 {
        if let PoolEvent::Reply {
            reply: Reply::Text(text),
            ..
        } = next(&mut pool)?
        {
            match text.strip_prefix("sent ") {
                Some(_) => ended += 1,
                None => floods += 1,
            }
        }
    }
    println!("received {}", floods > 0);
    pool.finish_blocking()
}

fn stop(pool: PoolOptions<Request, Reply>) -> Result {
    let mut pool = pool.start()?;
    // What waits is still done.
    pool.send_blocking(0, &Request::Sleep(100))?;
    for n in 0..10 {
        pool.send_blocking(0, &Request::Square(n))?;
    }
    pool.send_blocking(1, &Request::Lingers)?;
    to_the_end(&mut pool)
}

fn deaf(pool: PoolOptions<Request, Reply>) -> Result {
    let mut pool = pool
        .processes(1)
        .max_wait(Duration::from_millis(200))
        .start()?;
    pool.send_blocking(0, &Request::Deaf)?;
    to_the_end(&mut pool)
}

fn lines(pool: PoolOptions<Request, Reply>) -> Result {
    let mut pool = pool.processes(1).capture_output(true).start()?;
    pool.send_blocking(0, &Request::Print("hello\nparent".to_owned()))?;
    for _ in 0..3 {
        say(&next(&mut pool)?);
    }
    // The last words of one that dies.
    pool.send_blocking(0, &Request::Print("last words".to_owned()))?;
    pool.send_blocking(0, &Request::Abort)?;
    for _ in 0..3 {
        say(&next(&mut pool)?);
    }
    pool.finish_blocking()
}

fn large(pool: PoolOptions<Request, Reply>) -> Result {
    let mut pool = pool.processes(1).max_message(10_000).start()?;
    let error = pool.send_blocking(0, &Request::Echo("x".repeat(10_000)));
    println!("parent: {}", error.unwrap_err());
    pool.send_blocking(0, &Request::Large(10_000))?;
    say(&next(&mut pool)?);
    pool.send_blocking(0, &Request::Large(9_000))?;
    next(&mut pool)?;
    say(&next(&mut pool)?);
    pool.finish_blocking()
}

/// Until it is killed.
fn wait(pool: PoolOptions<Request, Reply>) -> Result {
    let mut pool = pool.start()?;
    for child in 0..2 {
        pool.send_blocking(child, &Request::Pid)?;
        let pid = next(&mut pool)?;
        // From then on it does not read: the end of the stream is nothing to it.
        pool.send_blocking(child, &Request::Lingers)?;
        next(&mut pool)?;
        say(&pid);
    }
    next(&mut pool).map(drop)
}

/// Messages that are sent at most where it should not come to that.
const BOUND: usize = 1_000;

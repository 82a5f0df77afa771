//! Processes of a program without a server: eight children that run a function and talk with their
//! parent, one whose standard output the parent reads, and one driven by events: a timer and a socket.
//!
//!     cargo run --release --example processes

use std::time::Duration;

use gannet::{Child, Pool, PoolEvent, Restart, Result};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

fn main() -> Result {
    // `main` runs in every child as well, up to the definition that is its own: there, the function
    // runs, and the process ends.
    let workers = Pool::define("workers", count_primes).processes(8);
    let speaker = Pool::define("speaker", speak).processes(1);
    let clock = Pool::define("clock", tick).processes(1);

    // From here on, this is the parent.
    println!("the parent is process {}", std::process::id());
    eight_children(workers.start()?)?;
    redirected_output(
        speaker
            .capture_output(true)
            .restart(Restart::Never)
            .start()?,
    )?;
    event_driven(clock.restart(Restart::Never).start()?)
}

/// A child: takes numbers, gives back how many primes there are below each.
async fn count_primes(child: Child<u64, (u32, u64)>) -> Result {
    while let Some(below) = child.recv().await? {
        let is_prime = |n: &u64| {
            (2..)
                .take_while(|d| d * d <= *n)
                .all(|d| !n.is_multiple_of(d))
        };
        let count = (2..below).filter(is_prime).count() as u64;
        child.send(&(std::process::id(), count)).await?;
    }
    // The parent has asked its children to end.
    Ok(())
}

/// Writes to all eight and reads from all eight.
fn eight_children(mut pool: Pool<u64, (u32, u64)>) -> Result {
    for child in 0..pool.processes() {
        pool.send_blocking(child, &(10_000 * (child as u64 + 1)))?;
    }
    pool.stop();
    while let Some(event) = pool.recv_blocking()? {
        match event {
            PoolEvent::Reply {
                child,
                reply: (pid, count),
            } => println!(
                "child {child} (process {pid}) counted {count} primes below {}",
                10_000 * (child + 1)
            ),
            PoolEvent::Exited { child, how, .. } => println!("child {child} has ended: {how}"),
            _ => {}
        }
    }
    Ok(())
}

/// A child that knows nothing of its parent: it writes to standard output.
async fn speak(_child: Child<(), ()>) -> Result {
    println!("to whom it may concern:");
    println!("this line was printed by process {}", std::process::id());
    Ok(())
}

/// What the child prints, the parent gets.
fn redirected_output(mut pool: Pool<(), ()>) -> Result {
    while let Some(event) = pool.recv_blocking()? {
        if let PoolEvent::Line { line, .. } = event {
            println!("the speaker wrote: {line}");
        }
    }
    Ok(())
}

/// A child that waits for several things at once: a timer, a socket, its parent, its end.
async fn tick(child: Child<String, String>) -> Result {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    child.send(&address.to_string()).await?;
    let mut timer = tokio::time::interval(Duration::from_millis(100));
    let mut ticks = 0;
    loop {
        tokio::select! {
            _ = timer.tick() => {
                ticks += 1;
                child.send(&format!("tick {ticks}")).await?;
            }
            connection = listener.accept() => {
                let (mut connection, _) = connection?;
                connection.write_all(format!("{ticks} ticks so far").as_bytes()).await?;
            }
            word = child.recv() => match word? {
                Some(word) => child.send(&format!("you said {word}")).await?,
                None => return Ok(()),
            },
        }
    }
}

/// The parent can be driven by events, too.
fn event_driven(mut pool: Pool<String, String>) -> Result {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build()?.block_on(async {
        let mut ticks = 0;
        while let Some(event) = pool.recv().await? {
            let PoolEvent::Reply { reply, .. } = event else {
                continue;
            };
            println!("the clock says: {reply}");
            if reply.starts_with("127.0.0.1:") {
                let mut answer = String::new();
                let mut connection = TcpStream::connect(reply).await?;
                connection.read_to_string(&mut answer).await?;
                println!("the clock's socket says: {answer}");
                pool.send(0, &"hello".to_owned()).await?;
            } else if reply.starts_with("tick") {
                ticks += 1;
            }
            if ticks == 3 {
                pool.stop();
            }
        }
        println!("all children have ended");
        Ok(())
    })
}

//! One table that all workers and task workers read and write.
//!
//!     cargo run --release --example table
//!     nc 127.0.0.1 9507
//!
//! Type words: they are counted, whichever worker you are connected to. `all` shows them, and what each
//! worker has done; `fill 5000` adds rows, so that the table grows; `tidy` has a task worker take
//! away all words that came once.

use gannet::{Bytes, Conn, Handler, Result, Row, Rows, Server, Str, Table, Task, Worker};

/// A word. Its key is the word itself.
#[derive(Clone, Row)]
struct Word {
    times: i64,
    /// Who had it last.
    last: Str<16>,
}

/// What a worker has done. The key is its number.
#[derive(Clone, Row)]
struct Tally {
    words: i64,
    /// Mean length of a word.
    length: f64,
}

struct Words {
    worker: Worker,
    words: Table<Word>,
    tallies: Table<Tally, u64>,
}

impl Handler for Words {
    async fn start(worker: &Worker) -> Result<Self> {
        Ok(Words {
            worker: worker.clone(),
            words: worker.table("words")?,
            tallies: worker.table("tallies")?,
        })
    }

    async fn receive(&self, conn: Conn, data: Bytes) -> Result {
        let line = String::from_utf8_lossy(&data);
        let answer = match line.trim().split_once(' ').unwrap_or((line.trim(), "")) {
            ("all", "") => self.all(),
            ("tidy", "") => Ok(String::from_utf8_lossy(&self.worker.task("tidy").await?).into()),
            ("fill", rows) => self.fill(rows),
            _ => self.count(&line),
        };
        // A key that is too long, or a table that is full, is no reason to lose the client.
        let answer = answer.unwrap_or_else(|error| format!("{error}\n"));
        conn.send(answer).await
    }

    /// In a task worker: it has the same table.
    async fn task(&self, _task: Task) -> Result<Bytes> {
        let before = self.words.len();
        self.words.retain(|_, word| word.times > 1)?;
        let left = self.words.len();
        Ok(format!("{left} of {before} words are left\n").into())
    }
}

impl Words {
    fn count(&self, line: &str) -> Result<String> {
        let last = Str::new(&format!("worker {}", self.worker.id()))?;
        let mut answer = String::new();
        for word in line.split_whitespace() {
            // Nobody else changes the row between the reading and the writing.
            let row = self.words.upsert(word, |before| Word {
                times: before.map_or(0, |word| word.times) + 1,
                last,
            })?;
            let worker = u64::from(self.worker.id().0);
            self.tallies.upsert(&worker, |before| {
                let Tally { words, length } = before.unwrap_or(Tally {
                    words: 0,
                    length: 0.0,
                });
                let all = length * words as f64 + word.len() as f64;
                Tally {
                    words: words + 1,
                    length: all / (words + 1) as f64,
                }
            })?;
            answer += &format!("{word}: {} times\n", row.times);
        }
        Ok(answer)
    }

    fn fill(&self, rows: &str) -> Result<String> {
        for n in 0..rows.trim().parse::<usize>()? {
            let word = Word {
                times: 0,
                last: Str::new("fill")?,
            };
            self.words.insert(&format!("row:{n}"), &word)?;
        }
        let stats = self.words.stats();
        Ok(format!(
            "{} rows of {} at most, {} bytes\n",
            stats.rows, stats.max_rows, stats.bytes
        ))
    }

    fn all(&self) -> Result<String> {
        let mut answer = String::new();
        for row in self.words.iter().take(20) {
            let (word, Word { times, last }) = row?;
            answer += &format!("{word}: {times} times, last by {last}\n");
        }
        for row in self.tallies.iter() {
            let (worker, Tally { words, length }) = row?;
            answer += &format!("worker {worker}: {words} words of {length:.1} letters\n");
        }
        Ok(answer + &format!("{} rows\n", self.words.len()))
    }
}

fn main() -> Result {
    // The table has room for 1,024 words at first, and grows.
    Server::tcp("127.0.0.1:9507")
        .workers(2)
        .task_workers(1)
        .table::<Word, str>("words", Rows::up_to(1_000_000).first(1024))
        .table::<Tally, u64>("tallies", Rows::up_to(64))
        .run::<Words>()
}

//! The limits, the order, and what is left when a thread ends.

use bytes::Bytes;
use gannet_shm::Position;

use super::*;
use crate::wire::event::EventKind;

const PARKED: usize = 64 << 10;

fn direct() -> Direct {
    Direct::new(Dimensions::SMALLEST, PARKED)
}

fn event(conn: u64) -> EventHeader {
    EventHeader::new(EventKind::Receive, ConnId::from_u64(conn))
}

fn command(code: u16) -> CommandHeader {
    let header = CommandHeader::new(CommandKind::Send, ConnId::from_u64(1));
    CommandHeader { code, ..header }
}

/// How many events of this payload find room.
fn fill(direct: &Direct, payload: &[u8]) -> Vec<u64> {
    std::iter::from_fn(|| direct.push(&event(1), &[payload]).ok()).collect()
}

#[test]
fn events_come_as_they_were_written_and_are_finished_in_any_order() {
    let direct = direct();
    let first = direct.push(&event(1), &[b"a", b"b"]).unwrap();
    direct.post(&event(2), b"c").unwrap();
    let second = direct.push(&event(3), &[]).unwrap();
    assert!(direct.has_events());
    let read = std::iter::from_fn(|| direct.next_event());
    let read: Vec<_> = read
        .map(|it| (it.header.conn.as_u64(), it.header.seq, it.payload))
        .collect();
    let expected = [
        (1, first, Bytes::from("ab")),
        (2, 0, Bytes::from("c")),
        (3, second, Bytes::new()),
    ];
    assert_eq!(read, expected);
    assert_eq!(direct.owed(), 2);
    assert_eq!(direct.finish(second), Some(ConnId::from_u64(3)));
    assert_eq!(direct.finish(second), None, "once");
    assert_eq!(direct.finish(second + 1), None, "there is none");
    assert_eq!(direct.finish(first), Some(ConnId::from_u64(1)));
    assert_eq!(direct.finish(first), None);
    assert_eq!(direct.owed(), 0);
    assert_eq!(direct.push(&event(4), &[]), Ok(second + 1));
}

#[test]
fn what_is_not_read_is_bounded_as_in_a_ring() {
    let direct = direct();
    let payload = [7; 1000];
    let pushed = fill(&direct, &payload).len();
    let ring = Dimensions::SMALLEST.ring;
    assert_eq!(pushed, ring / (HEADER + payload.len()));
    assert_eq!(direct.post(&event(1), &payload), Err(Full));
    assert!(!direct.has_room(payload.len()));
    assert!(direct.next_event().is_some());
    assert!(direct.has_room(payload.len()));
    assert!(direct.post(&event(1), &payload).is_ok());
}

#[test]
fn what_is_read_and_not_finished_is_bounded_by_what_may_be_parked() {
    let direct = direct();
    let payload = [7; 1000];
    let mut numbers = Vec::new();
    loop {
        let pushed = fill(&direct, &payload);
        while direct.next_event().is_some() {}
        if pushed.is_empty() {
            break;
        }
        numbers.extend(pushed);
    }
    let most = Dimensions::SMALLEST.ring + PARKED;
    assert_eq!(numbers.len(), most / (HEADER + payload.len()));
    let over = numbers.len() * (HEADER + payload.len()) - Dimensions::SMALLEST.ring;
    assert_eq!(direct.parked_bytes(), over);
    // Whichever is finished makes room.
    direct.finish(numbers[numbers.len() / 2]).unwrap();
    assert_eq!(fill(&direct, &payload).len(), 1);
    for number in numbers {
        direct.finish(number);
    }
    assert_eq!(direct.parked_bytes(), 0);
}

#[test]
fn large_payloads_have_room_of_their_own_and_one_always_has() {
    let direct = direct();
    let arena = Dimensions::SMALLEST.arena;
    let number = direct.push(&event(1), &[&vec![1; 2 * arena]]).unwrap();
    assert_eq!(direct.push(&event(1), &[&vec![2; arena / 2]]), Err(Full));
    assert!(direct.push(&event(1), &[b"small"]).is_ok());
    assert_eq!(direct.next_event().unwrap().payload.len(), 2 * arena);
    direct.finish(number).unwrap();
    assert_eq!(fill(&direct, &vec![3; arena / 2]).len(), 2);

    let payload = vec![4; arena / 2];
    for _ in 0..2 {
        assert!(direct.send(&command(1), b"", &payload).is_ok());
    }
    assert_eq!(direct.send(&command(1), b"", &payload), Err(Full));
    assert!(direct.send(&command(1), b"", b"small").is_ok());
}

#[test]
fn commands_are_taken_as_they_were_written_also_a_few_at_a_time() {
    let direct = direct();
    let (mut batch, mut got) = (Batch::default(), Vec::new());
    for code in 0..7 {
        direct
            .send(&command(code), &[b'0' + code as u8], b"x")
            .unwrap();
    }
    while direct.has_commands() {
        direct.exchange(&mut batch);
        let mut taken = Taken::default();
        for _ in 0..3 {
            let Some((header, payload)) = batch.next() else {
                break;
            };
            direct.note(&mut taken, &payload);
            got.push((header.code, batch.payload(payload).to_vec()));
        }
        direct.took(&taken);
        if got.len() == 3 {
            direct.send(&command(7), b"7", b"x").unwrap();
        }
    }
    let expected: Vec<_> = (0..8)
        .map(|code| (code, vec![b'0' + code as u8, b'x']))
        .collect();
    assert_eq!(got, expected);
    assert_eq!(direct.taken(), Position(8));
    assert_eq!(direct.written(), Position(8));
}

#[test]
fn commands_that_are_not_taken_are_bounded_as_in_a_ring() {
    let direct = direct();
    let mut sent = 0;
    while direct.send(&command(1), &[0; 500], &[0; 500]).is_ok() {
        sent += 1;
    }
    assert_eq!(sent, Dimensions::SMALLEST.ring / (HEADER + 1000));
    let (mut batch, mut taken) = (Batch::default(), Taken::default());
    direct.exchange(&mut batch);
    assert_eq!(direct.send(&command(1), &[0; 1000], b""), Err(Full));
    let (_, payload) = batch.next().unwrap();
    direct.note(&mut taken, &payload);
    direct.took(&taken);
    assert!(direct.send(&command(1), &[0; 1000], b"").is_ok());
}

#[test]
fn only_the_last_command_finishes_an_event_and_only_while_it_is_here() {
    let direct = direct();
    let first = direct.send(&command(1), b"", b"").unwrap();
    let second = direct.send(&command(2), b"", b"").unwrap();
    assert!(!direct.amend(first, 7));
    assert!(direct.amend(second, 8));
    let mut batch = Batch::default();
    direct.exchange(&mut batch);
    let done = std::iter::from_fn(|| batch.next()).map(|(header, _)| header.done);
    assert_eq!(done.collect::<Vec<_>>(), [0, 8]);
    let third = direct.send(&command(3), b"", b"").unwrap();
    direct.exchange(&mut batch);
    assert!(!direct.amend(third, 9), "it is with the reactor");
}

#[test]
fn an_event_that_takes_its_time_keeps_nothing_of_those_behind_it() {
    let direct = direct();
    let slow = [1, 2].map(|conn| direct.push(&event(conn), &[b"slow"]).unwrap());
    let mut longest = 0;
    for _ in 0..100_000 {
        let number = direct.push(&event(3), &[b"quick"]).unwrap();
        while direct.next_event().is_some() {}
        assert_eq!(direct.finish(number), Some(ConnId::from_u64(3)));
        longest = longest.max(direct.events.borrow().used());
    }
    assert!(longest <= KEEP + 1, "{longest} entries");
    assert_eq!(direct.owed(), 2);
    let last = direct.push(&event(4), &[b"last"]).unwrap();
    assert_eq!(direct.finish(slow[1]), Some(ConnId::from_u64(2)));
    assert_eq!(direct.finish(slow[1]), None, "once");
    let unfinished = direct.take_unfinished();
    let unfinished: Vec<_> = unfinished
        .iter()
        .map(|(header, _, read)| (header.seq, *read))
        .collect();
    assert_eq!(unfinished, [(slow[0], true), (last, false)]);
    assert_eq!(direct.finish(slow[0]), None);
}

#[test]
fn a_worker_that_has_ended_leaves_what_it_has_not_finished() {
    let direct = direct();
    let numbers: Vec<_> = [b"a", b"b", b"c"]
        .map(|payload| direct.push(&event(1), &[payload]).unwrap())
        .into();
    direct.post(&event(1), b"without number").unwrap();
    let last = direct.push(&event(2), &[b"d"]).unwrap();
    direct.next_event().unwrap();
    direct.next_event().unwrap();
    direct.finish(numbers[0]).unwrap();
    let unfinished = direct.take_unfinished();
    let unfinished: Vec<_> = unfinished
        .into_iter()
        .map(|(header, payload, read)| (header.seq, payload, read))
        .collect();
    let expected = [
        (numbers[1], vec![], true),
        (numbers[2], b"c".to_vec(), false),
        (last, b"d".to_vec(), false),
    ];
    assert_eq!(unfinished, expected);
    assert_eq!(direct.owed(), 0);
    assert!(!direct.has_events());
    assert_eq!(direct.finish(last), None);
}

//! The rules for frames of HTTP/2, driven like a reactor drives them.

use gannet_proto::http2::{PREFACE, Rules, Scan, Violation};

use super::random::Random;

/// Whatever the cuts are, the same rule is broken by the same frame. Gives what comes of it.
pub fn assert_cuts_mean_nothing(input: &[u8], random: &mut Random) -> Result<(), Violation> {
    let whole = judge(&[input]);
    let bytes: Vec<&[u8]> = input.chunks(1).collect();
    assert_eq!(judge(&bytes), whole, "byte by byte");
    let mut pieces = Vec::new();
    let mut rest = input;
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at((1 + random.below(40)).min(rest.len()));
        pieces.push(piece);
        rest = behind;
    }
    assert_eq!(judge(&pieces), whole, "in pieces");
    whole.0
}

/// What comes of it, and after how many frames.
fn judge(pieces: &[&[u8]]) -> (Result<(), Violation>, usize) {
    let (mut scan, mut rules, mut frames) = (Scan::default(), Rules::new(10_000), 0);
    let preface: &[u8] = &PREFACE;
    for mut piece in [preface].into_iter().chain(pieces.iter().copied()) {
        loop {
            let part = scan.payload(&mut piece);
            if let Err(violation) = rules.payload(part) {
                return (Err(violation), frames);
            }
            let Some(frame) = scan.next(&mut piece) else {
                break;
            };
            frames += 1;
            if let Err(violation) = rules.frame(frame) {
                return (Err(violation), frames);
            }
        }
    }
    (Ok(()), frames)
}

/// Frames, most of them right, some of them damaged.
pub fn random_input(random: &mut Random) -> Vec<u8> {
    let mut bytes = vec![0, 0, 0, 4, 0, 0, 0, 0, 0];
    for _ in 0..random.below(12) {
        let block = random_block(random);
        let stream = 1 + 2 * random.below(4) as u8;
        let (kind, flags, stream, payload) = match random.below(10) {
            0 => (0, random.below(2) as u8, stream, vec![7; random.below(30)]),
            1..4 => (1, 4 | random.below(2) as u8, stream, block),
            4 => {
                let padded = [&[2][..], &block, &[0; 2]].concat();
                (1, 0xc, stream, padded)
            }
            5 => {
                let (first, rest) = block.split_at(random.below(block.len() + 1));
                bytes.extend(frame(1, 0, stream, first));
                (9, 4, stream, rest.to_vec())
            }
            6 => (3, 0, stream, vec![0; 4]),
            7 => (4, 0, 0, [0, 4, 0, 0, 1, 0].repeat(random.below(3))),
            8 => (8, 0, 0, vec![0, 0, 0, 9]),
            _ => (6, 0, 0, vec![1; 8]),
        };
        bytes.extend(frame(kind, flags, stream, &payload));
    }
    if random.chance(3) {
        let at = random.below(bytes.len());
        bytes[at] ^= 1 << random.below(8);
    }
    bytes
}

fn random_block(random: &mut Random) -> Vec<u8> {
    let mut block = Vec::new();
    for _ in 0..random.below(6) {
        match random.below(5) {
            0 => block.push(0x80 | (1 + random.below(64)) as u8),
            1 => block.extend([0x40, 1, b'x', 2, b'y', b'z']),
            2 => block.extend([0x0f, 0x0f, 1, b'v']),
            // A value in the Huffman code: `www.example.com`.
            3 => block.extend([
                0x41, 0x8c, 0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff,
            ]),
            _ => block.extend([0x10, 1, b'n', 0]),
        }
    }
    block
}

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).expect("24 bits").to_be_bytes();
    let head = [len[1], len[2], len[3], kind, flags, 0, 0, 0, stream];
    [&head, payload].concat()
}

//! A framing of the test server's own.

use gannet::framing::{Cut, Framing};

/// The first byte is the length; 254 is refused, 255 makes the function panic.
pub(super) fn custom() -> Framing {
    let cut = |input: &[u8]| match usize::from(input[0]) {
        255 => panic!("as asked: a length of 255"),
        254 => Cut::Invalid("a length of 254"),
        len if input.len() > len => Cut::Message {
            used: 1 + len,
            message: 1..1 + len,
        },
        len => Cut::Incomplete { until: 1 + len },
    };
    Framing::custom_with(cut, |message, out| {
        let len = u8::try_from(message.len()).ok().filter(|&len| len < 254);
        out.push(len.ok_or("longer than 253 bytes")?);
        out.extend_from_slice(message);
        Ok(())
    })
}

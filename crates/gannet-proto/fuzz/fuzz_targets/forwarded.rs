//! Forwarding headers of any bytes are judged without a panic, and nothing that a client has written
//! hides the address that its proxy adds.
#![no_main]

use gannet_proto::proxy::{Client, Header, client};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let [choice, value @ ..] = data else { return };
    for (header, added) in [
        (Header::XForwardedFor, "192.0.2.7:47"),
        (Header::Forwarded, "by=_p;for=\"192.0.2.7:47\""),
    ] {
        // Whom it trusts is any half of the addresses.
        client(header, [value].into_iter(), |ip| match ip {
            std::net::IpAddr::V4(ip) => ip.octets()[3] & choice == 0,
            std::net::IpAddr::V6(ip) => ip.octets()[15] & choice == 0,
        });
        let whole = [value, b", ", added.as_bytes()].concat();
        let found = client(header, [&*whole].into_iter(), |_| false);
        let expected = Client::Address(([192, 0, 2, 7], 47).into());
        assert_eq!(found, expected);
    }
});

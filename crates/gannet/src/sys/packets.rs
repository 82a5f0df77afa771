//! Datagrams in batches: recvmmsg and sendmmsg, with the address that a datagram came to.

use std::{
    io,
    mem::MaybeUninit,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
    os::fd::{AsRawFd, OwnedFd},
    ptr,
};

use crate::{
    packet::{PacketAddress, unix_bytes, unix_path},
    peer::{Credentials, canonical},
};

/// What kind of address a socket has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    /// Also for IPv4, unless it is told otherwise.
    V6,
    Unix,
}

/// Where a batch is read into.
pub(crate) struct Inbox {
    bytes: Vec<u8>,
    received: Vec<Received>,
}

/// What is known of a datagram.
#[derive(Debug)]
pub(crate) struct Received {
    len: usize,
    /// The datagram was longer than the room for it.
    pub(crate) truncated: bool,
    /// `None`: a Unix socket without a name.
    pub(crate) from: Option<PacketAddress>,
    /// The address that it came to, and the interface.
    pub(crate) local: Option<(IpAddr, u32)>,
    /// Of a Unix socket.
    pub(crate) credentials: Option<Credentials>,
}

/// A datagram to be sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Letter<'a> {
    pub(crate) to: &'a PacketAddress,
    /// The address that it is to come from, and the interface.
    pub(crate) local: Option<(IpAddr, u32)>,
    pub(crate) data: &'a [u8],
}

/// Asks the kernel to tell the address that a datagram came to, or who sent it.
pub(crate) fn prepare(socket: &OwnedFd, family: Family) -> io::Result<()> {
    match family {
        Family::V4 => switch_on(socket, libc::IPPROTO_IP, libc::IP_PKTINFO),
        Family::V6 => {
            // Of IPv4 it is the other one that knows where to answer from.
            switch_on(socket, libc::IPPROTO_IP, libc::IP_PKTINFO)?;
            switch_on(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO)
        }
        Family::Unix => switch_on(socket, libc::SOL_SOCKET, libc::SO_PASSCRED),
    }
}

fn switch_on(socket: &OwnedFd, level: libc::c_int, option: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    let len = size_of_val(&on) as libc::socklen_t;
    // SAFETY: `on` is `len` bytes and outlives the call.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            ptr::from_ref(&on).cast(),
            len,
        )
    };
    match done {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

impl Inbox {
    pub(crate) fn new() -> Self {
        Inbox {
            bytes: vec![0; BATCH * ROOM],
            received: Vec::with_capacity(BATCH),
        }
    }

    /// Reads what is there, up to [`BATCH`] datagrams; says how many. Does not wait.
    pub(crate) fn receive(&mut self, socket: &OwnedFd, family: Family) -> io::Result<usize> {
        self.received.clear();
        let control_len = match family {
            Family::V4 | Family::V6 => size_of::<[u64; CONTROL]>(),
            // The kernel puts credentials first. With room for nothing else it drops descriptors
            // that a client sends along; all others would stay open here.
            Family::Unix => CREDENTIALS,
        };
        // SAFETY: all of these are plain numbers and pointers, for which zeroes are valid.
        let mut names: [libc::sockaddr_storage; BATCH] =
            unsafe { MaybeUninit::zeroed().assume_init() };
        // SAFETY: as above.
        let mut parts: [libc::iovec; BATCH] = unsafe { MaybeUninit::zeroed().assume_init() };
        // SAFETY: as above.
        let mut headers: [libc::mmsghdr; BATCH] = unsafe { MaybeUninit::zeroed().assume_init() };
        let mut controls = [[0_u64; CONTROL]; BATCH];
        for (index, room) in self.bytes.chunks_exact_mut(ROOM).enumerate() {
            parts[index] = libc::iovec {
                iov_base: room.as_mut_ptr().cast(),
                iov_len: room.len(),
            };
            let header = &mut headers[index].msg_hdr;
            header.msg_name = ptr::from_mut(&mut names[index]).cast();
            header.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            header.msg_iov = ptr::from_mut(&mut parts[index]);
            header.msg_iovlen = 1;
            header.msg_control = controls[index].as_mut_ptr().cast();
            header.msg_controllen = control_len;
        }
        // SAFETY: the first `BATCH` headers point to names, buffers and control buffers of the sizes
        // that they say, which outlive the call and which nothing else refers to.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                BATCH as libc::c_uint,
                libc::MSG_DONTWAIT,
                ptr::null_mut(),
            )
        };
        let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        for (header, name) in headers.iter().zip(&names).take(count) {
            let mut received = Received {
                len: (header.msg_len as usize).min(ROOM),
                truncated: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
                from: read_name(name, header.msg_hdr.msg_namelen as usize),
                local: None,
                credentials: None,
            };
            read_control(&header.msg_hdr, &mut received);
            self.received.push(received);
        }
        Ok(count)
    }

    /// A datagram of the last batch.
    pub(crate) fn get(&self, index: usize) -> Option<(&Received, &[u8])> {
        let received = self.received.get(index)?;
        Some((received, &self.bytes[index * ROOM..][..received.len]))
    }
}

/// Sends the first of these, up to [`BATCH`]; says how many left. Does not wait. An error is about
/// the first.
pub(crate) fn send(socket: &OwnedFd, family: Family, letters: &[Letter<'_>]) -> io::Result<usize> {
    let mut count = letters.len().min(BATCH);
    // SAFETY: all of these are plain numbers and pointers, for which zeroes are valid.
    let mut names: [libc::sockaddr_storage; BATCH] = unsafe { MaybeUninit::zeroed().assume_init() };
    // SAFETY: as above.
    let mut parts: [libc::iovec; BATCH] = unsafe { MaybeUninit::zeroed().assume_init() };
    // SAFETY: as above.
    let mut headers: [libc::mmsghdr; BATCH] = unsafe { MaybeUninit::zeroed().assume_init() };
    let mut controls = [[0_u64; CONTROL]; BATCH];
    for (index, letter) in letters.iter().take(count).enumerate() {
        parts[index] = libc::iovec {
            // The kernel only reads it.
            iov_base: letter.data.as_ptr().cast_mut().cast(),
            iov_len: letter.data.len(),
        };
        let header = &mut headers[index].msg_hdr;
        header.msg_namelen = match write_name(&mut names[index], letter.to, family) {
            Ok(len) => len,
            // Those in front of it leave first.
            Err(_) if index > 0 => {
                count = index;
                break;
            }
            Err(error) => return Err(error),
        };
        header.msg_name = ptr::from_mut(&mut names[index]).cast();
        header.msg_iov = ptr::from_mut(&mut parts[index]);
        header.msg_iovlen = 1;
        if let Some(local) = letter.local {
            header.msg_control = controls[index].as_mut_ptr().cast();
            header.msg_controllen = size_of_val(&controls[index]);
            write_local(header, local, family);
        }
    }
    // SAFETY: the first `count` headers point to names, data and control buffers of the sizes that
    // they say, which outlive the call; the data is only read.
    let sent = unsafe {
        libc::sendmmsg(
            socket.as_raw_fd(),
            headers.as_mut_ptr(),
            count as libc::c_uint,
            libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
        )
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

fn read_name(name: &libc::sockaddr_storage, len: usize) -> Option<PacketAddress> {
    let name = ptr::from_ref(name);
    // SAFETY: the storage is large and aligned enough for each kind of address; all of them are
    // plain numbers, and what the kernel has not written is zeroes.
    unsafe {
        match i32::from((*name).ss_family) {
            libc::AF_INET => {
                let name = *name.cast::<libc::sockaddr_in>();
                let ip = Ipv4Addr::from_bits(u32::from_be(name.sin_addr.s_addr));
                Some(PacketAddress::Ip((ip, u16::from_be(name.sin_port)).into()))
            }
            libc::AF_INET6 => {
                let name = *name.cast::<libc::sockaddr_in6>();
                let ip = Ipv6Addr::from(name.sin6_addr.s6_addr);
                let port = u16::from_be(name.sin6_port);
                let address = SocketAddrV6::new(ip, port, 0, name.sin6_scope_id);
                Some(PacketAddress::Ip(canonical(address.into())))
            }
            libc::AF_UNIX => {
                let name = *name.cast::<libc::sockaddr_un>();
                let path = name.sun_path.map(|byte| byte.cast_unsigned());
                let len = len.checked_sub(UNIX_PATH)?.min(path.len());
                unix_path(&path[..len])
            }
            _ => None,
        }
    }
}

fn read_control(header: &libc::msghdr, received: &mut Received) {
    // SAFETY: `header` and its control buffer were filled by the kernel, and the macros stay inside
    // of what it says; each kind of data is read from where the macro says, unaligned.
    unsafe {
        let mut control = libc::CMSG_FIRSTHDR(header);
        while !control.is_null() {
            let data = libc::CMSG_DATA(control);
            match ((*control).cmsg_level, (*control).cmsg_type) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let info = data.cast::<libc::in_pktinfo>().read_unaligned();
                    // The address to answer from, also where the datagram went to many.
                    let ip = Ipv4Addr::from_bits(u32::from_be(info.ipi_spec_dst.s_addr));
                    received.local = Some((ip.into(), 0));
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let info = data.cast::<libc::in6_pktinfo>().read_unaligned();
                    let ip = Ipv6Addr::from(info.ipi6_addr.s6_addr);
                    if ip.to_ipv4_mapped().is_none() {
                        received.local = answerable(ip, info.ipi6_ifindex as u32);
                    }
                }
                (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) => {
                    let of = data.cast::<libc::ucred>().read_unaligned();
                    received.credentials = Some(Credentials {
                        pid: of.pid.cast_unsigned(),
                        uid: of.uid,
                        gid: of.gid,
                    });
                }
                _ => {}
            }
            control = libc::CMSG_NXTHDR(header, control);
        }
    }
}

/// An address to answer from; the interface counts only where an address is not enough.
fn answerable(ip: Ipv6Addr, interface: u32) -> Option<(IpAddr, u32)> {
    match ip {
        _ if ip.is_multicast() => None,
        _ if ip.is_unicast_link_local() => Some((ip.into(), interface)),
        _ => Some((ip.into(), 0)),
    }
}

/// Writes an address as a socket of this family wants it; its length.
fn write_name(
    name: &mut libc::sockaddr_storage,
    to: &PacketAddress,
    family: Family,
) -> io::Result<libc::socklen_t> {
    let wrong = |why| io::Error::new(io::ErrorKind::InvalidInput, why);
    let name = ptr::from_mut(name);
    // SAFETY: the storage is large and aligned enough for each kind of address.
    let len = unsafe {
        match (family, to) {
            (Family::V4, PacketAddress::Ip(SocketAddr::V4(to))) => {
                let name = &mut *name.cast::<libc::sockaddr_in>();
                name.sin_family = libc::AF_INET as libc::sa_family_t;
                name.sin_port = to.port().to_be();
                name.sin_addr.s_addr = to.ip().to_bits().to_be();
                size_of::<libc::sockaddr_in>()
            }
            (Family::V6, PacketAddress::Ip(to)) => {
                let name = &mut *name.cast::<libc::sockaddr_in6>();
                let ip = match to.ip() {
                    IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                    IpAddr::V6(ip) => ip,
                };
                name.sin6_family = libc::AF_INET6 as libc::sa_family_t;
                name.sin6_port = to.port().to_be();
                name.sin6_addr.s6_addr = ip.octets();
                if let SocketAddr::V6(to) = to {
                    name.sin6_scope_id = to.scope_id();
                }
                size_of::<libc::sockaddr_in6>()
            }
            (Family::Unix, PacketAddress::Unix(path)) => {
                let name = &mut *name.cast::<libc::sockaddr_un>();
                let bytes = unix_bytes(path);
                if bytes.len() >= name.sun_path.len() {
                    return Err(wrong("the path of the socket is too long"));
                }
                name.sun_family = libc::AF_UNIX as libc::sa_family_t;
                for (to, byte) in name.sun_path.iter_mut().zip(&bytes) {
                    *to = byte.cast_signed();
                }
                // A path ends with a zero byte, an abstract name has its length.
                UNIX_PATH + bytes.len() + usize::from(bytes.first() != Some(&0))
            }
            _ => return Err(wrong("the address is not of the socket's kind")),
        }
    };
    Ok(len as libc::socklen_t)
}

fn write_local(header: &mut libc::msghdr, (ip, interface): (IpAddr, u32), family: Family) {
    let v6 = match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    // SAFETY: the control buffer is zeroed and has room for one header with either kind of data,
    // which is written where the macro says.
    unsafe {
        let control = libc::CMSG_FIRSTHDR(header);
        let len = match (family, ip) {
            (Family::V4, IpAddr::V4(ip)) => {
                let info = libc::in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: libc::in_addr {
                        s_addr: ip.to_bits().to_be(),
                    },
                    ipi_addr: libc::in_addr { s_addr: 0 },
                };
                (*control).cmsg_level = libc::IPPROTO_IP;
                (*control).cmsg_type = libc::IP_PKTINFO;
                libc::CMSG_DATA(control)
                    .cast::<libc::in_pktinfo>()
                    .write_unaligned(info);
                size_of::<libc::in_pktinfo>()
            }
            _ => {
                let info = libc::in6_pktinfo {
                    ipi6_addr: libc::in6_addr {
                        s6_addr: v6.octets(),
                    },
                    ipi6_ifindex: interface as _,
                };
                (*control).cmsg_level = libc::IPPROTO_IPV6;
                (*control).cmsg_type = libc::IPV6_PKTINFO;
                libc::CMSG_DATA(control)
                    .cast::<libc::in6_pktinfo>()
                    .write_unaligned(info);
                size_of::<libc::in6_pktinfo>()
            }
        } as libc::c_uint;
        (*control).cmsg_len = libc::CMSG_LEN(len) as usize;
        header.msg_controllen = libc::CMSG_SPACE(len) as usize;
    }
}

/// Datagrams in one system call.
pub(crate) const BATCH: usize = 16;
/// Room for one: more than a UDP datagram can have.
const ROOM: usize = 64 << 10;
/// Words of control data: room for an address and credentials.
const CONTROL: usize = 16;
/// Bytes of control data that credentials take.
// SAFETY: the macro only computes.
const CREDENTIALS: usize =
    unsafe { libc::CMSG_SPACE(size_of::<libc::ucred>() as libc::c_uint) } as usize;
/// Bytes in front of the path in `sockaddr_un`.
const UNIX_PATH: usize = std::mem::offset_of!(libc::sockaddr_un, sun_path);

#[cfg(test)]
mod tests {
    use std::{
        net::UdpSocket,
        os::{fd::AsFd, unix::net::UnixDatagram},
    };

    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

    use super::*;

    fn exchange(server: &str, client: &str, family: Family, to: &str) {
        let server = UdpSocket::bind(server).unwrap();
        let port = server.local_addr().unwrap().port();
        let server = OwnedFd::from(server);
        prepare(&server, family).unwrap();
        let client = UdpSocket::bind(client).unwrap();
        let to: IpAddr = to.parse().unwrap();
        for n in 0..20_u8 {
            client.send_to(&[n; 9], (to, port)).unwrap();
        }
        let mut inbox = Inbox::new();
        let count = inbox.receive(&server, family).unwrap();
        assert_eq!(count, BATCH);
        let letters: Vec<_> = (0..count)
            .map(|index| {
                let (received, data) = inbox.get(index).unwrap();
                assert_eq!(data, [index as u8; 9]);
                assert!(!received.truncated);
                assert_eq!(received.local.map(|(ip, _)| ip), Some(to));
                let to = received.from.as_ref().unwrap();
                let own = client.local_addr().unwrap().port();
                assert!(matches!(to, PacketAddress::Ip(from) if from.port() == own));
                Letter {
                    to,
                    local: received.local,
                    data,
                }
            })
            .collect();
        assert_eq!(send(&server, family, &letters).unwrap(), BATCH);
        let mut buffer = [0; 16];
        for n in 0..BATCH as u8 {
            let (len, from) = client.recv_from(&mut buffer).unwrap();
            assert_eq!(buffer[..len], [n; 9]);
            assert_eq!(from, SocketAddr::new(to, port), "from where it was sent to");
        }
        assert_eq!(inbox.receive(&server, family).unwrap(), 4);
        let empty = inbox.receive(&server, family).unwrap_err();
        assert_eq!(empty.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn an_answer_leaves_from_the_address_that_was_asked() {
        exchange("0.0.0.0:0", "127.0.0.1:0", Family::V4, "127.0.0.1");
        exchange("0.0.0.0:0", "0.0.0.0:0", Family::V4, "127.0.0.9");
        exchange("[::]:0", "[::]:0", Family::V6, "::1");
        exchange("[::]:0", "0.0.0.0:0", Family::V6, "127.0.0.9");
    }

    #[test]
    fn a_broadcast_is_answered_from_an_address_of_this_machine() {
        for (address, family) in [("0.0.0.0:0", Family::V4), ("[::]:0", Family::V6)] {
            let server = UdpSocket::bind(address).unwrap();
            let port = server.local_addr().unwrap().port();
            let server = OwnedFd::from(server);
            prepare(&server, family).unwrap();
            let client = UdpSocket::bind("127.0.0.1:0").unwrap();
            client.set_broadcast(true).unwrap();
            client
                .send_to(b"anybody", ("127.255.255.255", port))
                .unwrap();
            let mut inbox = Inbox::new();
            assert_eq!(inbox.receive(&server, family).unwrap(), 1);
            let (received, data) = inbox.get(0).unwrap();
            let letter = Letter {
                to: received.from.as_ref().unwrap(),
                local: received.local,
                data,
            };
            assert_eq!(send(&server, family, &[letter]).unwrap(), 1, "{letter:?}");
            let mut buffer = [0; 16];
            let (_, from) = client.recv_from(&mut buffer).unwrap();
            assert_eq!(from, SocketAddr::from(([127, 0, 0, 1], port)), "{address}");
        }
    }

    fn unix_pair(name: &str) -> (OwnedFd, UnixDatagram) {
        let name = format!("gannet-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        // One that a killed test left.
        let _ = std::fs::remove_file(&path);
        let server = OwnedFd::from(UnixDatagram::bind(&path).unwrap());
        prepare(&server, Family::Unix).unwrap();
        let client = UnixDatagram::unbound().unwrap();
        client.connect(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        (server, client)
    }

    #[test]
    fn a_unix_datagram_says_who_sent_it() {
        let (server, client) = unix_pair("credentials");
        client.send(b"hello").unwrap();
        let mut inbox = Inbox::new();
        assert_eq!(inbox.receive(&server, Family::Unix).unwrap(), 1);
        let (received, data) = inbox.get(0).unwrap();
        assert_eq!(data, b"hello");
        assert_eq!(received.credentials.unwrap().pid, std::process::id());
    }

    #[test]
    fn descriptors_that_a_client_sends_along_do_not_stay_open() {
        let (server, client) = unix_pair("descriptors");
        let (mut reader, writer) = std::io::pipe().unwrap();
        let descriptors = [writer.as_fd(), writer.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
        let data = [io::IoSlice::new(b"hello")];
        rustix::net::sendmsg(&client, &data, &mut control, SendFlags::empty()).unwrap();
        drop(writer);

        let mut inbox = Inbox::new();
        assert_eq!(inbox.receive(&server, Family::Unix).unwrap(), 1);
        let (received, data) = inbox.get(0).unwrap();
        assert_eq!((data, received.truncated), (&b"hello"[..], false));
        assert!(received.credentials.is_some());
        rustix::io::ioctl_fionbio(&reader, true).unwrap();
        let end = io::Read::read(&mut reader, &mut [0]);
        assert_eq!(end.unwrap(), 0, "somebody can still write");
    }

    #[test]
    fn an_address_of_another_kind_is_refused() {
        let socket = OwnedFd::from(UdpSocket::bind("127.0.0.1:0").unwrap());
        for to in [
            PacketAddress::Ip("[::1]:9".parse().unwrap()),
            PacketAddress::Unix("/a".into()),
        ] {
            let letter = Letter {
                to: &to,
                local: None,
                data: b"x",
            };
            assert!(send(&socket, Family::V4, &[letter]).is_err());
            // Those in front of it leave.
            let own = socket.try_clone().map(UdpSocket::from).unwrap();
            let own = PacketAddress::Ip(own.local_addr().unwrap());
            let good = Letter { to: &own, ..letter };
            let sent = send(&socket, Family::V4, &[good, good, letter, good]);
            assert_eq!(sent.unwrap(), 2);
        }
    }
}

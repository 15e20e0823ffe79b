use super::*;
use proptest::prelude::*;

fn whole(peer: &str) -> Progress {
    Progress::Whole(Some(peer.parse().unwrap()))
}

/// A header of version 2.
fn binary(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let mut header = SIGNATURE.to_vec();
    header.extend([command, family]);
    header.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
    header.extend(body);
    header
}

/// What comes of bytes that come as they are asked for. They must be asked for one by one until the header is judged, and
/// never more of them than it has.
fn feed(bytes: &[u8]) -> (Progress, usize) {
    let mut len = 0;
    loop {
        match read(&bytes[..len]) {
            Progress::Needs(more) => {
                assert!(more > 0);
                if len + more > bytes.len() {
                    return (Progress::Needs(len + more - bytes.len()), len);
                }
                len += more;
            }
            judged => return (judged, len),
        }
    }
}

const INET: [u8; 12] = [192, 0, 2, 1, 192, 0, 2, 2, 0x10, 0x00, 0x00, 0x50];

#[test]
fn version_1_names_the_peer() {
    for (line, expected) in [
        ("PROXY TCP4 192.0.2.1 192.0.2.2 4096 80\r\n", whole("192.0.2.1:4096")),
        ("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", whole("255.255.255.255:65535")),
        ("PROXY TCP6 2001:db8::1 ::1 1 2\r\n", whole("[2001:db8::1]:1")),
        (
            "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
            whole("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535"),
        ),
        ("PROXY UNKNOWN\r\n", Progress::Whole(None)),
        ("PROXY UNKNOWN whatever it says\r\n", Progress::Whole(None)),
    ] {
        assert_eq!(feed(line.as_bytes()), (expected, line.len()), "{line}");
        assert_eq!(feed(format!("{line}2932\r\n").as_bytes()), (expected, line.len()), "{line}");
    }
}

#[test]
fn version_1_is_taken_at_its_word() {
    for line in [
        "PROXY TCP4 192.0.2.1 192.0.2.2 4096\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 4096 80 \r\n",
        "PROXY TCP4  192.0.2.1 192.0.2.2 4096 80\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 4096 80\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 65536 80\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 +1 80\r\n",
        "PROXY TCP4 192.0.2.256 192.0.2.2 1 80\r\n",
        "PROXY TCP4 ::1 ::1 1 80\r\n",
        "PROXY TCP6 192.0.2.1 192.0.2.2 1 80\r\n",
        "PROXY UDP4 192.0.2.1 192.0.2.2 1 80\r\n",
        "PROXY TCP4 \u{e9}92.0.2.1 192.0.2.2 1 80\r\n",
    ] {
        assert!(matches!(feed(line.as_bytes()).0, Progress::Bad(_)), "{line}");
    }
    let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(LINE_BYTES_MAX - 16));
    assert_eq!(feed(long.as_bytes()), (Progress::Whole(None), LINE_BYTES_MAX));
    let (judged, len) = feed(long.replace('\r', "x\r").as_bytes());
    assert_eq!((judged, len), (Progress::Bad("its PROXY header has no end"), LINE_BYTES_MAX));
}

#[test]
fn version_2_names_the_peer() {
    let mut inet6 = [0; 36];
    inet6[..2].copy_from_slice(&[0x20, 0x01]);
    inet6[15] = 9;
    inet6[32..34].copy_from_slice(&[1, 2]);
    let with_extras = [&INET[..], &[0x04, 0, 2, 0, 0], &[0x20, 0, 0]].concat();
    for (header, expected) in [
        (binary(0x21, 0x11, &INET), whole("192.0.2.1:4096")),
        (binary(0x21, 0x11, &with_extras), whole("192.0.2.1:4096")),
        (binary(0x21, 0x21, &inet6), whole("[2001::9]:258")),
        (binary(0x21, 0x31, &[0; 216]), Progress::Whole(None)),
        (binary(0x21, 0x00, b""), Progress::Whole(None)),
        (binary(0x21, 0x00, b"whatever"), Progress::Whole(None)),
        (binary(0x20, 0x00, b""), Progress::Whole(None)),
        (binary(0x20, 0x11, &INET), Progress::Whole(None)),
        (binary(0x20, 0xff, b"whatever"), Progress::Whole(None)),
        (binary(0x20, 0x00, &[0; BODY_BYTES_MAX]), Progress::Whole(None)),
    ] {
        assert_eq!(feed(&header), (expected, header.len()), "{header:?}");
        let len = header.len();
        assert_eq!(feed(&[header, b"2932\r\n".to_vec()].concat()), (expected, len));
    }
}

#[test]
fn version_2_is_taken_at_its_word() {
    for header in [
        binary(0x11, 0x11, &INET),
        binary(0x31, 0x11, &INET),
        binary(0x22, 0x11, &INET),
        binary(0x21, 0x12, &INET),
        binary(0x21, 0x41, &INET),
        binary(0x21, 0x01, &INET),
        binary(0x21, 0x11, &INET[..11]),
        binary(0x21, 0x21, &INET),
        binary(0x21, 0x31, &[0; 215]),
        binary(0x21, 0x11, &[&INET[..], &[4, 0]].concat()),
        binary(0x21, 0x11, &[&INET[..], &[4, 0, 2, 0]].concat()),
        binary(0x20, 0x00, &[0; BODY_BYTES_MAX + 1]),
    ] {
        assert!(matches!(feed(&header).0, Progress::Bad(_)), "{header:?}");
    }
}

#[test]
fn what_begins_otherwise_is_refused_at_its_first_wrong_byte() {
    for start in ["2", "PROXYTCP4", "proxy TCP4", "GET / HTTP/1.1", "\r\n\r\n\0\r\nQUIT\r", "\n", "\x16\x03"]
    {
        let judged = (1..=start.len())
            .map(|len| read(&start.as_bytes()[..len]))
            .find(|judged| !matches!(judged, Progress::Needs(_)));
        assert!(matches!(judged, Some(Progress::Bad(_))), "{start}");
    }
}

proptest! {
    #[test]
    fn whatever_comes_is_judged(bytes: Vec<u8>, kind in 0..3usize) {
        let start: &[u8] = [&b""[..], NAME, SIGNATURE][kind];
        let bytes = [start, &bytes].concat();
        let (judged, len) = feed(&bytes);
        prop_assert!(len <= bytes.len());
        // Once judged, what comes behind changes nothing.
        if !matches!(judged, Progress::Needs(_)) {
            prop_assert_eq!(read(&bytes), judged);
        }
    }

    #[test]
    fn a_cut_header_waits_for_its_rest(cut in 0usize..28, v1: bool) {
        let header = if v1 { b"PROXY TCP4 1.2.3.4 5.6.7.8 9 10\r\n".to_vec() } else { binary(0x21, 0x11, &INET) };
        let (judged, _) = feed(&header[..cut.min(header.len() - 1)]);
        prop_assert!(matches!(judged, Progress::Needs(_)), "{:?}", judged);
    }
}

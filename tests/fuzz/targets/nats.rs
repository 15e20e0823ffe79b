//! What a NATS server sends: its protocol, blocks, and the chain of blocks (SPEC section 11).
//!
//! The first byte of an input says how the rest is taken.
//!
//! - As bytes of the protocol: the codec agrees with a second reading of it, and no beginning of a message is taken for a message.
//! - As all that a server sends to an edge or a sequencer: it does the same however these bytes are cut into reads.
//! - As blocks of [`BLOCK`] bytes, which are sealed here, since nobody guesses a checksum: the events that are applied make one chain.
//! - As a block and as a place: whatever is damaged is refused, and the rest is the same after writing it again.

use fortnight::internals::{
    nats::{
        Epoch,
        block::{BLOCK_HEADER, Header, Kind, edges},
        codec::{Received, decode},
        connection::Credentials,
        log::{Due, Log, Moment, Part},
        reader::{Effect, Place},
        session::Settings,
    },
    time::SECOND,
};
use fortnight::{Cursor, SequenceNumber};

/// Bytes of an input that make a block: its kind, its number, how many are pending, its term and what is wrong with it.
const BLOCK: usize = 5;
/// Random bits of the client: its subjects begin with `_INBOX.0000000000000007`.
const RANDOM: u64 = 7;

/// Runs one input.
pub fn run(input: &[u8]) {
    let [how, rest @ ..] = input else { return };
    match how % 8 {
        0 | 1 => check_codec(rest),
        2 | 3 => check_cuts(Part::Edge, rest),
        4 => check_cuts(Part::Sequencer { first_sequence: SequenceNumber::new(1) }, rest),
        5 | 6 => check_chain(rest),
        _ => check_block(rest),
    }
}

/// Reads messages with the codec, and compares.
fn check_codec(mut bytes: &[u8]) {
    loop {
        let Ok(Some((received, len))) = decode(bytes) else { return };
        let whole = &bytes[..len];
        assert!(len > 0 && whole.ends_with(b"\n"));
        for end in 0..len {
            assert!(matches!(decode(&whole[..end]), Ok(None)), "a part is taken for a message");
        }
        let line = whole.split(|&byte| byte == b'\n').next().unwrap_or_default();
        let line = String::from_utf8_lossy(line).into_owned();
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let verb = words.first().map(|word| word.to_ascii_uppercase()).unwrap_or_default();
        match received {
            Received::Message(message) => {
                let body = &whole[line_len(whole)..len - 2];
                let total: usize = words[words.len() - 1].parse().expect("a length");
                assert_eq!(total, body.len(), "the last word is the length");
                assert_eq!([message.headers, message.payload].concat(), body);
                assert_eq!(words[2].parse(), Ok(message.sid));
                assert_eq!(
                    verb == "HMSG",
                    message.headers.len() == body.len() - message.payload.len() && verb != "MSG"
                );
                let _ = (message.status(), message.header("Nats-Sequence"));
            }
            Received::Info(_) => assert_eq!(verb, "INFO"),
            Received::Ping => assert_eq!(verb, "PING"),
            Received::Pong => assert_eq!(verb, "PONG"),
            Received::Ok => assert_eq!(verb, "+OK"),
            Received::Error(_) => assert_eq!(verb, "-ERR"),
        }
        bytes = &bytes[len..];
    }
}

fn line_len(bytes: &[u8]) -> usize {
    bytes.iter().position(|&byte| byte == b'\n').map_or(bytes.len(), |end| end + 1)
}

fn log(part: Part) -> Log {
    let settings = Settings {
        stream: "N".to_owned(),
        credentials: Credentials::None,
        over_tls: false,
        creates: part != Part::Edge,
        replicas: 3,
        bytes: 1 << 20,
        block_bytes_max: 1000,
    };
    let mut log = Log::new(settings, vec!["a:1".parse().expect("an address")], part, SECOND, 0);
    assert!(matches!(log.due(moment(), true), Some(Due::Connect(_))));
    log.connect(moment());
    log
}

fn moment() -> Moment {
    Moment { now: 1, time_ms: 1, random: RANDOM }
}

/// What came of the bytes: the effects, with what they name in place of where it lies, and what was sent.
fn take(part: Part, bytes: &[u8], mut cut: impl FnMut(usize) -> usize) -> (Vec<String>, Vec<u8>, bool) {
    let (mut log, mut done, mut sent) = (log(part), Vec::new(), Vec::new());
    let (mut range, mut failed) = (0..0, false);
    while range.end < bytes.len() && !failed {
        range.end += cut(bytes.len() - range.end);
        log.received(1);
        loop {
            match log.next(&bytes[..range.end], &mut range, 1) {
                Ok(None) => break,
                Ok(Some(Effect::Apply { lines, to })) => done.push(format!("{to} {:?}", &bytes[lines])),
                Ok(Some(Effect::Edges(payload))) => {
                    done.push(format!("{:?}", edges(&bytes[payload]).collect::<Vec<_>>()));
                }
                Ok(Some(effect)) => done.push(format!("{effect:?}")),
                Err(_) => {
                    failed = true;
                    break;
                }
            }
        }
        sent.append(log.out().expect("a connection"));
    }
    (done, sent, failed)
}

fn check_cuts(part: Part, rest: &[u8]) {
    let [step, rest @ ..] = rest else { return };
    let mut bytes = b"INFO {\"headers\":true,\"max_payload\":1048576}\r\nPONG\r\n".to_vec();
    bytes.extend_from_slice(rest);
    let whole = take(part, &bytes, |left| left);
    let step = usize::from(*step % 50) + 1;
    assert_eq!(take(part, &bytes, |left| step.min(left)), whole, "it matters how the bytes are cut");
}

/// Sends sealed blocks to an edge that has found its stream, and follows what it applies.
fn check_chain(rest: &[u8]) {
    let info = r#"{"config":{"subjects":["fortnight.N.*"],"storage":"file","discard":"old","retention":"limits","num_replicas":3},"state":{"last_seq":9},"cluster":{"leader":"a"}}"#;
    let mut bytes = b"INFO {\"headers\":true,\"max_payload\":1048576}\r\nPONG\r\n".to_vec();
    bytes.extend(answer(0, info));
    bytes.extend(answer(1, "{\"num_pending\":1}"));
    let (mut sid, mut cursor, mut previous) = (2, 1, 0);
    for block in rest.chunks_exact(BLOCK) {
        let [kind, number, pending, term, wrong] = *block else { continue };
        let kinds =
            [Kind::Events, Kind::Mark, Kind::GraphFirst, Kind::Graph, Kind::GraphLast, Kind::Resigned];
        let kind = kinds[usize::from(kind) % kinds.len()];
        let to = cursor + u128::from(kind == Kind::Events) + u128::from(wrong & 1);
        let from = cursor + u128::from(wrong >> 1 & 1);
        let epoch = Epoch::new(u64::from(wrong >> 2 & 1));
        let previous_hash = if wrong >> 3 & 1 == 1 { 99 } else { previous };
        let header = Header {
            kind,
            term: term.into(),
            epoch,
            from: Cursor::new(from),
            to: Cursor::new(to.max(from)),
            time_ms: 1,
            previous: previous_hash,
        };
        let mut payload = vec![0; BLOCK_HEADER];
        match kind {
            Kind::Events => payload.extend_from_slice(format!("{from}|B\n").as_bytes()),
            Kind::GraphLast => payload.extend_from_slice(&u64::from(number / 2).to_le_bytes()),
            _ => payload.extend_from_slice(&[number; 32]),
        }
        let hash = header.seal(&mut payload);
        if wrong >> 4 & 1 == 0 {
            (cursor, previous) = (header.to.get(), hash);
        }
        // It reads anew under another number when it has asked for something else.
        sid += u64::from(wrong >> 5 & 1);
        let head = format!("MSG s {sid} $JS.ACK.N.c.1.{number}.1.0.{} {}\r\n", pending % 4, payload.len());
        bytes.extend_from_slice(head.as_bytes());
        bytes.extend_from_slice(&payload);
        bytes.extend_from_slice(b"\r\n");
    }
    let (mut log, mut range, mut at) = (log(Part::Edge), 0..bytes.len(), None);
    while let Ok(Some(effect)) = log.next(&bytes, &mut range, 1) {
        match effect {
            Effect::Begin(_) => at = None,
            Effect::Cursor(cursor) => {
                assert_eq!(at, None, "a second beginning");
                at = Some(cursor.get());
            }
            Effect::Apply { lines, to } => {
                let line = std::str::from_utf8(&bytes[lines]).expect("a line");
                let number: u128 =
                    line.split('|').next().and_then(|number| number.parse().ok()).expect("a number");
                assert_eq!(at, Some(number), "what is applied is no chain");
                assert!(to >= Cursor::new(number));
                at = Some(to.get());
            }
            Effect::Broken(_) => return,
            Effect::Leads | Effect::Deposed(_) => panic!("an edge leads"),
            Effect::Edges(_) | Effect::Reached(_) => {}
        }
        let _ = log.out().map(std::mem::take);
    }
}

fn answer(request: u64, text: &str) -> Vec<u8> {
    format!("MSG _INBOX.{RANDOM:016x}.{request} 1 {}\r\n{text}\r\n", text.len()).into_bytes()
}

fn check_block(bytes: &[u8]) {
    if let Ok((header, hash)) = Header::open(bytes) {
        let mut again = bytes.to_vec();
        assert_eq!((header.seal(&mut again), &again[..]), (hash, bytes));
    }
    let _ = edges(bytes).count();
    if let Some(place) = std::str::from_utf8(bytes).ok().and_then(Place::parse) {
        assert_eq!(place.to_text().as_bytes(), bytes);
    }
}

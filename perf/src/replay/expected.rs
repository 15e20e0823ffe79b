//! What every user of a trace must receive: the files `NAME.expected` that the server's own replay stores.

use std::collections::HashMap;

use twox_hash::XxHash3_64;

use super::trace::unescape;

/// The stream of one connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// Bytes in all.
    pub bytes: u64,
    /// XXH3 of the bytes.
    pub digest: u64,
    /// The server closes it.
    pub closed: bool,
    /// The lines, with what is left without an end, if it is short.
    lines: Vec<Vec<u8>>,
    /// The sequence numbers of its lines otherwise.
    numbers: Vec<u64>,
}

/// What a connection has received.
#[derive(Default)]
pub struct Received {
    /// Bytes in all.
    pub bytes: u64,
    hash: XxHash3_64,
    numbers: Vec<u64>,
    /// The first lines, as many as an expectation may hold, and the last one while it has no end.
    lines: Vec<Vec<u8>>,
    open: Vec<u8>,
}

/// How many lines are kept.
const LINES_KEPT: usize = 65;

impl Received {
    /// Takes bytes in.
    pub fn push(&mut self, bytes: &[u8]) {
        use std::hash::Hasher;
        self.bytes += bytes.len() as u64;
        self.hash.write(bytes);
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            self.open.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                self.numbers.push(number(&self.open));
                if self.lines.len() < LINES_KEPT {
                    self.lines.push(std::mem::take(&mut self.open));
                }
                self.open.clear();
            }
        }
    }

    /// XXH3 of the bytes.
    pub fn digest(&self) -> u64 {
        use std::hash::Hasher;
        self.hash.finish()
    }
}

/// The sequence number of a line.
fn number(line: &[u8]) -> u64 {
    let digits = line.split(|&byte| byte == b'|').next().unwrap_or_default();
    str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).unwrap_or(u64::MAX)
}

impl Expected {
    /// The first difference, as a place, what was expected and what came. `exact`: it has read whatever the server sent
    /// from its login on; otherwise what is there must be right as far as it goes.
    pub fn compare(&self, got: &Received, exact: bool) -> Option<(String, String, String)> {
        let expected: Vec<u64> = if self.numbers.is_empty() {
            self.whole_lines().map(number).collect()
        } else {
            self.numbers.clone()
        };
        let same = expected.iter().zip(&got.numbers).take_while(|(expected, got)| expected == got).count();
        let end = expected.len().min(got.numbers.len());
        if same < end || (exact && expected.len() != got.numbers.len()) {
            let tell =
                |list: &[u64]| list.get(same).map_or("nothing more".to_owned(), |seq| format!("event {seq}"));
            return Some((format!("line {}", same + 1), tell(&expected), tell(&got.numbers)));
        }
        if let Some(line) = self.whole_lines().zip(&got.lines).position(|(expected, got)| expected != got) {
            let shown = |line: &[u8]| line.escape_ascii().to_string();
            return Some((format!("line {}", line + 1), shown(&self.lines[line]), shown(&got.lines[line])));
        }
        let whole = |bytes, digest| format!("{bytes} bytes with digest {digest:016x}");
        let (expected, got) = (whole(self.bytes, self.digest), whole(got.bytes, got.digest()));
        (exact && expected != got).then(|| ("the whole stream".to_owned(), expected, got))
    }

    fn whole_lines(&self) -> impl Iterator<Item = &[u8]> {
        self.lines.iter().map(Vec::as_slice).filter(|line| line.ends_with(b"\n"))
    }
}

/// Reads an expectation: the stream of each user, by the number of its connection.
///
/// # Errors
/// A sentence that names the line.
pub fn parse(text: &str) -> Result<HashMap<u64, Expected>, String> {
    let mut users: HashMap<u64, Expected> = HashMap::new();
    let mut current = 0;
    // What sources are told depends on the disk.
    let mut source = None;
    let mut lines = text.lines().zip(1..);
    if lines.next().map(|(line, _)| line) != Some("fortnight expectation 1") {
        return Err("line 1: this is no expectation; expected \"fortnight expectation 1\"".to_owned());
    }
    for (line, place) in lines {
        if line == "counters" {
            return Ok(users);
        }
        let read = if line.starts_with("user ") {
            source = None;
            head(line).map(|(number, user)| {
                current = number;
                users.insert(number, user);
            })
        } else if line.starts_with("source ") {
            source = Some(Expected::default());
            Some(())
        } else {
            source.as_mut().or_else(|| users.get_mut(&current)).and_then(|stream| content(line, stream))
        };
        read.ok_or_else(|| format!("line {place}: {line:?} is not understood"))?;
    }
    Err("the file ends too early; expected counters".to_owned())
}

fn head(line: &str) -> Option<(u64, Expected)> {
    let words: Vec<&str> = line.split(' ').collect();
    let &["user", user, "id", _, end, "lines", _, "bytes", bytes, "digest", digest] = &words[..] else {
        return None;
    };
    let (bytes, digest) = (bytes.parse().ok()?, u64::from_str_radix(digest, 16).ok()?);
    Some((user.parse().ok()?, Expected { bytes, digest, closed: end != "open", ..Expected::default() }))
}

fn content(line: &str, user: &mut Expected) -> Option<()> {
    if line.starts_with("at ") {
        return Some(());
    }
    if let Some(ranges) = line.strip_prefix("events ") {
        for range in ranges.split(' ') {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            user.numbers.extend(first.parse::<u64>().ok()?..=last.parse().ok()?);
        }
        return Some(());
    }
    let end: &[u8] = match line.as_bytes().first()? {
        b'=' => b"\r\n",
        b'-' => b"\n",
        b'+' => b"",
        _ => return None,
    };
    if user.lines.last().is_none_or(|line| line.ends_with(b"\n")) {
        user.lines.push(Vec::new());
    }
    let last = user.lines.last_mut()?;
    last.extend_from_slice(&unescape(&line.as_bytes()[1..])?);
    last.extend_from_slice(end);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "fortnight expectation 1\nuser 1 id 7 open lines 2 bytes 9 digest 0\nat 5\n=1|B\n-2|B\n\
                        user 2 id none closed lines 70 bytes 0 digest 0\nevents 1-69 80\ncounters\nx 1\n";

    fn received(text: &str) -> Received {
        let mut received = Received::default();
        // In pieces that cut through lines.
        text.as_bytes().chunks(3).for_each(|piece| received.push(piece));
        received
    }

    #[test]
    fn a_short_stream_is_compared_line_by_line() {
        let mut expected = parse(TEXT).unwrap()[&1].clone();
        expected.digest = XxHash3_64::oneshot(b"1|B\r\n2|B\n");
        assert_eq!(expected.compare(&received("1|B\r\n2|B\n"), true), None);
        let differs = |text: &str, exact| expected.compare(&received(text), exact).unwrap().0;
        assert_eq!(differs("1|B\r\n2|B\r\n", true), "line 2");
        assert_eq!(differs("1|B\r\n3|B\n", true), "line 2");
        assert_eq!(differs("1|B\r\n", true), "line 2");
        assert_eq!(differs("1|B\r\n2|B\n3", true), "the whole stream");
        assert_eq!(expected.compare(&received("1|B\r\n"), false), None);
        assert_eq!(differs("2|B\r\n", false), "line 1");
    }

    #[test]
    fn a_long_stream_is_compared_event_by_event() {
        let expected = parse(TEXT).unwrap()[&2].clone();
        assert!(expected.closed);
        let stream: String = (1..=69).chain([81]).map(|seq| format!("{seq}|B\n")).collect();
        let difference = expected.compare(&received(&stream), true).unwrap();
        assert_eq!(difference, ("line 70".to_owned(), "event 80".to_owned(), "event 81".to_owned()));
    }

    #[test]
    fn the_digest_is_that_of_the_reference() {
        // The sum of nothing, as the reference implementation's command line prints it.
        assert_eq!(Received::default().digest(), 0x2d06_8005_38d3_94c2);
    }
}

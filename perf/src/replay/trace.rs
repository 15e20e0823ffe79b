//! Reads recorded traces, record by record. The format is documented with the server, in its module `trace`.

use std::io::{BufRead, Read};

/// Longest line that is taken for one.
const LINE_MAX: u64 = 2 << 20;
/// Bytes of a block that are handed out at once.
const BLOCK_MAX: u64 = 1 << 20;

/// A connection of the trace: sources and users are numbered each for themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionId {
    /// It is an event source.
    pub source: bool,
    /// Its number.
    pub number: u64,
}

/// An action in a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// A connection is opened.
    Connects,
    /// Bytes are sent.
    Sends(Vec<u8>),
    /// Nothing more is sent.
    Finishes,
    /// The connection is closed.
    Closes,
    /// The connection is reset.
    Resets,
    /// The server's bytes are read up to this number in all.
    Takes(u64),
}

/// Something that happens at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Microseconds since the start.
    pub at: u64,
    /// Who does what; `None`: the server is told to end.
    pub action: Option<(ConnectionId, Action)>,
}

/// A trace that is being read.
#[derive(Debug)]
pub struct Trace<R> {
    input: R,
    /// The line that is read next, without its end; `None` at the end of the file.
    line: Option<Vec<u8>>,
    lines: u64,
    /// The time of the last step.
    at: u64,
    /// The options that the server should have.
    pub options: Vec<(String, String)>,
    /// The next step, if it has been looked at.
    peeked: Option<Step>,
    /// Who sends the rest of a block.
    block: Option<(u64, ConnectionId, u64)>,
}

impl<R: BufRead> Trace<R> {
    /// Begins to read.
    ///
    /// # Errors
    /// A sentence that names the line.
    pub fn new(input: R) -> Result<Trace<R>, String> {
        let mut trace =
            Trace { input, line: None, lines: 0, at: 0, options: Vec::new(), peeked: None, block: None };
        trace.advance()?;
        if trace.line.as_deref() != Some(b"fortnight trace 1") {
            return Err(trace.wrong("this is no trace; expected \"fortnight trace 1\""));
        }
        trace.advance()?;
        while let Some(line) = &trace.line {
            let text = String::from_utf8_lossy(line);
            if let Some((name, value)) = text.strip_prefix("option ").and_then(|text| text.split_once(' ')) {
                trace.options.push((name.to_owned(), value.to_owned()));
            } else if !is_note(line) {
                break;
            }
            trace.advance()?;
        }
        Ok(trace)
    }

    /// The next step, which stays the next one.
    ///
    /// # Errors
    /// A sentence that names the line.
    pub fn peek_step(&mut self) -> Result<Option<&Step>, String> {
        if self.peeked.is_none() {
            self.peeked = self.read_step()?;
        }
        Ok(self.peeked.as_ref())
    }

    /// The next step.
    ///
    /// # Errors
    /// A sentence that names the line.
    pub fn next_step(&mut self) -> Result<Option<Step>, String> {
        match self.peeked.take() {
            None => self.read_step(),
            peeked => Ok(peeked),
        }
    }

    fn read_step(&mut self) -> Result<Option<Step>, String> {
        if let Some((at, id, left)) = self.block.take() {
            return self.read_block(at, id, left).map(Some);
        }
        while self.line.as_deref().is_some_and(is_note) {
            self.advance()?;
        }
        let Some(line) = self.line.take() else { return Ok(None) };
        let text = String::from_utf8_lossy(&line).into_owned();
        let unknown = |trace: &Self| trace.wrong(&format!("{text:?} is no record"));
        let words: Vec<&str> = text.split(' ').collect();
        let number = |word: &str| word.parse::<u64>().ok();
        let &[at, ref rest @ ..] = &words[..] else { return Err(unknown(self)) };
        let at = number(at).ok_or_else(|| unknown(self))?;
        if at < self.at {
            return Err(self.wrong("time runs backwards"));
        }
        self.at = at;
        let (source, action) = match rest {
            ["signal"] => {
                self.advance()?;
                return Ok(Some(Step { at, action: None }));
            }
            ["killed" | "starts"] | ["power" | "disk", ..] => {
                return Err(self.wrong(&format!(
                    "{text:?} is for `fortnight replay`, which has the disk in memory; expected a trace of one life"
                )));
            }
            ["source", action @ ..] => (true, action),
            ["user", action @ ..] => (false, action),
            _ => return Err(unknown(self)),
        };
        let &[id, ref action @ ..] = action else { return Err(unknown(self)) };
        let id = ConnectionId { source, number: number(id).ok_or_else(|| unknown(self))? };
        let action = match action {
            ["connects"] => Action::Connects,
            ["finishes"] => Action::Finishes,
            ["closes"] => Action::Closes,
            ["resets"] => Action::Resets,
            ["takes", "all"] => Action::Takes(u64::MAX),
            ["takes", bytes] => Action::Takes(number(bytes).ok_or_else(|| unknown(self))?),
            ["sends"] => {
                self.advance()?;
                let bytes = self.read_lines()?;
                return Ok(Some(Step { at, action: Some((id, Action::Sends(bytes))) }));
            }
            ["sends", bytes, "bytes"] => {
                let left = number(bytes).ok_or_else(|| unknown(self))?;
                return self.read_block(at, id, left).map(Some);
            }
            _ => return Err(unknown(self)),
        };
        self.advance()?;
        Ok(Some(Step { at, action: Some((id, action)) }))
    }

    fn read_block(&mut self, at: u64, id: ConnectionId, left: u64) -> Result<Step, String> {
        let now = left.min(BLOCK_MAX);
        let mut bytes = Vec::new();
        let read = self.input.by_ref().take(now).read_to_end(&mut bytes);
        self.lines += bytes.iter().filter(|&&byte| byte == b'\n').count() as u64;
        if read.map_err(|e| self.wrong(&e.to_string()))? as u64 != now {
            return Err(self.wrong("the file ends in the middle of a block"));
        }
        if left > now {
            self.block = Some((at, id, left - now));
        } else {
            self.advance()?;
            if self.line.as_deref() != Some(b"") {
                return Err(self.wrong("the block does not end where its first line says"));
            }
            self.advance()?;
        }
        Ok(Step { at, action: Some((id, Action::Sends(bytes))) })
    }

    fn read_lines(&mut self) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        while let Some(line) = &self.line {
            let end: &[u8] = match line.first() {
                Some(b'=') => b"\r\n",
                Some(b'-') => b"\n",
                Some(b'+') => b"",
                _ if is_note(line) => {
                    self.advance()?;
                    continue;
                }
                _ => break,
            };
            let piece = unescape(&line[1..]).ok_or_else(|| self.wrong("an escape is not understood"))?;
            bytes.extend_from_slice(&piece);
            bytes.extend_from_slice(end);
            self.advance()?;
        }
        Ok(bytes)
    }

    fn advance(&mut self) -> Result<(), String> {
        let mut line = Vec::new();
        let read = self.input.by_ref().take(LINE_MAX).read_until(b'\n', &mut line);
        self.lines += 1;
        read.map_err(|e| self.wrong(&e.to_string()))?;
        self.line = match line.pop() {
            None => None,
            Some(b'\n') => Some(line),
            Some(_) => return Err(self.wrong("the line has no end")),
        };
        Ok(())
    }

    fn wrong(&self, what: &str) -> String {
        format!("line {}: {what}", self.lines)
    }
}

fn is_note(line: &[u8]) -> bool {
    line.is_empty() || line.starts_with(b"#")
}

/// The bytes that the text of a data line stands for.
pub fn unescape(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.iter().copied();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'\\' => match rest.next()? {
                b'r' => b'\r',
                b'n' => b'\n',
                b't' => b'\t',
                b'\\' => b'\\',
                b'x' => {
                    let mut digit = || char::from(rest.next()?).to_digit(16);
                    (digit()? * 16 + digit()?) as u8
                }
                _ => return None,
            },
            byte => byte,
        });
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(text: &str) -> Result<Vec<Step>, String> {
        let mut trace = Trace::new(text.as_bytes())?;
        let mut steps = Vec::new();
        while let Some(step) = trace.next_step()? {
            steps.push(step);
        }
        Ok(steps)
    }

    #[test]
    fn lines_and_blocks_are_read() {
        let text = "fortnight trace 1\noption eventTimeoutMs -1\n# note\n\n0 user 3 connects\n5 user 3 sends\n\
                    =7\\x00\n# note\n-\\\\\n+x\n6 source 1 sends 6 bytes\n1|B\n2|\n7 user 3 takes all\n9 signal\n";
        assert_eq!(
            Trace::new(text.as_bytes()).unwrap().options,
            [("eventTimeoutMs".to_owned(), "-1".to_owned())]
        );
        let user = ConnectionId { source: false, number: 3 };
        let source = ConnectionId { source: true, number: 1 };
        let step = |at, id, action| Step { at, action: Some((id, action)) };
        assert_eq!(
            steps(text).unwrap(),
            [
                step(0, user, Action::Connects),
                step(5, user, Action::Sends(b"7\0\r\n\\\nx".to_vec())),
                step(6, source, Action::Sends(b"1|B\n2|".to_vec())),
                step(7, user, Action::Takes(u64::MAX)),
                Step { at: 9, action: None },
            ]
        );
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (text, line) in [
            ("", 1),
            ("fortnight trace 2\n", 1),
            ("fortnight trace 1\n0 user 1 jumps\n", 2),
            ("fortnight trace 1\n5 user 1 connects\n4 user 1 closes\n", 3),
            ("fortnight trace 1\noption journalDirectory x\n0 killed\n", 3),
            ("fortnight trace 1\noption journalDirectory x\n0 disk takes 5\n", 3),
            ("fortnight trace 1\n0 user 1 connects", 2),
            ("fortnight trace 1\n0 user 1 sends\n=\\q\n", 3),
            ("fortnight trace 1\n0 user 1 sends 5 bytes\n123456\n", 3),
        ] {
            let error = steps(text).unwrap_err();
            assert!(error.starts_with(&format!("line {line}: ")), "{error}");
        }
    }
}

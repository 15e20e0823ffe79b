//! An exact copy of the follow graph at one place of the stream, taken over many turns while events go on.
//!
//! The engine walks its graph in slices and names each edge as it is at that moment. What is followed and unfollowed meanwhile
//! is noted here as well. The last change of an edge decides, so the edges that were walked and the changes together are
//! the graph at the end of the walk, and at no earlier place.

use crate::engine::event::{Kind, parse_line};
use crate::user_id::UserId;
use hashbrown::HashMap;
use std::{io::Write, rc::Rc};

/// A copy that is being taken. An edge is a pair of follower and followed.
#[derive(Debug, Default)]
pub(crate) struct GraphCopy {
    edges: Vec<(UserId, UserId)>,
    /// Edges that were followed (true) or unfollowed since the walk began.
    changes: HashMap<(UserId, UserId), bool>,
}

impl GraphCopy {
    /// The walk has come across an edge.
    pub(crate) fn add(&mut self, follower: UserId, followed: UserId) {
        self.edges.push((follower, followed));
    }

    /// These lines have been released since the walk began.
    pub(crate) fn note(&mut self, lines: &[u8]) {
        for line in lines.split(|&byte| byte == b'\n') {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            match parse_line(line) {
                Ok(event) if matches!(event.kind, Kind::Follow | Kind::Unfollow) => {
                    self.changes.insert((event.from, event.to), event.kind == Kind::Follow);
                }
                _ => {}
            }
        }
    }

    /// The walk is complete: the graph as it is now.
    #[must_use]
    pub(crate) fn complete(self) -> GraphLines {
        let Self { mut edges, changes } = self;
        edges.retain(|edge| !changes.contains_key(edge));
        edges.extend(changes.into_iter().filter(|&(_, follows)| follows).map(|(edge, _)| edge));
        edges.sort_unstable();
        edges.dedup();
        GraphLines { edges: edges.into(), written: 0 }
    }
}

/// A graph that is being sent, one line `=|60|50` for each edge.
#[derive(Clone, Debug)]
pub(crate) struct GraphLines {
    /// Shared by all who are sent this graph.
    edges: Rc<[(UserId, UserId)]>,
    written: usize,
}

impl GraphLines {
    /// Edges that have not been written.
    #[must_use]
    pub(crate) fn left(&self) -> usize {
        self.edges.len() - self.written
    }

    /// Appends the lines of some edges to `target`, until it has `bytes_max` bytes or more. Says whether these were the last.
    pub(crate) fn write(&mut self, target: &mut Vec<u8>, line_end: &str, bytes_max: usize) -> bool {
        while target.len() < bytes_max
            && let Some((follower, followed)) = self.edges.get(self.written)
        {
            // Writing to a vector cannot fail.
            let _ = write!(target, "=|{follower}|{followed}{line_end}");
            self.written += 1;
        }
        self.left() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(copy: GraphCopy, piece: usize) -> String {
        let (mut lines, mut all) = (copy.complete(), Vec::new());
        loop {
            let mut bytes = Vec::new();
            let last = lines.write(&mut bytes, "\n", piece);
            all.extend(bytes);
            if last {
                return String::from_utf8(all).unwrap();
            }
        }
    }

    #[test]
    fn the_last_change_of_an_edge_decides() {
        let mut copy = GraphCopy::default();
        let [three, four, five, six] = [3, 4, 5, 6].map(UserId::new);
        copy.add(UserId::new(1), UserId::new(2));
        copy.add(three, four);
        copy.note(b"7|U|1|2\n8|F|5|6\r\n9|U|5|6\n10|S|3\n11|F|7|8\n");
        copy.add(five, six);
        copy.add(three, four);
        copy.note(b"12|F|1|2\n13|U|3|4\n14|F|3|4\n");
        for piece in [1, 10, 1000] {
            let mut again = GraphCopy::default();
            again.edges.clone_from(&copy.edges);
            again.changes.clone_from(&copy.changes);
            assert_eq!(text(again, piece), "=|1|2\n=|3|4\n=|7|8\n");
        }
    }

    #[test]
    fn an_empty_graph_has_no_lines() {
        assert_eq!(text(GraphCopy::default(), 1), "");
    }
}

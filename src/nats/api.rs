//! Requests to JetStream and its answers: subjects and JSON.

use super::codec::Message;
use serde_json::{Value, json};

/// The error of a message that is not behind the one that it expects.
const WRONG_LAST_SEQUENCE: u64 = 10071;
/// The error of a stream that there is not.
const NO_STREAM: u64 = 10059;
/// The error of a stream that another client has made meanwhile.
const NAME_IN_USE: u64 = 10058;
/// How often a consumer says that it is there, in nanoseconds.
const HEARTBEAT: u64 = 1_000_000_000;
/// After this number of nanoseconds without a listener the consumer ends.
const INACTIVE: u64 = 10_000_000_000;

/// The message that a reader begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// The newest one that ends a snapshot.
    LastGraph,
    /// The message with this number, or the first one behind it that there is.
    Message(u64),
}

/// The meaning of a refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The message is not behind the one that it expects.
    WrongLast,
    /// There is no such stream.
    NoStream,
    /// There is one by now.
    NameInUse,
    /// No server could answer: JetStream is off, or the stream has no leader. The request had no effect.
    Nobody,
    /// Anything else, in words.
    Other(String),
}

/// The known state of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamInfo {
    /// The number of the last message, as far as the server that answers knows. Without a leader that may be long ago.
    pub last: u64,
    /// The stream has a leader, or needs none.
    pub has_leader: bool,
    /// Replicas.
    pub replicas: u64,
}

/// The subject that blocks are published on.
#[must_use]
pub fn blocks(stream: &str) -> String {
    format!("fortnight.{stream}.blocks")
}

/// The subject of blocks that end a snapshot.
#[must_use]
pub fn graphs(stream: &str) -> String {
    format!("fortnight.{stream}.graphs")
}

/// The subject for asking about a stream.
#[must_use]
pub fn info(stream: &str) -> String {
    format!("$JS.API.STREAM.INFO.{stream}")
}

/// Subject and body for making a stream.
#[must_use]
pub fn create(stream: &str, replicas: u64, bytes: u64) -> (String, String) {
    let body = json!({
        "name": stream,
        "description": "released events of Fortnight",
        "subjects": [format!("fortnight.{stream}.*")],
        "retention": "limits",
        "storage": "file",
        "discard": "old",
        "num_replicas": replicas,
        "max_bytes": bytes,
        "max_consumers": -1,
        "max_msgs": -1,
        "max_age": 0,
        "deny_delete": true,
        "deny_purge": true,
    });
    (format!("$JS.API.STREAM.CREATE.{stream}"), body.to_string())
}

/// Subject and body for having messages sent to the subject `deliver`, in order, as fast as they are taken.
#[must_use]
pub fn consume(stream: &str, name: &str, deliver: &str, from: From) -> (String, String) {
    let mut config = json!({
        "name": name,
        "deliver_subject": deliver,
        "ack_policy": "none",
        "replay_policy": "instant",
        "max_deliver": 1,
        "flow_control": true,
        "idle_heartbeat": HEARTBEAT,
        "inactive_threshold": INACTIVE,
        "mem_storage": true,
        "num_replicas": 1,
    });
    let action = match from {
        From::LastGraph => {
            config["deliver_policy"] = "last".into();
            config["filter_subject"] = graphs(stream).into();
            format!("$JS.API.CONSUMER.CREATE.{stream}.{name}.{}", graphs(stream))
        }
        From::Message(number) => {
            config["deliver_policy"] = "by_start_sequence".into();
            config["opt_start_seq"] = number.max(1).into();
            format!("$JS.API.CONSUMER.CREATE.{stream}.{name}")
        }
    };
    (action, json!({ "stream_name": stream, "config": config, "action": "create" }).to_string())
}

/// The subject that ends the delivery which [`consume`] has asked for under this name.
#[must_use]
pub fn consume_no_more(stream: &str, name: &str) -> String {
    format!("$JS.API.CONSUMER.DELETE.{stream}.{name}")
}

/// Reads an answer.
///
/// # Errors
///
/// What it refuses.
pub fn answer(message: &Message<'_>) -> Result<Value, Refusal> {
    if message.status() == Some(503) {
        return Err(Refusal::Nobody);
    }
    let answer: Value = serde_json::from_slice(message.payload)
        .map_err(|_| Refusal::Other("an answer of JetStream is no JSON".to_owned()))?;
    let error = &answer["error"];
    if error.is_null() {
        return Ok(answer);
    }
    Err(match error["err_code"].as_u64() {
        Some(WRONG_LAST_SEQUENCE) => Refusal::WrongLast,
        Some(NO_STREAM) => Refusal::NoStream,
        Some(NAME_IN_USE) => Refusal::NameInUse,
        code => {
            let words = error["description"].as_str().unwrap_or("an error without a description");
            Refusal::Other(format!("JetStream says: {words} ({})", code.unwrap_or(0)))
        }
    })
}

/// Reads the description of a stream, and checks that it keeps its messages.
///
/// # Errors
///
/// What is wrong with it, in a clause.
pub fn stream_info(answer: &Value, stream: &str) -> Result<StreamInfo, String> {
    let (config, state, cluster) = (&answer["config"], &answer["state"], &answer["cluster"]);
    let subject = format!("fortnight.{stream}.*");
    let subjects = config["subjects"].as_array();
    if !subjects.is_some_and(|subjects| subjects.iter().any(|found| *found == subject)) {
        return Err(format!("the stream {stream} is not Fortnight's: its subjects are not {subject}"));
    }
    if config["storage"] != "file" || config["discard"] != "old" || config["retention"] != "limits" {
        return Err(format!(
            "the stream {stream} must have storage file, retention limits and discard old; it was made with other settings"
        ));
    }
    // Each would lose what was confirmed, or take out messages from between others.
    let limits = ["max_age", "max_msgs_per_subject"].map(|name| config[name].as_i64().unwrap_or(0) > 0);
    if config["no_ack"] == true || config["persist_mode"] == "async" || limits != [false; 2] {
        return Err(format!(
            "the stream {stream} must have none of no_ack, persist_mode async, max_age and max_msgs_per_subject; it was made with other settings"
        ));
    }
    Ok(StreamInfo {
        last: state["last_seq"].as_u64().unwrap_or(0),
        has_leader: cluster.is_null() || cluster["leader"].as_str().is_some_and(|leader| !leader.is_empty()),
        replicas: config["num_replicas"].as_u64().unwrap_or(0),
    })
}

/// Lower versions can lose confirmed messages in a crash, with any configuration.
const SAFE_VERSION: [u64; 3] = [2, 10, 23];

/// Whether a server of this version keeps in a crash what it has confirmed, if it is configured to sync always. What is no version is
/// taken for a newer one.
#[must_use]
pub fn is_safe(version: &str) -> bool {
    let mut numbers = version.split(['.', '-']).map(str::parse);
    let mut next = || numbers.next().and_then(Result::ok);
    let (Some(major), Some(minor), Some(patch)) = (next(), next(), next()) else { return true };
    [major, minor, patch] >= SAFE_VERSION
}

/// The subject that a delivered message could be acknowledged on says where it stands: the number in the stream, and how many
/// messages there are behind it.
#[must_use]
pub fn place(reply: &[u8]) -> Option<(u64, u64)> {
    let fields: Vec<&str> = std::str::from_utf8(reply).ok()?.strip_prefix("$JS.ACK.")?.split('.').collect();
    // Older servers leave out the domain and the account.
    let (number, pending) = match fields.len() {
        7 => (fields[3], fields[6]),
        9.. => (fields[5], fields[8]),
        _ => return None,
    };
    Some((number.parse().ok()?, pending.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message<'a>(headers: &'a [u8], payload: &'a [u8]) -> Message<'a> {
        Message { subject: b"s", sid: 1, reply: None, headers, payload }
    }

    #[test]
    fn refusals_are_told_apart() {
        let refusal = |code: u64| {
            let text =
                format!("{{\"error\":{{\"code\":400,\"err_code\":{code},\"description\":\"words\"}}}}");
            answer(&message(b"", text.as_bytes())).unwrap_err()
        };
        assert_eq!(refusal(10071), Refusal::WrongLast);
        assert_eq!(refusal(10059), Refusal::NoStream);
        assert_eq!(refusal(10058), Refusal::NameInUse);
        assert_eq!(refusal(1), Refusal::Other("JetStream says: words (1)".to_owned()));
        assert_eq!(answer(&message(b"NATS/1.0 503\r\n\r\n", b"")), Err(Refusal::Nobody));
        answer(&message(b"", b"{")).unwrap_err();
        assert_eq!(answer(&message(b"", b"{\"seq\":7}")).unwrap()["seq"], 7);
    }

    #[test]
    fn a_place_is_read_in_both_forms() {
        assert_eq!(place(b"$JS.ACK.ORDERS.cons.1.22.3.1700000000.4"), Some((22, 4)));
        assert_eq!(place(b"$JS.ACK.hub.hash.ORDERS.cons.1.22.3.1700000000.4"), Some((22, 4)));
        assert_eq!(place(b"$JS.ACK._.hash.ORDERS.cons.1.22.3.1700000000.4.token"), Some((22, 4)));
        for bad in [&b"$JS.FC.x"[..], b"$JS.ACK.a.b.c", b"$JS.ACK.ORDERS.cons.1.x.3.1700000000.4"] {
            assert_eq!(place(bad), None);
        }
    }

    #[test]
    fn versions_that_lose_confirmed_messages_are_recognised() {
        for (version, safe) in [
            ("2.9.10", false),
            ("2.10.22", false),
            ("2.10.23", true),
            ("2.14.0-RC.1", true),
            ("3.0.0", true),
            ("dev", true),
        ] {
            assert_eq!(is_safe(version), safe, "{version}");
        }
    }

    #[test]
    fn a_stream_that_does_not_keep_what_it_is_given_is_refused() {
        let good = json!({
            "config": {"subjects": ["fortnight.N.*"], "storage": "file", "discard": "old", "retention": "limits", "num_replicas": 3},
            "state": {"last_seq": 9},
            "cluster": {"leader": "a"},
        });
        let info = StreamInfo { last: 9, has_leader: true, replicas: 3 };
        assert_eq!(stream_info(&good, "N"), Ok(info));
        for (field, value) in [
            ("storage", json!("memory")),
            ("discard", json!("new")),
            ("subjects", json!(["a"])),
            ("no_ack", json!(true)),
            ("persist_mode", json!("async")),
            ("max_age", json!(1)),
            ("max_msgs_per_subject", json!(1)),
        ] {
            let mut bad = good.clone();
            bad["config"][field] = value;
            stream_info(&bad, "N").unwrap_err();
        }
    }
}

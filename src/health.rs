//! `fortnight health`: asks a running server's admin interface whether it is well (SPEC section 6), for health checks
//! in places that have no other program, such as the container image.

use crate::http_client::{AdminUrl, Answer, ask};

/// Asks for `/healthz` once, within three seconds. `Ok` has the answer of a server that is well.
///
/// # Errors
///
/// One sentence that names the address and says why the server is not well, or why that is not known.
pub(crate) fn check(admin: &AdminUrl) -> Result<String, String> {
    judge(ask(admin, "/healthz")).map_err(|reason| format!("{admin}/healthz: {reason}"))
}

fn judge(answer: Result<Answer, String>) -> Result<String, String> {
    let Answer { status, body } = answer?;
    let body = printable(&body);
    if status == 200 { Ok(body) } else { Err(format!("status {status}: {body}")) }
}

/// The first line of a body, as text that is safe to show.
fn printable(body: &[u8]) -> String {
    let line = body.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let text = String::from_utf8_lossy(&line[..line.len().min(200)]);
    text.chars().filter(|character| !character.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(status: u16, body: &str) -> Result<String, String> {
        judge(Ok(Answer { status, body: body.as_bytes().to_vec() }))
    }

    #[test]
    fn well_is_status_200() {
        assert_eq!(judged(200, "ok\n"), Ok("ok".to_owned()));
    }

    #[test]
    fn anything_else_is_an_error_with_the_reason() {
        assert_eq!(judged(503, "ring_full\x1b[2J\nmore"), Err("status 503: ring_full[2J".to_owned()));
        assert_eq!(judge(Err("no answer within 3 s".to_owned())), Err("no answer within 3 s".to_owned()));
    }
}

//! What a server on this machine says about itself: the metrics of its admin port.

use std::io::{Error, Read, Write};
use std::net::{TcpListener, TcpStream};

/// The metrics at one moment.
pub(super) struct Metrics(String);

/// A port that nothing listens on.
///
/// # Errors
/// A sentence, if there is none.
pub(super) fn free_port() -> Result<u16, String> {
    let found = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    Ok(found.map_err(|error| format!("a free port: {error}"))?.port())
}

impl Metrics {
    /// Reads them from the server with this admin port.
    ///
    /// # Errors
    /// A sentence that names the admin port.
    pub(super) fn of(port: u16) -> Result<Metrics, String> {
        let failed = |error: Error| format!("the admin port: {error}");
        let mut stream = TcpStream::connect(("127.0.0.1", port)).map_err(failed)?;
        let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).map_err(failed)?;
        let mut text = String::new();
        stream.read_to_string(&mut text).map_err(failed)?;
        Ok(Metrics(text))
    }

    /// A metric by its name, with its labels if it has any.
    ///
    /// # Errors
    /// A sentence that names the metric.
    pub(super) fn value(&self, name: &str) -> Result<f64, String> {
        let line = self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let number = line.and_then(|value| value.trim().parse().ok());
        number.ok_or_else(|| format!("the admin port: {name} is not among the metrics"))
    }

    /// The upper bounds of a histogram's buckets in seconds, and how many times are not longer.
    fn buckets(&self, name: &str) -> Vec<(f64, f64)> {
        let begin = format!("{name}_bucket{{le=\"");
        let lines = self.0.lines().filter_map(|line| line.strip_prefix(&begin)?.split_once("\"} "));
        lines.filter_map(|(bound, count)| Some((bound.parse().ok()?, count.trim().parse().ok()?))).collect()
    }

    /// The quantile of a histogram in seconds, of what it has counted since `before`. Within a bucket the times are taken to be
    /// spread evenly, as Prometheus does.
    ///
    /// # Errors
    /// A sentence that names the histogram, if it has counted nothing.
    pub(super) fn quantile(&self, name: &str, share: f64, before: &Metrics) -> Result<f64, String> {
        let earlier = before.buckets(name);
        let counts = self.buckets(name).into_iter().zip(earlier);
        let counts: Vec<(f64, f64)> =
            counts.map(|((bound, now), (_, earlier))| (bound, now - earlier)).collect();
        let wanted = share * counts.last().map_or(0.0, |&(_, all)| all);
        let (mut low, mut below) = (0.0, 0.0);
        for (bound, count) in counts {
            if count >= wanted && count > 0.0 {
                let part = (wanted - below) / (count - below);
                return Ok(if bound.is_finite() { low + (bound - low) * part } else { low });
            }
            (low, below) = (bound, count);
        }
        Err(format!("the admin port: {name} has counted nothing"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_of_what_was_counted_in_between() {
        let at = |counts: [u32; 4]| {
            let bounds = ["0.001", "0.002", "0.005", "+Inf"].into_iter().zip(counts);
            let line = |(bound, count)| format!("x_seconds_bucket{{le=\"{bound}\"}} {count}\n");
            Metrics(bounds.map(line).chain(["x_seconds_count 9\n".to_owned()]).collect())
        };
        let (before, after) = (at([10, 10, 10, 10]), at([10, 60, 108, 110]));
        assert_eq!(after.value("x_seconds_count"), Ok(9.0));
        assert!(after.value("x_seconds").is_err(), "a name is not the beginning of another one");
        let quantile = |share| (after.quantile("x_seconds", share, &before).unwrap() * 1e6).round();
        assert_eq!([0.25, 0.5, 0.74, 0.99].map(quantile), [1500.0, 2000.0, 3500.0, 5000.0]);
        assert!(after.quantile("x_seconds", 0.5, &after).is_err());
    }
}

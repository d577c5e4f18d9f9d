//! A node's page of metrics, as anyone on this machine reads it.
//!
//! | function    | gives                                                         |
//! |-------------|---------------------------------------------------------------|
//! | [`page`]    | the text                                                      |
//! | [`dropped`] | of a page, packets dropped by reason, those above zero        |
//! | [`value`]   | of a page, one counter or gauge without a reason              |
//!
//! Deliberately not here: waiting for a count; whoever waits knows how long.

use std::net::SocketAddr;

use anyhow::Context;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// The body of a page that is served at `at`.
///
/// # Errors
///
/// If nobody serves it.
pub async fn page(at: SocketAddr, path: &str) -> anyhow::Result<String> {
    let mut link = TcpStream::connect(at).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n");
    link.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    link.read_to_string(&mut answer).await?;
    let (_, body) = answer.split_once("\r\n\r\n").context("no page")?;
    Ok(body.to_owned())
}

/// Counters of drops on a metrics page that are not zero.
#[must_use]
pub fn dropped(page: &str) -> Vec<(String, u64)> {
    let counter = |line: &str| {
        let rest = line.strip_prefix("lacuna_packets_dropped_total{reason=\"")?;
        let (reason, count) = rest.split_once("\"} ")?;
        let count = count.parse().ok().filter(|count| *count > 0)?;
        Some((reason.to_owned(), count))
    };
    page.lines().filter_map(counter).collect()
}

/// A counter or gauge on a metrics page that has no reasons; 0 if the page does not show it.
#[must_use]
pub fn value(page: &str, name: &str) -> u64 {
    let value = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok();
    page.lines().find_map(value).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_off_the_page() {
        let page = "# TYPE lacuna_packets_dropped_total counter\n\
                    lacuna_packets_dropped_total{reason=\"mac\"} 0\n\
                    lacuna_packets_dropped_total{reason=\"peel_queue_full\"} 12\n\
                    lacuna_packets_sent_total 5\n";
        assert_eq!(dropped(page), [("peel_queue_full".to_owned(), 12)]);
        let of = |name| value(page, name);
        assert_eq!(
            [of("lacuna_packets_sent_total"), of("lacuna_packets")],
            [5, 0]
        );
    }
}

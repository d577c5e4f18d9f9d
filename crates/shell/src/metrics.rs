//! Counters and gauges, and the page that shows them to the operator of this machine.
//!
//! | path       | what                                                                       |
//! |------------|----------------------------------------------------------------------------|
//! | `/metrics` | Prometheus text: every counter and gauge, with at most the label `reason`  |
//! | `/status`  | JSON that the program makes: its state, in words                           |
//!
//! Names and reasons are `&'static str`, so that no client, packet or address can become a label
//! (ATTACKS o01). A name that ends in `_total` only rises; any other is a gauge.

use core::{
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering},
};
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{Router, http::header, routing::get};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

type Key = (&'static str, &'static str);

/// All counters and gauges of a process. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Metrics(Arc<Mutex<BTreeMap<Key, Arc<AtomicU64>>>>);

/// One counter or gauge, to be kept where it is used often.
#[derive(Clone, Debug, Default)]
pub struct Cell(Arc<AtomicU64>);

impl Cell {
    /// Adds to it.
    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// Takes from it: gauges alone, to which as much was added before.
    pub fn sub(&self, amount: u64) {
        self.0.fetch_sub(amount, Ordering::Relaxed);
    }

    /// Sets it: gauges alone.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// What it shows.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Metrics {
    /// The counter or gauge `name` with this reason; made, at zero, if it is new. An empty
    /// reason is none.
    #[must_use]
    pub fn cell(&self, name: &'static str, reason: &'static str) -> Cell {
        let mut cells = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Cell(Arc::clone(cells.entry((name, reason)).or_default()))
    }

    /// Adds one to a counter.
    pub fn count(&self, name: &'static str, reason: &'static str) {
        self.cell(name, reason).add(1);
    }

    /// Sets a gauge.
    pub fn gauge(&self, name: &'static str, value: u64) {
        self.cell(name, "").set(value);
    }

    /// What a counter or gauge shows, all reasons together.
    #[must_use]
    pub fn sum(&self, name: &'static str) -> u64 {
        let cells = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let named = cells.iter().filter(|((known, _), _)| *known == name);
        named.map(|(_, cell)| cell.load(Ordering::Relaxed)).sum()
    }

    /// Prometheus' text.
    #[must_use]
    pub fn to_text(&self) -> String {
        let cells = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        let mut last = "";
        for ((name, reason), cell) in cells.iter() {
            if *name != last {
                let kind = if name.ends_with("_total") {
                    "counter"
                } else {
                    "gauge"
                };
                let _ = writeln!(text, "# TYPE {name} {kind}");
                last = name;
            }
            let value = cell.load(Ordering::Relaxed);
            let _ = match *reason {
                "" => writeln!(text, "{name} {value}"),
                reason => writeln!(text, "{name}{{reason=\"{reason}\"}} {value}"),
            };
        }
        text
    }
}

/// Counters of one name, for the one place that counts by their reasons: each is looked up, under the
/// lock, when it first counts.
#[derive(Debug)]
pub struct Reasons {
    metrics: Metrics,
    name: &'static str,
    cells: BTreeMap<&'static str, Cell>,
}

impl Reasons {
    /// Those called `name`.
    #[must_use]
    pub fn of(metrics: &Metrics, name: &'static str) -> Self {
        Self {
            metrics: metrics.clone(),
            name,
            cells: BTreeMap::new(),
        }
    }

    /// Adds to the counter of this reason.
    pub fn add(&mut self, reason: &'static str, amount: u64) {
        let cell = self.cells.entry(reason);
        let new = || self.metrics.cell(self.name, reason);
        cell.or_insert_with(new).add(amount);
    }
}

/// Serves both pages on `listen` until `stop`; says where, since port 0 takes a free one.
///
/// # Errors
///
/// If the address can't be listened on.
pub async fn serve(
    listen: SocketAddr,
    metrics: Metrics,
    status: impl Fn() -> Value + Clone + Send + Sync + 'static,
    stop: CancellationToken,
) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(listen).await?;
    let address = listener.local_addr()?;
    let plain = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
    let text = move || async move { (plain, metrics.to_text()) };
    let json = [(header::CONTENT_TYPE, "application/json")];
    let status = move || async move { (json, status().to_string()) };
    let pages = Router::new()
        .route("/metrics", get(text))
        .route("/status", get(status));
    let serving = axum::serve(listener, pages).with_graceful_shutdown(stop.cancelled_owned());
    tokio::spawn(async move { serving.await });
    Ok(address)
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
    };

    use super::*;

    #[test]
    fn the_text_is_sorted_and_typed() {
        let metrics = Metrics::default();
        metrics.count("lacuna_dropped_total", "pool_full");
        metrics.count("lacuna_dropped_total", "mac");
        let mut dropped = Reasons::of(&metrics, "lacuna_dropped_total");
        (0..2).for_each(|_| dropped.add("mac", 2));
        metrics.gauge("lacuna_held", 7);
        let expected = "# TYPE lacuna_dropped_total counter\n\
             lacuna_dropped_total{reason=\"mac\"} 5\n\
             lacuna_dropped_total{reason=\"pool_full\"} 1\n\
             # TYPE lacuna_held gauge\n\
             lacuna_held 7\n";
        assert_eq!(metrics.to_text(), expected);
        assert_eq!(metrics.sum("lacuna_dropped_total"), 6);
    }

    #[tokio::test]
    async fn both_pages_are_served() {
        let (metrics, stop) = (Metrics::default(), CancellationToken::new());
        metrics.gauge("lacuna_held", 7);
        let status = || serde_json::json!({"state": "ready"});
        let listen = "127.0.0.1:0".parse().unwrap();
        let address = serve(listen, metrics, status, stop.clone()).await.unwrap();
        for (path, expected) in [("/metrics", "lacuna_held 7"), ("/status", "\"ready\"")] {
            let mut socket = TcpStream::connect(address).await.unwrap();
            let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            socket.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            socket.read_to_string(&mut answer).await.unwrap();
            assert!(
                answer.starts_with("HTTP/1.1 200") && answer.contains(expected),
                "{answer}"
            );
        }
        stop.cancel();
    }
}

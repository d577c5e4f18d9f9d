//! Log lines to standard error.
//!
//! Rule OPS-1: no line at any level names a client, a mailbox, a packet or a message; types that
//! could are printed without their contents. A bad packet is a count, never a line.

use std::env;

use tracing_subscriber::{EnvFilter, filter::ParseError};

/// Overrides the program's setting, e.g. `LACUNA_LOG=debug`.
pub const VARIABLE: &str = "LACUNA_LOG";

/// What to log, read but not yet in force.
///
/// # Errors
///
/// If the filter is none, e.g. names an unknown level.
pub fn filter(setting: &str) -> Result<EnvFilter, ParseError> {
    let text = env::var(VARIABLE).unwrap_or_else(|_| setting.to_owned());
    EnvFilter::builder().parse(if text.is_empty() { "info" } else { &text })
}

/// Logs from now on to standard error; a second call changes nothing.
///
/// # Errors
///
/// As [`filter`].
pub fn start(setting: &str) -> Result<(), ParseError> {
    let filter = filter(setting)?;
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false)
        .try_init();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_read_or_refused() {
        for (text, good) in [
            ("", true),
            ("debug", true),
            ("shell=trace", true),
            ("a=b=c", false),
        ] {
            assert_eq!(filter(text).is_ok(), good, "{text}");
        }
    }
}

//! Shows on standard error how far a run has come.
//!
//! On a terminal: one line with a spinner and, where there is a total, a bar. Anywhere else: one
//! plain line a step. Standard output stays free for the result.

use core::time::Duration;
use std::io::{self, IsTerminal, Write};

use indicatif::{ProgressBar, ProgressStyle};

/// Where a run's progress is shown.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

impl Progress {
    /// A bar if standard error is a terminal, else plain lines.
    #[must_use]
    pub fn new() -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        Self { bar }
    }

    /// Begins a step of unknown length.
    pub fn step(&self, text: &str) {
        match &self.bar {
            Some(bar) => {
                bar.unset_length();
                bar.set_style(ProgressStyle::default_spinner());
                bar.set_message(text.to_owned());
            }
            None => say(text),
        }
    }

    /// Begins a step of `total` parts.
    pub fn steps(&self, text: &str, total: u64) {
        match &self.bar {
            Some(bar) => {
                bar.set_length(total);
                bar.set_position(0);
                let style = ProgressStyle::with_template("{spinner} {msg} [{bar:30}] {pos}/{len}");
                bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
                bar.set_message(text.to_owned());
            }
            None => say(&format!("{text} ({total})")),
        }
    }

    /// Of the step's parts, `done` are done.
    pub fn done(&self, done: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(done);
        }
    }

    /// A line that stays.
    pub fn note(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| say(text)),
            None => say(text),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn say(text: &str) {
    let _nobody_listens = writeln!(io::stderr(), "{text}");
}

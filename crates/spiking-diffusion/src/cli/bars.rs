//! Progress: a bar on a terminal, a line now and then anywhere else.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::say;
use crate::Progress;

/// The listener that fits where the output goes.
pub(super) fn progress() -> Box<dyn Progress> {
    if std::io::stderr().is_terminal() {
        Box::new(Bar(ProgressBar::hidden()))
    } else {
        Box::new(Lines::default())
    }
}

struct Bar(ProgressBar);

impl Progress for Bar {
    fn begin(&mut self, stage: &str, total: usize, done: usize) {
        let form = "{prefix:>8} {wide_bar} {pos}/{len} {per_sec} {msg} {eta} left";
        self.0 = ProgressBar::new(total as u64).with_position(done as u64).with_prefix(stage.to_owned());
        if let Ok(style) = ProgressStyle::with_template(form) {
            self.0.set_style(style);
        }
        self.0.reset_eta();
    }

    fn advance(&mut self, done: usize, loss: Option<f64>) {
        if let Some(loss) = loss {
            self.0.set_message(format!("loss {loss:.4}"));
        }
        self.0.set_position(done as u64);
    }

    fn end(&mut self) {
        self.0.finish();
    }

    fn message(&mut self, text: &str) {
        self.0.suspend(|| say(text));
    }
}

/// Time between two lines.
const QUIET: Duration = Duration::from_secs(10);

struct Lines {
    stage: String,
    total: usize,
    from: usize,
    started: Instant,
    last: Instant,
}

impl Default for Lines {
    fn default() -> Self {
        Self { stage: String::new(), total: 0, from: 0, started: Instant::now(), last: Instant::now() }
    }
}

impl Progress for Lines {
    fn begin(&mut self, stage: &str, total: usize, done: usize) {
        let now = Instant::now();
        *self = Self { stage: stage.to_owned(), total, from: done, started: now, last: now };
        say(&format!("{stage}: {done}/{total}"));
    }

    fn advance(&mut self, done: usize, loss: Option<f64>) {
        if self.last.elapsed() < QUIET && done < self.total {
            return;
        }
        self.last = Instant::now();
        let rate = (done - self.from.min(done)) as f64 / self.started.elapsed().as_secs_f64();
        let loss = loss.map_or(String::new(), |loss| format!(", loss {loss:.4}"));
        let left = (self.total - done.min(self.total)) as f64 / rate.max(1e-9);
        say(&format!("{}: {done}/{} ({rate:.1}/s{loss}, {left:.0} s left)", self.stage, self.total));
    }

    fn message(&mut self, text: &str) {
        say(text);
    }
}

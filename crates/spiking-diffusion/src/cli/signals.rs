//! Ctrl-C and SIGTERM: the first stops a job at its next good moment, the second at once.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use super::{bars, failed, say};
use crate::error::Error;
use crate::experiment::quoted;
use crate::{Progress, Silent};

/// Which signal has come, if one has.
#[derive(Clone, Default)]
pub(super) struct Signals {
    /// Its number, 0 before.
    caught: Arc<AtomicUsize>,
}

impl Signals {
    /// Listens from now on. Where the system does not let us, signals end the program as they always do.
    pub(super) fn listen() -> Self {
        let (signals, stopping) = (Self::default(), Arc::new(AtomicBool::new(false)));
        for signal in [SIGINT, SIGTERM] {
            // The shutdown comes first, so that it sees the flag of an earlier signal only.
            let registered = flag::register_conditional_shutdown(signal, 128 + signal, stopping.clone())
                .and_then(|_| flag::register(signal, stopping.clone()))
                .and_then(|_| flag::register_usize(signal, signals.caught.clone(), signal as usize));
            if let Err(e) = registered {
                say(&format!("warning: cannot listen to signal {signal}: {e}"));
            }
        }
        signals
    }

    /// The listener of a terminal that also hears signals.
    pub(super) fn progress(&self) -> Stoppable {
        Stoppable { inner: bars::progress(), signals: self.clone() }
    }

    /// One that hears signals and shows nothing.
    pub(super) fn silent(&self) -> Stoppable {
        Stoppable { inner: Box::new(Silent), signals: self.clone() }
    }

    /// Says what went wrong, `advice` where it was a signal, and gives the exit code that shells expect.
    pub(super) fn failure(&self, error: &Error, advice: &str) -> ExitCode {
        let signal = self.caught.load(Ordering::Relaxed);
        if signal == 0 || !matches!(error, Error::Training(snn_train::Error::Stopped { .. })) {
            return failed(error);
        }
        say(&format!("{error}; {advice}"));
        ExitCode::from(128u8.saturating_add(u8::try_from(signal).unwrap_or(0)))
    }
}

/// Passes everything on, and asks the job to stop once a signal has come.
pub(super) struct Stoppable {
    inner: Box<dyn Progress>,
    signals: Signals,
}

impl Progress for Stoppable {
    fn begin(&mut self, stage: &str, total: usize, done: usize) {
        self.inner.begin(stage, total, done);
    }

    fn advance(&mut self, done: usize, loss: Option<f64>) {
        self.inner.advance(done, loss);
    }

    fn end(&mut self) {
        self.inner.end();
    }

    fn message(&mut self, text: &str) {
        self.inner.message(text);
    }

    fn stop_requested(&self) -> bool {
        self.signals.caught.load(Ordering::Relaxed) != 0
    }
}

/// This program's command line, with a word more where it is given and lacking, as a shell takes it.
pub(super) fn command_line(word: Option<&str>) -> String {
    let mut words: Vec<String> =
        std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    words.extend(word.map(str::to_owned).filter(|word| !words.contains(word)));
    words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_stop_by_a_signal_has_its_exit_code() {
        let signals = Signals::default();
        let stopped = Error::from(snn_train::Error::Stopped { stage: "sdid".into(), done: 1, total: 2 });
        assert_eq!(signals.failure(&stopped, ""), ExitCode::FAILURE);
        assert!(!signals.progress().stop_requested());
        signals.caught.store(SIGTERM as usize, Ordering::Relaxed);
        assert!(signals.progress().stop_requested());
        assert_eq!(signals.failure(&stopped, ""), ExitCode::from(143));
        assert_eq!(signals.failure(&Error::config("a", 1, "b"), ""), ExitCode::FAILURE);
    }
}

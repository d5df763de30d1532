//! What programs say.

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{Error, ErrorKind, Result, Write};
use std::process::ExitCode;

use super::threads::leave_work_to_rayon;

/// Prints what a program was asked for, and a line break after it.
///
/// # Errors
/// Returns an error if standard output cannot be written, such as a file on a full disk. A pipe whose reader has gone (`program | head`)
/// is no error: nobody wants the rest.
pub fn print(text: &str) -> Result<()> {
    write(&mut std::io::stdout().lock(), text)
}

fn write(out: &mut dyn Write, text: &str) -> Result<()> {
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => {
            Err(Error::new(e.kind(), format!("standard output: {e}")))
        }
        _ => Ok(()),
    }
}

/// [`print`], as the end of a program.
pub(super) fn answer(text: &str) -> ExitCode {
    match print(text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => failed(&e),
    }
}

/// Says what went wrong, as the end of a program.
pub(super) fn failed(error: &dyn Display) -> ExitCode {
    say(&format!("error: {error}"));
    ExitCode::FAILURE
}

/// Runs a program that reads the words behind its name itself. Says how it is used where that was asked for (`--help`), and what went wrong.
pub fn attempt(usage: &str, work: impl FnOnce(&[OsString]) -> crate::Result<()>) -> ExitCode {
    leave_work_to_rayon();
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    if words.iter().any(|word| word == "--help" || word == "-h") {
        return answer(&format!("usage: {usage}"));
    }
    match work(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => failed(&format!("{e}\nusage: {usage}")),
    }
}

/// A line for a person. A closed pipe is no reason to stop.
pub(super) fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// A program of these arguments: help and wrong command lines end here.
pub(super) fn parsed<A: clap::Parser>(start: impl FnOnce(&A) -> ExitCode) -> ExitCode {
    leave_work_to_rayon();
    match A::try_parse() {
        Ok(arguments) => start(&arguments),
        Err(e) => usage(&e),
    }
}

/// What clap makes of a command line that it does not run: help, which was asked for, or an error.
pub(super) fn usage(e: &clap::Error) -> ExitCode {
    match e.print().and_then(|()| std::io::stdout().flush()) {
        Err(lost) if lost.kind() != ErrorKind::BrokenPipe => failed(&format!("standard output: {lost}")),
        _ => ExitCode::from(u8::try_from(e.exit_code()).unwrap_or(2)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails at once, or only when what it has taken is to be written.
    struct Failing {
        kind: ErrorKind,
        late: bool,
    }

    impl Write for Failing {
        fn write(&mut self, bytes: &[u8]) -> Result<usize> {
            if self.late { Ok(bytes.len()) } else { Err(self.kind.into()) }
        }

        fn flush(&mut self) -> Result<()> {
            Err(self.kind.into())
        }
    }

    #[test]
    fn only_a_closed_pipe_is_no_error() {
        for late in [false, true] {
            let written = |kind| write(&mut Failing { kind, late }, "text");
            assert!(written(ErrorKind::BrokenPipe).is_ok());
            for kind in [ErrorKind::StorageFull, ErrorKind::PermissionDenied, ErrorKind::WriteZero] {
                let e = written(kind).unwrap_err();
                assert_eq!(e.kind(), kind);
                assert!(e.to_string().starts_with("standard output: "), "{e}");
            }
        }
        let mut text = Vec::new();
        write(&mut text, "a\nb").unwrap();
        assert_eq!(text, b"a\nb\n");
    }
}

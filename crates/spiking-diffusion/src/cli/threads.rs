//! Candle's own threads, which would wait busily beside rayon's.

/// Starts the program again with `CANDLE_NUM_THREADS=1`, unless the variable is set. Candle reads it from the environment, which safe
/// Rust cannot change for a process that runs. The process keeps its number, so that whoever started it sees one program.
#[cfg(unix)]
pub(super) fn leave_work_to_rayon() {
    use std::env;
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    const VARIABLE: &str = "CANDLE_NUM_THREADS";
    let (None, Ok(program)) = (env::var_os(VARIABLE), env::current_exe()) else { return };
    let (mut command, mut words) = (Command::new(program), env::args_os());
    if let Some(name) = words.next() {
        command.arg0(name);
    }
    // This returns only if it fails, and then the program goes on as it is, somewhat slower.
    let _ = command.args(words).env(VARIABLE, "1").exec();
}

/// Elsewhere the variable is the user's to set.
#[cfg(not(unix))]
pub(super) fn leave_work_to_rayon() {}

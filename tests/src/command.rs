//! Running a tool to its end, with an error that says what it was and what it answered.

use std::ffi::OsStr;
use std::io::Write;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

/// Runs `program` with `arguments` and returns what it printed.
///
/// # Errors
///
/// When the program cannot be started or ends with anything but success.
pub fn run<A: AsRef<OsStr>>(program: &str, arguments: &[A]) -> Result<String> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    let output = command.output().with_context(|| missing(program))?;
    checked(&format!("{command:?}"), &output)
}

/// Runs `program` with `input` on its standard input, and returns what it printed.
///
/// # Errors
///
/// As [`run`].
pub fn run_with_input(program: &str, arguments: &[&str], input: &str) -> Result<String> {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| missing(program))?;
    let mut pipe = child
        .stdin
        .take()
        .expect("standard input was asked for as a pipe");
    pipe.write_all(input.as_bytes())
        .with_context(|| format!("writing to {program}"))?;
    drop(pipe);
    let output = child.wait_with_output()?;
    checked(&format!("{command:?} with input\n{input}"), &output)
}

fn missing(program: &str) -> String {
    format!("`{program}` does not start: install it, or see to it that it is in PATH")
}

fn checked(what: &str, output: &Output) -> Result<String> {
    if !output.status.success() {
        let talk = String::from_utf8_lossy(&output.stderr);
        bail!("{what}: {}: {}", output.status, talk.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn success_gives_the_output() {
        assert_eq!(run("echo", &["hello"]).unwrap(), "hello\n");
        assert_eq!(run_with_input("cat", &[], "hello").unwrap(), "hello");
    }

    #[test]
    fn failure_names_the_program_and_its_words() {
        let error = run("sh", &["-c", "echo broken >&2; exit 3"])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("exit status: 3") && error.ends_with("broken"),
            "{error}"
        );
        let error = run::<&str>("no-such-program", &[]).unwrap_err().to_string();
        assert!(
            error.contains("`no-such-program` does not start"),
            "{error}"
        );
    }
}

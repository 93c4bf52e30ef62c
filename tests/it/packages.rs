//! What the program is installed with: completions and manual pages.

mod shells;

use std::process::Command;

/// Runs it to its end: whether it succeeded, and all that it wrote.
fn output(command: &mut Command) -> (bool, String) {
    let output =
        command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; run this by ./tests/run"));
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

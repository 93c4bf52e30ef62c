//! Completions and manual pages.

use std::path::Path;
use std::process::Command;

use super::output;
use crate::cli::{hookstream, run};

/// Every command of the help.
fn commands() -> Vec<String> {
    let (_, help, _) = run(hookstream(Path::new("/")).arg("--help"));
    let (_, groups) = help.split_once("\nRun:\n").unwrap();
    let (groups, _) = groups.split_once("\nOptions:\n").unwrap();
    let lines = groups.lines().filter_map(|line| line.strip_prefix("  "));
    let names: Vec<String> = lines.map(|line| line.split_whitespace().next().unwrap().to_owned()).collect();
    assert!(names.len() >= 13, "{names:?}");
    names
}

fn completions(shell: &str) -> String {
    let (code, script, stderr) = run(hookstream(Path::new("/")).args(["completions", shell]));
    assert_eq!(code, 0, "{stderr}");
    script
}

#[test]
fn packages_completions_of_every_shell_contain_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = completions(shell);
        for command in commands() {
            assert!(script.contains(&command), "{shell}: {command} is missing");
        }
        assert!(script.contains("drain-only"), "{shell}: the options of serve are missing");
    }
}

#[test]
fn packages_completions_complete_in_bash() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("script"), completions("bash")).unwrap();
    let complete = |words: &str| {
        let typed = format!(
            "source ./script && COMP_WORDS=({words}) && COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)) && \
             _hookstream hookstream \"${{COMP_WORDS[-1]}}\" \"${{COMP_WORDS[-2]}}\" && echo \"${{COMPREPLY[@]}}\""
        );
        let (passed, text) =
            output(Command::new("bash").args(["-euc", &typed]).current_dir(directory.path()));
        assert!(passed, "{text}");
        text
    };
    assert_eq!(complete("hookstream sta"), "status\n");
    assert_eq!(complete("hookstream serve --dr"), "--drain-only\n");
    assert_eq!(complete("hookstream spool req"), "requeue\n");
}

#[test]
fn packages_manual_has_a_page_for_every_command() {
    let directory = tempfile::tempdir().unwrap();
    let pages = directory.path().join("share/man1");
    let (code, _, stderr) = run(hookstream(directory.path()).args(["man", "--dir", "share/man1"]));
    assert_eq!(code, 0, "{stderr}");
    let page = |name: &str| std::fs::read_to_string(pages.join(name)).unwrap();
    let main = page("hookstream.1");
    for command in commands() {
        let text = page(&format!("hookstream-{command}.1"));
        let named = text.contains(&format!("hookstream {command}"))
            || text.contains(&format!("hookstream\\-{command}"));
        assert!(named, "{command}: {text}");
        assert!(main.contains(&format!("hookstream\\-{command}(1)")), "{command} is not in hookstream.1");
    }
    assert!(page("hookstream-spool-requeue.1").contains("\\-\\-apply"));
    let (_, printed, _) = run(hookstream(directory.path()).arg("man"));
    assert_eq!(printed, main);

    // roff swallows a line of text that looks like a request.
    const REQUESTS: [&str; 13] =
        [".TH", ".SH", ".TP", ".PP", ".IP", ".RS", ".RE", ".B", ".br", ".nf", ".fi", ".ie", ".el"];
    for entry in std::fs::read_dir(&pages).unwrap() {
        let file = entry.unwrap().path();
        let text = std::fs::read_to_string(&file).unwrap();
        for line in text.lines().filter(|line| line.starts_with(['.', '\''])) {
            let request = line.split(' ').next().unwrap();
            assert!(REQUESTS.contains(&request), "{}: {line}", file.display());
        }
        // Without this definition all apostrophes vanish.
        assert!(text.contains(".ds Aq"), "{}", file.display());
        assert_eq!(text.matches("\n.nf\n").count(), text.matches("\n.fi\n").count(), "{}", file.display());
    }
}

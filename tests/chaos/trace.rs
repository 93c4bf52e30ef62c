//! Parses the output of `strace -f -y -o FILE` into calls with their begin and end.
//!
//! The order of the lines is enough, without a clock: strace stops a thread at the entry of a call until it has written a
//! line for it, and again at the exit. So if one call ends in an earlier line than another begins, its effect came first.
//! Strings stay as strace quotes them, which leaves letters, digits and `-` unchanged.

use std::collections::HashMap;
use std::io::BufRead;

/// The calls that [`read`] understands; `?` marks those that some machines do not have.
pub const CALLS: &str = "?mkdir,mkdirat,openat,write,writev,pwrite64,pwritev,sendto,sendmsg,fsync,fdatasync";

/// One system call.
#[derive(Debug)]
pub struct Call {
    /// The name, such as `fsync`.
    pub name: String,
    /// The file, or `socket:[N]`, of its descriptor, or of the one that it returned.
    pub at: String,
    /// The line from strace; both halves if it was interrupted.
    pub text: String,
    /// The line number of its entry: it has no effect before this.
    pub began: usize,
    /// The line number of its exit: its effect is complete after this. `None` if the trace ends before it.
    pub ended: Option<usize>,
    /// What it returned.
    pub result: i64,
}

impl Call {
    /// Whether it makes all earlier writes to its file durable.
    pub fn is_sync(&self) -> bool {
        matches!(&*self.name, "fsync" | "fdatasync") && self.result == 0
    }

    /// Whether it writes, to a file or a socket.
    pub fn is_write(&self) -> bool {
        matches!(&*self.name, "write" | "writev" | "pwrite64" | "pwritev" | "sendto" | "sendmsg")
    }
}

/// The calls that `keep` selects, in the order of their begin.
pub fn read(trace: impl BufRead, keep: impl Fn(&Call) -> bool) -> anyhow::Result<Vec<Call>> {
    let (mut calls, mut open) = (Vec::new(), HashMap::<String, Call>::new());
    for (number, line) in trace.split(b'\n').enumerate() {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let rest = rest.trim_start();
        let mut call = if let Some(more) = rest.strip_prefix("<... ") {
            let Some(mut call) = open.remove(thread) else { continue };
            call.text.push_str(more);
            call
        } else if let Some((name, _)) = rest.split_once('(').filter(|_| !rest.starts_with(['+', '-'])) {
            let (name, text) = (name.to_owned(), rest.to_owned());
            Call { name, at: String::new(), text, began: number, ended: None, result: -1 }
        } else {
            continue;
        };
        if rest.ends_with("<unfinished ...>") {
            open.insert(thread.to_owned(), call);
            continue;
        }
        call.ended = Some(number);
        finish(&mut call);
        if keep(&call) {
            calls.push(call);
        }
    }
    // A client may have received an answer whose call never returned.
    for (_, mut call) in open {
        finish(&mut call);
        if keep(&call) {
            calls.push(call);
        }
    }
    calls.sort_by_key(|call| call.began);
    Ok(calls)
}

/// Parses the result, and the file of the first descriptor or of the opened one.
fn finish(call: &mut Call) {
    let result = call.ended.and_then(|_| call.text.rsplit_once(" = ")).map_or("", |(_, result)| result);
    let number = result.split([' ', '<']).next().and_then(|text| text.parse().ok());
    let place = if call.name == "openat" { result } else { &call.text };
    let at = match &*call.name {
        "mkdir" | "mkdirat" => call.text.split('"').nth(1),
        _ => place.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map(|(at, _)| at),
    };
    call.at = at.unwrap_or_default().to_owned();
    call.result = number.unwrap_or(-1);
}

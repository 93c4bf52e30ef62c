//! Panics in the log. The standard hook prints the panic's message as plain text, between the log's JSON lines, and a
//! formatted message may quote a payload.

use std::panic::PanicHookInfo;

/// From now on a panic is one ERROR line with its thread and its place in the source; with its message only if that is
/// a literal.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|panic: &PanicHookInfo<'_>| {
        let thread = std::thread::current();
        let place = panic.location().map(ToString::to_string);
        let cause = panic.payload().downcast_ref::<&'static str>().copied();
        tracing::error!(thread = thread.name(), place, cause, "panic");
    }));
}

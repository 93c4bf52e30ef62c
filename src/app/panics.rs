//! Panics in the log. The standard hook prints the panic's message as plain text, between the log's JSON lines, and a
//! formatted message may quote a payload.

use std::any::Any;
use std::panic::PanicHookInfo;

/// From now on a panic is one ERROR line with its thread and its place in the source; with its message only if that is
/// a literal.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|panic: &PanicHookInfo<'_>| {
        let thread = std::thread::current();
        let place = panic.location().map(ToString::to_string);
        let cause = literal(panic.payload());
        tracing::error!(thread = thread.name(), place, cause, "panic");
    }));
}

/// The panic's message if it is a literal, which cannot hold a payload.
fn literal(panic: &dyn Any) -> Option<&'static str> {
    panic.downcast_ref::<&'static str>().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_message_that_may_hold_a_payload_is_not_logged() {
        let payload = String::from("payload");
        let of = |panics: Box<dyn FnOnce() + std::panic::UnwindSafe>| {
            literal(std::panic::catch_unwind(panics).unwrap_err().as_ref())
        };
        assert_eq!(of(Box::new(|| panic!("a literal"))), Some("a literal"));
        assert_eq!(of(Box::new(move || panic!("{payload}"))), None);
    }
}

//! The record key for a secret with a binding.
//!
//! The tenants of one source choose their own event ids. If the key were the id alone, a tenant could send another
//! tenant's id: consumers would drop the genuine event as a duplicate, and compaction would keep the forged one. So the
//! key identifies the tenant:
//!
//! ```text
//! secret bound to /tenant_id = "acme"   /tenant_id=acme:evt_1
//! secret bound to nothing               evt_1, but /=:/evt_1 for an id that begins with a slash
//! ```
//!
//! Pointer and text are percent-encoded, so neither contains `=` or `:`, and a key that begins with a slash has one
//! reading. The text of a binding is never empty, so an empty one belongs to nobody. The key contains the binding and
//! not the secret's name: the tenant's next secret has another name, and a retry must get the same key.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use crate::config::Binds;

const RESERVED: &AsciiSet = &CONTROLS.add(b'%').add(b'=').add(b':');

/// The prefix of the id of an unbound delivery that looks like a bound key.
const UNBOUND: &str = "/=:";

/// The key of a delivery with this id and this binding of its secret.
pub fn with_binding<'k>(bound: Option<&Binds>, id: Cow<'k, str>) -> Cow<'k, str> {
    match bound {
        Some(Binds { pointer, equals }) => {
            let part = |text| utf8_percent_encode(text, RESERVED);
            Cow::Owned(format!("{}={}:{id}", part(pointer), part(equals)))
        }
        None if id.starts_with('/') => Cow::Owned(format!("{UNBOUND}{id}")),
        None => id,
    }
}

/// The part of a key after its binding, if any: the event id or the type's own key. For a source without bindings, an
/// id that looks like a bound key is cut short, so use this for display only.
pub fn without_binding(key: &str) -> &str {
    match key.split_once(':') {
        Some((binding, id)) if binding.starts_with('/') && binding.contains('=') => id,
        _ => key,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Owner = Option<(String, String)>;

    fn key(owner: &Owner, id: &str) -> String {
        let bound = owner.clone().map(|(pointer, equals)| Binds { pointer, equals });
        with_binding(bound.as_ref(), Cow::Borrowed(id)).into_owned()
    }

    /// Parses a key of a source with bound secrets, as docs/topics.md describes it for consumers.
    fn read(key: &str) -> (Owner, String) {
        let Some((binding, id)) = key.strip_prefix('/').and_then(|_| key.split_once(':')) else {
            return (None, key.to_owned());
        };
        let text = |part| percent_encoding::percent_decode_str(part).decode_utf8().unwrap().into_owned();
        let (pointer, equals) = binding.split_once('=').unwrap();
        let owner = (!equals.is_empty()).then(|| (text(pointer), text(equals)));
        (owner, id.to_owned())
    }

    #[test]
    fn c1_a_key_identifies_the_owner_and_the_id() {
        let acme = Some(("/tenant_id".to_owned(), "acme".to_owned()));
        let odd = Some(("/a=b/c:d".to_owned(), "50% of:\n\u{fc}".to_owned()));
        for (owner, id, expected) in [
            (&acme, "evt_1", "/tenant_id=acme:evt_1"),
            (&acme, "sha256:00", "/tenant_id=acme:sha256:00"),
            (&odd, "a=b:c", "/a%3Db/c%3Ad=50%25 of%3A%0A%C3%BC:a=b:c"),
            (&None, "evt_1", "evt_1"),
            (&None, "sha256:00", "sha256:00"),
            (&None, "/tenant_id=acme:evt_1", "/=:/tenant_id=acme:evt_1"),
        ] {
            assert_eq!(key(owner, id), expected);
            assert_eq!(read(expected), (owner.clone(), id.to_owned()), "{expected}");
            assert_eq!(without_binding(expected), id, "{expected}");
        }
    }

    /// Texts in which the reserved characters are frequent.
    fn texts(least: usize) -> impl Strategy<Value = String> {
        let character = prop_oneof![
            3 => proptest::sample::select(vec!['/', '=', ':', '%', '2', '5', '3', 'A', 'D', 'a', 'b']),
            1 => any::<char>(),
        ];
        proptest::collection::vec(character, least..6).prop_map(|characters| characters.into_iter().collect())
    }

    fn owners() -> impl Strategy<Value = Owner> {
        proptest::option::weighted(0.8, (texts(0).prop_map(|text| format!("/{text}")), texts(1)))
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 20_000,
            rng_seed: proptest::test_runner::RngSeed::Fixed(1),
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        /// A key that can be parsed back cannot belong to two owners.
        #[test]
        fn c1_no_two_bindings_and_ids_share_a_key(owner in owners(), id in texts(1)) {
            let key = key(&owner, &id);
            prop_assert_eq!(read(&key), (owner, id.clone()));
            prop_assert_eq!(without_binding(&key), id);
        }
    }
}

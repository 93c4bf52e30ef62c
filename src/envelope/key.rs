//! The key of a record whose secret is bound.
//!
//! The tenants of one source choose their own event ids. If the key were the id alone, one of them could send
//! another's id: consumers would drop the genuine event as a duplicate, and compaction would leave the false one. So
//! the key says whose it is:
//!
//! ```text
//! secret bound to /tenant_id = "acme"   /tenant_id=acme:evt_1
//! secret bound to nothing               evt_1, but /=:/evt_1 for an id that begins with a slash
//! ```
//!
//! Pointer and text are percent-encoded, so that neither holds `=` or `:`: a key that begins with a slash has one
//! reading, and the text of a binding is never empty, so the empty one is nobody's. The binding is in the key rather
//! than the secret's name: the next secret of the same tenant has another name and must give a retry the same key.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use crate::config::Binds;

const RESERVED: &AsciiSet = &CONTROLS.add(b'%').add(b'=').add(b':');

/// What stands before the id of an unbound delivery that begins like a bound key.
const UNBOUND: &str = "/=:";

/// The key `id` of a delivery, with what its secret is bound to.
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

/// The event id in a key, or what the key has in its place: what stands behind a binding, if there is one. Of a
/// source whose keys have none, an id that looks like a key with a binding is cut short: for looking only.
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

    /// Reads a key of a source with bound secrets, as docs/topics.md tells consumers to.
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
    fn c1_a_key_says_whose_it_is_and_what_the_id_is() {
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

    /// Texts in which the characters that the encoding needs are common.
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

        /// What can be read back cannot be the key of two.
        #[test]
        fn c1_no_two_bindings_and_ids_share_a_key(owner in owners(), id in texts(1)) {
            let key = key(&owner, &id);
            prop_assert_eq!(read(&key), (owner, id.clone()));
            prop_assert_eq!(without_binding(&key), id);
        }
    }
}

//! The usual mistakes in copying a secret, and the keys that they make.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use zeroize::Zeroizing;

use crate::config::SecretFormat;

/// Another key that the provider may have, and how it differs from the configured one.
pub(super) struct KeyMistake {
    pub(super) key: Zeroizing<Vec<u8>>,
    /// The label of the cause.
    pub(super) kind: &'static str,
    pub(super) what: String,
    pub(super) next: &'static str,
}

/// The keys of the usual mistakes, the most likely first. `key` is the decoded secret. The text of an encoded secret is
/// encoded again from its key, which gives what the provider showed, except for omitted padding.
pub(super) fn of(format: SecretFormat, key: &[u8]) -> Vec<KeyMistake> {
    let text = Zeroizing::new(match format {
        SecretFormat::Text => key.to_vec(),
        SecretFormat::Base64 => BASE64_STANDARD.encode(key).into_bytes(),
        SecretFormat::Whsec => format!("whsec_{}", BASE64_STANDARD.encode(key)).into_bytes(),
        SecretFormat::Hex => hex::encode(key).into_bytes(),
    });
    let mut found = Vec::new();
    let mut add = |key: &[u8], kind, what: &str, next| {
        if !key.is_empty() {
            found.push(KeyMistake { key: key.to_vec().into(), kind, what: what.to_owned(), next });
        }
    };
    if format == SecretFormat::Text {
        add(
            text.trim_ascii(),
            "secret_whitespace",
            "the one configured here has white space around it",
            "write the secret without white space: `printf %s` instead of `echo`, no second newline in its file",
        );
        for end in ["\n", "\r\n"] {
            add(
                &Zeroizing::new([text.as_slice(), end.as_bytes()].concat()),
                "secret_whitespace",
                "the provider's ends with a line end",
                "set the secret at the provider again, without the line end",
            );
        }
        for quote in [b"\"", b"'"] {
            let inner = text.trim_ascii().strip_prefix(quote).and_then(|text| text.strip_suffix(quote));
            add(
                inner.unwrap_or_default(),
                "secret_whitespace",
                "the one configured here has quotes around it",
                "write the secret without quotes: some env files leave them",
            );
        }
    }
    for (read, name) in [
        (SecretFormat::Text, "plain text (secret_format = \"text\")"),
        (SecretFormat::Base64, "base64 (secret_format = \"base64\")"),
        (SecretFormat::Whsec, "`whsec_` and base64 (secret_format = \"whsec\")"),
        (SecretFormat::Hex, "hex (secret_format = \"hex\")"),
    ] {
        add(
            &read.decode(text.trim_ascii()).unwrap_or_default(),
            "secret_format",
            &format!("the provider takes its text as {name}"),
            "set signature.secret_format to what the provider documents",
        );
    }
    add(
        text.strip_prefix(b"whsec_").unwrap_or_default(),
        "secret_format",
        "the provider signs with the text after `whsec_`, without decoding it",
        "configure the secret without `whsec_`, with signature.secret_format = \"text\"",
    );
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_mistakes_are_among_the_other_keys() {
        for (format, key, what, expected) in [
            (SecretFormat::Text, " \"whsec_a2V5\"\n", "quotes", "whsec_a2V5"),
            (SecretFormat::Text, " \"whsec_a2V5\"\n", "white space", "\"whsec_a2V5\""),
            (SecretFormat::Text, "whsec_a2V5", "`whsec_` and base64", "key"),
            (SecretFormat::Text, "whsec_a2V5", "without decoding", "a2V5"),
            (SecretFormat::Hex, "key", "plain text", "6b6579"),
            (SecretFormat::Whsec, "key", "plain text", "whsec_a2V5"),
        ] {
            let found = of(format, key.as_bytes());
            let found =
                found.iter().any(|other| other.what.contains(what) && *other.key == expected.as_bytes());
            assert!(found, "{format:?} {key}: {what}");
        }
    }
}

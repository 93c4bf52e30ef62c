//! Replay of dead letters whose bodies were sent compressed.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::{Fixture, TYPES, found};
use crate::support::{batch, datagrid};

#[tokio::test]
async fn w8_a_letter_of_a_compressed_body_is_replayed_from_what_was_signed() {
    for (first, then, header) in [
        ("signed_encoded", "signed_encoded", Some("gzip")),
        ("signed_decoded", "signed_decoded", None),
        // The first delivery of a provider of which nobody knew that it compresses.
        ("as_sent", "signed_encoded", Some("gzip")),
    ] {
        let [first, mode] = [first, then].map(|mode| format!("content_encoding = \"{mode}\""));
        let before = format!("types = [\"batch_prediction.cancelled\"]\n{first}");
        let fixture = Fixture::with(&before, &format!("{TYPES}\n{mode}")).await;
        let text = batch("evt_1");
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(text.as_bytes()).unwrap();
        let body = encoder.finish().unwrap();
        let signed = if header.is_some() { &body[..] } else { text.as_bytes() };
        let signature = datagrid(signed);
        let headers = [("Datagrid-Signature", &*signature), ("Content-Encoding", "gzip")];
        let answer = fixture.service.post(&headers, body.clone()).await;
        let reason = if first.contains("as_sent") { "json_invalid" } else { "type_unknown" };
        answer.is(200, "dead_lettered", Some(reason));

        let letters = found(&fixture.service.dead_letters()).await;
        assert_eq!((letters.len(), &letters[0].value[..]), (1, signed), "{mode}: what was signed");
        assert_eq!(letters[0].headers.get("content-encoding").map(String::as_str), header, "{mode}");
        assert_eq!(
            letters[0].key == "evt_1",
            reason == "type_unknown",
            "its id is known only once it is read"
        );
        let (code, stdout, stderr) = fixture.replay(&["--all", "--apply"]).await;
        assert_eq!(code, 0, "{mode}: {stdout}{stderr}");
        let published = found(&fixture.topic("batch_prediction.completed")).await;
        assert_eq!((published.len(), &*published[0].key), (1, "evt_1"), "{mode}");
    }
}

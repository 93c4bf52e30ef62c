//! The file of pinned schema ids, with any content that a crash, a disk or another program may leave.

use hookstream::schema::IdCache;

const URL: &str = "http://registry.example.com";

/// With any content, each id that is used fits into a record, and the file can be rewritten.
pub fn run(data: &[u8]) {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("pins.json"), data).unwrap();
    let mut pins = IdCache::open(directory.path(), URL);
    for subject in ["a-value", "b-value"] {
        let id = pins.get(subject, "\"string\"").map(|pin| pin.id);
        assert!(id.is_none_or(|id| (1..=0x7fff_ffff).contains(&id)), "{id:?}");
    }
    pins.put("c-value", "\"long\"", 7);
    pins.save().unwrap();
    let again = IdCache::open(directory.path(), URL);
    assert_eq!(again.get("c-value", "\"long\"").map(|pin| (pin.id, pin.lost)), Some((7, false)));
    assert_eq!(again.get("a-value", "\"string\""), pins.get("a-value", "\"string\""));
}

//! The file of pinned schema ids, as a crash, a disk or somebody else may have left it.

use hookstream::schema::IdCache;

const URL: &str = "http://registry.example.com";

/// Whatever stands there: each id that counts is one that a record can carry, and the file can be written anew.
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

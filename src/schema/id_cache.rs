//! The ids that the registry gave, kept on disk, so that the service starts while it is out.
//!
//! One small JSON file in the spool's directory, whose lock keeps other processes away:
//!
//! ```json
//! {"version":1,"registry":"https://registry.example.com",
//!  "subjects":{"datagrid.batch_prediction.completed-value":{"id":7,"fingerprint":"sha256:..."}}}
//! ```
//!
//! The fingerprint is that of the schema's text and not of Avro's canonical form: the registry gives
//! a new id where only a `doc` or a default differs, which the canonical form leaves out. The price:
//! after an edit of white space alone the pin waits for the registry, too.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use sha2::{Digest as _, Sha256};

use super::registry::is_id;
use crate::client::{JsonObject, printable};
use crate::files;

/// The file's name in the spool's directory.
const FILE: &str = "pins.json";

/// Of the file, in bytes: some 10,000 subjects.
const MAX: u64 = 4 * 1024 * 1024;

/// The only format so far.
const VERSION: u32 = 1;

/// What the registry said of one subject.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pin {
    /// The id of the schema.
    pub id: u32,
    /// `sha256:` and the hex digest of the schema's text.
    fingerprint: String,
    /// The registry was seen to resolve the id otherwise. Such a pin is not used before the registry
    /// has confirmed it: else each restart would publish a few records with the wrong id.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lost: bool,
}

/// All pins of one registry.
#[derive(Clone, Debug)]
pub struct IdCache {
    dir: PathBuf,
    content: CacheFile,
    saved: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CacheFile {
    version: u32,
    registry: String,
    #[serde(deserialize_with = "subjects")]
    subjects: BTreeMap<String, Pin>,
}

impl IdCache {
    /// Reads the pins of `registry` (its URL) from `dir`. A file that is missing, damaged, of another
    /// format or of another registry gives none, and is written anew with the first id.
    pub fn open(dir: &Path, registry: &str) -> Self {
        let path = dir.join(FILE);
        let none = CacheFile { version: VERSION, registry: registry.to_owned(), subjects: BTreeMap::new() };
        let content = match read(&path) {
            Ok(None) => none,
            Ok(Some(found)) if found.registry == registry => found,
            Ok(Some(found)) => {
                tracing::warn!(
                    file = %path.display(), theirs = shown(&found.registry), ours = shown(registry),
                    "the pinned schema ids are of another registry and not used"
                );
                none
            }
            Err(error) => {
                tracing::warn!(file = %path.display(), %error, "the pinned schema ids cannot be used");
                none
            }
        };
        Self { dir: dir.to_owned(), content, saved: true }
    }

    /// Where they stand.
    pub fn file(&self) -> PathBuf {
        self.dir.join(FILE)
    }

    /// The pin of a subject, if it is of this very text.
    pub fn get(&self, subject: &str, text: &str) -> Option<&Pin> {
        self.content.subjects.get(subject).filter(|pin| pin.fingerprint == fingerprint(text))
    }

    /// Remembers that the registry has `text` under this id. On disk only after [`Pins::save`].
    pub fn put(&mut self, subject: &str, text: &str, id: u32) {
        let pin = Pin { id, fingerprint: fingerprint(text), lost: false };
        if self.content.subjects.get(subject) != Some(&pin) {
            self.content.subjects.insert(subject.to_owned(), pin);
            self.saved = false;
        }
    }

    /// Remembers that the registry no longer has what was pinned. On disk only after [`Pins::save`].
    pub fn lose(&mut self, subject: &str) {
        if let Some(pin) = self.content.subjects.get_mut(subject)
            && !std::mem::replace(&mut pin.lost, true)
        {
            self.saved = false;
        }
    }

    /// Writes them if anything changed: durable when it returns, and old or new as a whole at any
    /// crash. Blocks.
    ///
    /// # Errors
    /// Those of the file system; the next call tries again.
    pub fn save(&mut self) -> io::Result<()> {
        if self.saved {
            return Ok(());
        }
        files::replace(&self.file(), &serde_json::to_vec_pretty(&self.content)?, 0o600)?;
        self.saved = true;
        Ok(())
    }
}

/// `None` where there is no file.
fn read(path: &Path) -> Result<Option<CacheFile>, String> {
    let text = match files::read(path, MAX) {
        Ok(text) => text,
        Err(error) if error.is_missing() => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let content: JsonObject<CacheFile> =
        serde_json::from_slice(&text).map_err(|error| format!("damaged: {error}"))?;
    match content.0.version {
        VERSION => Ok(Some(content.0)),
        other => Err(format!("its format is version {other}, and we know {VERSION} only")),
    }
}

/// Pins as they may stand in the file, each an object with an id that can be one.
fn subjects<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, Pin>, D::Error> {
    let read = BTreeMap::<String, JsonObject<Pin>>::deserialize(deserializer)?;
    let valid = |(subject, JsonObject(pin)): (String, JsonObject<Pin>)| match is_id(pin.id) {
        true => Ok((subject, pin)),
        false => Err(D::Error::custom(format!("{} is no id of a schema", pin.id))),
    };
    read.into_iter().map(valid).collect()
}

/// A registry's URL, which an earlier version may have kept with what is secret in it.
fn shown(url: &str) -> String {
    reqwest::Url::parse(url).map_or_else(|_| "no URL".to_owned(), |url| printable(&url))
}

fn fingerprint(text: &str) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(text)))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const URL: &str = "http://registry.example.com";

    /// Written first, then renamed over the file.
    const NEW: &str = ".pins.json.new";

    fn pinned(dir: &Path) -> IdCache {
        let mut pins = IdCache::open(dir, URL);
        pins.put("a-value", "\"string\"", 7);
        pins.save().unwrap();
        pins
    }

    #[test]
    fn pins_are_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut pins = pinned(dir.path());
        assert_eq!(IdCache::open(dir.path(), URL).get("a-value", "\"string\"").unwrap().id, 7);
        pins.lose("a-value");
        pins.save().unwrap();
        assert!(IdCache::open(dir.path(), URL).get("a-value", "\"string\"").unwrap().lost);
        pins.put("a-value", "\"string\"", 7);
        pins.save().unwrap();
        assert!(
            !IdCache::open(dir.path(), URL).get("a-value", "\"string\"").unwrap().lost,
            "confirmed again"
        );
    }

    #[test]
    fn a_pin_of_another_text_or_subject_or_registry_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let pins = pinned(dir.path());
        assert_eq!(pins.get("a-value", "\"bytes\""), None);
        assert_eq!(pins.get("b-value", "\"string\""), None);
        let mut other = IdCache::open(dir.path(), "http://other.example.com");
        assert_eq!(other.get("a-value", "\"string\""), None);
        assert!(
            IdCache::open(dir.path(), URL).get("a-value", "\"string\"").is_some(),
            "looking changes nothing"
        );
        other.put("b-value", "\"long\"", 1);
        other.save().unwrap();
        assert_eq!(
            IdCache::open(dir.path(), URL).get("a-value", "\"string\""),
            None,
            "the file is one registry's"
        );
    }

    #[test]
    fn a_damaged_or_foreign_file_is_as_none_and_is_written_anew() {
        let dir = tempfile::tempdir().unwrap();
        let file = pinned(dir.path()).file();
        let whole = fs::read_to_string(&file).unwrap();
        let half = whole.split_at(whole.len() / 2).0;
        let newer = whole.replace("\"version\": 1", "\"version\": 2");
        assert_ne!(newer, whole);
        let array = format!(
            "[1,{URL:?},{{\"a-value\":{{\"id\":7,\"fingerprint\":\"{}\"}}}}]",
            fingerprint("\"string\"")
        );
        let inner = whole.replace("{\n      \"id\": 7,\n      \"fingerprint\": ", "[7, ");
        let inner = inner.replace("\"\n    }\n", "\"]\n");
        assert!(inner.contains("[7, \"sha256:") && inner.contains("\"]"), "{inner}");
        let ids =
            ["0", "2147483648", "4294967296", "-1", "7.0"].map(|id| whole.replace("7,", &format!("{id},")));
        let endless = format!("{whole}{}", " ".repeat(MAX as usize));
        let texts = ["", "[]", "\u{0}\u{0}\u{0}", half, &newer, &array, &inner, &endless];
        for text in texts.into_iter().chain(ids.iter().map(String::as_str)) {
            fs::write(&file, text).unwrap();
            assert_eq!(IdCache::open(dir.path(), URL).get("a-value", "\"string\""), None, "{text:.300}");
        }
        assert!(pinned(dir.path()).get("a-value", "\"string\"").is_some());
        assert_eq!(fs::read_to_string(&file).unwrap(), whole);
    }

    #[test]
    fn c2_pins_are_for_their_owner_alone_and_follow_no_link() {
        let dir = tempfile::tempdir().unwrap();
        let victim = dir.path().join("victim");
        fs::write(&victim, "untouched").unwrap();
        std::os::unix::fs::symlink(&victim, dir.path().join(NEW)).unwrap();
        let file = pinned(dir.path()).file();
        let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(file).unwrap());
        assert_eq!((mode & 0o777, fs::read_to_string(&victim).unwrap().as_str()), (0o600, "untouched"));
    }

    #[test]
    fn a_write_that_fails_leaves_the_old_file_whole_and_is_tried_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut pins = pinned(dir.path());
        // What a crash between write and rename leaves is in nobody's way.
        fs::write(dir.path().join(NEW), "half a fi").unwrap();
        assert!(IdCache::open(dir.path(), URL).get("a-value", "\"string\"").is_some());
        fs::remove_file(dir.path().join(NEW)).unwrap();
        fs::create_dir(dir.path().join(NEW)).unwrap();
        pins.put("b-value", "\"long\"", 8);
        pins.save().unwrap_err();
        assert_eq!(IdCache::open(dir.path(), URL).get("b-value", "\"long\""), None);
        assert!(IdCache::open(dir.path(), URL).get("a-value", "\"string\"").is_some());
        fs::remove_dir(dir.path().join(NEW)).unwrap();
        pins.save().unwrap();
        assert_eq!(IdCache::open(dir.path(), URL).get("b-value", "\"long\"").unwrap().id, 8);
        assert!(!dir.path().join(NEW).exists());
    }
}

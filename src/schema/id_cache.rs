//! The schema ids from the registry, cached on disk, so that the service can start while the registry is unavailable.
//!
//! One small JSON file in the spool's directory, whose lock excludes other processes:
//!
//! ```json
//! {"version":1,"registry":"https://registry.example.com",
//!  "subjects":{"datagrid.batch_prediction.completed-value":{"id":7,"fingerprint":"sha256:..."}}}
//! ```
//!
//! The fingerprint is that of the schema's text, not of Avro's canonical form: the registry assigns a new id even if
//! only a `doc` or a default differs, which the canonical form omits. The price: after a change of white space alone,
//! the id must also wait for the registry.

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

/// Limit on the file's size, in bytes: about 10,000 subjects.
const MAX: u64 = 4 * 1024 * 1024;

/// The only format so far.
const VERSION: u32 = 1;

/// The cached id of one subject.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pin {
    pub id: u32,
    /// `sha256:` and the hex digest of the schema's text.
    fingerprint: String,
    /// The registry no longer resolved the id to this schema. Such a pin is not used until the registry confirms it:
    /// otherwise each restart would publish a few records with the wrong id.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lost: bool,
}

/// The pinned ids of one registry.
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
    /// Reads the pins of `registry` (its URL) from `dir`. A file that is missing, damaged, of another format or of
    /// another registry yields no pins, and is overwritten with the first id.
    pub fn open(dir: &Path, registry: &str) -> Self {
        let path = dir.join(FILE);
        let none = CacheFile { version: VERSION, registry: registry.to_owned(), subjects: BTreeMap::new() };
        let content = match read(&path) {
            Ok(None) => none,
            Ok(Some(found)) if found.registry == registry => found,
            Ok(Some(found)) => {
                tracing::warn!(
                    file = %path.display(), pinned = shown(&found.registry), configured = shown(registry),
                    "the pinned schema ids belong to another registry and are not used"
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

    /// The file's path.
    pub fn file(&self) -> PathBuf {
        self.dir.join(FILE)
    }

    /// The pin of a subject, if it was made for exactly this text.
    pub fn get(&self, subject: &str, text: &str) -> Option<&Pin> {
        self.content.subjects.get(subject).filter(|pin| pin.fingerprint == fingerprint(text))
    }

    /// Records that the registry has `text` under this id. It is on disk only after [`IdCache::save`].
    pub fn put(&mut self, subject: &str, text: &str, id: u32) {
        let pin = Pin { id, fingerprint: fingerprint(text), lost: false };
        if self.content.subjects.get(subject) != Some(&pin) {
            self.content.subjects.insert(subject.to_owned(), pin);
            self.saved = false;
        }
    }

    /// Records that the registry no longer has the pinned schema. It is on disk only after [`IdCache::save`].
    pub fn lose(&mut self, subject: &str) {
        if let Some(pin) = self.content.subjects.get_mut(subject)
            && !std::mem::replace(&mut pin.lost, true)
        {
            self.saved = false;
        }
    }

    /// Writes the file if anything changed. The file is durable on return, and after a crash it is either the complete
    /// old or the complete new one. Blocks.
    ///
    /// # Errors
    /// An error of the file system; the next call tries again.
    pub fn save(&mut self) -> io::Result<()> {
        if self.saved {
            return Ok(());
        }
        files::replace(&self.file(), &serde_json::to_vec_pretty(&self.content)?, 0o600)?;
        self.saved = true;
        Ok(())
    }
}

/// Reads the file; `None` if it does not exist.
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
        other => Err(format!("its format version is {other}, and only {VERSION} is supported")),
    }
}

/// Deserializes the pins; each must be an object with a valid id.
fn subjects<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, Pin>, D::Error> {
    let read = BTreeMap::<String, JsonObject<Pin>>::deserialize(deserializer)?;
    let valid = |(subject, JsonObject(pin)): (String, JsonObject<Pin>)| match is_id(pin.id) {
        true => Ok((subject, pin)),
        false => Err(D::Error::custom(format!("{} is not a schema id", pin.id))),
    };
    read.into_iter().map(valid).collect()
}

/// A registry's URL for the log. An earlier version may have stored it with secrets in it.
fn shown(url: &str) -> String {
    reqwest::Url::parse(url).map_or_else(|_| "an invalid URL".to_owned(), |url| printable(&url))
}

fn fingerprint(text: &str) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(text)))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const URL: &str = "http://registry.example.com";

    /// The temporary file, which is renamed over the final one.
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
    fn a_pin_for_another_text_subject_or_registry_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let pins = pinned(dir.path());
        assert_eq!(pins.get("a-value", "\"bytes\""), None);
        assert_eq!(pins.get("b-value", "\"string\""), None);
        let mut other = IdCache::open(dir.path(), "http://other.example.com");
        assert_eq!(other.get("a-value", "\"string\""), None);
        assert!(
            IdCache::open(dir.path(), URL).get("a-value", "\"string\"").is_some(),
            "reading changes nothing"
        );
        other.put("b-value", "\"long\"", 1);
        other.save().unwrap();
        assert_eq!(
            IdCache::open(dir.path(), URL).get("a-value", "\"string\""),
            None,
            "the file belongs to one registry"
        );
    }

    #[test]
    fn a_damaged_or_foreign_file_yields_no_pins_and_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let file = pinned(dir.path()).file();
        let complete = fs::read_to_string(&file).unwrap();
        let half = complete.split_at(complete.len() / 2).0;
        let newer = complete.replace("\"version\": 1", "\"version\": 2");
        assert_ne!(newer, complete);
        let array = format!(
            "[1,{URL:?},{{\"a-value\":{{\"id\":7,\"fingerprint\":\"{}\"}}}}]",
            fingerprint("\"string\"")
        );
        let inner = complete.replace("{\n      \"id\": 7,\n      \"fingerprint\": ", "[7, ");
        let inner = inner.replace("\"\n    }\n", "\"]\n");
        assert!(inner.contains("[7, \"sha256:") && inner.contains("\"]"), "{inner}");
        let ids = ["0", "2147483648", "4294967296", "-1", "7.0"]
            .map(|id| complete.replace("7,", &format!("{id},")));
        let endless = format!("{complete}{}", " ".repeat(MAX as usize));
        let texts = ["", "[]", "\u{0}\u{0}\u{0}", half, &newer, &array, &inner, &endless];
        for text in texts.into_iter().chain(ids.iter().map(String::as_str)) {
            fs::write(&file, text).unwrap();
            assert_eq!(IdCache::open(dir.path(), URL).get("a-value", "\"string\""), None, "{text:.300}");
        }
        assert!(pinned(dir.path()).get("a-value", "\"string\"").is_some());
        assert_eq!(fs::read_to_string(&file).unwrap(), complete);
    }

    #[test]
    fn the_file_is_readable_by_its_owner_only_and_follows_no_link() {
        let dir = tempfile::tempdir().unwrap();
        let victim = dir.path().join("victim");
        fs::write(&victim, "untouched").unwrap();
        std::os::unix::fs::symlink(&victim, dir.path().join(NEW)).unwrap();
        let file = pinned(dir.path()).file();
        let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(file).unwrap());
        assert_eq!((mode & 0o777, fs::read_to_string(&victim).unwrap().as_str()), (0o600, "untouched"));
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_intact_and_is_tried_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut pins = pinned(dir.path());
        // A file left by a crash between write and rename does no harm.
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

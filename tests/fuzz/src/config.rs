//! A configuration file, optionally after variables and `-X` settings and a line `---`.

use std::collections::HashSet;

use hookstream::app;
use hookstream::config::{self, ConfigErrors, Environment, Overrides};
use hookstream::names::{self, MAX_TOPIC};
use hookstream::sources::Sources;
use http::HeaderMap;

use super::{envelope, request};

/// The value of `[{ env = "S" }]`, which must never be shown.
const SECRET: &str = "whsec_Zm9yYmlkZGVuLXdvcmQ0";

/// The loader reads files, and paths below these may block or belong to others.
const FOREIGN: [&str; 5] = ["/dev", "/proc", "/sys", "/run", "/tmp"];

/// A configuration has problems, each one line without a secret, or is usable.
pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if FOREIGN.iter().any(|path| text.contains(path)) {
        return;
    }
    let (settings, toml) = text.split_once("---\n").unwrap_or(("", &text));
    let (sets, variables): (Vec<_>, Vec<_>) = settings.lines().partition(|line| line.starts_with("-X "));
    let variables = variables.iter().filter_map(|line| line.split_once('='));
    let secrets = ["S", "DATAGRID_WEBHOOK_SECRET"].map(|name| (name, SECRET));
    let environment: Environment = variables.chain(secrets).collect();
    let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    std::fs::write(file.path(), toml.as_bytes()).unwrap();
    let sets = sets.iter().map(|set| set["-X ".len()..].to_owned()).collect();
    let overrides = Overrides { file: Some(file.path().to_owned()), sets, ..Overrides::default() };
    let loaded = match config::load(&overrides, &environment) {
        Ok(loaded) => loaded,
        Err(problems) => return check_problems(&problems),
    };
    assert!(!format!("{loaded:?}").contains(SECRET));
    let (sources, mut schemas) = match app::compile(&loaded) {
        Ok(compiled) => compiled,
        Err(problems) => return check_problems(&problems),
    };
    assert!(sources.iter().next().is_some(), "no source");
    let (sources, schemas) = envelope::with_ids(&loaded, &mut schemas, &sources);
    check_topics(&sources);
    for source in sources.iter() {
        let known = source.types().next().map_or("none", |(name, _)| name);
        let body = format!(
            "{{\"id\":\"1\",\"type\":{known:?},\"event\":{known:?},\"event_type\":{known:?},\"data\":{{}}}}"
        );
        for body in [body.as_str(), "", "[{}]", "payload=%7B%7D", toml] {
            let (headers, _) = request(format!("x-id: 1\nx-type: {known}\n\n").as_bytes(), |_| None);
            envelope::take(source, &schemas, headers, body.as_bytes());
            envelope::take(source, &schemas, HeaderMap::new(), body.as_bytes());
        }
    }
}

fn check_problems(problems: &ConfigErrors) {
    let lines = problems.lines();
    assert!(!lines.is_empty() && lines.len() == problems.len());
    assert!(!problems.to_string().contains(SECRET));
    for line in lines {
        assert!(!line.trim().is_empty() && !line.contains(char::is_control), "{line:?}");
    }
}

/// Checks that every topic is valid in Kafka, and that no two collide.
fn check_topics(sources: &Sources) {
    let mut taken = HashSet::new();
    for source in sources.iter() {
        assert!(names::is_source(&source.name));
        let topics = source.routes().map(|route| &*route.topic).collect::<HashSet<_>>();
        for topic in topics.into_iter().chain([&*source.dead_letter_topic]) {
            let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
            assert!((1..=MAX_TOPIC).contains(&topic.len()) && topic.bytes().all(legal), "{topic}");
            assert!(taken.insert(names::collision_key(topic)), "{topic}");
        }
    }
}

use super::*;
use crate::config::{self, ConfigErrors};

fn rules(toml: &str) -> config::EnvelopeConfig {
    toml::from_str(toml).unwrap()
}

fn signature() -> config::Signature {
    toml::from_str("header = \"X\"\nsigned = \"{body}\"\nforms = [\"raw\"]").unwrap()
}

fn compile(toml: &str) -> Result<Envelope, String> {
    let mut problems = ConfigErrors::default();
    let envelope = Envelope::compile(&rules(toml), &[signature()], "envelope", &mut problems);
    envelope.ok_or_else(|| problems.to_string())
}

#[test]
fn invalid_rules_are_reported_with_their_place() {
    let with = |id: &str, more: &str| format!("id = {id}\ntype = \"/type\"\n{more}");
    for (toml, problem) in [
        (with("\"id\"", ""), "envelope.id: must be a JSON pointer such as \"/id\""),
        (with("\"\"", ""), "envelope.id: must be a JSON pointer"),
        (with("{ header = \"x y\", unsigned = true }", ""), "envelope.id: is not a valid HTTP header name"),
        (
            with("{ header = \"Cookie\", unsigned = true }", ""),
            "envelope.id: reads a header with credentials",
        ),
        (
            with("{ header = \"Hookstream-Id\", unsigned = true }", ""),
            "envelope.id: reads one of hookstream's own headers; name the provider's",
        ),
        (
            with("{ header = \"X-Id\" }", ""),
            "envelope.id: reads the header x-id, which the signature does not",
        ),
        (with("{ join = [\"/a\"] }", ""), "envelope.id: joins fewer than two parts"),
        (with("{ join = [\"/a\", \"/b\"], separator = \"\" }", ""), "envelope.id: needs a separator"),
        (with("\"/id\"", "time = \"/time\""), "envelope: lacks `time_format`"),
        (with("\"/id\"", "data = \"data\""), "envelope.data: must be a JSON pointer"),
        (with("\"/id\"", "payload = \"payload\""), "envelope.payload: must be \"form:\" and the name"),
        (with("\"/id\"", "split = \"events\""), "envelope.split: must be a JSON pointer"),
        (with("\"/id\"", "default_type = \"\""), "envelope.default_type: is empty"),
        (
            with("\"/id\"", "keys = { a = \"data\" }"),
            "envelope.keys: must be a JSON pointer such as \"/key\"",
        ),
        (
            with("\"/id\"", "keys = { a = { header = \"X-Doc\" } }"),
            "envelope.keys: reads the header x-doc, which the signature does not",
        ),
        (with("\"/id\"", "aliases = { a = \"\" }"), "envelope.aliases: contains an empty event type"),
        (with("[\"/id\", \"x\"]", ""), "envelope.id: must be a JSON pointer such as \"/id\""),
        (with("[\"digest\", \"/id\"]", ""), "envelope.id: has a place after \"digest\""),
        (
            with("[\"/id\", { header = \"X-Id\" }]", ""),
            "envelope.id: reads the header x-id, which the signature does not",
        ),
        (
            with("\"/id\"", "time = \"/t\"\ntime_format = [\"unix_seconds\", \"unix_milliseconds\"]"),
            "envelope.time_format: names two units of one number",
        ),
    ] {
        let found = compile(&toml).unwrap_err();
        assert!(found.contains(problem) && found.lines().count() == 2, "{toml}: {found}");
    }
    for toml in [
        "id = { join = [\"/a\"], header = \"x\" }",
        "id = { unsigned = true }",
        "id = 5",
        "id = []",
        "id = [5]",
    ] {
        assert!(
            toml::from_str::<config::EnvelopeConfig>(&format!("{toml}\ntype = \"/t\"")).is_err(),
            "{toml}"
        );
    }
    assert!(
        toml::from_str::<config::EnvelopeConfig>("id = \"/i\"\ntype = { join = [\"/a\", \"/b\"] }").is_err()
    );
}

#[test]
fn unsigned_fields_are_listed_and_the_key_includes_the_body() {
    let header = "{ header = \"X-H\", unsigned = true }";
    for (id, event_type, time, unsigned, with_body) in [
        ("\"/id\"", "\"/type\"", "\"/time\"", None, false),
        (header, header, header, Some("id,type,time"), true),
        ("\"digest\"", header, "\"/time\"", Some("type"), true),
        ("\"/id\"", "\"/type\"", header, Some("time"), false),
        (&format!("{{ join = [\"/a\", {header}] }}"), "\"/type\"", "\"/time\"", Some("id"), true),
    ] {
        let toml = format!("id = {id}\ntype = {event_type}\ntime = {time}\ntime_format = \"rfc3339\"");
        let envelope = compile(&toml).unwrap();
        assert_eq!((envelope.unsigned.as_deref(), envelope.key_with_body), (unsigned, with_body), "{toml}");
        assert_eq!(envelope.headers().len(), 1 + usize::from(unsigned.is_some()));
    }
}

fn with_event<T>(toml: &str, body: &str, inspect: impl FnOnce(&Event<'_>) -> T) -> Result<T, Reason> {
    let envelope = compile(toml).unwrap();
    let raw = json::check(body.as_bytes()).unwrap();
    let root = root(raw).unwrap();
    let verified = crate::verify::proof();
    let id = envelope.id(&root, verified, None).map_err(|fault| fault.reason)?;
    let event_type =
        envelope.event_type(&root, &verified.delivery().headers).map_err(|fault| fault.reason)?;
    let time = None;
    let mut event =
        Event::for_test(id, event_type, time, verified.delivery().received_at, root, None, raw.get());
    event.envelope = Some(&envelope);
    Ok(inspect(&event))
}

fn open(toml: &str, body: &str) -> Result<(String, String, String), Reason> {
    with_event(toml, body, |event| {
        (event.id.clone().into_owned(), event.event_type.clone().into_owned(), event.route().to_owned())
    })
}

#[test]
fn a_type_s_own_key_is_the_text_that_stands_there_and_that_of_others_is_the_id() {
    let toml = "id = \"/id\"\ntype = \"/type\"\naliases = { old = \"doc\" }\nkeys = { doc = \"/data/n\" }";
    let key = |event_type: &str, n: &str| {
        let body = format!(r#"{{"id":"e1","type":"{event_type}","data":{{{n}}}}}"#);
        with_event(toml, &body, |event| {
            assert_eq!((&*event.id, event.unsigned()), ("e1", None));
            event.key().map(Cow::into_owned).map_err(|fault| fault.to_string())
        })
        .unwrap()
    };
    let ok = |key: &str| Ok::<_, String>(key.to_owned());
    let err = |why: &str| Err::<String, _>(why.to_owned());
    assert_eq!(key("doc", r#""n":"README.md""#), ok("README.md"));
    assert_eq!(key("old", r#""n":"\u00fc""#), ok("\u{fc}"), "an alias is routed and keyed like its target");
    assert_eq!(key("other", r#""n":"README.md""#), ok("e1"));
    for number in ["7", "-0", "1.50", "12345678901234567890", "1e400"] {
        assert_eq!(key("doc", &format!("\"n\":{number}")), ok(number));
    }
    for (missing, found) in [("", "nothing"), (r#""n":null"#, "null")] {
        let why =
            format!("id_missing: the key of its type: at /data/n: expected text or a number, found {found}");
        assert_eq!(key("doc", missing), err(&why), "{missing}");
    }
    for (wrong, why) in [
        (r#""n":true"#, "expected text or a number, found boolean"),
        (r#""n":["a"]"#, "expected text or a number, found array"),
        (r#""n":"""#, "it is empty"),
        (r#""n":"a\nb""#, "it contains a control character"),
        (&format!("\"n\":\"{}\"", "x".repeat(MAX_ID + 1)), "it is longer than 1,024 bytes"),
        (&format!("\"n\":{}", "1".repeat(MAX_ID + 1)), "it is longer than 1,024 bytes"),
    ] {
        assert_eq!(key("doc", wrong), err(&format!("id_invalid: the key of its type: at /data/n: {why}")));
    }
    let twice = key("doc", r#""n":1,"n":2"#).unwrap_err();
    assert_eq!(
        twice, "duplicate_key: the key of its type: in the object at /data",
        "choosing one would be a guess"
    );
}

#[test]
fn a_key_that_is_not_signed_is_told_in_the_records_of_its_type_alone() {
    let header = "{ header = \"X-H\", unsigned = true }";
    let unsigned = |id: &str, event_type: &str| {
        let toml = format!("id = {id}\ntype = \"/type\"\nkeys = {{ doc = {header}, signed = \"/id\" }}");
        let body = format!(r#"{{"id":"e1","type":"{event_type}"}}"#);
        with_event(&toml, &body, |event| event.unsigned().map(str::to_owned)).unwrap()
    };
    assert_eq!(unsigned("\"/id\"", "doc").as_deref(), Some("key"));
    assert_eq!(unsigned("\"/id\"", "signed"), None);
    assert_eq!(unsigned("\"/id\"", "other"), None);
    let toml = format!("id = {header}\ntype = \"/t\"\nkeys = {{ doc = {header} }}");
    let envelope = compile(&toml).unwrap();
    assert_eq!(envelope.type_key("doc").unwrap().unsigned.as_deref(), Some("id,key"));
    assert_eq!(envelope.headers().len(), 2, "a dead letter stores it for a replay");
}

#[test]
fn types_have_a_default_and_aliases() {
    let toml =
        "id = \"/id\"\ntype = \"/type\"\ndefault_type = \"none\"\naliases = { old = \"new\", none = \"x\" }";
    let found = |body: &str| open(toml, body).map(|(_, sent, route)| format!("{sent} {route}"));
    assert_eq!(found(r#"{"id":"1","type":"new"}"#).unwrap(), "new new");
    assert_eq!(found(r#"{"id":"1","type":"old"}"#).unwrap(), "old new");
    assert_eq!(found(r#"{"id":"1"}"#).unwrap(), "none x");
    assert_eq!(found(r#"{"id":"1","type":null}"#).unwrap(), "none x");
    assert_eq!(
        found(r#"{"id":"1","type":7}"#),
        Err(Reason::TypeMissing),
        "the default does not replace a wrong value"
    );
    assert_eq!(found(r#"{"id":"1","type":""}"#), Err(Reason::TypeMissing));
}

#[test]
fn no_two_joined_ids_look_alike() {
    let toml = "id = { join = [\"/a\", \"/b\"], separator = \"::\" }\ntype = \"/a\"";
    let id = |a: &str, b: &str| open(toml, &format!(r#"{{"a":"{a}","b":"{b}"}}"#)).map(|(id, ..)| id);
    assert_eq!(id("x", "y").unwrap(), "x::y");
    assert_eq!(id("x", "y::z").unwrap(), "x::y::z", "the last part may contain it");
    assert_eq!(id("x::y", "z"), Err(Reason::IdInvalid));
    assert_eq!(id("x:", "y"), Err(Reason::IdInvalid), "would be `x` and `:y`");
    assert_eq!(id("x", ":y").unwrap(), "x:::y");
    assert_eq!(id("", "y"), Err(Reason::IdInvalid));
    let missing = open(toml, r#"{"a":"x"}"#).unwrap_err();
    assert_eq!(missing, Reason::IdMissing);
    let long = "y".repeat(MAX_ID - 2);
    assert_eq!(id("x", &long), Err(Reason::IdInvalid), "the limit applies to the joined id");
}

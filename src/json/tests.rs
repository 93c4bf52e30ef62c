use super::*;

fn reason(body: &[u8]) -> Option<Reason> {
    check(body).err().map(|fault| fault.reason)
}

#[test]
fn only_strict_json_is_accepted() {
    for good in ["{}", " [1, 2.50, -0, 1e5] ", "\"\\ud83d\\ude00\"", "null", "{\"a\":{\"a\":1}}", "1e400"] {
        assert_eq!(reason(good.as_bytes()), None, "{good}");
    }
    for bad in [
        "",
        "1 2",
        "tr ue",
        "{\"a\":01}",
        "[1,]",
        "{'a':1}",
        "\"a\nb\"",
        "NaN",
        "\u{feff}{}",
        "{}\u{2003}",
        "\"\\x\"",
        "+1",
        "1.",
        ".5",
    ] {
        assert_eq!(reason(bad.as_bytes()), Some(Reason::JsonInvalid), "{bad:?}");
    }
    assert_eq!(reason(b"\"\xff\""), Some(Reason::JsonInvalid));
    assert_eq!(reason(b"\"\xed\xa0\x80\""), Some(Reason::JsonInvalid), "a surrogate in UTF-8");
}

#[test]
fn one_pass_gives_the_same_result_as_two() {
    let nest = |n: usize| format!("{{\"a\":{}{}}}", "[".repeat(n), "]".repeat(n));
    let (deep, too_deep) = (nest(MAX_DEPTH - 1), nest(MAX_DEPTH));
    for body in [
        "{}",
        " \n{\"a\": 1.10, \"\\u0062\": [1 , 2]}\t",
        "{\"a\":{\"a\":1,\"a\":2}}",
        "{\"a\":1,\"\\u0061\":2}",
        "{\"a\":1,\"a\":2",
        "{\"a\":1,}",
        "{\"a\" 1}",
        "{\"a\":1}{",
        "{\"a\":1}\u{2003}",
        "{\"a\":01}",
        "\n  {\"a\":01}",
        "{\"a\":\"b\nc\"}",
        "{\"\\ud800\":1}",
        "{\"$serde_json::private::RawValue\":\"1\"}",
        "{a:1}",
        "\u{feff}{}",
        "\u{a0}{}",
        " [1, 2]",
        "[1,",
        "null",
        "",
        " ",
        &deep,
        &too_deep,
    ] {
        let parts = |text: &str, object: &Object<'_>| {
            let members: Vec<_> =
                object.members().iter().map(|(key, raw)| (key.to_string(), raw.get().to_owned())).collect();
            (text.to_owned(), members)
        };
        let two = || {
            let raw = check(body.as_bytes())?;
            Ok::<_, Fault>(Object::open(raw)?.map(|object| parts(raw.get(), &object)))
        };
        let one = object(body.as_bytes()).map(|found| found.map(|(text, object)| parts(text, &object)));
        let message = |fault: Fault| fault.to_string();
        assert_eq!(one.map_err(message), two().map_err(message), "{body:?}");
    }
}

#[test]
fn depth_is_limited() {
    let nest = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
    assert_eq!(reason(nest(MAX_DEPTH).as_bytes()), None);
    assert_eq!(reason(nest(MAX_DEPTH + 1).as_bytes()), Some(Reason::JsonTooDeep));
    assert_eq!(reason(nest(10_000).as_bytes()), Some(Reason::JsonTooDeep));
    assert_eq!(reason(format!("[\"{}\"]", "[".repeat(500)).as_bytes()), None, "brackets in a string");
    assert_eq!(reason(format!("[\"\\\"{}\"]", "[".repeat(500)).as_bytes()), None, "behind an escaped quote");
    let wide = format!("[{}{{}}]", "[{}],".repeat(500));
    assert_eq!(reason(wide.as_bytes()), None, "side by side");
    let in_strings = format!("{}{}", "[\"]]\\\"\",".repeat(MAX_DEPTH + 1), "]".repeat(MAX_DEPTH + 1));
    assert_eq!(reason(in_strings.as_bytes()), Some(Reason::JsonTooDeep), "closing brackets only in strings");
}

#[test]
fn faults_never_quote_the_body() {
    let fault = check(b"{\"password\": hunter2}").unwrap_err();
    assert!(!fault.to_string().contains("hunter2"), "{fault}");
}

#[test]
fn members_are_slices_and_repeated_keys_are_refused() {
    let raw = check(b"{\"a\": 1.10, \"\\u0062\": [1 , 2]}").unwrap();
    let object = Object::open(raw).unwrap().unwrap();
    assert_eq!(object.get("a").unwrap().get(), "1.10");
    assert_eq!(object.get("b").unwrap().get(), "[1 , 2]");
    assert!(matches!(object.members()[0].0, Cow::Borrowed(_)), "no copy without an escape");

    let twice = check(b"{\"a\":1,\"\\u0061\":2}").unwrap();
    assert_eq!(Object::open(twice).unwrap_err().reason, Reason::DuplicateKey);
    let many =
        format!("{{{},\"k7\":0}}", (0..50).map(|i| format!("\"k{i}\":0")).collect::<Vec<_>>().join(","));
    assert_eq!(Object::open(check(many.as_bytes()).unwrap()).unwrap_err().reason, Reason::DuplicateKey);
    assert!(Object::open(check(b"[]").unwrap()).unwrap().is_none());
}

#[test]
fn magic_keys_of_the_parser_are_ordinary_keys() {
    let body = br#"{"$serde_json::private::RawValue":"1","$serde_json::private::Number":"2"}"#;
    let object = Object::open(check(body).unwrap()).unwrap().unwrap();
    assert_eq!(object.members().len(), 2);
}

#[test]
fn pointers_follow_rfc_6901() {
    let raw = check(br#"{"a/b": {"m~n": 1}, "x": [1]}"#).unwrap();
    let root = Object::open(raw).unwrap().unwrap();
    let at = |text: &str| Pointer::parse(text).unwrap().find(&root).unwrap().map(RawValue::get);
    assert_eq!(at("/a~1b/m~0n"), Some("1"));
    assert_eq!(at("/x/0"), None);
    assert_eq!(at("/missing/deep"), None);
    assert!(Pointer::parse("a").is_none());
    let mut pointer = String::new();
    push_pointer(&mut pointer, "a/b~c");
    assert_eq!(pointer, "/a~1b~0c");
}

#[test]
fn strings_are_borrowed_without_escapes() {
    assert!(matches!(string(check(b"\"ab\"").unwrap()), Some(Cow::Borrowed("ab"))));
    assert_eq!(string(check(br#""\u00fc\n""#).unwrap()).as_deref(), Some("ü\n"));
    assert_eq!(string(check(b"1").unwrap()), None);
}

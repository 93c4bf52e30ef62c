use super::*;

fn message(result: Result<Zeroizing<Vec<u8>>, SecretRefError>) -> String {
    result.err().unwrap().into_message()
}

#[test]
fn a_file_loses_one_newline_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secret");
    for (content, expected) in
        [("abc", "abc"), ("abc\n", "abc"), ("abc\r\n", "abc"), ("abc\n\n", "abc\n"), (" abc \n", " abc ")]
    {
        std::fs::write(&path, content).unwrap();
        let value = SecretRef::File(path.clone()).read(&Environment::default()).ok().unwrap();
        assert_eq!(value.as_slice(), expected.as_bytes(), "{content:?}");
    }
}

#[test]
fn an_empty_or_blank_value_is_rejected() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secret");
    for blank in ["", "\n", " \t\r\n"] {
        std::fs::write(&path, blank).unwrap();
        let found = message(SecretRef::File(path.clone()).read(&Environment::default()));
        assert!(found.contains("is empty"), "{found}");
        let environment = [("A", blank)].into_iter().collect();
        let found = message(SecretRef::Env("A".into()).read(&environment));
        assert_eq!(found, "the variable A is set but empty; set it to the secret or unset it");
    }
}

#[test]
fn a_secret_written_instead_of_its_reference_is_not_repeated() {
    let none = Environment::default();
    for misplaced in [SecretRef::Env("wh_abcdefghij0123456789".into()), SecretRef::File("whsec_abc".into())] {
        assert!(message(misplaced.read(&none)).contains(" here"));
    }
}

#[test]
fn an_endless_file_ends_as_an_error() {
    let found = message(SecretRef::File("/dev/zero".into()).read(&Environment::default()));
    assert!(found.contains("/dev/zero cannot be read (it is a device, not a regular file)"), "{found}");
}

#[cfg(unix)]
#[test]
fn a_mounted_kubernetes_secret_is_read_through_its_links() {
    let mount = tempfile::tempdir().unwrap();
    let real = mount.path().join("..2026_11_22");
    std::fs::create_dir(&real).unwrap();
    std::os::unix::fs::symlink("..2026_11_22", mount.path().join("..data")).unwrap();
    for (name, value) in [("2027-02", "second"), ("2026-11", "first\n")] {
        std::fs::write(real.join(name), value).unwrap();
        std::os::unix::fs::symlink(format!("..data/{name}"), mount.path().join(name)).unwrap();
    }
    std::fs::write(mount.path().join(".hidden"), "x").unwrap();
    std::fs::create_dir(mount.path().join("sub")).unwrap();

    let entry = SecretEntry {
        name: None,
        reference: SecretRef::Dir(mount.path().into()),
        window: ValidityWindow::default(),
        binds: None,
    };
    let secrets = entry.read(&Environment::default()).ok().unwrap();
    let expected = [("2026-11", "first"), ("2027-02", "second")].map(|(name, value)| {
        Secret::new(name, value).read_from(mount.path().join(name).display().to_string())
    });
    assert_eq!(secrets, expected);
}

#[test]
fn an_empty_directory_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(".keep"), "x").unwrap();
    assert!(read_dir(dir.path()).unwrap_err().contains("has no files"));
}

use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;
use std::sync::atomic::AtomicUsize;

use super::*;

fn fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn c4_a_file_that_is_not_regular_is_refused_without_a_wait() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fifo(&at("fifo"));
    symlink("fifo", at("link")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    let started = Instant::now();
    for (path, expected) in [
        (at("fifo"), "it is a named pipe, not a regular file"),
        (at("link"), "it is a named pipe, not a regular file"),
        (dir.path().to_owned(), "it is a directory, not a regular file"),
        ("/dev/zero".into(), "it is a device, not a regular file"),
        ("/dev/tty".into(), ""),
        (at("socket"), ""),
        (at("none"), "no such file"),
    ] {
        let error = read(&path, 10).unwrap_err();
        assert!(error.to_string().starts_with(expected), "{}: {error}", path.display());
        assert_eq!(error.is_missing(), expected == "no such file", "{}", path.display());
    }
    assert!(started.elapsed() < PATIENCE, "no read blocks");
}

#[test]
fn c4_a_file_is_read_up_to_its_bound_whatever_size_it_claims() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    std::fs::write(&path, "0123456789").unwrap();
    assert_eq!(read(&path, 10).unwrap(), b"0123456789");
    assert_eq!(read(&path, 9).unwrap_err().to_string(), "it is larger than 0 KiB");
    // Kernel files claim to be empty.
    let status = Path::new("/proc/self/status");
    assert!(read_text(status, MAX_TEXT).unwrap().contains("Gid:"));
    assert!(matches!(read(status, 5), Err(ReadError::TooLarge(5))));
    std::fs::write(&path, [0xff]).unwrap();
    assert!(matches!(read_text(&path, 10), Err(ReadError::NotText)));
}

#[test]
fn c4_a_pipe_is_read_if_allowed_and_reported_as_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fifo");
    fifo(&path);
    let writer = {
        let path = path.clone();
        std::thread::spawn(move || std::fs::write(path, "from a command").unwrap())
    };
    assert_eq!(read_or_pipe(&path, 100).unwrap(), (b"from a command".to_vec(), true));
    writer.join().unwrap();
    std::fs::write(dir.path().join("file"), "x").unwrap();
    assert_eq!(read_or_pipe(&dir.path().join("file"), 100).unwrap(), (b"x".to_vec(), false));
    assert!(matches!(read_or_pipe(Path::new("/dev/zero"), 100), Err(ReadError::NotRegular("a device"))));
}

#[test]
fn c4_what_hangs_is_left_behind_once_for_each_directory_and_forgotten_when_it_answers() {
    let hanging: Arc<Hanging> = Arc::default();
    let (short, long) = (Duration::from_millis(50), Duration::from_secs(30));
    let (release, held) = mpsc::channel::<()>();
    let stuck = bounded_by(short, &hanging, Path::new("/mount/a"), move || {
        let _ = held.recv();
        Ok(())
    });
    assert!(matches!(stuck, Err(ReadError::TimedOut)));
    let tried = Arc::new(AtomicUsize::new(0));
    let read_bounded = |path: &str| {
        let tried = tried.clone();
        let work = move || {
            tried.fetch_add(1, Ordering::Relaxed);
            Ok(())
        };
        bounded_by(long, &hanging, Path::new(path), work)
    };
    for path in ["/mount/a", "/mount/b"] {
        assert!(matches!(read_bounded(path), Err(ReadError::TimedOut)), "{path}");
    }
    assert_eq!(tried.load(Ordering::Relaxed), 0, "no second thread blocks there");
    read_bounded("/elsewhere/a").unwrap();
    release.send(()).unwrap();
    let started = Instant::now();
    while read_bounded("/mount/b").is_err() {
        assert!(started.elapsed() < long, "the blocked read is never forgotten");
        std::thread::yield_now();
    }
    assert_eq!(tried.load(Ordering::Relaxed), 2);
}

#[test]
fn c4_a_directory_is_listed_in_order_through_links() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    std::fs::create_dir(at("..data")).unwrap();
    std::fs::write(at("..data/b"), "x").unwrap();
    symlink("..data/b", at("b")).unwrap();
    symlink("nowhere", at("a")).unwrap();
    let found: Vec<_> = list(dir.path()).unwrap();
    let found: Vec<_> = found.iter().map(|(path, kind)| (path.as_path(), kind.is_file())).collect();
    assert_eq!(found, [(at("..data").as_path(), false), (at("b").as_path(), true)]);
    assert!(list(&at("none")).unwrap_err().is_missing());
    assert!(may_exist(&at("b")) && !may_exist(&at("a")) && !may_exist(&at("b/c")));
}

#[test]
fn c2_who_may_read_a_file_is_told_by_its_mode_and_the_directories_above() {
    let dir = tempfile::tempdir().unwrap();
    let mode = |path: &Path, mode| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    let path = dir.path().join("key");
    std::fs::write(&path, "x").unwrap();
    symlink("key", dir.path().join("link")).unwrap();
    let own = path.metadata().unwrap().gid();
    let readers_with = |file, directory, own: &[u32]| {
        mode(&path, file);
        mode(dir.path(), directory);
        let above =
            path.ancestors().skip(1).take(1).map(|above| above.metadata().unwrap()).collect::<Vec<_>>();
        open_to(&path.metadata().unwrap(), &above, own)
    };
    let others = [own + 1];
    for (file, directory, own_groups, expected) in [
        (0o600, 0o755, &[own][..], None),
        (0o644, 0o755, &[own], Some(Readers::Everybody)),
        (0o604, 0o755, &[own], Some(Readers::Everybody)),
        (0o644, 0o700, &[own], None),
        (0o644, 0o750, &others, Some(Readers::Group(own))),
        (0o640, 0o755, &[own], None),
        (0o440, 0o755, &[own], None),
        (0o640, 0o755, &others, Some(Readers::Group(own))),
        (0o640, 0o700, &others, None),
        (0o640, 0o755, &[], None),
    ] {
        assert_eq!(
            readers_with(file, directory, own_groups),
            expected,
            "{file:o} {directory:o} {own_groups:?}"
        );
    }
    mode(dir.path(), 0o755);
    mode(&path, 0o644);
    // Everybody may search the directories above the temporary one.
    assert_eq!(readers(&dir.path().join("link")), readers(&path));
    assert!(own_groups().contains(&own));
}

#[test]
fn c2_a_file_is_replaced_whole_with_its_mode_and_never_through_a_link() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    std::fs::write(at("victim"), "precious").unwrap();
    for planted in ["file", ".file.new"] {
        symlink("victim", at(planted)).unwrap();
    }
    replace(&at("file"), b"one", 0o600).unwrap();
    replace(&at("file"), b"two", 0o600).unwrap();
    assert_eq!(std::fs::read_to_string(at("victim")).unwrap(), "precious");
    assert_eq!(std::fs::read_to_string(at("file")).unwrap(), "two");
    let metadata = at("file").symlink_metadata().unwrap();
    assert!(metadata.is_file() && metadata.mode() & 0o777 == 0o600, "{:o}", metadata.mode());
    std::fs::create_dir(at(".file.new")).unwrap();
    replace(&at("file"), b"three", 0o600).unwrap_err();
    assert_eq!(std::fs::read_to_string(at("file")).unwrap(), "two");
}

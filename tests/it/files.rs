//! Paths that are not regular files, here a pipe without a writer, which blocks its reader; and the permissions of files
//! with keys and secrets.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::cli::hookstream;
use crate::support::{PATIENCE, SECRET, Setup, batch, process, until};
use crate::tls::Authority;

fn fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

/// The command's exit code and output. Fails if it hangs.
fn run(command: &mut Command) -> (i32, String) {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let started = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if started.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("the command hangs: {command:?}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let output = child.wait_with_output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(text).unwrap())
}

/// Runs `check` on a configuration with these lines.
fn check(directory: &Path, toml: &str) -> (i32, String) {
    std::fs::write(directory.join("own.toml"), toml).unwrap();
    run(hookstream(directory).args(["check", "-c", "own.toml"]).env("TEST_SECRET", SECRET))
}

const SOURCE: &str = "[source.datagrid]\npreset = \"datagrid\"\nsecrets = [{ env = \"TEST_SECRET\" }]\n";

#[test]
fn c4_a_pipe_in_place_of_a_file_is_reported_and_blocks_nothing() {
    let (authority, directory) = (Authority::new(), tempfile::tempdir().unwrap());
    let (cert, key) = authority.issue("server", 1);
    let (cert, key) = (cert.display(), key.display());
    let at = |name: &str| directory.path().join(name);
    fifo(&at("pipe"));
    symlink(at("pipe"), at("link")).unwrap();
    std::fs::create_dir_all(at("secrets")).unwrap();
    symlink(at("pipe"), at("secrets/one")).unwrap();
    let pipe = at("pipe").display().to_string();
    for (place, toml) in [
        ("source.datagrid.secrets.0", SOURCE.replace("env = \"TEST_SECRET\"", &format!("file = \"{pipe}\""))),
        ("source.datagrid.secrets.0", SOURCE.replace("env = \"TEST_SECRET\"", "file = \"./link\"")),
        ("source.datagrid.secrets.0", SOURCE.replace("env = \"TEST_SECRET\"", "dir = \"./secrets\"")),
        ("http.tls.cert", format!("{SOURCE}[http.tls]\ncert = \"{pipe}\"\nkey = \"{key}\"\n")),
        ("http.tls.key", format!("{SOURCE}[http.tls]\ncert = \"{cert}\"\nkey = \"{pipe}\"\n")),
        (
            "admin.tls.client_ca",
            format!("{SOURCE}[admin.tls]\ncert = \"{cert}\"\nkey = \"{key}\"\nclient_ca = \"{pipe}\"\n"),
        ),
        ("admin.bearer", format!("{SOURCE}[admin]\nbearer = {{ file = \"{pipe}\" }}\n")),
        ("registry.bearer", format!("{SOURCE}[registry]\nbearer = {{ file = \"{pipe}\" }}\n")),
        (
            "registry.client_key",
            format!(
                "{SOURCE}[registry]\nclient_cert = \"{cert}\"\nclient_key = \"{pipe}\"\nurl = \"https://r\"\n"
            ),
        ),
        (
            "kafka.properties.ssl.ca.location",
            format!("{SOURCE}[kafka.properties]\n\"ssl.ca.location\" = \"{pipe}\"\n"),
        ),
    ] {
        let (code, text) = check(directory.path(), &toml);
        assert_eq!(code, 1, "{place}: {text}");
        let line =
            text.lines().find(|line| line.contains(place)).unwrap_or_else(|| panic!("{place}: {text}"));
        assert!(line.contains("it is a named pipe, not a regular file"), "{line}");
    }
    std::fs::create_dir_all(at("schemas/datagrid")).unwrap();
    fifo(&at("schemas/datagrid/batch_prediction.avsc"));
    let (code, text) = check(directory.path(), SOURCE);
    assert!(code == 1 && text.contains("batch_prediction.avsc: it is a named pipe"), "{code} {text}");
}

#[test]
fn c4_a_configuration_can_come_from_a_pipe_and_a_silent_pipe_times_out() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pipe");
    fifo(&path);
    let check = || {
        let mut command = hookstream(directory.path());
        command.args(["check", "-c", "pipe"]).env("TEST_SECRET", SECRET);
        run(&mut command)
    };
    let (code, text) = check();
    assert!(code == 2 && text.contains("pipe: cannot be read: no data within 10 s"), "{code} {text}");
    let writer = {
        let path = path.clone();
        std::thread::spawn(move || std::fs::write(path, SOURCE).unwrap())
    };
    let (code, text) = check();
    writer.join().unwrap();
    assert!(code == 0 && text.contains("/hooks/datagrid"), "{code} {text}");
    std::fs::write(directory.path().join("large.toml"), vec![b'#'; (16 << 20) + 1]).unwrap();
    let mut command = hookstream(directory.path());
    let (code, text) = run(command.args(["check", "-c", "large.toml"]));
    assert!(code == 2 && text.contains("it is larger than 16384 KiB"), "{code} {text}");
}

#[tokio::test]
async fn c4_a_reload_that_finds_a_pipe_is_refused_and_the_service_continues() {
    let directory = tempfile::tempdir().unwrap();
    let secret = directory.path().join("secret");
    std::fs::write(&secret, SECRET).unwrap();
    let secrets = format!("[{{ name = \"one\", file = \"{}\" }}]", secret.display());
    let service = Setup { secrets, ..Setup::new("datagrid") }.ready().await;
    let file = service.file.path().to_owned();
    let toml = std::fs::read_to_string(&file).unwrap();
    for (path, content) in [(&secret, SECRET), (&file, &toml)] {
        std::fs::remove_file(path).unwrap();
        fifo(path);
        let refused = tokio::time::timeout(PATIENCE, service.app.reload.now()).await;
        let refused = format!("{:#}", refused.expect("the end of the reload").unwrap_err());
        assert!(refused.contains("it is a named pipe, not a regular file"), "{refused}");
        service.datagrid_post(batch("evt_1")).await.is(200, "published", None);
        std::fs::remove_file(path).unwrap();
        std::fs::write(path, content).unwrap();
        service.app.reload.now().await.unwrap();
    }
    service.datagrid_post(batch("evt_2")).await.is(200, "published", None);
}

/// With the real program, since a pipe returns its text only once, and the watcher of the files reads it again.
#[tokio::test]
async fn c4_a_reload_keeps_a_configuration_that_came_through_a_pipe() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pipe");
    fifo(&path);
    let setup = Setup::new("datagrid");
    let writer = {
        let (path, toml) = (path.clone(), setup.toml());
        std::thread::spawn(move || std::fs::write(path, toml).unwrap())
    };
    let serving = tokio::task::spawn_blocking(move || process::serve_with_log(&path));
    let (process, hooks, _, log) = tokio::time::timeout(PATIENCE, serving).await.unwrap().unwrap();
    writer.join().unwrap();
    let logged = |what: &str| log.lock().unwrap().iter().any(|line| line["message"] == what);
    let pid = process.0.id().to_string();
    assert!(Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
    until("the reload", async || logged("reloaded")).await;
    let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
    let url = format!("http://{hooks}/hooks/{}", setup.source);
    let answer = client.post(url).body("{}").send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 401, "the source still exists");
}

#[tokio::test]
async fn c2_keys_and_secrets_readable_by_other_users_are_reported_but_never_refused() {
    let (authority, directory) = (Authority::new(), tempfile::tempdir().unwrap());
    let (cert, key) = authority.issue("server", 1);
    let secret = directory.path().join("secret");
    std::fs::write(&secret, SECRET).unwrap();
    // No other user can read files below a directory of mode 0700.
    for file in [&key, &secret] {
        mode(file, 0o644);
        mode(file.parent().unwrap(), 0o700);
    }
    let toml = SOURCE.replace("env = \"TEST_SECRET\"", "name = \"one\", file = \"./secret\"");
    let tls = format!("[http.tls]\ncert = \"{}\"\nkey = \"{}\"\n", cert.display(), key.display());
    let toml = toml + &tls;
    let warned = |text: &str| text.lines().filter(|line| line.contains("can read")).count();
    let (code, text) = check(directory.path(), &toml);
    assert_eq!((code, warned(&text)), (0, 0), "{text}");

    for above in [directory.path(), key.parent().unwrap()] {
        mode(above, 0o755);
    }
    let (code, text) = check(directory.path(), &toml);
    assert_eq!((code, warned(&text)), (0, 2), "{text}");
    let key_line = "http.tls.key: every user on this machine can read the private key; chmod o= ";
    let secret_line =
        "source.datagrid.secrets.0: every user on this machine can read the secret; chmod o= ./secret";
    assert!(text.contains(key_line) && text.contains(secret_line), "{text}");

    // The service logs it at its start, but not after the chmod.
    let secrets = format!("[{{ name = \"one\", file = \"{}\" }}]", secret.display());
    let setup = Setup { secrets, tables: tls, ..Setup::new("datagrid") };
    let file = directory.path().join("hookstream.toml");
    std::fs::write(&file, setup.toml()).unwrap();
    let serving = tokio::task::spawn_blocking(move || process::serve_with_log(&file));
    let (_process, _, _, log) = serving.await.unwrap();
    let warnings = || {
        let log = log.lock().unwrap();
        let lines = log.iter().filter(|line| line["level"] == "WARN");
        lines.filter(|line| line["message"].as_str().unwrap_or_default().contains("can read")).count()
    };
    until("both warnings", async || warnings() == 2).await;

    for (private, expected) in [(0o600, 0), (0o640, 0), (0o604, 2)] {
        for file in [&key, &secret] {
            mode(file, private);
        }
        let (code, text) = check(directory.path(), &toml);
        assert_eq!((code, warned(&text)), (0, expected), "{private:o}: {text}");
    }
}

//! A schema changes: the plan by field, and the result of `check` without a registry.

use std::path::Path;

use serde_json::{Value, json};

use crate::cli::{hookstream, run};
use crate::support::{SECRET, Setup};

const SCHEMA: &str = include_str!("../../schemas/datagrid/batch_prediction.avsc");

/// A directory with its own schema file for a source on the real stack.
struct Fixture {
    directory: tempfile::TempDir,
    source: String,
}

impl Fixture {
    fn new(more: &str) -> Self {
        let mut setup = Setup::new("datagrid");
        setup.rules =
            format!("types = [\"batch_prediction.completed\", \"batch_prediction.failed\"]\n{more}");
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("own.toml"), setup.toml()).unwrap();
        let fixture = Self { directory, source: setup.source };
        std::fs::create_dir_all(fixture.schemas()).unwrap();
        fixture.schema(|_| {});
        fixture
    }

    fn schemas(&self) -> std::path::PathBuf {
        self.directory.path().join("schemas").join(&self.source)
    }

    fn stored_versions(&self) -> Vec<String> {
        let folder = self.schemas().join("versions/batch_prediction");
        let Ok(files) = std::fs::read_dir(folder) else { return Vec::new() };
        let mut names: Vec<_> = files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Writes the schema, with these changes of the fields of `data`.
    fn schema(&self, change: impl FnOnce(&mut Vec<Value>)) {
        let mut schema: Value = serde_json::from_str(SCHEMA).unwrap();
        let fields = schema["fields"].as_array_mut().unwrap();
        let data = fields.iter_mut().find(|field| field["name"] == "data").unwrap();
        change(data["type"]["fields"].as_array_mut().unwrap());
        std::fs::write(self.schemas().join("batch_prediction.avsc"), schema.to_string()).unwrap();
    }

    fn hookstream(&self, arguments: &[&str]) -> (i32, String) {
        let mut command = hookstream(self.directory.path());
        let (code, stdout, stderr) =
            run(command.args(arguments).args(["-c", "own.toml"]).env("TEST_SECRET", SECRET));
        println!("$ hookstream {}\n{stdout}{stderr}-> {code}", arguments.join(" "));
        (code, stdout)
    }
}

fn nullable(name: &str, kind: &str) -> Value {
    json!({"name": name, "type": ["null", kind], "default": null, "doc": "New."})
}

fn contains(stdout: &str, all: &[String]) {
    all.iter()
        .for_each(|expected| assert!(stdout.contains(expected.as_str()), "{expected} is not in\n{stdout}"));
}

#[test]
fn a_new_field_is_shown_with_its_pointer_and_checked_offline_against_stored_versions() {
    let fixture = Fixture::new("");
    let subject = format!("{}.batch_prediction.completed-value", fixture.source);
    assert_eq!(fixture.hookstream(&["provision", "--apply"]).0, 0);
    assert_eq!(fixture.stored_versions(), [""; 0], "only with --keep-versions");
    let (code, stdout) = fixture.hookstream(&["provision", "--apply", "--keep-versions"]);
    let first = format!("stored  schemas/{}/versions/batch_prediction/1.avsc\n", fixture.source);
    assert!(code == 0 && stdout.contains(&first), "{stdout}");

    fixture.schema(|fields| fields.push(nullable("priority", "string")));
    let (code, stdout) = fixture.hookstream(&["provision"]);
    assert_eq!(code, 1);
    contains(
        &stdout,
        &[
            format!(
                "~ subject {subject}\n    ~ schema  version 1 -> version 2   FULL_TRANSITIVE: compatible\n"
            ),
            "      + data.priority [\"null\",\"string\"] default null\n".into(),
            "    note  consumers that read additional_fields['/data/priority'] get null from v2 on: \
             COALESCE(data.priority, ...), see docs/schemas.md\n"
                .into(),
        ],
    );
    let (_, stdout) = fixture.hookstream(&["provision", "--json"]);
    let report: Value = serde_json::from_str(&stdout).unwrap();
    let item = report["items"].as_array().unwrap().iter().find(|item| item["name"] == *subject).unwrap();
    let field = json!([{"field": "data.priority", "from": null, "to": "[\"null\",\"string\"] default null"}]);
    assert_eq!((&item["fields"], item["notes"].as_array().unwrap().len()), (&field, 1));
    assert_eq!(fixture.hookstream(&["provision", "--apply"]).0, 0);
    let (_, stdout) = fixture.hookstream(&["check", "--online"]);
    let lacks = "                   version 2 is not stored next to its file: hookstream provision --apply --keep-versions\n";
    assert!(stdout.contains(lacks), "{stdout}");
    let (code, stdout) = fixture.hookstream(&["provision", "--apply", "--keep-versions"]);
    assert!(code == 0 && stdout.contains("/2.avsc\n") && !stdout.contains("/1.avsc\n"), "{stdout}");
    assert_eq!(fixture.stored_versions(), ["1.avsc", "2.avsc"]);
    let (code, stdout) = fixture.hookstream(&["check"]);
    let fits = format!(
        "note  schemas/{}/batch_prediction.avsc: compatible with its 2 stored versions (FULL_TRANSITIVE)\n",
        fixture.source
    );
    assert!(code == 0 && stdout.contains(&fits), "{stdout}");

    // From here on there is no registry, and only the stored version 2 has the field.
    fixture.schema(|fields| fields.push(nullable("priority", "long")));
    let (code, stdout) = fixture.hookstream(&["check", "-X", "registry.url=http://127.0.0.1:1"]);
    let against = format!(
        "NO    schemas/{0}/batch_prediction.avsc: not compatible with schemas/{0}/versions/batch_prediction/2.avsc (FULL_TRANSITIVE): \
         field data.priority: the new schema cannot read the old records: not every value: written as [\"null\",\"string\"], \
         read as [\"null\",\"long\"]\n",
        fixture.source
    );
    contains(&stdout, &[against]);
    assert!(code == 1 && !stdout.contains("versions/batch_prediction/1.avsc"), "{stdout}");
    assert_eq!(stdout.matches("the old schema cannot read the new records").count(), 1, "{stdout}");
    let (code, stdout) = fixture.hookstream(&["provision"]);
    assert_eq!(code, 1);
    contains(
        &stdout,
        &[
            format!("! subject {subject}\n"),
            "      ~ data.priority [\"null\",\"string\"] default null -> [\"null\",\"long\"] default null\n"
                .into(),
            "    ! field data.priority".into(),
        ],
    );
}

#[test]
fn the_level_of_a_source_applies_offline_and_in_the_registry_and_a_lowered_one_is_drift() {
    let fixture = Fixture::new("compatibility = \"BACKWARD_TRANSITIVE\"");
    assert_eq!(fixture.hookstream(&["provision", "--apply", "--keep-versions"]).0, 0);
    let subject = format!("{}.batch_prediction.completed-value", fixture.source);
    let url = format!("{}/config/{subject}", crate::support::stack("REGISTRY"));
    let lower = std::process::Command::new("curl")
        .args([
            "-sf",
            "-X",
            "PUT",
            "-H",
            "content-type: application/json",
            "-d",
            "{\"compatibility\":\"NONE\"}",
            &url,
        ])
        .output()
        .unwrap();
    assert!(lower.status.success(), "{lower:?}");
    let (code, stdout) = fixture.hookstream(&["provision"]);
    let drift = format!("~ subject {subject}\n    ~ compatibility  NONE -> BACKWARD_TRANSITIVE\n");
    assert!(code == 1 && stdout.contains(&drift), "{stdout}");
    assert_eq!(fixture.hookstream(&["provision", "--apply"]).0, 0);

    // A field changes its type: readers with the new schema can still read the old records.
    fixture
        .schema(|fields| fields.push(json!({"name": "count", "type": "long", "default": 0, "doc": "New."})));
    assert_eq!(fixture.hookstream(&["provision", "--apply", "--keep-versions"]).0, 0);
    fixture.schema(|fields| {
        fields.push(json!({"name": "count", "type": "double", "default": 0, "doc": "Wider."}))
    });
    assert_eq!(fixture.hookstream(&["check"]).0, 0, "a reader can read a long as a double");
    let (code, stdout) =
        fixture.hookstream(&["check", "-X", &format!("source.{}.compatibility=FULL", fixture.source)]);
    assert!(code == 1 && stdout.contains("field data.count: the old schema cannot read the new records: written as double, read as long"), "{stdout}");
}

#[test]
fn check_reports_files_in_the_folder_that_are_not_versions() {
    let fixture = Fixture::new("");
    let folder = fixture.schemas().join("versions/batch_prediction");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(Path::join(&folder, "v1.avsc"), SCHEMA).unwrap();
    let (code, stdout) = fixture.hookstream(&["check"]);
    assert!(
        code == 1 && stdout.contains("v1.avsc is not a stored version: its name must be a number and .avsc"),
        "{stdout}"
    );
}

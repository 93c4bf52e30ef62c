//! Loads the configuration: finds the file, merges the layers, reads the secrets, and reports all problems at once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use zeroize::Zeroizing;

use super::errors::ConfigErrors;
use super::layers::{Layers, SettingLocation};
use super::origin::{ConfigOrigin, FileKind, Overrides, Secrets};
use super::properties::{Properties, Property};
use super::secret::{Environment, Secret, SecretText, dev_secret, is_dev};
use super::secret_ref::{SecretRefError, read_file};
use super::{Config, Hash, Signature, SourceConfig, validate, warnings};
use crate::files::{self, ReadError};

/// The files that are tried if none is named.
const FILES: [&str; 2] = ["config/hookstream.toml", "/etc/hookstream/hookstream.toml"];

/// How hookstream authenticates to the registry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Auth {
    /// Anonymous.
    #[default]
    None,
    /// User and password.
    Basic(String, SecretText),
    /// A bearer token.
    Bearer(SecretText),
}

/// A configuration that passed all checks of this room.
#[derive(Debug)]
pub struct LoadedConfig {
    /// The configuration, with enabled sources only.
    pub config: Config,
    /// The file that was read, if any.
    pub file: Option<PathBuf>,
    /// The secrets by source, in the order in which they are tried.
    pub secrets: BTreeMap<String, Vec<Secret>>,
    /// Disabled sources, with the reason as half a sentence.
    pub off: BTreeMap<String, String>,
    /// The rules of the disabled sources.
    off_rules: BTreeMap<String, SourceConfig>,
    /// `[kafka.properties]` with secrets read and known aliases under one name.
    pub properties: Properties,
    /// The registry's credentials.
    pub registry_auth: Auth,
    /// hookstream's private key and certificate for the registry, in PEM.
    pub registry_identity: Option<SecretText>,
    /// Warnings for the log, one sentence each.
    pub warnings: Vec<String>,
    /// The sources that refuse every delivery, because none of their secrets is valid now, each with a sentence for the
    /// log. The service still starts: an expired secret of one source must not take down the others.
    pub refusing: BTreeMap<String, String>,
    /// Locations of the settings that [`Overrides::embedded`] ignored.
    pub ignored: Vec<String>,
    pub(super) layers: Arc<Layers>,
    pub(super) origin: ConfigOrigin,
}

impl LoadedConfig {
    /// An empty collector for the rooms that compile their part. It looks up the file and line, the variable or the
    /// `-X` that set a key.
    pub fn problems(&self) -> ConfigErrors {
        ConfigErrors::with_layers(Arc::clone(&self.layers))
    }

    /// The source and event type of each `envelope.keys`, also of disabled sources.
    pub fn keyed_types(&self) -> impl Iterator<Item = (&str, &str)> {
        self.config.source.iter().chain(&self.off_rules).flat_map(|(source, rules)| {
            rules.envelope.keys.keys().map(|event_type| (source.as_str(), event_type.as_str()))
        })
    }

    /// Reads `admin.bearer`; `None` if it is not set. It is not read with the other secrets: most commands do not need
    /// it, and may not be allowed to read it. The error is half a sentence.
    pub fn admin_bearer(&self) -> Option<Result<SecretText, String>> {
        let reference = self.config.admin.bearer.as_ref()?;
        Some(reference.read_text(&self.origin.environment))
    }

    /// Reads the secrets of `traces.headers`, by header name, with the same kind of error.
    pub fn trace_headers(&self) -> impl Iterator<Item = (&str, Result<SecretText, String>)> {
        let headers = self.config.traces.headers.iter();
        headers.map(|(name, reference)| (name.as_str(), reference.read_text(&self.origin.environment)))
    }
}

/// Loads the configuration. The file is `-c`, else `$HOOKSTREAM_CONFIG`, else `config/hookstream.toml`, else
/// `/etc/hookstream/hookstream.toml`, else none.
///
/// # Errors
/// All problems at once, each with its location and without values.
pub fn load(overrides: &Overrides, environment: &Environment) -> Result<LoadedConfig, ConfigErrors> {
    load_with(overrides, environment, &FILES.map(Path::new))
}

/// Loads the configuration again from its origin.
pub(super) fn reload(origin: &ConfigOrigin) -> Result<LoadedConfig, ConfigErrors> {
    let ConfigOrigin { overrides, environment, file } = origin;
    load_file(overrides, environment, &FILES.map(Path::new), file.clone())
}

/// As [`load`], with the files to try if none is named.
pub(super) fn load_with(
    overrides: &Overrides,
    environment: &Environment,
    usual: &[&Path],
) -> Result<LoadedConfig, ConfigErrors> {
    load_file(overrides, environment, usual, FileKind::Unknown)
}

fn load_file(
    overrides: &Overrides,
    environment: &Environment,
    usual: &[&Path],
    mut kind: FileKind,
) -> Result<LoadedConfig, ConfigErrors> {
    let mut problems = ConfigErrors::default();
    let mut layers = Layers::shipped(&mut problems);
    let file = find(overrides, environment, usual);
    if let Some(file) = &file {
        let place = SettingLocation::File(file.clone(), 0);
        match text_of(file, &mut kind) {
            Ok(text) => layers.add_toml(place, &text, &mut problems),
            Err(error) => problems.add_at(place, "", format!("cannot be read: {error}")),
        }
    }
    // Without the file, the other layers would be reported for mistakes that are not theirs.
    if !problems.is_empty() {
        return Err(problems);
    }
    layers.add_environment(environment, &mut problems);
    layers.add_sets(&overrides.sets, &mut problems);
    let ignored = if overrides.embedded { layers.ignore(&["kafka", "registry"]) } else { Vec::new() };
    let Some(config) = layers.read(&mut problems) else { return Err(problems) };

    let layers = Arc::new(layers);
    let mut reader = ReferenceReader {
        overrides,
        environment,
        layers: &layers,
        problems,
        warnings: Vec::new(),
        refusing: BTreeMap::new(),
    };
    let mut loaded = LoadedConfig {
        config,
        file,
        secrets: BTreeMap::new(),
        off: BTreeMap::new(),
        off_rules: BTreeMap::new(),
        properties: Properties::default(),
        registry_auth: Auth::None,
        registry_identity: None,
        warnings: Vec::new(),
        refusing: BTreeMap::new(),
        ignored,
        layers: Arc::clone(&layers),
        origin: ConfigOrigin { overrides: overrides.clone(), environment: environment.clone(), file: kind },
    };
    reader.sources(&mut loaded);
    loaded.properties = reader.properties(&loaded.config);
    loaded.registry_auth = reader.registry(&loaded.config);
    loaded.registry_identity = reader.identity(&loaded.config);
    loaded.warnings = reader.warnings;
    loaded.warnings.extend(warnings::callers(&loaded.config));
    loaded.warnings.extend(warnings::exposed(&loaded.config));
    loaded.refusing = reader.refusing;
    let mut problems = reader.problems.on(layers);
    validate::all(&loaded.config, &mut problems);
    problems.or(loaded)
}

/// The text of the configuration file. `kind` is what the last reading found, and is updated.
fn text_of(file: &Path, kind: &mut FileKind) -> Result<String, ReadError> {
    match kind {
        FileKind::Pipe(text) => Ok(text.to_string()),
        FileKind::Regular => files::read_text(file, files::MAX_TEXT),
        FileKind::Unknown => {
            let (bytes, piped) = files::read_or_pipe(file, files::MAX_TEXT)?;
            let text = String::from_utf8(bytes).map_err(|_| ReadError::NotText)?;
            *kind = if piped { FileKind::Pipe(text.as_str().into()) } else { FileKind::Regular };
            Ok(text)
        }
    }
}

/// A named file must exist; the usual ones are used if they do.
fn find(overrides: &Overrides, environment: &Environment, usual: &[&Path]) -> Option<PathBuf> {
    let variable = || environment.get("HOOKSTREAM_CONFIG").filter(|file| !file.is_empty());
    let named = overrides.file.clone().or_else(|| variable().map(PathBuf::from));
    named.or_else(|| usual.iter().find(|file| files::may_exist(file)).map(|file| file.to_path_buf()))
}

/// The keys decoded from the provider's texts.
fn decoded(secrets: Vec<Secret>, schemes: &[Signature]) -> Result<Vec<Secret>, SecretRefError> {
    let decoded = |secret: Secret| {
        let name = secret.name.clone();
        secret.decoded(schemes).map_err(|expected| {
            SecretRefError::Bad(format!(
                "the secret {name} is not {expected}; write it as the provider shows it, or set signature.secret_format"
            ))
        })
    };
    secrets.into_iter().map(decoded).collect()
}

/// Reads the secrets and files that settings refer to.
struct ReferenceReader<'a> {
    overrides: &'a Overrides,
    environment: &'a Environment,
    layers: &'a Layers,
    problems: ConfigErrors,
    warnings: Vec<String>,
    refusing: BTreeMap<String, String>,
}

impl ReferenceReader<'_> {
    fn problem(&mut self, key: String, message: impl Into<String>) {
        self.problems.add_at(self.layers.place(&key), key, message);
    }

    /// Reads the sources' secrets and removes disabled sources from the configuration.
    fn sources(&mut self, loaded: &mut LoadedConfig) {
        for (name, source) in std::mem::take(&mut loaded.config.source) {
            match self.source(&name, &source) {
                Ok(secrets) => {
                    if source.signature.iter().any(|scheme| scheme.hash == Some(Hash::Sha1)) {
                        self.warnings.push(warnings::sha1(&name));
                    }
                    loaded.secrets.extend(secrets.map(|secrets| (name.clone(), secrets)));
                    loaded.config.source.insert(name, source);
                }
                Err(why) => {
                    loaded.off.insert(name.clone(), why);
                    loaded.off_rules.insert(name, source);
                }
            }
        }
        if loaded.config.source.is_empty() && !self.problems.contains_key_or_below("source") {
            let off: Vec<_> = loaded.off.iter().map(|(name, why)| format!("{name} ({why})")).collect();
            let message = format!("no source is enabled: {}; set the secret of at least one", off.join(", "));
            self.problems.add_at(SettingLocation::Nowhere, "source", message);
        }
    }

    /// `Err` with the reason if the source is disabled. `Ok(None)` if its secrets are not needed.
    fn source(&mut self, name: &str, source: &SourceConfig) -> Result<Option<Vec<Secret>>, String> {
        let needed = match &self.overrides.secrets {
            Secrets::Required | Secrets::OrDev => true,
            Secrets::Only(only) => only == name,
            Secrets::Unread => false,
        };
        if !source.enabled {
            return Err("enabled = false".to_owned());
        }
        if !needed {
            return Ok(None);
        }
        let or_dev = self.overrides.secrets == Secrets::OrDev;
        let (mut secrets, mut faults) = (Vec::new(), Vec::new());
        for (index, entry) in source.secrets.iter().enumerate() {
            let read = entry.read(self.environment);
            match read.and_then(|read| decoded(read, &source.signature)) {
                Ok(read) => secrets.extend(read),
                Err(fault) => faults.push((index, fault)),
            }
        }
        if or_dev && secrets.is_empty() {
            for (_, fault) in faults.into_iter().filter(|(_, fault)| matches!(fault, SecretRefError::Bad(_)))
            {
                self.warnings.push(warnings::dev_instead(name, &fault.into_message()));
            }
            return Ok(Some(vec![dev_secret(source.preset.as_deref(), &source.signature)]));
        }
        let unset = faults.iter().all(|(_, fault)| matches!(fault, SecretRefError::Unset(_)));
        if secrets.is_empty() && unset && !self.layers.is_user_defined(name) {
            let variables = faults.into_iter().filter_map(|(_, fault)| match fault {
                SecretRefError::Unset(variable) => Some(format!("{variable} is not set")),
                SecretRefError::Bad(_) => None,
            });
            return Err(variables.collect::<Vec<_>>().join(", "));
        }
        let reported = self.problems.contains_key_or_below(&format!("source.{name}.secrets"));
        if secrets.is_empty() && faults.is_empty() && !reported {
            let form = "secrets = [{ env = \"NAME\" }]";
            self.problem(
                format!("source.{name}"),
                format!("has no usable secret; add {form}, or set enabled = false"),
            );
        }
        for (index, fault) in faults {
            let message = fault.into_message();
            self.problem(
                format!("source.{name}.secrets.{index}"),
                format!("{message}, or set enabled = false"),
            );
        }
        self.check_secrets(name, source, &secrets);
        Ok(Some(secrets))
    }

    /// Checks secrets that could be read.
    fn check_secrets(&mut self, source: &str, rules: &SourceConfig, secrets: &[Secret]) {
        let key = || format!("source.{source}.secrets");
        for (index, secret) in secrets.iter().enumerate() {
            let name = &secret.name;
            if secrets.iter().take(index).any(|other| other.name == *name) {
                self.problem(key(), format!("two secrets are named {name}; give one of them another `name`"));
            }
            if self.overrides.secrets == Secrets::Required && is_dev(secret) {
                let message = format!(
                    "{name} is the public dev secret: anyone can sign with it; set the provider's secret"
                );
                self.problem(key(), message);
            } else {
                self.warnings.extend(warnings::short(source, secret));
            }
        }
        self.warnings.extend(warnings::undone(source, secrets));
        self.warnings.extend(warnings::keys_unbound(source, rules, secrets));
        let times = warnings::times(source, secrets, Timestamp::now());
        self.warnings.extend(times.warnings);
        self.refusing.extend(times.refusing.map(|refusing| (source.to_owned(), refusing)));
    }

    fn properties(&mut self, config: &Config) -> Properties {
        let mut properties = Properties::default();
        for (name, property) in &config.kafka.properties {
            if let Some(file) = property.file(name)
                && let Err(error) = files::probe(file)
            {
                // librdkafka opens the file itself, without a limit on its size.
                self.problem(
                    format!("kafka.properties.{name}"),
                    format!("cannot be read ({error}); set it to a readable file"),
                );
                continue;
            }
            let value = match property {
                Property::Text(text) => Ok(SecretText::new(text.as_str())),
                Property::Secret(reference) => reference.read_text(self.environment),
            };
            match value {
                Ok(value) => properties.insert(name, property, value),
                Err(message) => self.problem(format!("kafka.properties.{name}"), message),
            }
        }
        properties
    }

    fn registry(&mut self, config: &Config) -> Auth {
        let read = |this: &mut Self, key: &str, reference: &super::SecretRef| {
            let text = reference.read_text(this.environment);
            text.map_err(|message| this.problem(key.to_owned(), message)).ok()
        };
        if let Some(basic) = &config.registry.basic_auth {
            let password = read(self, "registry.basic_auth.password", &basic.password);
            return password.map_or(Auth::None, |password| Auth::Basic(basic.username.clone(), password));
        }
        let token = config.registry.bearer.as_ref();
        token.and_then(|token| read(self, "registry.bearer", token)).map_or(Auth::None, Auth::Bearer)
    }

    /// The registry's client certificate and its key. They are tried here, because an HTTP client reports an unusable
    /// pair only at its first call.
    fn identity(&mut self, config: &Config) -> Option<SecretText> {
        let registry = &config.registry;
        let (certificate, key) = match (&registry.client_cert, &registry.client_key) {
            (None, None) => return None,
            (Some(certificate), Some(key)) => (certificate, key),
            (Some(_), None) => {
                let message = "needs registry.client_key, the certificate's private key";
                self.problem("registry.client_cert".to_owned(), message);
                return None;
            }
            (None, Some(_)) => {
                let message = "needs registry.client_cert, the key's certificate";
                self.problem("registry.client_key".to_owned(), message);
                return None;
            }
        };
        let mut read = |key: &str, path: &Path| {
            read_file(path).map_err(|message| self.problem(key.to_owned(), message)).ok()
        };
        let (certificate, key) =
            (read("registry.client_cert", certificate), read("registry.client_key", key));
        let pem = Zeroizing::new([key?.as_slice(), certificate?.as_slice()].join(&b'\n'));
        let client = reqwest::Identity::from_pem(&pem)
            .and_then(|identity| crate::client::builder().tls_certs_only([]).identity(identity).build());
        // The error is not shown: it may quote the files.
        let (Ok(_), Ok(pem)) = (client, std::str::from_utf8(&pem)) else {
            let message = "does not work with registry.client_cert: expected two PEM files, the certificate with its \
                           chain, and that certificate's private key, not encrypted";
            self.problem("registry.client_key".to_owned(), message);
            return None;
        };
        Some(SecretText::new(pem))
    }
}

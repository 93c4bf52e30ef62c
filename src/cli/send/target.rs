//! The address of deliveries, and the secret that signs them.

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use reqwest::Url;

use crate::cli::{is_loopback, own_address};
use crate::config::secret::dev_secret;
use crate::config::{self, Environment, LoadedConfig, Overrides, Secret, Secrets, SourceConfig};

/// A source of the configuration, and the address of its deliveries.
pub(super) struct SendTarget {
    /// The name of the source.
    pub(super) name: String,
    /// The URL to post deliveries to.
    pub(super) url: Url,
    /// The source's configuration.
    pub(super) rules: SourceConfig,
    /// The secret that signs: the source's first that is valid now, or the public one of `dev`.
    pub(super) secret: Secret,
    /// The rest of the configuration, to name the position of problems.
    pub(super) loaded: LoadedConfig,
}

impl SendTarget {
    /// Reads the configuration. Uses the public dev secret for a source without a secret, but only if the address is of
    /// this machine: elsewhere it could only hide that the secret is missing.
    ///
    /// # Errors
    /// Problems of the configuration, an unknown source or one that is off, an invalid URL.
    pub(super) fn find(
        overrides: &Overrides,
        environment: &Environment,
        name: &str,
        url: Option<&str>,
    ) -> anyhow::Result<Self> {
        let load = |secrets| {
            let overrides = Overrides { secrets, embedded: true, ..overrides.clone() };
            config::load(&overrides, environment)
        };
        let secrets = |url: &Url| match is_loopback(url) {
            true => Secrets::OrDev,
            false => Secrets::Only(name.to_owned()),
        };
        let given = url.map(|text| endpoint(text, name)).transpose()?;
        let mut loaded = load(given.as_ref().map_or(Secrets::OrDev, secrets))?;
        let url = match given {
            Some(url) => url,
            None => {
                let mut url = endpoint(&own_address("http.listen", &loaded.config.http.listen)?, name)?;
                if loaded.config.http.tls.is_some() {
                    let _ = url.set_scheme("https");
                }
                if !is_loopback(&url) {
                    loaded = load(secrets(&url))?;
                }
                url
            }
        };
        let Some(rules) = loaded.config.source.remove(name) else {
            bail!("{}", missing(name, &loaded, &url));
        };
        let secrets = loaded.secrets.get(name).map(Vec::as_slice).unwrap_or_default();
        let now = Timestamp::now();
        let secret = secrets.iter().find(|secret| secret.window.contains(now)).or(secrets.first()).cloned();
        let secret = secret.with_context(|| format!("the source {name} has no secret to sign with"))?;
        Ok(Self { name: name.to_owned(), url, rules, secret, loaded })
    }

    /// Whether deliveries are signed with the public dev secret.
    pub(super) fn uses_dev_secret(&self) -> bool {
        self.secret == dev_secret(self.rules.preset.as_deref(), &self.rules.signature)
    }
}

fn missing(name: &str, loaded: &LoadedConfig, url: &Url) -> String {
    let Some(why) = loaded.off.get(name) else {
        let known: Vec<_> =
            loaded.config.source.keys().chain(loaded.off.keys()).map(String::as_str).collect();
        return format!("there is no source `{name}`; there are: {}", known.join(", "));
    };
    match is_loopback(url) {
        true => format!("the source {name} is off: {why}"),
        false => format!(
            "the source {name} has no secret: {why}. The public dev secret is only for addresses of this machine, \
             which {} is not",
            url.host_str().unwrap_or_default()
        ),
    }
}

/// The URL of a source's deliveries: `base` with `/hooks/SOURCE`, unless it has a path.
fn endpoint(base: &str, source: &str) -> anyhow::Result<Url> {
    let text = if base.contains("://") { base.to_owned() } else { format!("http://{base}") };
    let mut url = match Url::parse(&text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => url,
        _ => bail!("--url expects an address such as http://127.0.0.1:8080"),
    };
    url.set_fragment(None);
    if matches!(url.path(), "" | "/") {
        url.set_path(&format!("/hooks/{source}"));
    }
    Ok(url)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The target with these environment variables, `-X` options and address, and without a configuration file.
    pub(in crate::cli::send) fn target(
        name: &str,
        variables: &[(&str, &str)],
        sets: &[&str],
        url: Option<&str>,
    ) -> anyhow::Result<SendTarget> {
        let empty = tempfile::NamedTempFile::new().unwrap();
        let overrides = Overrides {
            file: Some(empty.path().to_owned()),
            sets: sets.iter().map(|set| (*set).to_owned()).collect(),
            ..Overrides::default()
        };
        SendTarget::find(&overrides, &variables.iter().copied().collect(), name, url)
    }

    fn fault(found: anyhow::Result<SendTarget>) -> String {
        found.err().unwrap().to_string()
    }

    const DATAGRID: (&str, &str) = ("DATAGRID_WEBHOOK_SECRET", "whsec_of-a-real-provider");

    #[test]
    fn loopback_addresses_get_the_public_secret_if_there_is_none() {
        let found = target("datagrid", &[], &[], None).unwrap();
        assert!(found.uses_dev_secret());
        assert_eq!(found.url.as_str(), "http://127.0.0.1:8080/hooks/datagrid");
        let found = target("datagrid", &[DATAGRID], &["http.listen=0.0.0.0:9000"], None).unwrap();
        assert_eq!(found.secret.expose(), DATAGRID.1.as_bytes());
        assert_eq!(found.url.as_str(), "http://127.0.0.1:9000/hooks/datagrid");
    }

    #[test]
    fn the_first_valid_secret_signs() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let old = "{ env = 'OLD', not_after = 2020-01-01T00:00:00Z }";
        std::fs::write(file.path(), format!("[source.datagrid]\nsecrets = [{old}, {{ env = 'NEW' }}]"))
            .unwrap();
        let overrides = Overrides { file: Some(file.path().to_owned()), ..Overrides::default() };
        let variables = [("OLD", "the-old-secret-01"), ("NEW", "the-new-secret-01")];
        let found = SendTarget::find(&overrides, &variables.into_iter().collect(), "datagrid", None).unwrap();
        assert_eq!(&*found.secret.name, "NEW");
    }

    #[test]
    fn other_addresses_need_the_secret_of_the_source() {
        for (url, sets) in
            [(Some("https://hooks.example.com"), [].as_slice()), (None, &["http.listen=10.0.0.1:80"])]
        {
            let fault = fault(target(
                "datagrid",
                &[("GRAPEVINE_WEBHOOK_SECRET", "wh_00000000000000000000")],
                sets,
                url,
            ));
            assert!(fault.contains("DATAGRID_WEBHOOK_SECRET is not set"), "{fault}");
            assert!(!target("datagrid", &[DATAGRID], sets, url).unwrap().uses_dev_secret());
        }
    }

    #[test]
    fn the_error_about_an_unknown_source_lists_the_known_ones() {
        let fault = fault(target("nope", &[], &[], None));
        assert_eq!(fault, "there is no source `nope`; there are: datagrid, grapevine");
        let fault = super::tests::fault(target("datagrid", &[], &["source.datagrid.enabled=false"], None));
        assert_eq!(fault, "the source datagrid is off: enabled = false");
    }

    fn url(base: &str) -> String {
        endpoint(base, "datagrid").unwrap().to_string()
    }

    #[test]
    fn a_base_url_gets_the_path_of_the_source_unless_it_has_one() {
        assert_eq!(url("http://127.0.0.1:9000"), "http://127.0.0.1:9000/hooks/datagrid");
        assert_eq!(url("https://hooks.example.com/"), "https://hooks.example.com/hooks/datagrid");
        assert_eq!(url("https://example.com/in/7?a=b"), "https://example.com/in/7?a=b");
        assert_eq!(url("https://example.com/hooks/other#top"), "https://example.com/hooks/other");
    }

    #[test]
    fn the_scheme_is_optional() {
        assert_eq!(url("localhost:9000"), "http://localhost:9000/hooks/datagrid");
        assert_eq!(url("127.0.0.1:9000"), "http://127.0.0.1:9000/hooks/datagrid");
        assert_eq!(url("[::1]:9000"), "http://[::1]:9000/hooks/datagrid");
    }

    #[test]
    fn an_invalid_url_is_refused_without_quoting_it() {
        for bad in ["", "ftp://user:pw@host", "http://", "http://a b", "file:///etc/passwd"] {
            let error = endpoint(bad, "datagrid").unwrap_err().to_string();
            assert_eq!(error, "--url expects an address such as http://127.0.0.1:8080", "{bad}");
        }
    }

    #[test]
    fn a_service_that_listens_everywhere_is_called_on_the_loopback() {
        assert_eq!(own_address("http.listen", "0.0.0.0:8080").unwrap(), "http://127.0.0.1:8080");
        assert_eq!(own_address("http.listen", "[::]:8080").unwrap(), "http://[::1]:8080");
        assert_eq!(own_address("http.listen", "10.1.2.3:80").unwrap(), "http://10.1.2.3:80");
        assert_eq!(own_address("http.listen", "localhost:80").unwrap(), "http://localhost:80");
        assert!(own_address("http.listen", "127.0.0.1:0").unwrap_err().to_string().contains("--url"));
    }

    #[test]
    fn only_addresses_of_this_machine_are_loopback() {
        let loopback = |base: &str| is_loopback(&endpoint(base, "x").unwrap());
        for own in ["127.0.0.1:1", "127.8.9.1", "[::1]:1", "[::ffff:127.0.0.1]", "localhost", "a.localhost"] {
            assert!(loopback(own), "{own}");
        }
        for other in ["10.0.0.1", "[2001:db8::1]", "example.com", "localhost.example.com", "127.0.0.1.nip.io"]
        {
            assert!(!loopback(other), "{other}");
        }
    }
}

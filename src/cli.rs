//! The command line: one file per command, each with its `Args` and its `run`.
#![allow(
    rustdoc::broken_intra_doc_links,
    rustdoc::bare_urls,
    reason = "the docs of arguments are help texts"
)]

pub mod capture;
pub mod check;
pub mod completions;
pub mod dev;
pub mod explain;
pub mod lag;
pub mod man;
pub mod output;
pub mod providers;
pub mod provision;
pub mod replay;
pub mod sample;
pub mod schema;
pub mod send;
pub mod serve;
pub mod spool;
pub mod status;
pub mod subscription;
pub mod tail;

use std::future::Future;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser, Subcommand};
use reqwest::Url;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};

use crate::client::{self, AnswerError, HttpAnswer, printable};
use crate::config::{Environment, LoadedConfig, Overrides, Secrets};
use crate::files::{self, ReadError};
use crate::http::{REQUEST_HEADER, dns_name};

/// The main help, with the commands in groups: clap has no groups of commands.
const HELP: &str = "\
{about}

{usage-heading} {usage}

Run:
  serve         Receive deliveries and publish them to Kafka
  dev           Run the service with an in-memory Kafka and schema registry, to try it out

Set up:
  providers     List the providers that have a preset, or show one
  init          Print the configuration of a provider's source, and what to do next
  check         Validate the configuration and show the resulting sources and topics
  provision     Compare topics and subjects with the configuration; create and update them
  schema        Find fields that no schema covers, and write schemas for them
  subscription  Manage webhook subscriptions through the provider's API

Inspect:
  status        Show the state of a running service: traffic, refusals and their causes
  tail          Read topics and decode their records
  lag           Show the lag of consumer groups
  explain       Explain why a captured delivery is refused, or what it becomes

Repair:
  replay        Publish dead letters after their cause is fixed
  spool         List the rows of the spool, and requeue parked rows

Test:
  send          Sign a sample delivery as its provider would, and post it

Install:
  completions   Print the completion script for a shell
  man           Print the manual page, or write the pages of all commands to a directory

Options:
{options}

`hookstream COMMAND --help` shows details and examples.
Exit codes: 0 success or nothing to do, 1 negative result, 2 error.";

/// The parsed command line.
#[derive(Debug, Parser)]
#[command(name = "hookstream", version, about = "Signed webhooks in, Avro events in Kafka out.", help_template = HELP)]
#[command(arg_required_else_help = true, disable_help_subcommand = true)]
struct Cli {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(subcommand)]
    command: Command,
}

/// Behind the options of the command itself: without an order, clap mixes the two.
const LAST: usize = 900;

/// The options that select the configuration; every command has them.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ConfigArgs {
    /// Configuration file [default: $HOOKSTREAM_CONFIG, config/hookstream.toml, /etc/hookstream/hookstream.toml]
    #[arg(short, long = "config", value_name = "FILE", global = true, display_order = LAST)]
    config: Option<PathBuf>,
    /// Override one setting of the file and the environment; may be repeated
    #[arg(short = 'X', value_name = "KEY=VALUE", global = true, display_order = LAST + 1)]
    set: Vec<String>,
}

impl ConfigArgs {
    fn overrides(&self) -> Overrides {
        Overrides { file: self.config.clone(), sets: self.set.clone(), ..Overrides::default() }
    }

    /// Reads the configuration with the secrets of all sources.
    ///
    /// # Errors
    /// All problems of the configuration at once.
    pub fn load(&self) -> anyhow::Result<LoadedConfig> {
        Ok(crate::config::load(&self.overrides(), &Environment::from_process())?)
    }

    /// Like [`Self::load`] without the sources' secrets, for commands that verify and sign nothing.
    ///
    /// # Errors
    /// All problems of the configuration at once.
    pub fn load_unread(&self) -> anyhow::Result<LoadedConfig> {
        let overrides = Overrides { secrets: Secrets::Unread, ..self.overrides() };
        Ok(crate::config::load(&overrides, &Environment::from_process())?)
    }

    /// Like [`Self::load`] for `dev`: ignores `[kafka]` and `[registry]`, and uses public secrets for sources that
    /// have none.
    ///
    /// # Errors
    /// All problems of the configuration at once.
    pub fn load_dev(&self) -> anyhow::Result<LoadedConfig> {
        let overrides = Overrides { secrets: Secrets::OrDev, embedded: true, ..self.overrides() };
        Ok(crate::config::load(&overrides, &Environment::from_process())?)
    }
}

/// The variants have no doc comments: clap would show those instead of the doc comments of the `Args`.
#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Args),
    Dev(dev::Args),
    Providers(providers::Args),
    Init(providers::InitArgs),
    Check(check::Args),
    Provision(provision::Args),
    Schema(schema::Args),
    Subscription(subscription::Args),
    Send(send::Args),
    Status(status::Args),
    Tail(tail::Args),
    Lag(lag::Args),
    Explain(explain::Args),
    Replay(replay::Args),
    Spool(spool::Args),
    Completions(completions::Args),
    Man(man::Args),
}

/// The result of a command that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    /// Exit code 0: success, or nothing to do.
    Success,
    /// Exit code 1: a negative result, such as a problem found or a plan not applied.
    Failure,
}

/// The definition of the command line, for tests that parse command lines without running them.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Parses the command line, runs the command and converts its result into an exit code.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let verdict = match &cli.command {
        Command::Serve(args) => block_on(serve::run(&cli.config, args)),
        Command::Dev(args) => block_on(dev::run(&cli.config, args)),
        Command::Check(args) => block_on(check::run(&cli.config, args)),
        Command::Provision(args) => block_on(provision::run(&cli.config, args)),
        Command::Schema(args) => block_on(schema::run(&cli.config, args)),
        Command::Subscription(args) => block_on(subscription::run(&cli.config, args)),
        Command::Send(args) => block_on(send::run(&cli.config, args)),
        Command::Status(args) => block_on(status::run(&cli.config, args)),
        Command::Tail(args) => block_on(tail::run(&cli.config, args)),
        Command::Lag(args) => block_on(lag::run(&cli.config, args)),
        Command::Explain(args) => block_on(explain::run(&cli.config, args)),
        Command::Replay(args) => block_on(replay::run(&cli.config, args)),
        Command::Spool(args) => block_on(spool::run(&cli.config, args)),
        Command::Providers(args) => providers::run(args),
        Command::Init(args) => providers::init(args),
        Command::Completions(args) => completions::run(args),
        Command::Man(args) => man::run(args),
    };
    match verdict {
        Ok(ExitStatus::Success) => ExitCode::SUCCESS,
        Ok(ExitStatus::Failure) => ExitCode::FAILURE,
        Err(error) if output::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // If standard error is closed, the exit code is all that the caller gets.
            let text = output::escape_lines(&format!("{error:#}"));
            let _ = writeln!(output::stderr(), "hookstream: {text}");
            ExitCode::from(2)
        }
    }
}

fn block_on(command: impl Future<Output = anyhow::Result<ExitStatus>>) -> anyhow::Result<ExitStatus> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let verdict = runtime.block_on(command);
    // A call to a Kafka that does not answer may still block a thread; nothing waits for its result any more.
    runtime.shutdown_background();
    verdict
}

/// Reads an input file of a command: a file, a pipe, or `-` for standard input, at most `max` bytes.
fn input(path: &Path, max: u64) -> Result<Vec<u8>, ReadError> {
    if path != Path::new("-") {
        return files::read_or_pipe(path, max).map(|(bytes, _)| bytes);
    }
    let mut bytes = Vec::new();
    match std::io::stdin().lock().take(max + 1).read_to_end(&mut bytes)? as u64 > max {
        true => Err(ReadError::TooLarge(max)),
        false => Ok(bytes),
    }
}

/// An HTTP client for the operator's port, and the URL of `path` there. The port is that of the service at `url`, else
/// the configured one. The client sends the configured token; each request times out after `timeout`.
fn admin_client(
    config: &ConfigArgs,
    url: Option<&str>,
    path: &str,
    timeout: Duration,
) -> anyhow::Result<(reqwest::Client, Url)> {
    const FORM: &str = "--url expects an address such as http://127.0.0.1:9464";
    let mut client = client::builder().no_proxy().timeout(timeout);
    let (base, token) = match url {
        Some(url) => {
            // A service on another machine can be queried without any configuration here.
            let token = config.load_unread().ok().and_then(|loaded| loaded.admin_bearer()?.ok());
            let base = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
            (Url::parse(&base).context(FORM)?, token)
        }
        None => {
            let loaded = config.load_unread()?;
            let token = loaded.admin_bearer().transpose();
            let token = token.map_err(|message| anyhow::anyhow!("admin.bearer: {message}"))?;
            let admin = &loaded.config.admin;
            let mut base = Url::parse(&own_address("admin.listen", &admin.listen)?).context(FORM)?;
            if let Some(tls) = &admin.tls {
                client = trust_own_certificate(client, tls, &mut base)?;
            }
            (base, token)
        }
    };
    let mut headers =
        HeaderMap::from_iter([(HeaderName::from_static(REQUEST_HEADER), HeaderValue::from_static("1"))]);
    if let Some(token) = token {
        let mut value = HeaderValue::try_from(format!("Bearer {}", token.expose()));
        value.iter_mut().for_each(|value| value.set_sensitive(true));
        let value =
            value.ok().context("admin.bearer: the token has characters that an HTTP header cannot carry")?;
        headers.insert(AUTHORIZATION, value);
    }
    Ok((client.default_headers(headers).build()?, base.join(path).context(FORM)?))
}

/// Sends a request to the operator's port. `unanswered` makes the error text for a URL at which nothing listens.
async fn ask(
    request: reqwest::RequestBuilder,
    url: &Url,
    unanswered: impl Fn(&str) -> String,
) -> anyhow::Result<HttpAnswer> {
    let url = printable(url);
    client::send(request).await.map_err(|error| match error {
        AnswerError::Missing(_) => anyhow::Error::new(error).context(unanswered(&url)),
        other => anyhow::Error::new(other).context(no_operator(&url)),
    })
}

fn no_operator(url: &str) -> String {
    format!("{url} does not answer like the operator's port of hookstream: give the right URL with --url")
}

/// Sets up the client for the configured operator's port with TLS: uses a name from the certificate with the address
/// that the port listens on, and trusts the certificates of the configured file in addition to the system's.
fn trust_own_certificate(
    mut client: reqwest::ClientBuilder,
    tls: &crate::config::TlsConfig,
    base: &mut Url,
) -> anyhow::Result<reqwest::ClientBuilder> {
    let path = tls.cert.display();
    let pem = files::read(&tls.cert, files::MAX_PEM)
        .with_context(|| format!("admin.tls.cert: {path} cannot be read"))?;
    let chain = reqwest::Certificate::from_pem_bundle(&pem);
    client = client.tls_certs_merge(chain.with_context(|| format!("{path} contains no PEM certificates"))?);
    let address = base.socket_addrs(|| None).ok().and_then(|addresses| addresses.into_iter().next());
    let _ = base.set_scheme("https");
    if let (Some(name), Some(address)) = (dns_name(&tls.cert), address) {
        base.set_host(Some(&name))
            .with_context(|| format!("the certificate in {path} has an invalid name"))?;
        client = client.resolve(&name, address);
    }
    Ok(client)
}

/// The URL at which a client on the same machine reaches a service that listens on `listen`. `key` is the setting
/// that `listen` comes from.
fn own_address(key: &str, listen: &str) -> anyhow::Result<String> {
    let Ok(mut address) = listen.parse::<SocketAddr>() else { return Ok(format!("http://{listen}")) };
    if address.port() == 0 {
        anyhow::bail!("{key} is {listen}, so the port is unknown: give the address with --url");
    }
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    Ok(format!("http://{address}"))
}

/// Whether the URL can reach only this machine.
fn is_loopback(url: &Url) -> bool {
    let Some(host) = url.host_str() else { return false };
    // IPv6 addresses are in brackets.
    match host.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(ip) => ip.to_canonical().is_loopback(),
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}

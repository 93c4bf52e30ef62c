//! `hookstream man`

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_mangen::Man;

use super::{Cli, ExitStatus};

const EXAMPLES: &str = "\
Examples:
  hookstream man | man -l -
  hookstream man --dir /usr/local/share/man/man1      # then: man hookstream-serve";

/// Sections of hookstream.1 that clap cannot generate.
const MORE: &str = r".SH FILES
.TP
\fI/etc/hookstream/hookstream.toml\fR
The configuration, if neither \fB\-c\fR nor \fB$HOOKSTREAM_CONFIG\fR names a file and the working directory
has no \fIconfig/hookstream.toml\fR. Only settings that differ from the defaults are needed.
.TP
\fIschemas/\fISOURCE\fI/\fITYPE\fI.avsc\fR
Your own schemas, relative to the working directory.
.SH ENVIRONMENT
.TP
\fBHOOKSTREAM_CONFIG\fR
The path of the configuration file.
.TP
\fBHOOKSTREAM_\fISECTION\fB__\fIKEY\fR
Overrides one setting of the file: \fBHOOKSTREAM_HTTP__LISTEN=0.0.0.0:8080\fR.
.TP
\fBHOOKSTREAM_LOG\fR
The filter of the log, such as \fBwarn\fR.
.SH SIGNALS
.TP
.B SIGHUP
\fBserve\fR reloads sources, secrets and schemas.
.TP
\fBSIGTERM\fR, \fBSIGINT\fR
\fBserve\fR stops without loss; a second signal stops it at once.
.SH EXIT STATUS
.TP
.B 0
Success, or nothing to do.
.TP
.B 1
Negative result, such as a problem found or a plan not applied.
.TP
.B 2
Error.
";

/// Print the manual page, or write the pages of all commands to a directory
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Write hookstream.1, hookstream-serve.1 and so on to this directory, which is created if it is missing; existing files are replaced
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Prints the main page, or writes all pages.
///
/// # Errors
/// The directory cannot be written.
pub fn run(args: &Args) -> anyhow::Result<ExitStatus> {
    let mut command = Cli::command();
    // Sets the full name of each command and adds the global options.
    command.build();
    match &args.dir {
        None => io::stdout().lock().write_all(&page(&command, true)?)?,
        Some(dir) => {
            std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
            write_all(&command, dir, true)?;
        }
    }
    Ok(ExitStatus::Success)
}

/// Writes the page of a command and those of its subcommands.
fn write_all(command: &clap::Command, dir: &Path, main: bool) -> anyhow::Result<()> {
    let file = dir.join(Man::new(command.clone()).get_filename());
    std::fs::write(&file, page(command, main)?)
        .with_context(|| format!("cannot write {}", file.display()))?;
    command.get_subcommands().try_for_each(|command| write_all(command, dir, false))
}

/// The page of one command; `main` adds the sections of the program's page.
fn page(command: &clap::Command, main: bool) -> anyhow::Result<Vec<u8>> {
    let mut page = Vec::new();
    let man = Man::new(command.clone());
    let name = man.get_filename();
    man.render(&mut page)?;
    let page = String::from_utf8(page)?;
    // The generator omits an empty date, which would put the version in the field of the date.
    let title = |page: &str| {
        let (before, rest) = page.split_once(".TH ")?;
        let (_, rest) = rest.split_once('\n')?;
        let (name, version) = (name.trim_end_matches(".1"), env!("CARGO_PKG_VERSION"));
        Some(format!("{before}.TH {name} 1 \"\" \"hookstream {version}\" \"hookstream manual\"\n{rest}"))
    };
    let page = title(&page).context("the generated page has no title")?;
    // Examples are command lines: filled into paragraphs, they could not be copied.
    let mut page = page.replacen(".SH EXTRA\n", ".SH EXAMPLES\n.nf\n", 1);
    if page.contains("\n.nf\n") {
        page = page.replacen("\n.nf\nExamples:\n", "\n.nf\n", 1);
        page.push_str(".fi\n");
    }
    if main {
        page.push_str(MORE);
    }
    Ok(page.into_bytes())
}

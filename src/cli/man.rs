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

/// What clap does not know of the program as a whole.
const MORE: &str = r".SH FILES
.TP
\fI/etc/hookstream/hookstream.toml\fR
The configuration, where neither \fB\-c\fR nor \fB$HOOKSTREAM_CONFIG\fR names one and there is no
\fIconfig/hookstream.toml\fR in the working directory. It needs only what differs from the defaults.
.TP
\fIschemas/\fISOURCE\fI/\fITYPE\fI.avsc\fR
Schemas of your own, below the working directory.
.SH ENVIRONMENT
.TP
\fBHOOKSTREAM_CONFIG\fR
The configuration file.
.TP
\fBHOOKSTREAM_\fISECTION\fB__\fIKEY\fR
One value of the configuration, over the file: \fBHOOKSTREAM_HTTP__LISTEN=0.0.0.0:8080\fR.
.TP
\fBHOOKSTREAM_LOG\fR
The filter of the log, for instance \fBwarn\fR.
.SH SIGNALS
.TP
.B SIGHUP
\fBserve\fR reads sources, secrets and schemas again.
.TP
\fBSIGTERM\fR, \fBSIGINT\fR
\fBserve\fR stops without loss; a second one stops it at once.
.SH EXIT STATUS
.TP
.B 0
Yes, or nothing to do.
.TP
.B 1
No.
.TP
.B 2
An error.
";

/// Print the manual page, or write those of all commands into a directory
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Write hookstream.1, hookstream-serve.1 and so on into this directory, in place of what is there
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Prints the page, or writes the pages.
///
/// # Errors
/// A directory that cannot be written to.
pub fn run(args: &Args) -> anyhow::Result<ExitStatus> {
    let mut command = Cli::command();
    // Gives each command its full name, and the options that all have.
    command.build();
    match &args.dir {
        None => io::stdout().lock().write_all(&page(&command, true)?)?,
        Some(dir) => write_all(&command, dir, true)?,
    }
    Ok(ExitStatus::Success)
}

/// The page of a command and those of the commands below it.
fn write_all(command: &clap::Command, dir: &Path, whole: bool) -> anyhow::Result<()> {
    let file = dir.join(Man::new(command.clone()).get_filename());
    std::fs::write(&file, page(command, whole)?).with_context(|| {
        format!("cannot write {}; --dir expects a directory that is there", file.display())
    })?;
    command.get_subcommands().try_for_each(|command| write_all(command, dir, false))
}

/// The page of the whole program, or of one command.
fn page(command: &clap::Command, whole: bool) -> anyhow::Result<Vec<u8>> {
    let mut page = Vec::new();
    let man = Man::new(command.clone());
    let name = man.get_filename();
    man.render(&mut page)?;
    let page = String::from_utf8(page)?;
    // The generator leaves an empty date out, so that the version would stand in its place.
    let title = |page: &str| {
        let (before, rest) = page.split_once(".TH ")?;
        let (_, rest) = rest.split_once('\n')?;
        let (name, version) = (name.trim_end_matches(".1"), env!("CARGO_PKG_VERSION"));
        Some(format!("{before}.TH {name} 1 \"\" \"hookstream {version}\" \"hookstream manual\"\n{rest}"))
    };
    let page = title(&page).context("the generated page has no title")?;
    // Examples are lines as they are typed: filled to paragraphs nobody could copy them.
    let mut page = page.replacen(".SH EXTRA\n", ".SH EXAMPLES\n.nf\n", 1);
    if page.contains("\n.nf\n") {
        page = page.replacen("\n.nf\nExamples:\n", "\n.nf\n", 1);
        page.push_str(".fi\n");
    }
    if whole {
        page.push_str(MORE);
    }
    Ok(page.into_bytes())
}

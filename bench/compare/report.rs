//! The output: a line for each measurement, tables, and the page.

use std::path::Path;
use std::process::Command;

use crate::pace::Latency;
use crate::plan;
use crate::results::{Group, Sample};
use crate::stats::{Spread, differences, grouped, ratios, spread, table};

/// The page with placeholders for the measurements.
const PAGE: &str = include_str!("page.md");

/// Prints a measurement.
pub fn tell(sample: &Sample) {
    let (round, who) = (sample.round + 1, &sample.contender);
    match &sample.latency {
        _ if sample.answered == 0 => println!("  {round}  {who:<34} {:>9.0} ms", sample.seconds * 1e3),
        Some(latency) => println!(
            "  {round}  {who:<34} p50 {:>6} us, p99 {:>6} us, p99.9 {:>6} us",
            latency.p50, latency.p99, latency.p999
        ),
        None => println!(
            "  {round}  {who:<34} {:>9}/s  service {:>6.1} us, Kafka {:>5.1} us",
            grouped(sample.rate(), 0),
            sample.service(),
            sample.broker()
        ),
    }
}

fn texts(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| String::from(*word)).collect()
}

fn text(spread: Option<Spread>, digits: usize) -> String {
    spread.map_or_else(|| "-".into(), |spread| format!("{spread:.digits$}"))
}

/// Only the median.
fn median(values: &[f64], digits: usize) -> String {
    spread(values).map_or_else(|| "-".into(), |spread| grouped(spread.median, digits))
}

/// The figures of a group, followed by their ratios.
pub fn tables(group: &Group) -> String {
    if group.name == plan::START {
        return starts(group);
    }
    if group.name == "soak" {
        return soak(group);
    }
    let paced = group.samples.iter().any(|sample| sample.latency.is_some());
    if paced { latency(group) } else { throughput(group) }
}

fn throughput(group: &Group) -> String {
    let head = texts(&["", "requests/s", "CPU µs", "Kafka CPU", "generator CPU", "memory MiB", "peak MiB"]);
    let rows: Vec<_> = group
        .contenders
        .iter()
        .map(|contender| {
            let of = |figure: fn(&Sample) -> f64| group.series(&contender.name, figure);
            vec![
                contender.name.clone(),
                text(spread(&of(Sample::rate)), 0),
                text(spread(&of(Sample::service)), 1),
                median(&of(Sample::broker), 1),
                median(&of(Sample::generator), 1),
                median(&of(|sample| sample.rss_kib as f64 / 1024.0), 0),
                median(&of(|sample| sample.peak_kib as f64 / 1024.0), 0),
            ]
        })
        .collect();
    let mut out = table(&head, &rows);
    let mut rows = Vec::new();
    for contender in &group.contenders {
        for (column, other) in &contender.against {
            let of = |figure: fn(&Sample) -> f64| {
                text(ratios(&group.series(&contender.name, figure), &group.series(other, figure)), 2)
            };
            let both = |sample: &Sample| sample.service() + sample.broker();
            rows.push(vec![
                contender.name.clone(),
                column.clone(),
                of(Sample::rate),
                of(Sample::service),
                of(both),
            ]);
        }
    }
    if !rows.is_empty() {
        out += "\n";
        out += &table(&texts(&["", "relative to", "requests/s", "CPU", "CPU with Kafka"]), &rows);
    }
    out
}

fn latency(group: &Group) -> String {
    let head = texts(&["ms", "p50", "p99", "p99.9", "sent late, p99", "CPU µs", "memory MiB"]);
    let ms = |contender: &str, figure: fn(&Latency) -> u64| series_ms(group, contender, figure);
    let rows: Vec<_> = group
        .contenders
        .iter()
        .map(|contender| {
            let name = &contender.name;
            let served = group.series(name, |sample| sample.rss_kib as f64).iter().any(|rss| *rss > 0.0);
            let only = |text: String| if served { text } else { "-".into() };
            vec![
                name.clone(),
                text(spread(&ms(name, |latency| latency.p50)), 2),
                text(spread(&ms(name, |latency| latency.p99)), 2),
                text(spread(&ms(name, |latency| latency.p999)), 2),
                median(&ms(name, |latency| latency.late_p99), 2),
                only(median(&group.series(name, Sample::service), 0)),
                only(median(&group.series(name, |sample| sample.rss_kib as f64 / 1024.0), 0)),
            ]
        })
        .collect();
    let mut out = table(&head, &rows);
    let added = |ours: &str, theirs: &str| {
        let of = |figure: fn(&Latency) -> u64| text(differences(&ms(ours, figure), &ms(theirs, figure)), 2);
        vec![format!("{ours} over {theirs}"), of(|l| l.p50), of(|l| l.p99), of(|l| l.p999)]
    };
    let names: Vec<_> = group.contenders.iter().map(|contender| contender.name.as_str()).collect();
    let pairs = [("relay", "rdkafka alone"), ("hookstream", "rdkafka alone"), ("hookstream", "relay")];
    let rows: Vec<_> = pairs
        .into_iter()
        .filter(|(ours, theirs)| names.contains(ours) && names.contains(theirs))
        .map(|(ours, theirs)| added(ours, theirs))
        .collect();
    out += "\n";
    out + &table(&texts(&["added, ms", "p50", "p99", "p99.9"]), &rows)
}

fn series_ms(group: &Group, contender: &str, figure: fn(&Latency) -> u64) -> Vec<f64> {
    group.series(contender, |sample| {
        sample.latency.as_ref().map_or(f64::NAN, |latency| figure(latency) as f64 / 1e3)
    })
}

fn starts(group: &Group) -> String {
    let rows: Vec<_> = group
        .contenders
        .iter()
        .map(|contender| {
            vec![
                contender.name.clone(),
                text(spread(&group.series(&contender.name, |sample| sample.seconds * 1e3)), 0),
                median(&group.series(&contender.name, |sample| sample.service_us as f64 / 1e3), 0),
                median(&group.series(&contender.name, |sample| sample.rss_kib as f64 / 1024.0), 0),
            ]
        })
        .collect();
    table(&texts(&["start", "ms to ready", "CPU ms", "memory MiB"]), &rows)
}

fn soak(group: &Group) -> String {
    let memory = group.series("hookstream", |sample| sample.rss_kib as f64 / 1024.0);
    let peak = group.series("hookstream", |sample| sample.peak_kib as f64 / 1024.0);
    let each: Vec<_> = memory.iter().map(|memory| grouped(*memory, 1)).collect();
    format!(
        "Resident after each of {} runs of {} s, MiB: {}; peak {}.\n",
        memory.len(),
        group.seconds,
        each.join(" "),
        median(&peak[peak.len().saturating_sub(1)..], 1)
    )
}

/// The page, from the files of all groups.
pub fn page(files: &Path) -> anyhow::Result<String> {
    let mut page = PAGE.to_owned();
    let mut groups = Vec::new();
    for plan in plan::all() {
        let group = Group::read(files, plan.name)?;
        let text = match &group {
            None => format!("Not measured yet: `./bench/run --only {}`.\n", plan.name),
            Some(group) => {
                let rounds = group.samples.iter().map(|sample| sample.round + 1).max().unwrap_or(0);
                let length =
                    if plan.name == plan::START { String::new() } else { format!(" of {} s", group.seconds) };
                format!(
                    "{}\n\n{rounds} rounds{length}; {}, commit {}; [all figures](../bench/results/{}.json).\n\n{}",
                    group.note,
                    group.when,
                    group.commit,
                    group.name,
                    tables(group)
                )
            }
        };
        let text = format!("## {}\n\n{text}", plan.title);
        page = page.replace(&format!("{{{{{}}}}}", plan.name), text.trim_end());
        groups.extend(group);
    }
    let machines: std::collections::BTreeSet<_> = groups.iter().map(|group| group.machine.as_str()).collect();
    let machines = machines.into_iter().collect::<Vec<_>>().join("; ");
    Ok(page.replace("{{machine}}", &machines).replace("{{summary}}", summary(&groups).trim_end()))
}

/// The targets for hookstream, and what was measured.
fn summary(groups: &[Group]) -> String {
    let group = |name: &str| groups.iter().find(|group| group.name == name);
    let ratio = |name: &str, ours: &str, theirs: &str, figure: fn(&Sample) -> f64| {
        let group = group(name)?;
        ratios(&group.series(ours, figure), &group.series(theirs, figure))
    };
    let added = |figure: fn(&Latency) -> u64| {
        let group = group("latency")?;
        differences(&series_ms(group, "hookstream", figure), &series_ms(group, "rdkafka alone", figure))
    };
    let of = |name: &str, who: &str, figure: fn(&Sample) -> f64| spread(&group(name)?.series(who, figure));
    let mib = |sample: &Sample| sample.rss_kib as f64 / 1024.0;
    let rows = [
        (
            "requests/s, relative to the relay",
            ratio("base", "hookstream", "relay", Sample::rate),
            "0.85 or more",
        ),
        (
            "CPU per delivery, relative to the relay",
            ratio("base", "hookstream", "relay", Sample::service),
            "1.35 or less",
        ),
        (
            "the least: requests/s, relative to the relay",
            ratio("least", "the least", "relay", Sample::rate),
            "-",
        ),
        (
            "the least: CPU per delivery, relative to the relay",
            ratio("least", "the least", "relay", Sample::service),
            "-",
        ),
        ("requests/s, relative to bare axum", ratio("base", "hookstream", "axum", Sample::rate), "-"),
        (
            "CPU per delivery, relative to bare axum",
            ratio("base", "hookstream", "axum", Sample::service),
            "-",
        ),
        ("added to rdkafka's acknowledgement, p50 in ms", added(|l| l.p50), "0.2 or less"),
        ("added to rdkafka's acknowledgement, p99 in ms", added(|l| l.p99), "1 or less"),
        (
            "200 event types: requests/s, relative to one",
            ratio("types", "hookstream, 200", "hookstream, 1", Sample::rate),
            "0.9 or more",
        ),
        (
            "200 event types: requests/s, relative to the relay with 200",
            ratio("types", "hookstream, 200", "relay, 200", Sample::rate),
            "-",
        ),
        (
            "200 event types, traffic on one: requests/s, relative to one",
            ratio("types", "hookstream, 200, traffic of one", "hookstream, 1", Sample::rate),
            "0.9 or more",
        ),
        (
            "20 secrets, one dominant: requests/s, relative to one",
            ratio("secrets", "20, dominant", "1 secret", Sample::rate),
            "0.9 or more",
        ),
        (
            "20 secrets in turn: requests/s, relative to one",
            ratio("secrets", "20, in turn", "1 secret", Sample::rate),
            "-",
        ),
        (
            "the spool: requests/s, relative to the direct path",
            ratio("spool", "spool", "direct", Sample::rate),
            "0.5 or more",
        ),
        ("memory at 1,000/s, MiB", of("latency", "hookstream", mib), "40 or less"),
        (
            "start to ready with 50 schemas, ms",
            of(plan::START, "again", |sample| sample.seconds * 1e3),
            "1,000 or less",
        ),
    ];
    let rows: Vec<_> =
        rows.into_iter().map(|(what, found, held)| vec![what.into(), text(found, 2), held.into()]).collect();
    table(&texts(&["", "measured", "target"]), &rows)
}

/// The machine, for the page.
pub fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let name = field(&cpu, "model name").unwrap_or_else(|| std::env::consts::ARCH.into());
    let memory = field(&read("/proc/meminfo"), "MemTotal").unwrap_or_default();
    let kib: f64 = memory.trim_end_matches(" kB").parse().unwrap_or(0.0);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = read("/proc/sys/kernel/osrelease");
    format!("{name}, {cores} cores, {:.0} GiB of memory, Linux {}", kib / 1024.0 / 1024.0, kernel.trim())
}

/// The commit that was built, for the page.
pub fn commit() -> String {
    let git = |words: &[&str]| {
        let output = Command::new("git").args(words).current_dir(env!("CARGO_MANIFEST_DIR")).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let changed = git(&["status", "--porcelain", "--", "src", "bench", "Cargo.lock"])
        .is_some_and(|changes| !changes.is_empty());
    let commit = git(&["rev-parse", "--short", "HEAD"]).unwrap_or_else(|| "unknown".into());
    if changed { commit + " with changes" } else { commit }
}

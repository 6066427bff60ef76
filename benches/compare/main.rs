//! `cargo bench --bench compare`: this server and the reference (`sandbox-agent` 0.4.2), side by side in one run.
//!
//! The two take turns, on loopback only, each in a fresh home; every figure is printed for both and as a ratio.
//! The machine's noise hits both alike, so the ratio is what counts, not the milliseconds. Every wait is bounded,
//! a watchdog ends the run after [`RUN_LIMIT`], and whatever was started is killed by its pid.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::print_stdout,
    clippy::print_stderr,
    unreachable_pub,
    reason = "the rules for the server's rooms do not bind this one binary: it reads its environment, starts the \
              programs it measures and prints its findings"
)]

mod desktop;
mod files;
mod flood;
mod flood_agent;
mod gaps;
mod http;
mod lanes;
mod many_sessions;
mod marks;
mod process_api;
mod process_logs;
mod processes;
mod projection;
mod report;
mod resume;
mod rows;
mod sdk;
mod session_api;
mod subject;
mod terminal;
mod terminals;
mod trees;
mod turns;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use report::{Report, Row};
use rows::Context;
use subject::{Pair, Side};
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

/// Whatever went wrong, as a sentence.
type Error = Box<dyn std::error::Error + Send + Sync>;
type Result<T> = std::result::Result<T, Error>;

/// The watchdog's patience with the whole run.
const RUN_LIMIT: Duration = Duration::from_secs(40 * 60);

const USAGE: &str = "\
usage: cargo bench --bench compare -- [options]
  --ours PATH        our server (or SANDBOXD_BIN; default: the one cargo just built)
  --reference PATH   the reference (or REFERENCE_BIN; default: from tests/npm/node_modules)
  --only ROW         start, kill, rss, size, echo, echo-sse, bootstrap, flood1, flood8, sdk, run, create,
                     finished, follow, pty-echo, pty-flood, pty-rss, turn_submit, chunks, tools,
                     resume_10k, list_10k, idle_session, fs_list, fs_transfer, fs_large, fs_upload, fs_search, fs_watch, desktop_start,
                     desktop_900, desktop_1080;
                     may be repeated
  --json FILE        write the result as JSON, too
  --quick            a fifth of the repetitions: to see that it works, not for figures
The same program on both sides shows how much of a difference is noise.
The SDK rows use node and SDK_DIR (default tests/npm), a directory with node_modules/sandbox-agent.";

/// Measures one group of rows.
type Group = fn(&Context) -> Result<Vec<Row>>;

/// Every group, in the order in which they run and are shown.
const GROUPS: [(&str, Group); 32] = [
    ("start", rows::start),
    ("kill", gaps::kills),
    ("rss", rows::idle_memory),
    ("size", rows::binary_size),
    ("echo", rows::echo),
    ("echo-sse", rows::echo_subscribed),
    ("bootstrap", rows::bootstrap),
    ("flood1", flood::one_reader),
    ("flood8", flood::eight_readers),
    ("sdk", sdk::sdk),
    ("run", processes::run),
    ("create", processes::create),
    ("finished", processes::finished),
    ("follow", process_logs::follow),
    ("pty-echo", terminals::echo),
    ("pty-flood", terminals::flood),
    ("pty-rss", terminals::idle_memory),
    ("turn_submit", turns::turn_submit),
    ("chunks", projection::chunks),
    ("tools", projection::tools),
    ("resume_10k", resume::resume),
    ("list_10k", many_sessions::list),
    ("idle_session", many_sessions::idle),
    ("fs_list", files::list),
    ("fs_transfer", files::transfer),
    ("fs_large", files::large_file),
    ("fs_upload", trees::upload),
    ("fs_search", trees::search),
    ("fs_watch", trees::watch),
    ("desktop_start", desktop::start),
    ("desktop_900", desktop::small),
    ("desktop_1080", desktop::large),
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|a| a == "--flood-agent") {
        return exit_code(flood_agent::run().map(|()| true));
    }
    // A plain `cargo test --all-targets` starts this without arguments: measuring is not wanted then.
    if args.is_empty() || args.iter().any(|a| a == "--help" || a == "-h") {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    exit_code(Options::parse(args).and_then(run))
}

fn exit_code(outcome: Result<bool>) -> ExitCode {
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("compare: {error}");
            ExitCode::from(2)
        }
    }
}

/// Measures what was asked for and reports; `false` when a group failed.
fn run(options: Options) -> Result<bool> {
    let crowd = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    crowd.spawn(watch_over());
    let solo = Builder::new_current_thread().enable_all().build()?;
    let mut report = Report { header: header(&options), ..Report::default() };
    let ctx = Context { programs: options.programs, quick: options.quick, solo, crowd };
    for (name, group) in GROUPS {
        if !options.only.is_empty() && !options.only.iter().any(|o| o == name) {
            continue;
        }
        eprintln!("measuring {name} ...");
        match group(&ctx) {
            Ok(rows) => report.rows.extend(rows),
            Err(error) => report.failures.push((name, error.to_string())),
        }
    }
    report.print();
    if let Some(path) = &options.json {
        report.write_json(path)?;
    }
    Ok(report.is_complete())
}

/// Ends everything on SIGINT, SIGTERM or when the run takes too long.
async fn watch_over() -> Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let code = tokio::select! {
        _ = interrupt.recv() => 130,
        _ = terminate.recv() => 143,
        () = tokio::time::sleep(RUN_LIMIT) => 124,
    };
    eprintln!("compare: stopped, nothing is reported");
    subject::kill_all();
    std::process::exit(code)
}

/// What the command line and the environment asked for.
struct Options {
    programs: Pair<PathBuf>,
    only: Vec<String>,
    json: Option<PathBuf>,
    quick: bool,
}

impl Options {
    fn parse(args: Vec<String>) -> Result<Self> {
        let (mut ours, mut reference) = (None, None);
        let (mut only, mut json, mut quick) = (Vec::new(), None, false);
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value\n{USAGE}"));
            match arg.as_str() {
                "--ours" => ours = Some(PathBuf::from(value()?)),
                "--reference" => reference = Some(PathBuf::from(value()?)),
                "--only" => only.push(known_group(value()?)?),
                "--json" => json = Some(PathBuf::from(value()?)),
                "--quick" => quick = true,
                "--bench" => {}
                _ => return Err(format!("unknown argument {arg}\n{USAGE}").into()),
            }
        }
        let ours = ours.unwrap_or_else(|| default_program(Side::Ours));
        let reference = reference.unwrap_or_else(|| default_program(Side::Reference));
        let programs = Pair { ours: existing(&ours)?, reference: existing(&reference)? };
        Ok(Self { programs, only, json, quick })
    }
}

fn known_group(name: String) -> Result<String> {
    match GROUPS.iter().any(|(known, _)| *known == name) {
        true => Ok(name),
        false => Err(format!("no row {name}\n{USAGE}").into()),
    }
}

fn default_program(side: Side) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (variable, fallback) = match side {
        Side::Ours => {
            let built = option_env!("CARGO_BIN_EXE_sandboxd").map(PathBuf::from);
            ("SANDBOXD_BIN", built.unwrap_or_else(|| root.join("target/release/sandboxd")))
        }
        Side::Reference => {
            let below = "tests/npm/node_modules/@sandbox-agent/cli-linux-x64/bin/sandbox-agent";
            ("REFERENCE_BIN", root.join(below))
        }
    };
    std::env::var_os(variable).map_or(fallback, PathBuf::from)
}

/// The absolute path of a program that has to be there: servers start in another directory.
fn existing(path: &Path) -> Result<PathBuf> {
    std::fs::canonicalize(path).map_err(|e| format!("{}: {e}\n{USAGE}", path.display()).into())
}

/// What a reader has to know to judge the figures.
fn header(options: &Options) -> Vec<(&'static str, String)> {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = read_line("/proc/sys/kernel/osrelease");
    let load = read_line("/proc/loadavg");
    let mut header = vec![
        ("ours", describe(&options.programs.ours)),
        ("reference", describe(&options.programs.reference)),
        ("machine", format!("{cores} cores, {}, kernel {kernel}", cpu_name())),
        ("load", format!("{load} (before)")),
        ("state on", file_system(&std::env::temp_dir())),
        ("figures", "medians (p50 or p99 where said); ratio = ours / reference; ? = spreads overlap".to_owned()),
    ];
    if options.quick {
        header.push(("quick", "too few repetitions for figures".to_owned()));
    }
    if options.programs.ours.components().any(|c| c.as_os_str() == "debug") {
        header.push(("build", "ours looks like a debug build: not a fair comparison".to_owned()));
    }
    header
}

fn read_line(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn cpu_name() -> String {
    let text = read_line("/proc/cpuinfo");
    let name = text.lines().find_map(|l| l.strip_prefix("model name")?.split_once(':'));
    name.map_or_else(|| "unknown processor".to_owned(), |(_, name)| name.trim().to_owned())
}

/// The kind of file system a path is on, from the longest mount point above it.
fn file_system(path: &Path) -> String {
    let mounts = read_line("/proc/self/mounts");
    let fields = mounts.lines().map(|l| l.split(' ').collect::<Vec<_>>());
    let above = fields.filter(|f| f.len() > 2 && path.starts_with(f[1]));
    above.max_by_key(|f| f[1].len()).map_or_else(|| "unknown".to_owned(), |f| f[2].to_owned())
}

/// The program's name and what it says of its version.
fn describe(program: &Path) -> String {
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    let output = subject::run_bounded(Command::new(program).arg("--version"), Duration::from_secs(3));
    let version = output.unwrap_or_else(|e| e.to_string());
    let version = version.lines().next().unwrap_or("no version given").trim();
    format!("{name} ({version})")
}

//! The load program. It starts the real server on an empty folder, drives it over the loopback interface,
//! reads what it used from `/proc`, and prints one table: each figure beside the ceiling measured in the
//! same run and beside the aim. docs/benchmarks.md says what each figure means.
//!
//! The program drives everything from one thread, so that a request costs the client little.

mod ceilings;
mod client;
mod matrix;
mod measure;
mod process;
mod report;
mod scenarios;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::ceilings::Ceilings;
use crate::report::Report;

/// The server's allocator too: the ceilings are to differ from it by what they do.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What may go wrong ends the run with a sentence.
pub type Error = Box<dyn std::error::Error>;
/// The result of a step of the run.
pub type Result<T> = std::result::Result<T, Error>;

/// Every scenario, in the order in which they run.
const SCENARIOS: &[&str] = &[
    "start",
    "sends",
    "latency",
    "fanout",
    "polls",
    "initial",
    "idle-sync",
    "sliding",
    "encryption",
    "push-rules",
    "growth",
    "disk",
    "remote",
    "resolve",
];

#[derive(Parser)]
#[command(
    name = "hearth-load",
    about = "Measures a Hearth server beside the ceilings of this machine"
)]
struct Arguments {
    #[command(subcommand)]
    part: Option<Part>,
    #[command(flatten)]
    settings: Settings,
}

/// What a run does.
#[derive(clap::Args, Clone)]
pub struct Settings {
    /// The server's binary.
    #[arg(long, env = "HEARTH_BINARY", default_value = "target/release/hearth")]
    pub server: PathBuf,
    /// Scenarios to run, with commas: start, sends, latency, fanout, polls, initial, idle-sync, sliding, encryption, push-rules,
    /// growth, disk, remote, resolve.
    #[arg(long, value_delimiter = ',')]
    pub scenarios: Vec<String>,
    /// Seconds of each measured window.
    #[arg(long, default_value_t = 4.0)]
    pub seconds: f64,
    /// Numbers of senders, with commas.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 64, 512])]
    pub senders: Vec<usize>,
    /// Messages a second for `latency`; by default 100, and half of the highest rate of `sends`.
    #[arg(long, value_delimiter = ',')]
    pub rates: Vec<f64>,
    /// Divides the counts (rooms, members, messages) for a first look.
    #[arg(long, default_value_t = 1)]
    pub shrink: usize,
    /// Where data directories are made; the system's folder for temporary files by default.
    #[arg(long)]
    pub folder: Option<PathBuf>,
    /// Where the servers' own log goes; it is thrown away otherwise.
    #[arg(long)]
    pub server_log: Option<PathBuf>,
    /// Also writes the table here, as Markdown.
    #[arg(long)]
    pub markdown: Option<PathBuf>,
    /// Also writes the figures here, as JSON.
    #[arg(long)]
    pub json: Option<PathBuf>,
}

impl Settings {
    /// A count, made smaller by `--shrink`.
    pub fn count(&self, full: usize) -> usize {
        (full / self.shrink).max(1)
    }

    fn runs(&self, scenario: &str) -> bool {
        self.scenarios.is_empty() || self.scenarios.iter().any(|name| name == scenario)
    }
}

/// The ceilings run in processes of their own, started by the program itself.
#[derive(Subcommand)]
enum Part {
    /// An HTTP server that echoes JSON and holds long polls.
    #[command(hide = true)]
    Echo,
    /// Group commits through the log.
    #[command(hide = true)]
    Commits {
        /// The data directory.
        folder: PathBuf,
        /// How many commit at once.
        committers: usize,
        /// How long.
        seconds: f64,
    },
}

fn main() -> std::process::ExitCode {
    let arguments = Arguments::parse();
    let outcome = match arguments.part {
        Some(Part::Echo) => ceilings::serve_echo(),
        Some(Part::Commits {
            folder,
            committers,
            seconds,
        }) => ceilings::run_commits(&folder, committers, seconds),
        None => run(&arguments.settings),
    };
    match outcome {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hearth-load: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn run(settings: &Settings) -> Result<()> {
    for name in &settings.scenarios {
        if !SCENARIOS.contains(&name.as_str()) {
            return Err(format!("there is no scenario {name}; there are {}", SCENARIOS.join(", ")).into());
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut report = Report::default();
        let ceilings = Ceilings::measure(settings, &mut report).await?;
        let mut highest = None;
        for scenario in SCENARIOS.iter().filter(|name| settings.runs(name)) {
            eprintln!("hearth-load: {scenario}");
            match *scenario {
                "start" => scenarios::start::run(settings, &mut report).await?,
                "sends" => highest = Some(scenarios::sends::run(settings, &ceilings, &mut report).await?),
                "latency" => scenarios::latency::run(settings, highest, &mut report).await?,
                "fanout" => scenarios::fanout::run(settings, &ceilings, &mut report).await?,
                "polls" => scenarios::polls::run(settings, &mut report).await?,
                "initial" => scenarios::initial::run(settings, &mut report).await?,
                "idle-sync" => scenarios::idle_sync::run(settings, &ceilings, &mut report).await?,
                "sliding" => scenarios::sliding::run(settings, &ceilings, &mut report).await?,
                "encryption" => scenarios::encryption::run(settings, &ceilings, &mut report).await?,
                "growth" => scenarios::growth::run(settings, &mut report).await?,
                "push-rules" => scenarios::push_rules::run(&mut report)?,
                "remote" => scenarios::remote::run(settings, &ceilings, &mut report)?,
                "resolve" => scenarios::resolve::run(settings, &mut report)?,
                _ => scenarios::disk::run(settings, &mut report).await?,
            }
        }
        println!("{}", report.markdown());
        if let Some(path) = &settings.markdown {
            std::fs::write(path, report.markdown())?;
        }
        match &settings.json {
            Some(path) => std::fs::write(path, report.json()?)?,
            None => println!("{}", report.json()?),
        }
        Ok(())
    })
}

//! A process for each side, so that what it takes of memory and disk is its own.
//!
//! The bench starts itself again for each store, and gives orders over the
//! other's standard input: a line with an order is answered by a line with
//! figures. Only one side works at a time: an answer is given once the
//! store's background work is done.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use clap::{Args, ValueEnum};
use tempfile::TempDir;

use crate::data_set::{DataSet, SetName};
use crate::footprint::{MemoryWatch, disk_bytes, wait_until_quiet, written_bytes};
use crate::measure::Figures;
use crate::store::StoreKind;
use crate::workload::{Round, Workload};
use crate::{Outcome, Plan};

/// What one side is told when it starts.
#[derive(Debug, Args)]
pub(crate) struct SidePlan {
    #[arg(long, value_enum)]
    store: StoreKind,
    #[arg(long)]
    dir: PathBuf,
    #[arg(long, value_enum)]
    set: SetName,
    #[arg(long)]
    keys: u32,
    #[arg(long)]
    cache_bytes: u64,
    #[arg(long)]
    seconds: u64,
    #[arg(long)]
    threads: u8,
}

/// What a side is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Runs a workload for the `round`th time.
    Run(Workload, u8),
    /// Compacts everything.
    Compact,
}

impl Order {
    fn encode(self) -> String {
        match self {
            Self::Run(workload, round) => format!("{} {round}", workload.name()),
            Self::Compact => "compact 0".to_owned(),
        }
    }

    fn decode(line: &str) -> Outcome<Self> {
        let (name, round) = line.split_once(' ').ok_or("an order has no round")?;
        if name == "compact" {
            return Ok(Self::Compact);
        }
        Ok(Self::Run(Workload::from_str(name, false)?, round.parse()?))
    }
}

/// Opens a store and obeys until standard input ends.
pub(crate) fn serve(plan: &SidePlan) -> Outcome<()> {
    let set = DataSet::new(plan.set, plan.keys, plan.cache_bytes);
    let memory = MemoryWatch::start();
    let store = plan.store.open(&plan.dir, &set)?;
    for line in std::io::stdin().lines() {
        let written_before = written_bytes()?;
        memory.take_peak()?;
        let mut figures = Figures::default();
        match Order::decode(&line?)? {
            Order::Compact => store.compact()?,
            Order::Run(workload, round) => {
                let duration = Duration::from_secs(plan.seconds);
                let round = Round { store: &*store, set: &set, threads: plan.threads, duration, round };
                (figures.speed, figures.put_bytes) = round.run(workload)?;
                if workload.writes() {
                    store.flush()?;
                    wait_until_quiet()?;
                }
            }
        }
        figures.written_bytes = written_bytes()?.saturating_sub(written_before);
        figures.memory_bytes = memory.take_peak()?;
        figures.disk_bytes = disk_bytes(&plan.dir)?;
        println!("{}", figures.encode());
    }
    Ok(())
}

/// A side's process, seen from the one that compares. Ends with it.
pub(crate) struct Side {
    pub(crate) kind: StoreKind,
    process: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    /// Gone with the side.
    _dir: TempDir,
}

impl Side {
    /// Starts a side with an empty store.
    pub(crate) fn start(plan: &Plan, set: &DataSet, kind: StoreKind) -> Outcome<Self> {
        let dir = tempfile::Builder::new().prefix("lsm-bench-").tempdir_in(plan.dir())?;
        let mut process = Self::command(plan, set, kind, dir.path())?.spawn()?;
        let orders = process.stdin.take();
        let answers = BufReader::new(process.stdout.take().expect("it is piped"));
        Ok(Self { kind, process, orders, answers, _dir: dir })
    }

    fn command(plan: &Plan, set: &DataSet, kind: StoreKind, dir: &Path) -> Outcome<Command> {
        let value_name =
            |value: Option<clap::builder::PossibleValue>| value.map(|value| value.get_name().to_owned());
        let set_name = value_name(set.name.to_possible_value()).ok_or("a set has no name")?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["side", "--store", kind.name(), "--set", &set_name]).arg("--dir").arg(dir);
        for (name, value) in [
            ("--keys", u64::from(plan.keys())),
            ("--cache-bytes", plan.cache_bytes()),
            ("--seconds", plan.duration().as_secs()),
            ("--threads", plan.threads.into()),
        ] {
            command.args([name, &value.to_string()]);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        Ok(command)
    }

    /// Has the side do something, and waits for it.
    pub(crate) fn ask(&mut self, order: Order) -> Outcome<Figures> {
        let orders = self.orders.as_mut().expect("it is taken when the side ends");
        writeln!(orders, "{}", order.encode())?;
        orders.flush()?;
        let mut answer = String::new();
        if self.answers.read_line(&mut answer)? == 0 {
            return Err(format!("{} ended before it answered", self.kind.name()).into());
        }
        Figures::decode(answer.trim_end())
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        self.orders = None;
        if let Err(error) = self.process.wait() {
            eprintln!("bench: {}: {error}", self.kind.name());
        }
    }
}

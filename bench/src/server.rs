//! The processes under load: Hayloft, and the peers that are installed.
//!
//! Each listens on a free port of loopback, and ends with its value.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::Outcome;

const START_PATIENCE: Duration = Duration::from_secs(30);
const STOP_PATIENCE: Duration = Duration::from_secs(20);

/// A process that is asked to stop, and then made to, when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    /// What the process keeps its files in, if they are removed after it.
    directory: Option<TempDir>,
}

/// Memory of a process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// What it has allocated.
    pub(crate) anonymous_mib: u64,
    /// Pages of files that it has mapped.
    pub(crate) file_mib: u64,
    /// The most of both together that there was.
    pub(crate) peak_mib: u64,
}

impl Memory {
    /// Of the process `pid` now.
    pub(crate) fn of(pid: u32) -> Outcome<Self> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let mib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
            kib.map(|kib| kib / 1024).ok_or_else(|| format!("{pid} has no {name}"))
        };
        Ok(Self { anonymous_mib: mib("RssAnon")?, file_mib: mib("RssFile")?, peak_mib: mib("VmHWM")? })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that ended already needs no signal.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let deadline = Instant::now() + STOP_PATIENCE;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                let _ = self.child.kill();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Process {
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn memory(&self) -> Outcome<Memory> {
        Memory::of(self.id())
    }

    /// Ends the process as a crash does.
    pub(crate) fn kill(mut self) -> Outcome<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// CPU time that the process and its children have used, to a hundredth of a second.
    pub(crate) fn cpu_time(&self) -> Outcome<Duration> {
        let pid = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        let mut ticks = 0;
        for pid in [&*pid.to_string()].into_iter().chain(children.split_whitespace()) {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
            // utime and stime are fields 14 and 15 (proc(5)); the name before field 3 may hold spaces.
            let (_, fields) = stat.rsplit_once(')').ok_or("a process has no name")?;
            for field in fields.split_whitespace().skip(11).take(2) {
                ticks += field.parse::<u64>()?;
            }
        }
        Ok(Duration::from_millis(10 * ticks))
    }
}

/// A Hayloft that keeps everything durably in a directory of its own.
#[derive(Debug)]
pub(crate) struct Hayloft {
    pub(crate) bigtable: SocketAddr,
    pub(crate) photos: SocketAddr,
    pub(crate) memcached: SocketAddr,
    pub(crate) console: SocketAddr,
    pub(crate) process: Process,
}

impl Hayloft {
    pub(crate) fn start(binary: &Path) -> Outcome<Self> {
        Self::start_with(binary, &[])
    }

    /// The same under `settings` of the environment, `NAME=VALUE` each.
    pub(crate) fn start_with(binary: &Path, settings: &[String]) -> Outcome<Self> {
        let directory = tempfile::tempdir_in(data_root())?;
        let mut hayloft = Self::start_in(binary, directory.path(), settings)?;
        hayloft.process.directory = Some(directory);
        Ok(hayloft)
    }

    /// One that keeps everything in `directory`, which outlives it, under `settings` of the
    /// environment, `NAME=VALUE` each.
    pub(crate) fn start_in(binary: &Path, directory: &Path, settings: &[String]) -> Outcome<Self> {
        let mut command = Command::new(binary);
        command.arg("serve").arg("--data-dir").arg(directory.join("data"));
        command.envs(settings.iter().filter_map(|setting| setting.split_once('=')));
        for door in ["bigtable", "photos", "memcached", "console"] {
            command.args([&format!("--{door}-listen"), "127.0.0.1:0"]);
        }
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let printed = child.stdout.take().ok_or("the server has no output")?;
        let process = Process { child, directory: None };
        let mut doors = Vec::new();
        for line in BufReader::new(printed).lines() {
            let line = line?;
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                ["ready"] => {
                    let address = |name: &str| {
                        let door = doors.iter().find(|(door, _)| door == name);
                        door.map(|(_, address)| *address).ok_or(format!("hayloft named no door {name}"))
                    };
                    return Ok(Self {
                        bigtable: address("bigtable")?,
                        photos: address("photos")?,
                        memcached: address("memcached")?,
                        console: address("console")?,
                        process,
                    });
                }
                [door, address, ..] => {
                    let address = address.trim_start_matches("http://").trim_end_matches('/');
                    if let Ok(address) = address.parse::<SocketAddr>() {
                        doors.push((door.to_owned(), address));
                    }
                }
                _ => {}
            }
        }
        Err("hayloft ended before it was ready".into())
    }
}

/// Another server that speaks the protocol of one door.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    pub(crate) process: Process,
}

impl Peer {
    /// Google's emulator, which keeps everything in memory; none where it is not installed.
    pub(crate) fn cbtemulator() -> Outcome<Option<Self>> {
        const SDK: &str = "/usr/lib/google-cloud-sdk/platform/bigtable-emulator";
        let Some(binary) = installed("cbtemulator", &[SDK]) else { return Ok(None) };
        let port = free_port()?;
        let mut command = Command::new(binary);
        command.args(["-host", "127.0.0.1", "-port", &port.to_string()]);
        Self::start(command, port, tempfile::tempdir()?).map(Some)
    }

    /// memcached with as many threads as Hayloft has.
    pub(crate) fn memcached() -> Outcome<Option<Self>> {
        Self::memcached_of(None, 1024)
    }

    /// The same, of this binary or the installed one, with so much memory.
    pub(crate) fn memcached_of(binary: Option<&Path>, mebibytes: u64) -> Outcome<Option<Self>> {
        let found = binary.map(Path::to_owned).or_else(|| installed("memcached", &[]));
        let Some(binary) = found else { return Ok(None) };
        let port = free_port()?;
        let threads = std::thread::available_parallelism()?.to_string();
        let mut command = Command::new(binary);
        command.args([
            "-l",
            "127.0.0.1",
            "-p",
            &port.to_string(),
            "-t",
            &threads,
            "-m",
            &mebibytes.to_string(),
            "-c",
            "4096",
        ]);
        // It runs as root only if told to.
        command.args(["-u", "root"]);
        Self::start(command, port, tempfile::tempdir()?).map(Some)
    }

    /// nginx over files in a directory that `fill` fills.
    pub(crate) fn nginx(fill: impl FnOnce(&Path) -> Outcome<()>) -> Outcome<Option<Self>> {
        let Some(binary) = installed("nginx", &["/usr/sbin"]) else { return Ok(None) };
        let (port, directory) = (free_port()?, tempfile::tempdir_in(data_root())?);
        let root = directory.path();
        fill(root)?;
        let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
        let configuration = format!(
            "{user} daemon off; worker_processes auto; pid {0}/pid; error_log {0}/error.log;\n\
             events {{ worker_connections 2048; }}\n\
             http {{ access_log off; sendfile on; tcp_nodelay on; keepalive_requests 1000000000;\n\
             open_file_cache max=10000;\n\
             client_body_temp_path {0}/body; proxy_temp_path {0}/proxy; fastcgi_temp_path {0}/fastcgi;\n\
             uwsgi_temp_path {0}/uwsgi; scgi_temp_path {0}/scgi;\n\
             server {{ listen 127.0.0.1:{port}; root {0}; }} }}\n",
            root.display(),
        );
        let configuration_path = root.join("nginx.conf");
        std::fs::write(&configuration_path, configuration)?;
        let mut command = Command::new(binary);
        command.arg("-p").arg(root).arg("-c").arg(&configuration_path).stderr(Stdio::null());
        Self::start(command, port, directory).map(Some)
    }

    fn start(mut command: Command, port: u16, directory: TempDir) -> Outcome<Self> {
        let child = command.stdout(Stdio::null()).spawn()?;
        let mut process = Process { child, directory: Some(directory) };
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let deadline = Instant::now() + START_PATIENCE;
        while TcpStream::connect(address).is_err() {
            if let Some(status) = process.child.try_wait()? {
                return Err(format!("{} ended at once: {status}", command.get_program().display()).into());
            }
            if Instant::now() > deadline {
                return Err(format!("{} does not answer", command.get_program().display()).into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Self { address, process })
    }
}

/// A program of the search path, or of `elsewhere`.
fn installed(name: &str, elsewhere: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path).chain(elsewhere.iter().map(PathBuf::from));
    let found = directories.map(|directory| directory.join(name)).find(|program| program.is_file());
    if found.is_none() {
        println!("{name} is not installed: it is left out, and there is no ratio to it");
    }
    found
}

/// Somewhere on a disk: `/tmp` may be memory, where a sync costs nothing.
pub(crate) fn data_root() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(std::env::temp_dir, PathBuf::from)
}

/// A port that nobody had a moment ago.
fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

"""One Hayloft process under test: started, read until `ready`, stopped, killed."""

import os
import pathlib
import queue
import shutil
import signal
import subprocess
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOORS = ("bigtable", "photos", "memcached", "console")
READY_SECONDS = 30
DRAIN_SECONDS = 30


def binary():
    """The release binary: $HAYLOFT_BIN, else the one `cargo build --release` leaves."""
    target = os.environ.get("CARGO_TARGET_DIR", ROOT / "target")
    return os.environ.get("HAYLOFT_BIN", os.path.join(target, "release", "hayloft"))


def door_flags(address="127.0.0.1:0"):
    """Flags that put every door on `address`."""
    return [part for door in DOORS for part in (f"--{door}-listen", address)]


def clean_environment(extra=None):
    """This process's environment without settings that Hayloft would read."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HAYLOFT_")}
    kept.update(extra or {})
    return kept


def dies_with_us(command):
    """`command`, ended by the kernel if this process dies without ending it."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", "--", *command] if setpriv else command


class Hayloft:
    """A `hayloft serve` over `data_dir`; `start` again after `stop` or `kill`."""

    def __init__(self, data_dir, log_path, flags=(), env=None, doors=None):
        self.data_dir = pathlib.Path(data_dir)
        self.log_path = pathlib.Path(log_path)
        self.flags = list(flags)
        self.env = env
        self.doors = door_flags() if doors is None else doors
        self.process = None
        self.printed = None
        self.reader = None
        self.addresses = {}
        self.lines = []

    def start(self):
        """Starts the process and returns once it has printed `ready`."""
        self.launch()
        return self.wait_until_ready()

    def launch(self):
        """Starts the process and returns at once."""
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                dies_with_us(self.command()),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=clean_environment(self.env),
            )
        self.printed = queue.Queue()
        self.reader = threading.Thread(target=_forward, args=(self.process.stdout, self.printed), daemon=True)
        self.reader.start()
        self.addresses, self.lines = {}, []

    def command(self):
        """What is run."""
        return [binary(), "serve", "--data-dir", str(self.data_dir), *self.doors, *self.flags]

    def wait_until_ready(self):
        """Reads what the launched process prints up to `ready`."""
        deadline = time.monotonic() + READY_SECONDS
        while True:
            try:
                line = self.printed.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                self.kill()
                raise AssertionError(f"not ready after {READY_SECONDS} s; {self.log_tail()}") from None
            if line is None:
                code = self.process.wait()
                raise AssertionError(f"exited with {code} before it was ready; {self.log_tail()}")
            self.lines.append(line)
            words = line.split()
            if words == ["ready"]:
                return self
            if len(words) == 2:
                self.addresses[words[0]] = words[1].removeprefix("http://").rstrip("/")

    def __getattr__(self, name):
        if name in DOORS:
            return self.addresses[name]
        raise AttributeError(name)

    @property
    def memcached_pair(self):
        """The memcached door as (host, port), the way Python clients take it."""
        return host_port(self.addresses["memcached"])

    def url(self, door, path):
        """An HTTP URL of the photos or console door."""
        return f"http://{self.addresses[door]}{path}"

    def running(self):
        """Whether the process still runs."""
        return self.process is not None and self.process.poll() is None

    def stop(self):
        """Asks with SIGTERM and returns the exit code."""
        if self.process is None:
            return None
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(DRAIN_SECONDS)
            self.reader.join()
            return code
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"still running {DRAIN_SECONDS} s after SIGTERM; {self.log_tail()}") from None

    def kill(self):
        """Ends the process with SIGKILL, as a power cut would end it."""
        if self.running():
            self.process.kill()
        if self.process is not None:
            self.process.wait()
            self.reader.join()

    def log_tail(self, lines=20):
        """The last lines the server wrote to its log, for a failure's message."""
        try:
            text = self.log_path.read_text(errors="replace")
        except OSError:
            return "it wrote no log"
        return "its log ends:\n" + "\n".join(text.splitlines()[-lines:])


class HaystackStore(Hayloft):
    """A `hayloft haystack-store` over `data_dir`; it keeps its port when it is started again."""

    def __init__(self, data_dir, log_path, flags=(), env=None):
        super().__init__(data_dir, log_path, flags, env, doors=())
        self.address = "127.0.0.1:0"

    def command(self):
        return [binary(), "haystack-store", "--data-dir", str(self.data_dir), "--listen", self.address, *self.flags]

    def wait_until_ready(self):
        super().wait_until_ready()
        self.address = self.addresses["haystack-store"]
        return self

    @property
    def store_url(self):
        """What `serve` is told."""
        return f"http://{self.address}"


def host_port(address):
    """Splits `host:port`."""
    host, port = address.rsplit(":", 1)
    return host.strip("[]"), int(port)


def _forward(stream, lines):
    """Reads the process's output to its end, so that it never blocks on a full pipe."""
    with stream:
        for line in stream:
            lines.put(line.rstrip("\n"))
    lines.put(None)

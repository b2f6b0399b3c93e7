"""What the tests of cached rows and photos share: a server, its metrics, keys, connections."""

import re
import socket
import urllib.parse
import urllib.request

from conftest import INSTANCE, PROJECT

INSTANCE_NAME = f"projects/{PROJECT}/instances/{INSTANCE}"
ENVIRONMENT = {"HAYLOFT_ORIGINS_INSTANCE": INSTANCE_NAME}
_SERIES = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$")


def cell_key(table, row, qualifier=b"q", family="cf"):
    """The memcached key of a cell."""
    parts = (table, row, family, qualifier)
    return "row:" + ":".join(urllib.parse.quote(part, safe="") for part in parts)


def metric(server, name, **labels):
    """The sum of a metric's series that have `labels`."""
    with urllib.request.urlopen(server.url("console", "/metrics"), timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    total = 0.0
    for line in lines:
        found = _SERIES.match(line)
        if found and found[1] == name:
            have = dict(re.findall(r'(\w+)="([^"]*)"', found[2] or ""))
            if all(have.get(label) == value for label, value in labels.items()):
                total += float(found[3])
    return total


class Talk:
    """A connection that sends bytes and reads answers line by line."""

    def __init__(self, pair, timeout=20):
        self.socket = socket.create_connection(pair, timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.reader = self.socket.makefile("rb")

    def send(self, text):
        self.socket.sendall(text if isinstance(text, bytes) else text.encode())

    def line(self):
        return self.reader.readline().rstrip(b"\r\n").decode(errors="replace")

    def ask(self, text):
        """Sends a line and returns the first line of its answer."""
        self.send(text if isinstance(text, bytes) else text + "\r\n")
        return self.line()

    def store(self, command, value):
        """Sends a command with a value; `{}` in it is the value's length."""
        self.send(command.format(len(value)).encode() + b"\r\n" + value + b"\r\n")
        return self.line()

    def value(self, key, verb="get"):
        """The value of a key, None if there is none; an error raises."""
        first = self.ask(f"{verb} {key}")
        if first == "END":
            return None
        if not first.startswith("VALUE "):
            raise RuntimeError(first)
        size = int(first.split()[3])
        value = self.reader.read(size + 2)[:-2]
        assert self.line() == "END"
        return value

    def close(self):
        self.reader.close()
        self.socket.close()

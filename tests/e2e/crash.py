"""Kills the server under load from all doors, again and again, and checks that nothing acknowledged is lost.

    python tests/e2e/crash.py --kills 100 --seed 7

Each round starts writers on every door, lets them run for a moment, ends the
server with SIGKILL, starts it again and compares: every acknowledged row,
counter and photo must be there and right, and a write that was not
acknowledged is there whole or not at all. A seed fixes what is written and
when the server dies; how far the writers get by then is up to the machine.

What a row should hold follows from its key and version alone (`row_cells`), so
half a row or a mix of two versions cannot pass for a whole one.
"""

import argparse
import dataclasses
import hashlib
import io
import pathlib
import random
import sys
import tempfile
import threading
import time

import grpc
import requests
from google.api_core import exceptions
from google.cloud.bigtable_admin_v2 import BigtableTableAdminClient
from google.cloud.bigtable_admin_v2.services.bigtable_table_admin.transports import BigtableTableAdminGrpcTransport
from google.cloud.bigtable_v2 import BigtableClient
from google.cloud.bigtable_v2.services.bigtable.transports import BigtableGrpcTransport
from PIL import Image
from pymemcache.client.base import Client as MemcacheClient
from pymemcache.exceptions import MemcacheError

from hayloft import Hayloft

INSTANCE = "projects/crash/instances/crash"
TABLE = f"{INSTANCE}/tables/crash"
FAMILIES = ("left", "right")
DELETED = "deleted"
CALL_SECONDS = 20
# Settings that make each kind of file come and go, and tablets split, within a round.
SMALL = {
    "HAYLOFT_ROWS_MEMTABLES": "1MiB",
    "HAYLOFT_ROWS_TABLET_MAX": "1MiB",
    "HAYLOFT_ROWS_TABLET_SERVERS": "2",
    "HAYLOFT_PHOTOS_VOLUME_MAX": "1MiB",
}
ROW_WRITERS = 3
PHOTO_WRITERS = 2


def noise(*seed):
    """A generator of random numbers that depends on `seed` alone."""
    return random.Random(hashlib.sha256(repr(seed).encode()).digest())


def row_cells(key, version):
    """The cells of a row at a version: {(family, qualifier): value}, one of them a checksum of the others."""
    random_ = noise("row", key, version)
    cells = {("left", b"version"): b"%d" % version}
    for number in range(random_.randint(1, 6)):
        size = random_.choice((0, 1, 20, 100, 1000, 20_000))
        cells[random_.choice(FAMILIES), b"q%d" % number] = random_.randbytes(size)
    cells["right", b"sum"] = checksum(cells)
    return cells


def checksum(cells):
    """A digest over a row's cells but the checksum itself."""
    digest = hashlib.sha256()
    for (family, qualifier), value in sorted(cells.items()):
        if qualifier != b"sum":
            digest.update(b"%s:%s=%d:" % (family.encode(), qualifier, len(value)) + value)
    return digest.hexdigest().encode()


def row_mutations(key, version):
    """One row's mutations for a version; they replace whatever the row held. Every seventh version deletes it."""
    mutations = [{"delete_from_row": {}}]
    if not is_deletion(version):
        mutations += [
            {"set_cell": {"family_name": f, "column_qualifier": q, "timestamp_micros": 1000, "value": value}}
            for (f, q), value in row_cells(key, version).items()
        ]
    return mutations


def is_deletion(version):
    return version % 7 == 6


def picture(seed, number):
    """A small picture's file, unlike any other's."""
    file = io.BytesIO()
    random_ = noise("picture", seed, number)
    width, height = random_.randint(8, 64), random_.randint(8, 64)
    Image.frombytes("RGB", (width, height), random_.randbytes(width * height * 3)).save(file, "JPEG", quality=90)
    return file.getvalue()


@dataclasses.dataclass
class Known:
    """What must be there of one row, counter or photo: the acknowledged state, or the one then attempted.

    A row's state is its version, a counter's its value, a photo's its bytes; DELETED is nothing.
    """

    acknowledged: object
    attempted: object
    versions: int = 0

    def allows(self, found):
        return found in (self.acknowledged, self.attempted)


class Ledger:
    """All that the writers were told, and the counts for the report."""

    def __init__(self):
        self.lock = threading.Lock()
        self.rows = {}
        self.counters = {}
        self.photos = {}
        self.counts = dict.fromkeys(("row writes", "increments", "photos", "photo deletes", "cache sets"), 0)
        self.checked = dict.fromkeys(("rows", "counters", "photos", "cache values"), 0)
        # What the server did meanwhile and a kill may have met, by the names of its metrics.
        self.background = dict.fromkeys(("flushes", "compactions"), 0)

    def count(self, what, number=1):
        with self.lock:
            self.counts[what] += number

    def note_background(self, metrics):
        """Adds what a server's metrics say that it did in its life."""
        for line in metrics.splitlines():
            for what in self.background:
                if line.startswith(f"hayloft_lsm_{what}_total "):
                    self.background[what] += int(float(line.split()[1]))

    def check(self, what):
        with self.lock:
            self.checked[what] += 1


class Doors:
    """Clients of one running server, none of which ever sends a request twice."""

    def __init__(self, server):
        self.server = server
        self.channel = grpc.insecure_channel(
            server.bigtable, options=[("grpc.enable_retries", 0), ("grpc.max_receive_message_length", -1)]
        )
        self.rows = BigtableClient(transport=BigtableGrpcTransport(channel=self.channel))
        self.admin = BigtableTableAdminClient(transport=BigtableTableAdminGrpcTransport(channel=self.channel))
        self.photos = server.url("photos", "/photos")

    def close(self):
        self.channel.close()

    def mutate(self, key, version):
        request = {"table_name": TABLE, "row_key": key, "mutations": row_mutations(key, version)}
        self.rows.mutate_row(request=request, retry=None, timeout=CALL_SECONDS)

    def read(self, rows):
        """{key: {(family, qualifier): newest value}} of a RowSet; None is the whole table."""
        request = {"table_name": TABLE, "rows": rows}
        found, key, family, qualifier, value = {}, b"", "", b"", b""
        for response in self.rows.read_rows(request=request, retry=None, timeout=300):
            for chunk in response.chunks:
                key = chunk.row_key or key
                if "family_name" in chunk:
                    family = chunk.family_name
                if "qualifier" in chunk:
                    qualifier = chunk.qualifier
                value += chunk.value
                if chunk.value_size:
                    continue
                found.setdefault(key, {}).setdefault((family, qualifier), value)
                value = b""
        return found

    def increment(self, key):
        rule = {"family_name": "left", "column_qualifier": b"n", "increment_amount": 1}
        request = {"table_name": TABLE, "row_key": key, "rules": [rule]}
        response = self.rows.read_modify_write_row(request=request, retry=None, timeout=CALL_SECONDS)
        return int.from_bytes(response.row.families[0].columns[0].cells[0].value, "big")


class Round:
    """One life of the server: writers on every door until the kill."""

    def __init__(self, number, seed, server, ledger):
        self.number, self.seed, self.server, self.ledger = number, seed, server, ledger
        self.doors = Doors(server)
        self.dying = threading.Event()
        self.failures = []
        self.threads = [threading.Thread(target=self.guard, args=(job, index)) for job, index in self.jobs()]

    def jobs(self):
        yield from ((self.write_rows, index) for index in range(ROW_WRITERS))
        yield from ((self.write_photos, index) for index in range(PHOTO_WRITERS))
        yield self.write_batches, 0
        yield self.count_up, 0
        yield self.fill_cache, 0

    def guard(self, job, index):
        """Runs a writer; what it meets before the kill is a failure, what it meets after is the kill."""
        try:
            job(index, noise(job.__name__, self.seed, self.number, index))
        except (exceptions.GoogleAPICallError, requests.RequestException, MemcacheError, OSError, ValueError) as error:
            if not self.dying.is_set():
                self.failures.append(f"{job.__name__} was refused while the server lived: {error!r}")
        except AssertionError as error:
            self.failures.append(str(error))

    def run(self, seconds):
        """Lets the writers run for so long, then kills the server in their midst."""
        for thread in self.threads:
            thread.start()
        self.dying.wait(seconds)
        self.note_background()
        alive = self.server.running()
        self.dying.set()
        self.server.kill()
        for thread in self.threads:
            thread.join(CALL_SECONDS + 10)
        self.doors.close()
        assert alive, f"the server died by itself; {self.server.log_tail(40)}"
        assert not any(thread.is_alive() for thread in self.threads), "a client still waits for a dead server"
        assert not self.failures, "\n".join(self.failures)

    def note_background(self):
        try:
            metrics = requests.get(self.server.url("console", "/metrics"), timeout=CALL_SECONDS).text
        except requests.RequestException:
            return  # whether it died is asked next
        self.ledger.note_background(metrics)

    def write_rows(self, index, random_):
        """MutateRow on a few rows over and over: create, replace, delete."""
        keys = [b"%05d-row-%d-%03d" % (self.number, index, row) for row in range(random_.choice((3, 50, 400)))]
        while not self.dying.is_set():
            key = random_.choice(keys)
            known = self.ledger.rows.setdefault(key, Known(DELETED, DELETED))
            version = known.attempted = known.versions
            known.versions += 1
            self.doors.mutate(key, version)
            known.acknowledged = version
            self.ledger.count("row writes")
            if random_.random() < 0.1:
                found = self.doors.read({"row_keys": [key]}).get(key)
                assert found == expected_row(key, version), f"row {key} was not readable after its acknowledgement"

    def write_batches(self, _, random_):
        """MutateRows of new rows; each entry is acknowledged by itself."""
        batch = 0
        while not self.dying.is_set():
            batch += 1
            keys = [b"%05d-batch-%04d-%03d" % (self.number, batch, row) for row in range(random_.randint(1, 60))]
            for key in keys:
                self.ledger.rows[key] = Known(DELETED, 0)
            entries = [{"row_key": key, "mutations": row_mutations(key, 0)} for key in keys]
            request = {"table_name": TABLE, "entries": entries}
            for response in self.doors.rows.mutate_rows(request=request, retry=None, timeout=CALL_SECONDS):
                for entry in response.entries:
                    assert entry.status.code == 0, f"a batch entry was refused: {entry.status}"
                    self.ledger.rows[keys[entry.index]].acknowledged = 0
                    self.ledger.count("row writes")

    def count_up(self, _, random_):
        """ReadModifyWriteRow on counters that live through all rounds."""
        while not self.dying.is_set():
            key = b"counter-%d" % random_.randrange(4)
            known = self.ledger.counters.setdefault(key, Known(0, 0))
            known.attempted = known.acknowledged + 1
            counted = self.doors.increment(key)
            assert counted == known.attempted, f"{key} counted {counted} after {known.acknowledged}"
            known.acknowledged = counted
            self.ledger.count("increments")

    def write_photos(self, index, random_):
        """Uploads, and now and then a delete."""
        mine, number = [], 0
        with requests.Session() as http:
            http.trust_env = False
            while not self.dying.is_set():
                if mine and random_.random() < 0.15:
                    self.delete_photo(http, mine.pop(random_.randrange(len(mine))))
                    continue
                number += 1
                data = picture((self.seed, self.number, index), number)
                answer = http.post(self.doors.photos, data=data, timeout=CALL_SECONDS)
                if answer.status_code == 503 and "Retry-After" in answer.headers:
                    time.sleep(0.05)
                    continue
                assert answer.status_code == 201, f"an upload was refused: {answer.status_code} {answer.text}"
                photo = answer.json()["id"]
                mine.append(photo)
                with self.ledger.lock:
                    assert photo not in self.ledger.photos, f"photo id {photo} was given out twice"
                    self.ledger.photos[photo] = Known(data, data)
                self.ledger.count("photos")

    def delete_photo(self, http, photo):
        known = self.ledger.photos[photo]
        known.attempted = DELETED
        answer = http.delete(f"{self.doors.photos}/{photo}", timeout=CALL_SECONDS)
        assert answer.status_code in (200, 204), f"a delete was refused: {answer.status_code} {answer.text}"
        known.acknowledged = DELETED
        self.ledger.count("photo deletes")

    def fill_cache(self, _, random_):
        """memcached sets and gets: a value may be gone, it is never another's."""
        cache = MemcacheClient(self.server.memcached_pair, timeout=CALL_SECONDS, default_noreply=False)
        try:
            while not self.dying.is_set():
                key = f"key{random_.randrange(500)}"
                if random_.random() < 0.5:
                    cache.set(key, cache_value(key, random_.randrange(1000)))
                    self.ledger.count("cache sets")
                else:
                    value = cache.get(key)
                    check_cached(key, value)
                    if value is not None:
                        self.ledger.check("cache values")
        finally:
            cache.close()


def expected_row(key, version):
    """The row at a version, None where that version is a deletion or there was none."""
    return None if version == DELETED or is_deletion(version) else row_cells(key, version)


def cache_value(key, version):
    return f"{key}={version};".encode() * (version % 50 + 1)


def check_cached(key, value):
    """A cached value names its key and version, and is whole."""
    if value is not None:
        version = int(value.split(b";")[0].split(b"=")[1])
        assert value == cache_value(key, version), f"the cache gave {value[:80]!r} for {key}"


def verify(doors, ledger, number=None):
    """Compares the restarted server with the ledger: all of it, or what round `number` wrote."""
    prefix = b"" if number is None else b"%05d-" % number
    rows = {key: known for key, known in ledger.rows.items() if key.startswith(prefix)}
    row_range = {"row_ranges": [{"start_key_closed": prefix, "end_key_open": prefix + b"\xff"}]} if prefix else None
    found = doors.read(row_range)
    wrong = [problem for key, known in rows.items() if (problem := judge_row(ledger, key, known, found.pop(key, None)))]
    wrong += [f"row {key} is there, nobody wrote it" for key in found if not key.startswith(b"counter-")]
    wrong += verify_counters(doors, ledger)
    wrong += verify_photos(doors, ledger, number)
    assert not wrong, f"{len(wrong)} wrong after a kill:\n" + "\n".join(wrong[:20])


def judge_row(ledger, key, known, found):
    """What is wrong with a row, or None; settles which of the two allowed states it is in."""
    ledger.check("rows")
    for state in (known.acknowledged, known.attempted):
        if found == expected_row(key, state):
            known.acknowledged = known.attempted = state
            return None
    if found is None:
        return f"row {key} is lost: version {known.acknowledged} was acknowledged"
    if found.get(("right", b"sum")) == checksum(found):
        return f"row {key} is at version {found['left', b'version']}, not {known.acknowledged} or {known.attempted}"
    return f"half a row: {key} holds {sorted(found)} for version {known.acknowledged} or {known.attempted}"


def verify_counters(doors, ledger):
    """Each counter is what was acknowledged, or one more."""
    found = doors.read({"row_keys": list(ledger.counters)}) if ledger.counters else {}
    for key, known in ledger.counters.items():
        ledger.check("counters")
        value = int.from_bytes(found.get(key, {}).get(("left", b"n"), b""), "big")
        if not known.allows(value):
            yield f"{key} is {value}, not {known.acknowledged} or {known.attempted}"
        known.acknowledged = known.attempted = value


def verify_photos(doors, ledger, number):
    """Each photo's original is the bytes sent and its thumbnail a picture; a deleted one is 404."""
    recent = list(ledger.photos.items())
    if number is not None:
        recent = recent[-400:]
    with requests.Session() as http:
        http.trust_env = False
        for photo, known in recent:
            ledger.check("photos")
            answer = http.get(f"{doors.photos}/{photo}/original", timeout=CALL_SECONDS)
            found = DELETED if answer.status_code == 404 else answer.content
            if not known.allows(found):
                yield f"photo {photo} answers {answer.status_code}, {len(answer.content)} bytes: lost or damaged"
                continue
            known.acknowledged = known.attempted = found
            thumb = http.get(f"{doors.photos}/{photo}/thumb", timeout=CALL_SECONDS)
            if thumb.status_code != (404 if found == DELETED else 200):
                yield f"photo {photo}: its original answers {answer.status_code}, its thumbnail {thumb.status_code}"


def verify_cache(server, ledger):
    """The cache may have forgotten everything; what it kept is right."""
    cache = MemcacheClient(server.memcached_pair, timeout=CALL_SECONDS, default_noreply=False)
    for key, value in cache.get_many([f"key{number}" for number in range(500)]).items():
        check_cached(key, value)
        ledger.check("cache values")
    cache.close()


def restart(server, random_):
    """Starts the server again, most often with small files; one time in four it is killed while it recovers."""
    server.env = random_.choice((SMALL, SMALL, {}))
    if random_.random() < 0.25:
        server.launch()
        time.sleep(random_.uniform(0, 0.15))
        server.kill()
    return server.start()


def crash(data_dir, log_path, kills, seed, flags=(), report=print):
    """Kills a server over `data_dir` so many times; raises AssertionError when anything acknowledged is lost."""
    random_ = noise("crash", seed)
    ledger = Ledger()
    server = Hayloft(data_dir, log_path, flags, env=SMALL).start()
    try:
        doors = Doors(server)
        table = {"column_families": dict.fromkeys(FAMILIES, {}), "granularity": "MILLIS"}
        splits = [{"key": key} for key in (b"00001", b"00005", b"00030", b"counter-2")]
        request = {"parent": INSTANCE, "table_id": "crash", "table": table, "initial_splits": splits}
        doors.admin.create_table(request=request)
        doors.close()
        for number in range(kills):
            seconds = random_.choice((random_.uniform(0.05, 0.3), random_.uniform(0.3, 2.0)))
            before = dict(ledger.counts)
            Round(number, seed, server, ledger).run(seconds)
            began = time.monotonic()
            restart(server, random_)
            recovered = time.monotonic() - began
            doors = Doors(server)
            verify(doors, ledger, number)
            verify_cache(server, ledger)
            doors.close()
            news = ", ".join(f"{ledger.counts[what] - before[what]} {what}" for what in before)
            report(f"kill {number + 1:3}/{kills} after {seconds:.2f} s: {news}; back in {recovered:.2f} s, all there")
        doors = Doors(server)
        verify(doors, ledger)
        doors.close()
        assert server.stop() == 0, "SIGTERM did not end with exit code 0"
    finally:
        server.kill()
    told = ", ".join(f"{number} {what}" for what, number in ledger.counts.items())
    checks = ", ".join(f"{number} {what}" for what, number in ledger.checked.items())
    done = ", ".join(f"{number} {what}" for what, number in ledger.background.items())
    report(f"{kills} kills (seed {seed}): acknowledged {told}; between them {done}")
    report(f"checked {checks}: nothing acknowledged was lost, no half row")
    return ledger


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="how often to kill the server (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="fixes what is written and when it dies (%(default)s)")
    parser.add_argument("--config", help="a configuration file for the server, to try other sizes")
    arguments = parser.parse_args()
    home = pathlib.Path(tempfile.mkdtemp(prefix="hayloft-crash-"))
    flags = ["--config", arguments.config] if arguments.config else []
    try:
        crash(home / "data", home / "hayloft.log", arguments.kills, arguments.seed, flags)
    except AssertionError as error:
        sys.exit(f"FAILED with --seed {arguments.seed}: {error}\nthe data directory is kept: {home}")


if __name__ == "__main__":
    main()

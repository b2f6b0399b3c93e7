"""Photos in replicas on three stores, while stores are killed, wiped, paused, filled up and damaged.

What is acknowledged can be read throughout, what is deleted never again, and in the end every replica is
complete. How long a wiped store took, and how many bytes, is printed: `pytest -s`.
"""

import hashlib
import random
import shutil
import signal
import subprocess
import threading
import time

import pytest
import requests

from hayloft import Hayloft, HaystackStore
from pictures import encode, noise

pytestmark = pytest.mark.hayloft_only("stores of its own")

# A refused upload and a store that is away are over by then.
PATIENCE_SECONDS = 60
# Volumes so small that there are many.
VOLUME_MAX = "1MiB"


class Cluster:
    """Three stores and a server over them."""

    def __init__(self, home, replicas, store_dirs=None, **env):
        settings = {"HAYLOFT_PHOTOS_VOLUME_MAX": VOLUME_MAX}
        dirs = store_dirs or [home / f"store-{number}" for number in range(3)]
        self.stores = [
            HaystackStore(path, home / f"store-{number}.log", ["--labels", f"rack={number}"], settings)
            for number, path in enumerate(dirs)
        ]
        for store in self.stores:
            store.start()
        flags = [part for store in self.stores for part in ("--haystack-store", store.store_url)]
        flags += ["--photo-replicas", str(replicas)]
        self.replicas = replicas
        self.server = Hayloft(home / "data", home / "hayloft.log", flags, {**settings, **env}).start()

    def close(self):
        for process in (self.server, *self.stores):
            if process.running():
                process.process.send_signal(signal.SIGCONT)
            process.kill()

    def upload(self, seed, width=40, height=30):
        """Uploads a picture of its own and returns the answer."""
        body = encode(noise(width, height, seed), "PNG")
        return requests.post(self.server.url("photos", "/photos"), data=body, timeout=PATIENCE_SECONDS)

    def read(self, photo, size="original"):
        return requests.get(self.server.url("photos", f"/photos/{photo}/{size}"), timeout=PATIENCE_SECONDS)

    def delete(self, photo):
        return requests.delete(self.server.url("photos", f"/photos/{photo}"), timeout=PATIENCE_SECONDS)

    def volumes(self):
        return requests.get(self.server.url("console", "/logical-volumes"), timeout=PATIENCE_SECONDS).json()

    def store_list(self):
        return requests.get(self.server.url("console", "/stores"), timeout=PATIENCE_SECONDS).json()

    def admin(self, *arguments):
        """Runs `hayloft admin` and returns what it prints."""
        command = [self.server.command()[0], "admin", *arguments, "--console", self.server.addresses["console"]]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=PATIENCE_SECONDS).stdout

    def incomplete(self, equal):
        """What keeps the replicas from being complete, if anything does, and from being equal if asked."""
        for volume in self.volumes()["volumes"]:
            members = [replica for replica in volume["replicas"] if replica["member"]]
            reports = [replica["report"] for replica in members if replica["condition"] == "well"]
            counts = {report["photo_count"] for report in reports if report and not report["filling"]}
            filling = [report for report in reports if not report or report["filling"]]
            if filling or len(members) != self.replicas or len(reports) != self.replicas:
                return volume
            if volume["refill"] or volume["debt_count"] or (equal and len(counts) != 1):
                return volume
        return None

    def wait_until_complete(self, equal=False, seconds=PATIENCE_SECONDS):
        """Returns after how many seconds every replica was complete; under load no two need be equal."""
        started = time.monotonic()
        while incomplete := self.incomplete(equal):
            assert time.monotonic() < started + seconds, f"still incomplete: {incomplete}"
            time.sleep(0.1)
        return time.monotonic() - started


@pytest.fixture
def new_cluster(tmp_path):
    clusters = []

    def make(replicas, **options):
        clusters.append(Cluster(tmp_path, replicas, **options))
        return clusters[-1]

    yield make
    for cluster in clusters:
        cluster.close()


class Load:
    """Uploads, reads and deletes from several threads, and what each was answered."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.lock = threading.Lock()
        self.digests = {}
        self.deleted = set()
        self.deleting = set()
        self.refused = []
        self.failures = []
        self.read_count = 0
        self.slowest_read = 0.0
        self.ending = threading.Event()
        work = [self.uploads, self.uploads, self.reads, self.reads, self.deletes]
        self.threads = [threading.Thread(target=self.repeat, args=(work, seed)) for seed, work in enumerate(work)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.ending.set()
        for thread in self.threads:
            thread.join()

    def repeat(self, work, seed):
        chance = random.Random(seed)
        while not self.ending.is_set():
            try:
                work(chance)
            except Exception as error:  # noqa: BLE001 - whatever it is, the test shall tell it
                self.failures.append(repr(error))
                return

    def uploads(self, chance):
        answer = self.cluster.upload(chance.getrandbits(60))
        if answer.status_code != 201:
            self.refused.append((answer.status_code, answer.text))
            time.sleep(0.1)
            return
        photo = answer.json()["id"]
        digest = hashlib.sha256(self.cluster.read(photo).content).digest()
        with self.lock:
            self.digests[photo] = digest

    def some_photo(self, chance):
        with self.lock:
            return chance.choice(list(self.digests.items())) if self.digests else (None, None)

    def reads(self, chance):
        photo, digest = self.some_photo(chance)
        if photo is None:
            return time.sleep(0.01)
        started = time.monotonic()
        answer = self.cluster.read(photo)
        self.slowest_read = max(self.slowest_read, time.monotonic() - started)
        self.read_count += 1
        whole = answer.status_code == 200 and hashlib.sha256(answer.content).digest() == digest
        with self.lock:
            if not whole and photo in self.digests:
                self.failures.append(f"{photo}: {answer.status_code} {answer.text[:200]}")

    def deletes(self, chance):
        time.sleep(0.2)
        photo, _ = self.some_photo(chance)
        if photo is None:
            return
        with self.lock:
            del self.digests[photo]
        answer = self.cluster.delete(photo)
        # One that failed may have deleted it or not.
        if answer.status_code == 204:
            self.deleted.add(photo)

    def check(self):
        """Reads everything once more."""
        assert not self.failures, self.failures[:5]
        for photo, digest in self.digests.items():
            answer = self.cluster.read(photo)
            whole = answer.status_code == 200 and hashlib.sha256(answer.content).digest() == digest
            assert whole, f"{photo}: {answer.status_code} {answer.text[:200]}"
        for photo in self.deleted:
            assert self.cluster.read(photo).status_code == 404, f"{photo} is back"


@pytest.mark.parametrize("replicas", [2, 3])
def test_a_store_that_is_killed_and_wiped_comes_back_complete(new_cluster, replicas, request):
    seconds = 20 if request.config.getoption("--kills") > 4 else 3
    cluster = new_cluster(replicas)
    lost = cluster.stores[1]
    with Load(cluster) as load:
        time.sleep(2 * seconds)
        lost.kill()
        shutil.rmtree(lost.data_dir)
        time.sleep(seconds)
        lost.start()
        elapsed = cluster.wait_until_complete()
        time.sleep(1)
    load.check()
    cluster.wait_until_complete(equal=True)
    refills = [refill for _, refill in cluster.volumes()["finished_refills"] if not refill["failure"]]
    copied, photos = (sum(refill[what] for refill in refills) for what in ("copied_bytes", "copied_count"))
    assert photos > 0
    print(
        f"\n{replicas} replicas: {len(load.digests)} photos, {load.read_count} reads, slowest {load.slowest_read:.2f} s; "
        f"complete {elapsed:.1f} s after the start: {photos} photos, {copied} bytes, {len(refills)} volumes"
    )
    # What the others have, the one that was lost has alone, too.
    if replicas == 3:
        for store in (cluster.stores[0], cluster.stores[2]):
            store.kill()
        load.check()


def test_stores_killed_in_the_middle_of_writes_lose_nothing(new_cluster, request):
    rounds = 20 if request.config.getoption("--kills") > 4 else 3
    cluster = new_cluster(2)
    with Load(cluster) as load:
        for number in range(rounds):
            time.sleep(1)
            store = cluster.stores[number % 3]
            store.kill()
            time.sleep(0.5)
            store.start()
            cluster.wait_until_complete()
    load.check()
    cluster.wait_until_complete(equal=True)


def test_a_store_killed_while_it_is_filled_is_filled_on(new_cluster):
    cluster = new_cluster(3, HAYLOFT_PHOTOS_COPY_RATE="512KiB")
    for seed in range(150):
        assert cluster.upload(seed).status_code == 201
    store = cluster.stores[2]
    with Load(cluster) as load:
        store.kill()
        shutil.rmtree(store.data_dir)
        store.start()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not any(volume["refill"] for volume in cluster.volumes()["volumes"]):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert "copied" in cluster.admin("logical-volumes", "list")
        store.kill()
        time.sleep(1)
        store.start()
        cluster.wait_until_complete()
    load.check()


def test_a_paused_store_delays_nobody_for_long(new_cluster):
    cluster = new_cluster(2)
    with Load(cluster) as load:
        time.sleep(2)
        cluster.stores[0].process.send_signal(signal.SIGSTOP)
        time.sleep(6)
        conditions = [store["condition"] for store in cluster.store_list()]
        assert conditions[0] in ("doubtful", "ill") and conditions[1:] == ["well", "well"]
        uploaded = len(load.digests)
        time.sleep(2)
        assert len(load.digests) > uploaded, "uploads go on at the other two"
        cluster.stores[0].process.send_signal(signal.SIGCONT)
        cluster.wait_until_complete()
    load.check()
    assert not load.refused, load.refused[:3]
    assert load.slowest_read < 3, load.slowest_read


def test_uploads_are_refused_while_two_of_three_stores_are_away(new_cluster):
    cluster = new_cluster(2)
    photo = cluster.upload(1).json()["id"]
    for store in cluster.stores[1:]:
        store.kill()
    refused = cluster.upload(2)
    assert refused.status_code == 503 and int(refused.headers["Retry-After"]) >= 1
    assert refused.json()["code"] == "stores_away"
    for store in cluster.stores[1:]:
        store.start()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while cluster.upload(3).status_code != 201:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert cluster.read(photo).status_code == 200


def test_flipped_bits_in_a_volume_are_repaired_from_another_replica(new_cluster):
    cluster = new_cluster(2)
    photos = {seed: cluster.upload(seed).json()["id"] for seed in range(40)}
    contents = {photo: cluster.read(photo).content for photo in photos.values()}
    damaged = cluster.stores[0]
    files = list((damaged.data_dir / "haystack").glob("*.volume"))
    chance = random.Random(7)
    for path in files:
        with open(path, "r+b") as file:
            length = path.stat().st_size
            for _ in range(5):
                place = chance.randrange(200, length)
                file.seek(place)
                byte = file.read(1)
                file.seek(place)
                file.write(bytes([byte[0] ^ 0x10]))
    assert files
    for _ in range(4):
        for photo, content in contents.items():
            assert cluster.read(photo).content == content
            assert cluster.read(photo, "thumb").status_code == 200
    deadline = time.monotonic() + PATIENCE_SECONDS
    while cluster.volumes()["repaired_count"] == 0:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert not any(volume["unrepaired"] for volume in cluster.volumes()["volumes"])


def test_a_store_with_a_full_disk_gets_no_more_photos(new_cluster, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    size = "size=160m"
    if not mount or subprocess.run([mount, "-t", "tmpfs", "-o", size, "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("no disk can be mounted here")
    try:
        dirs = [disk / "store", tmp_path / "store-1", tmp_path / "store-2"]
        cluster = new_cluster(2, store_dirs=dirs)
        filler = disk / "filler"
        before = [cluster.upload(seed).json()["id"] for seed in range(10)]
        with open(filler, "wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(1 << 20))
            except OSError:
                pass
        # Its volumes have room reserved, which comes to its end first.
        for seed in range(10, 210):
            answer = cluster.upload(seed, 600, 400)
            assert answer.status_code == 201, answer.text
            if any(store["full"] for store in cluster.store_list()):
                break
        assert any(store["full"] for store in cluster.store_list())
        assert "disk full" in cluster.admin("stores", "list")
        for photo in before:
            assert cluster.read(photo).status_code == 200
        assert cluster.delete(before[0]).status_code == 204
        filler.unlink()
        cluster.wait_until_complete()
        cluster.close()
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_operators_keep_photos_from_stores_and_volumes(new_cluster):
    cluster = new_cluster(2)
    assert cluster.upload(1).status_code == 201
    [volume] = [str(volume["volume"]) for volume in cluster.volumes()["volumes"]]
    cluster.admin("logical-volumes", "read-only", volume)
    assert "by command" in cluster.admin("logical-volumes", "list")
    assert '"writable": false' in cluster.admin("logical-volumes", "show", volume)
    cluster.admin("stores", "read-only", cluster.stores[0].store_url)
    for seed in range(4):
        assert cluster.upload(seed + 2).status_code == 201
    counts = [store["photo_count"] for store in cluster.store_list()]
    cluster.admin("logical-volumes", "writable", volume)
    cluster.admin("stores", "writable", cluster.stores[0].address)
    assert all(volume["writable"] for volume in cluster.volumes()["volumes"])
    assert counts[0] <= 1


def test_a_token_is_asked_for(new_cluster, tmp_path):
    token, other = tmp_path / "token", tmp_path / "other"
    token.write_text("a-token-of-the-cluster\n")
    other.write_text("another-token-of-nobody\n")
    store = HaystackStore(tmp_path / "store", tmp_path / "store.log", ["--token-file", str(token)])
    store.start()
    servers = []
    try:
        for number, path in enumerate((token, other)):
            flags = ["--haystack-store", store.store_url, "--photo-replicas", "1"]
            env = {"HAYLOFT_PHOTOS_STORE_TOKEN_FILE": str(path)}
            servers.append(Hayloft(tmp_path / f"data-{number}", tmp_path / f"hayloft-{number}.log", flags, env).start())
        statuses = []
        for server in servers:
            body = encode(noise(40, 30), "PNG")
            statuses.append(requests.post(server.url("photos", "/photos"), data=body, timeout=60).status_code)
        assert statuses == [201, 503]
        complaint = requests.get(servers[1].url("console", "/stores"), timeout=60).json()[0]["complaint"]
        assert "token" in complaint
    finally:
        for process in (*servers, store):
            process.kill()

"""`hayloft admin volumes` at a running server, and `hayloft inspect volume` and `index` afterwards."""

import json
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from hayloft import Hayloft, binary, clean_environment
from pictures import encode, noise

PHOTOS = 12


def run(*arguments):
    """Exit code, standard output and standard error of a `hayloft` command."""
    command = [binary(), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=clean_environment(), check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def home(tmp_path):
    """A server whose log is kept beside its data, and nothing in the background."""
    quiet = {"HAYLOFT_PHOTOS_GARBAGE_PERCENT": "0", "HAYLOFT_PHOTOS_SCRUB_RATE": "0"}
    server = Hayloft(tmp_path / "data", tmp_path / "hayloft.log", env=quiet).start()
    yield server, tmp_path / "data" / "haystack" / "00000001.volume"
    server.stop()


def admin(server, *arguments):
    return run("admin", "volumes", *arguments, "--console", server.console)


def shown(server):
    code, out, err = admin(server, "show", "1", "--json")
    assert code == 0, err
    return json.loads(out)


def upload(server, number):
    picture = encode(noise(120 + number, 90), "JPEG")
    answer = requests.post(server.url("photos", "/photos"), data=picture, headers={"Content-Type": "image/jpeg"})
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


def flip(path, offset):
    """Flips a bit in place: the server has the file open."""
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0x10]))


def test_a_volume_is_compacted_while_it_is_read_and_shrinks(home):
    server, volume = home
    photos = [upload(server, number) for number in range(PHOTOS)]
    bytes_of = {photo: requests.get(server.url("photos", f"/photos/{photo}")).content for photo in photos}
    tags = {photo: requests.get(server.url("photos", f"/photos/{photo}")).headers["ETag"] for photo in photos}
    for photo in photos[::2]:
        assert requests.delete(server.url("photos", f"/photos/{photo}")).status_code in (200, 204)
    before = shown(server)
    assert before["photos"] == PHOTOS // 2 and before["garbage_bytes"] > 0
    kept = photos[1::2]

    def read(photo):
        answer = requests.get(server.url("photos", f"/photos/{photo}"))
        return answer.status_code == 200 and answer.content == bytes_of[photo]

    with ThreadPoolExecutor(4) as pool:
        reads = [pool.submit(read, kept[number % len(kept)]) for number in range(200)]
        code, out, err = admin(server, "compact", "1")
        assert code == 0, err
        assert str(before["bytes"]) in out
        assert all(done.result() for done in reads)
    after = shown(server)
    assert after["garbage_bytes"] == 0 and after["bytes"] < before["bytes"]
    assert volume.stat().st_size == after["bytes"]
    assert all(read(photo) for photo in kept)
    for photo in kept:
        cached = requests.get(server.url("photos", f"/photos/{photo}"), headers={"If-None-Match": tags[photo]})
        assert cached.status_code == 304, "a compaction makes no cache stale"
    for photo in photos[::2]:
        assert requests.get(server.url("photos", f"/photos/{photo}")).status_code == 404
    assert "write-enabled" in admin(server, "list")[1]
    server.stop()
    code, out, err = run("inspect", "volume", volume, "--verify", "--json")
    report = json.loads(out)
    assert (code, report["photo_count"], report["damages"]) == (0, len(kept), []), err
    server.start()
    assert all(read(photo) for photo in kept)


def test_a_damaged_photo_is_found_by_scrub_and_by_inspect(home):
    server, volume = home
    photos = [upload(server, number) for number in range(3)]
    code, out, _ = admin(server, "scrub", "1")
    assert code == 0 and "0 bytes" not in out
    flip(volume, 64 + 32 + 100)
    code, out, err = admin(server, "scrub", "1")
    assert code == 1 and "original" in out and "damaged" in err
    code, _, err = admin(server, "compact", "1")
    assert code == 1 and "not compacted" in err, "a photo that cannot be read is not dropped"
    assert requests.get(server.url("photos", f"/photos/{photos[0]}/original")).status_code == 500
    assert requests.get(server.url("photos", f"/photos/{photos[1]}/original")).status_code == 200
    server.stop()
    code, out, _ = run("inspect", "volume", volume)
    assert code == 0, "without --verify the index file is believed"
    code, out, err = run("inspect", "volume", volume, "--verify", "--needles")
    assert code == 1 and "DAMAGED" in out and "64" in err
    code, out, _ = run("inspect", "index", volume.with_suffix(".index"), "--needles")
    assert code == 0 and out.count("original") == 3
    server.start()


def test_what_is_not_there_is_refused_with_a_sentence(home):
    server, _ = home
    for work in ("show", "compact", "scrub"):
        code, _, err = admin(server, work, "77")
        assert code == 1 and "77" in err
    answer = requests.post(f"http://{server.console}/volumes/1/compact")
    assert answer.status_code == 400 and "application/json" in answer.json()["error"]
    assert requests.get(f"http://{server.console}/volumes/x").status_code == 404

"""Blobs, uploads with a key and resumable uploads, as requests and a tus client knock."""

import json
import os
import random
import socket
import threading

import pytest
import requests

from hayloft import Hayloft, host_port
from pictures import encode, jpeg, noise

tus_client = pytest.importorskip("tusclient.client", reason="tuspy is not installed")
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def http():
    """A connection that is kept."""
    with requests.Session() as session:
        session.trust_env = False
        yield session


def refused(answer, status, code):
    """Asserts a refusal with its code."""
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text


# --- blobs


@pytest.mark.parametrize("length", [0, 1, MIB, 5 * MIB + 3])
def test_a_blob_of_any_type_comes_back(server, http, length):
    data = random.Random(length).randbytes(length)
    url = server.url("photos", f"/blobs/backups/2026/{length}.tar")
    put = http.put(url, data=data, headers={"Content-Type": "application/x-tar"})
    assert put.status_code == 201, put.text
    assert put.json()["bytes"] == length
    got = http.get(url)
    assert (got.content, got.headers["Content-Type"]) == (data, "application/x-tar")
    assert got.headers["ETag"] == put.headers["ETag"]
    head = http.head(url)
    assert (head.status_code, head.headers["Content-Length"], head.content) == (200, str(length), b"")
    if length > 1:
        part = http.get(url, headers={"Range": f"bytes={length - 2 * MIB if length > 2 * MIB else 1}-"})
        assert part.status_code == 206 and data.endswith(part.content)
    assert http.delete(url).status_code == 204
    refused(http.get(url), 404, "not_found")


def test_a_blob_of_unknown_length_is_streamed(server, http):
    url = server.url("photos", "/blobs/streamed")
    pieces = [random.Random(number).randbytes(300_000) for number in range(10)]
    assert http.put(url, data=iter(pieces)).status_code in (200, 201)
    assert http.get(url).content == b"".join(pieces)


def test_only_one_of_many_creates_a_blob(server):
    url = server.url("photos", "/blobs/created-once")
    answers = []

    def put(number):
        answers.append(requests.put(url, data=str(number).encode(), headers={"If-None-Match": "*"}, timeout=30))

    threads = [threading.Thread(target=put, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer.status_code for answer in answers) == [201] + [412] * 11
    won = next(answer for answer in answers if answer.status_code == 201)
    assert requests.get(url, timeout=30).headers["ETag"] == won.headers["ETag"]


def test_a_counter_kept_by_if_match_loses_no_step(server):
    url = server.url("photos", "/blobs/counter")
    requests.put(url, data=b"0", timeout=30)

    def count():
        with requests.Session() as session:
            for _ in range(10):
                while True:
                    now = session.get(url, timeout=30)
                    next_value = str(int(now.content) + 1).encode()
                    if session.put(url, data=next_value, headers={"If-Match": now.headers["ETag"]}).status_code == 200:
                        break

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert requests.get(url, timeout=30).content == b"40"


def test_blobs_are_listed_like_folders(server, http):
    for name in ("tree/a", "tree/b/c", "tree/b/d", "tree/e"):
        assert http.put(server.url("photos", f"/blobs/{name}"), data=name.encode()).status_code in (200, 201)
    listed = http.get(server.url("photos", "/blobs?prefix=tree/&delimiter=/")).json()
    assert [blob["name"] for blob in listed["blobs"]] == ["tree/a", "tree/e"]
    assert listed["prefixes"] == ["tree/b/"]
    found, path = [], "/blobs?prefix=tree/&limit=3"
    while path:
        page = http.get(server.url("photos", path)).json()
        found += [blob["name"] for blob in page["blobs"]]
        path = page.get("next")
    assert found == ["tree/a", "tree/b/c", "tree/b/d", "tree/e"]


def test_a_stored_page_cannot_act_for_the_server(server, http):
    url = server.url("photos", "/blobs/evil.html")
    http.put(url, data=b"<script>alert(1)</script>", headers={"Content-Type": "text/html"})
    headers = http.get(url).headers
    assert "sandbox" in headers["Content-Security-Policy"] and headers["X-Content-Type-Options"] == "nosniff"


# --- keys


def test_a_retried_upload_is_one_photo_across_a_kill(tmp_path):
    data, key = jpeg(400, 300), {"Idempotency-Key": '"8e03978e-40d5-43e8-bc93-6894a57f9324"'}
    server = Hayloft(tmp_path / "data", tmp_path / "log").start()
    try:
        first = requests.post(server.url("photos", "/photos?album=a"), data=data, headers=key, timeout=30)
        server.kill()
        server.start()
        again = requests.post(server.url("photos", "/photos?album=a"), data=data, headers=key, timeout=30)
        assert (first.status_code, again.status_code) == (201, 201)
        assert first.json() == again.json()
        other = requests.post(server.url("photos", "/photos?album=a"), data=jpeg(401, 300), headers=key, timeout=30)
        refused(other, 422, "key_reused")
        assert len(requests.get(server.url("photos", "/albums/a"), timeout=30).json()["photos"]) == 1
    finally:
        server.kill()


def test_uploads_with_one_key_at_once_are_one_photo(server):
    data, answers = encode(noise(200, 150), "PNG"), []

    def post():
        url = server.url("photos", "/photos?album=one-key")
        answers.append(requests.post(url, data=data, headers={"Idempotency-Key": "at once"}, timeout=60))

    threads = [threading.Thread(target=post) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert len({answer.json()["id"] for answer in answers if answer.status_code == 201}) == 1
    assert len(requests.get(server.url("photos", "/albums/one-key"), timeout=30).json()["photos"]) == 1


# --- tus


def upload_by_tus(server, path, metadata, chunk_size=MIB, url=None, stop_at=None):
    """Sends a file by the client's own way; gives the upload's URL."""
    client = tus_client.TusClient(server.url("photos", "/uploads"))
    uploader = client.uploader(str(path), chunk_size=chunk_size, metadata=metadata, url=url)
    uploader.upload(stop_at=stop_at)
    return uploader.url


def test_a_tus_client_uploads_a_photo_and_a_blob(server, http, tmp_path):
    photo = tmp_path / "barn.png"
    photo.write_bytes(encode(noise(900, 700), "PNG"))
    url = upload_by_tus(server, photo, {"filename": "barn.png", "album": "by tus"}, chunk_size=300_000)
    told = http.get(url).json()
    assert http.get(server.url("photos", told["url"])).content == photo.read_bytes()
    album = http.get(server.url("photos", "/albums/by%20tus")).json()["photos"]
    assert [photo["filename"] for photo in album] == ["barn.png"]
    big = tmp_path / "big.bin"
    big.write_bytes(random.Random(5).randbytes(7 * MIB + 11))
    upload_by_tus(server, big, {"blob": "by/tus", "filetype": "application/x-barn"})
    got = http.get(server.url("photos", "/blobs/by/tus"))
    assert (got.content, got.headers["Content-Type"]) == (big.read_bytes(), "application/x-barn")


def test_an_upload_goes_on_after_a_kill(tmp_path):
    big = tmp_path / "big.bin"
    big.write_bytes(random.Random(6).randbytes(9 * MIB + 5))
    server = Hayloft(tmp_path / "data", tmp_path / "log").start()
    try:
        url = upload_by_tus(server, big, {"blob": "survivor"}, stop_at=3 * MIB)
        # A part that is cut off by the kill itself.
        head = requests.head(url, headers={"Tus-Resumable": "1.0.0"}, timeout=30)
        offset = int(head.headers["Upload-Offset"])
        assert offset == 3 * MIB
        path = url.split("/", 3)[3]
        with socket.create_connection(host_port(server.photos), timeout=10) as connection:
            connection.sendall(
                f"PATCH /{path} HTTP/1.1\r\nHost: h\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: {offset}\r\n"
                f"Content-Type: application/offset+octet-stream\r\nContent-Length: {4 * MIB}\r\n\r\n".encode()
            )
            connection.sendall(big.read_bytes()[offset : offset + 2 * MIB])
            server.kill()
        server.start()
        url = server.url("photos", f"/{path}")
        head = requests.head(url, headers={"Tus-Resumable": "1.0.0"}, timeout=30)
        assert 3 * MIB <= int(head.headers["Upload-Offset"]) <= 5 * MIB
        upload_by_tus(server, big, {"blob": "survivor"}, url=url)
        assert requests.get(server.url("photos", "/blobs/survivor"), timeout=30).content == big.read_bytes()
    finally:
        server.kill()


def test_what_tus_can_do_is_told(server, http):
    options = http.options(server.url("photos", "/uploads"))
    assert options.status_code == 204
    assert options.headers["Tus-Version"] == "1.0.0"
    assert {"creation", "termination", "expiration", "checksum"} <= set(options.headers["Tus-Extension"].split(","))


# --- bounds


def peak_kib(server):
    """The most memory that the server has had, KiB."""
    with open(f"/proc/{server.process.pid}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))


def test_memory_stays_flat_while_a_thousand_uploads_are_under_way(tmp_path):
    """Each of 1 000 clients announces 10 MB and sends 1 MB of it; few are read, the rest wait in their sockets."""
    server = Hayloft(tmp_path / "data", tmp_path / "log").start()
    connections = []
    try:
        before = peak_kib(server)
        piece = b"\xff\xd8\xff" + os.urandom(65_533)
        for _ in range(1000):
            connection = socket.create_connection(host_port(server.photos), timeout=10)
            connection.sendall(b"POST /photos HTTP/1.1\r\nHost: h\r\nContent-Length: 10000000\r\n\r\n")
            connection.setblocking(False)
            connections.append(connection)
        for _ in range(16):
            for connection in connections:
                try:
                    connection.send(piece)
                except BlockingIOError:
                    pass
        grown = peak_kib(server) - before
        assert grown < 420 * 1024, f"grew by {grown} KiB"
        put = requests.put(server.url("photos", "/blobs/meanwhile"), data=b"small", timeout=60)
        assert put.status_code in (201, 503), put.text
    finally:
        for connection in connections:
            connection.close()
        server.kill()


def test_json_errors_name_their_limit(server, http):
    answer = http.put(server.url("photos", "/blobs/" + "n" * 1025), data=b"x")
    refused(answer, 400, "bad_name")
    assert answer.json()["limit"] == 1024
    assert json.loads(http.get(server.url("photos", "/photos?limit=0")).text)["code"] == "bad_limit"

"""Variants of photos, listed and signed, and URLs that `hayloft sign-url` signs."""

import subprocess

import pytest
import requests

from hayloft import Hayloft, binary, clean_environment
from pictures import QUARTERS, corners, decode, encode, jpeg, quarters

OLD, NEW = "an old key of this test", "a new key of this test"


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A server that lists two variants and knows two keys."""
    base = tmp_path_factory.mktemp("variants")
    env = {
        "HAYLOFT_PHOTOS_VARIANTS": "w=320, w=100&h=100&fit=cover&fm=auto",
        "HAYLOFT_PHOTOS_SIGNING_KEYS": f"{NEW}, {OLD}",
    }
    server = Hayloft(base / "data", base / "log", env=env).start()
    yield server
    server.kill()


def upload(server, data):
    answer = requests.post(server.url("photos", "/photos"), data=data, timeout=30)
    assert answer.status_code == 201, answer.text
    return answer.json()["url"]


def sign(path, key=NEW, expires="1h"):
    """What `hayloft sign-url` prints."""
    env = clean_environment({"HAYLOFT_PHOTOS_SIGNING_KEYS": key})
    command = [binary(), "sign-url", path, "--expires", expires]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=30, check=True).stdout.strip()


def test_a_listed_variant_is_made_and_another_is_not(served):
    url = served.url("photos", upload(served, jpeg(1600, 1000, orientation=6)))
    answer = requests.get(f"{url}?w=320", timeout=30)
    image = decode(answer.content)
    assert (image.size, corners(image)) == ((320, 200), QUARTERS)
    assert "immutable" in answer.headers["Cache-Control"] and "Vary" not in answer.headers
    assert requests.get(f"{url}?w=321", timeout=30).status_code == 403
    assert requests.get(f"{url}?w=99999", timeout=30).status_code == 400


def test_webp_goes_to_who_accepts_it_where_something_shines_through(served):
    see_through = quarters(400, 300).convert("RGBA")
    see_through.putalpha(128)
    url = served.url("photos", upload(served, encode(see_through, "PNG"))) + "?w=100&h=100&fit=cover&fm=auto"
    for accept, kind in (("image/webp,image/*", "webp"), ("image/png", "png"), ("image/webp;q=0", "png")):
        answer = requests.get(url, headers={"Accept": accept}, timeout=30)
        assert answer.headers["Content-Type"] == f"image/{kind}", accept
        assert answer.headers["Vary"] == "accept"
        assert decode(answer.content).size == (100, 100)


@pytest.mark.parametrize("key", [NEW, OLD])
def test_a_signed_url_gives_any_variant_until_it_expires(served, key):
    path = upload(served, jpeg(800, 500))
    signed = sign(f"{path}?w=333&fm=png", key)
    answer = requests.get(served.url("photos", signed), timeout=30)
    assert (answer.status_code, decode(answer.content).size) == (200, (333, 208))
    assert answer.headers["Cache-Control"].startswith("private, max-age=3")
    for changed in (signed.replace("w=333", "w=334"), signed[:-2], sign(f"{path}?w=333", "a key that nobody knows")):
        assert requests.get(served.url("photos", changed), timeout=30).json()["code"] == "bad_signature"
    over = sign(f"{path}?w=333", key, expires="0s")
    assert requests.get(served.url("photos", over), timeout=30).json()["code"] == "expired"

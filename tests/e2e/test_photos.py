"""The photo door, as curl, a browser's form and Python's requests knock on it."""

import email.utils
import json
import re
import shutil
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from hayloft import host_port
from pictures import GPS, MAKE, QUARTERS, TURNED_BY, corners, decode, encode, jpeg, noise, quarters
from photographs import photographs

SIZES = ("large", "medium", "small", "thumb")
MIB = 1024 * 1024

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


@pytest.fixture(scope="module")
def http():
    """A connection that is kept."""
    with requests.Session() as session:
        session.trust_env = False
        yield session


@pytest.fixture
def upload(server, http):
    """Uploads bytes as a raw body and returns the answer's JSON."""

    def upload(data, content_type="image/jpeg", **parameters):
        headers = {"Content-Type": content_type}
        answer = http.post(server.url("photos", "/photos"), data=data, headers=headers, params=parameters)
        assert answer.status_code == 201, answer.text
        return answer.json()

    return upload


@pytest.fixture
def get(server, http):
    """GETs a path of the photo door."""
    return lambda path, **options: http.get(server.url("photos", path), **options)


def refused(answer, status):
    """Asserts a refusal that a person and a program both understand."""
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"].startswith("application/json")
    told = json.dumps(answer.json())
    assert len(re.findall(r"[a-z]{2,}", told)) >= 4, f"no sentence in {told}"


# --- upload


@needs_curl
def test_curl_uploads_a_form_and_fetches_it_back(server, tmp_path):
    picture = tmp_path / "barn.jpg"
    picture.write_bytes(jpeg())
    post = ["curl", "-sS", "-i", "-F", f"photo=@{picture};type=image/jpeg", server.url("photos", "/photos")]
    printed = subprocess.run(post, capture_output=True, text=True, timeout=30, check=True).stdout
    head, body = printed.replace("\r\n", "\n").rsplit("\n\n", 1)
    assert re.search(r"^HTTP/1.1 201 ", head, re.MULTILINE)
    photo = json.loads(body)
    assert re.search(rf"(?im)^location: .*/photos/{re.escape(photo['id'])}$", head)
    fetch = ["curl", "-sS", "-f", server.url("photos", f"/photos/{photo['id']}/original")]
    fetched = subprocess.run(fetch, capture_output=True, timeout=30, check=True).stdout
    assert fetched == picture.read_bytes()


@needs_curl
def test_curl_uploads_a_raw_body(server, tmp_path):
    picture = tmp_path / "barn.png"
    picture.write_bytes(encode(quarters(200, 100), "PNG"))
    post = ["curl", "-sS", "-f", "-H", "Content-Type: image/png", "--data-binary", f"@{picture}"]
    done = subprocess.run([*post, server.url("photos", "/photos")], capture_output=True, timeout=30, check=True)
    assert json.loads(done.stdout)["id"]


def test_a_browsers_form_uploads_a_photo(server, http):
    form = {"photo": ("IMG_0001.JPG", jpeg(), "image/jpeg")}
    answer = http.post(server.url("photos", "/photos"), files=form)
    assert answer.status_code == 201, answer.text
    assert answer.headers["Location"].endswith(f"/photos/{answer.json()['id']}")


def test_a_form_with_other_fields_uploads_its_photo(server, http):
    form = {"photo": ("barn.jpg", jpeg(), "image/jpeg")}
    answer = http.post(server.url("photos", "/photos"), data={"caption": "the barn"}, files=form)
    assert answer.status_code == 201, answer.text


def test_a_body_of_unknown_length_uploads(server, http):
    data = jpeg()
    chunks = (data[start : start + 10_000] for start in range(0, len(data), 10_000))
    answer = http.post(server.url("photos", "/photos"), data=chunks, headers={"Content-Type": "image/jpeg"})
    assert answer.status_code == 201, answer.text


def test_a_photo_uploaded_twice_is_two_photos(upload):
    data = jpeg(100, 80)
    assert upload(data)["id"] != upload(data)["id"]


FORMATS = {
    "jpeg": ("image/jpeg", lambda: jpeg()),
    "progressive jpeg": ("image/jpeg", lambda: encode(quarters(), "JPEG", progressive=True)),
    "grey jpeg": ("image/jpeg", lambda: encode(quarters().convert("L"), "JPEG")),
    "cmyk jpeg": ("image/jpeg", lambda: encode(quarters().convert("CMYK"), "JPEG")),
    "png": ("image/png", lambda: encode(quarters(), "PNG")),
    "png with alpha": ("image/png", lambda: encode(quarters().convert("RGBA"), "PNG")),
    "png with a palette": ("image/png", lambda: encode(quarters().convert("P"), "PNG")),
    "webp": ("image/webp", lambda: encode(quarters(), "WEBP", quality=90)),
    "lossless webp": ("image/webp", lambda: encode(quarters(), "WEBP", lossless=True)),
    "gif": ("image/gif", lambda: encode(quarters(), "GIF")),
}


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_comes_back_whole_and_in_four_sizes(upload, get, name):
    content_type, make = FORMATS[name]
    data = make()
    photo = upload(data, content_type)
    original = get(f"/photos/{photo['id']}/original")
    assert original.content == data
    assert original.headers["Content-Type"] == content_type
    widths = []
    for size in SIZES:
        answer = get(f"/photos/{photo['id']}/{size}")
        assert answer.status_code == 200, answer.text
        image = decode(answer.content)
        assert answer.headers["Content-Type"] == f"image/{image.format.lower()}"
        assert abs(image.width / image.height - 1.6) < 0.05
        if "grey" not in name:
            assert corners(image) == QUARTERS
        widths.append(image.width)
    assert widths == sorted(widths, reverse=True) and len(set(widths)) >= 3
    assert widths[0] <= 1600 and widths[-1] <= 400


def test_a_small_picture_is_not_blown_up(upload, get):
    photo = upload(encode(quarters(64, 40), "PNG"), "image/png")
    assert [decode(get(f"/photos/{photo['id']}/{size}").content).size for size in SIZES] == [(64, 40)] * 4


def test_the_content_decides_whatever_the_type_says(upload, get):
    data = encode(quarters(300, 200), "PNG")
    photo = upload(data, "image/jpeg")
    assert get(f"/photos/{photo['id']}/original").headers["Content-Type"] == "image/png"


# --- what cameras write


@pytest.mark.parametrize("orientation", TURNED_BY)
def test_derived_sizes_stand_upright(upload, get, orientation):
    photo = upload(jpeg(1600, 1000, orientation))
    for size in SIZES:
        image = decode(get(f"/photos/{photo['id']}/{size}").content)
        assert corners(image) == QUARTERS, size
        assert image.width > image.height


def test_derived_sizes_carry_no_exif(upload, get):
    photo = upload(jpeg(orientation=6, gps=True))
    for size in SIZES:
        assert dict(decode(get(f"/photos/{photo['id']}/{size}").content).getexif()) == {}


def test_the_original_loses_its_place_and_keeps_the_rest(upload, get):
    taken = jpeg(orientation=6, gps=True)
    assert decode(taken).getexif().get_ifd(GPS)
    kept = decode(get(f"/photos/{upload(taken)['id']}/original").content)
    assert not kept.getexif().get_ifd(GPS)
    assert kept.getexif()[MAKE] == "Barnyard Optics"
    assert list(kept.getdata()) == list(decode(taken).getdata())


# --- fetching


@pytest.fixture(scope="module")
def barn(server, http):
    """One photo that the tests of reading share: (path of its original, its bytes)."""
    data = jpeg()
    answer = http.post(server.url("photos", "/photos"), data=data, headers={"Content-Type": "image/jpeg"})
    return f"/photos/{answer.json()['id']}/original", data


def test_a_photo_may_be_cached_for_ever(get, barn):
    path, data = barn
    answer = get(path)
    assert answer.content == data
    cached = answer.headers["Cache-Control"]
    assert "public" in cached and "immutable" in cached and "max-age=31536000" in cached
    assert re.fullmatch(r'"[^"]+"', answer.headers["ETag"])
    assert email.utils.parsedate_to_datetime(answer.headers["Last-Modified"])
    assert int(answer.headers["Content-Length"]) == len(data)


def test_the_bare_url_answers_a_picture(get, barn):
    answer = get(barn[0].removesuffix("/original"))
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("image/")


def test_each_size_has_its_own_etag(get, barn):
    base = barn[0].removesuffix("original")
    etags = {get(base + size).headers["ETag"] for size in ("original", *SIZES)}
    assert len(etags) == 5


def test_head_answers_as_get_without_the_body(server, http, get, barn):
    path, _ = barn
    full, head = get(path), http.head(server.url("photos", path))
    assert head.status_code == 200 and head.content == b""
    for name in ("Content-Length", "Content-Type", "ETag", "Cache-Control", "Last-Modified"):
        assert head.headers[name] == full.headers[name], name


RANGES = {
    "bytes=0-99": slice(0, 100),
    "bytes=100-": slice(100, None),
    "bytes=-50": slice(-50, None),
    "bytes=5-5": slice(5, 6),
    "bytes=0-999999999": slice(0, None),
}


@pytest.mark.parametrize("value", RANGES)
def test_a_range_is_served(get, barn, value):
    path, data = barn
    answer = get(path, headers={"Range": value})
    expected = data[RANGES[value]]
    start = data.index(expected) if value != "bytes=5-5" else 5
    assert answer.status_code == 206
    assert answer.content == expected
    assert answer.headers["Content-Range"] == f"bytes {start}-{start + len(expected) - 1}/{len(data)}"


def test_a_range_past_the_end_is_416(get, barn):
    path, data = barn
    answer = get(path, headers={"Range": f"bytes={len(data)}-"})
    assert answer.status_code == 416
    assert answer.headers["Content-Range"] == f"bytes */{len(data)}"


@pytest.mark.parametrize("value", ["bytes=9-1", "pages=1-2", "bytes=a-b", "nonsense"])
def test_a_range_that_is_none_gives_the_whole(get, barn, value):
    path, data = barn
    answer = get(path, headers={"Range": value})
    assert answer.status_code == 200 and answer.content == data


def test_if_range_guards_a_range(get, barn):
    path, data = barn
    etag = get(path).headers["ETag"]
    assert get(path, headers={"Range": "bytes=0-9", "If-Range": etag}).status_code == 206
    whole = get(path, headers={"Range": "bytes=0-9", "If-Range": '"other"'})
    assert whole.status_code == 200 and whole.content == data


def test_a_condition_that_holds_spares_the_body(get, barn):
    path, _ = barn
    full = get(path)
    etag, modified = full.headers["ETag"], full.headers["Last-Modified"]
    for headers in (
        {"If-None-Match": etag},
        {"If-None-Match": f'"other", {etag}'},
        {"If-None-Match": f"W/{etag}"},
        {"If-None-Match": "*"},
        {"If-Modified-Since": modified},
    ):
        answer = get(path, headers=headers)
        assert answer.status_code == 304 and answer.content == b"", headers
        assert answer.headers["ETag"] == etag
    assert get(path, headers={"If-None-Match": '"other"', "If-Modified-Since": modified}).status_code == 200
    assert get(path, headers={"If-Modified-Since": "Sat, 01 Jan 2000 00:00:00 GMT"}).status_code == 200


# --- deleting and missing


def test_a_deleted_photo_is_gone_in_every_size(server, http, upload, get):
    photo = upload(jpeg(200, 100))
    url = server.url("photos", f"/photos/{photo['id']}")
    assert http.delete(url).status_code in (200, 204)
    for size in ("", "/original", *(f"/{size}" for size in SIZES)):
        assert get(f"/photos/{photo['id']}{size}").status_code == 404
    assert http.delete(url).status_code in (200, 204), "a second DELETE is no error"


def test_a_wrong_cookie_is_404(get, upload):
    photo = upload(jpeg(200, 100))["id"]
    for position in (len(photo) - 2, len(photo) - 6):
        other = "A" if photo[position] != "A" else "B"
        guessed = photo[:position] + other + photo[position + 1 :]
        refused(get(f"/photos/{guessed}/original"), 404)
    assert get(f"/photos/{photo}/original").status_code == 200


@pytest.mark.parametrize(
    "path", ["/photos/nonsense", "/photos/" + "A" * 27, "/photos/" + "x" * 5000, "/photos/%00%ff/thumb", "/nowhere"]
)
def test_what_is_not_there_is_404(get, path):
    refused(get(path), 404)


def test_an_unknown_size_is_404(get, barn):
    refused(get(barn[0].removesuffix("original") + "gigantic"), 404)


def test_a_wrong_method_is_405_and_names_the_right_ones(server, http, barn):
    answer = http.put(server.url("photos", "/photos"), data=b"x")
    assert answer.status_code == 405
    assert "POST" in answer.headers["Allow"]
    assert http.post(server.url("photos", barn[0]), data=b"x").status_code == 405


# --- refusals


def test_a_text_named_jpg_is_415(server, http):
    form = {"photo": ("holiday.jpg", b"Dear diary, this is no picture at all.\n" * 50, "image/jpeg")}
    refused(http.post(server.url("photos", "/photos"), files=form), 415)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("svg", b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'),
        ("tiff", encode(quarters(50, 50), "TIFF")),
        ("bmp", encode(quarters(50, 50), "BMP")),
        ("pdf", b"%PDF-1.7\n" + b"x" * 1000),
    ],
)
def test_other_formats_are_415(server, http, name, data):
    answer = http.post(server.url("photos", "/photos"), data=data, headers={"Content-Type": f"image/{name}"})
    refused(answer, 415)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF"])
def test_a_picture_cut_short_is_refused_as_broken(server, http, kind):
    whole = encode(noise(300, 200), kind)
    answer = http.post(server.url("photos", "/photos"), data=whole[: len(whole) // 20])
    assert answer.status_code in (400, 415, 422), answer.text
    refused(answer, answer.status_code)


def test_an_empty_body_is_refused(server, http):
    answer = http.post(server.url("photos", "/photos"), data=b"", headers={"Content-Type": "image/jpeg"})
    assert answer.status_code in (400, 415, 422), answer.text


def test_a_form_without_a_file_is_refused(server, http):
    answer = http.post(server.url("photos", "/photos"), files={"caption": (None, "only words")})
    assert answer.status_code in (400, 415, 422), answer.text
    refused(answer, answer.status_code)


def test_sixty_megabytes_are_413(server, http):
    answer = http.post(
        server.url("photos", "/photos"), data=b"\xff\xd8\xff" + bytes(60 * MIB), headers={"Content-Type": "image/jpeg"}
    )
    refused(answer, 413)
    assert re.search(r"\d", answer.text), "the limit is told"


def test_a_form_of_sixty_megabytes_is_413(server, http):
    form = {"photo": ("big.jpg", b"\xff\xd8\xff" + bytes(60 * MIB), "image/jpeg")}
    refused(http.post(server.url("photos", "/photos"), files=form), 413)


def test_sixty_megabytes_of_unknown_length_are_413(server, http):
    piece = bytes(MIB)
    answer = http.post(server.url("photos", "/photos"), data=(piece for _ in range(60)))
    refused(answer, 413)


@needs_curl
def test_curl_is_told_that_sixty_megabytes_are_too_many(server, tmp_path):
    big = tmp_path / "big.jpg"
    big.write_bytes(b"\xff\xd8\xff" + bytes(60 * MIB))
    post = ["curl", "-sS", "-o", str(tmp_path / "answer"), "-w", "%{http_code}", "-F", f"photo=@{big}"]
    done = subprocess.run([*post, server.url("photos", "/photos")], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "413"), done.stderr
    assert json.loads((tmp_path / "answer").read_text())


def test_a_bomb_is_refused_before_it_is_decoded(server, http):
    bomb = encode(quarters(1, 1).resize((20_000, 20_000)), "PNG", compress_level=9)
    answer = http.post(server.url("photos", "/photos"), data=bomb, headers={"Content-Type": "image/png"})
    assert answer.status_code in (413, 422), answer.text
    refused(answer, answer.status_code)


def test_a_request_that_is_no_http_is_answered_or_closed(server):
    with socket.create_connection(host_port(server.photos), timeout=10) as connection:
        connection.sendall(b"\x16\x03\x01\x02\x00 this is no HTTP\r\n\r\n")
        answer = connection.recv(1000)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400")


# --- many


def test_uploads_at_once_are_each_their_own(server, get):
    def one(number):
        data = encode(noise(60 + number, 40, seed=number), "PNG")
        answer = requests.post(server.url("photos", "/photos"), data=data, timeout=60)
        return answer, data

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(one, range(64)))
    for answer, data in answers:
        assert answer.status_code == 201, answer.text
        assert get(f"/photos/{answer.json()['id']}/original").content == data
    assert len({answer.json()["id"] for answer, _ in answers}) == 64


def test_real_photographs_come_back(upload, get):
    found = photographs()
    if not found:
        pytest.skip("no photographs under target/test-photos (./test fetches them)")
    for path in found:
        data = path.read_bytes()
        photo = upload(data, "application/octet-stream")
        original = decode(get(f"/photos/{photo['id']}/original").content)
        assert original.size == decode(data).size, path.name
        large = decode(get(f"/photos/{photo['id']}/large").content)
        assert large.width <= max(original.size) and large.height <= max(original.size)


# --- albums and rows


def test_an_album_lists_its_photos(upload, get):
    ids = [upload(jpeg(120, 80), album="harvest 2026")["id"] for _ in range(3)]
    answer = get("/albums/harvest%202026")
    assert answer.status_code == 200
    assert {photo["id"] for photo in answer.json()["photos"]} == set(ids)
    assert get("/albums/nobody").json()["photos"] == []


def test_an_albums_pages_hold_each_photo_once(upload, get):
    ids = [upload(jpeg(60, 40), album="paged")["id"] for _ in range(5)]
    found, path = [], "/albums/paged?limit=2"
    while path:
        page = get(path).json()
        assert len(page["photos"]) <= 2
        found += [photo["id"] for photo in page["photos"]]
        path = page.get("next")
    assert sorted(found) == sorted(ids)


def test_a_deleted_photo_leaves_its_album(server, http, upload, get):
    kept, dropped = [upload(jpeg(60, 40), album="thinned")["id"] for _ in range(2)]
    http.delete(server.url("photos", f"/photos/{dropped}"))
    assert [photo["id"] for photo in get("/albums/thinned").json()["photos"]] == [kept]


def test_a_photo_tells_about_itself_as_json(upload, get):
    photo = upload(jpeg(300, 200))
    told = get(f"/photos/{photo['id']}", headers={"Accept": "application/json"})
    assert told.json() == photo
    for size in photo["sizes"].values():
        answer = get(size["url"])
        assert (answer.status_code, len(answer.content)) == (200, size["bytes"])
        assert decode(answer.content).size == (size["width"], size["height"])


def test_several_photos_in_one_form_are_all_taken(server, http, get):
    form = [("photo", (f"{number}.png", encode(noise(40, 30, number), "PNG"), "image/png")) for number in range(3)]
    answer = http.post(server.url("photos", "/photos"), files=form, data={"album": "several"})
    assert answer.status_code == 201, answer.text
    assert len({photo["id"] for photo in answer.json()["photos"]}) == 3
    assert len(get("/albums/several").json()["photos"]) == 3


def test_a_form_with_one_bad_photo_is_refused_whole(server, http, get):
    form = [("photo", ("good.png", encode(noise(40, 30), "PNG"))), ("photo", ("bad.png", b"nonsense" * 100))]
    refused(http.post(server.url("photos", "/photos"), files=form, data={"album": "spoilt"}), 415)
    assert get("/albums/spoilt").json()["photos"] == []

"""The gallery page in a real browser, headless. Screenshots are kept under target/test-gallery."""

import colorsys
import itertools
import math
import random
import shutil

import pytest
import requests
from PIL import Image, ImageDraw, ImageFilter

from hayloft import ROOT, Hayloft
from pictures import encode

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")

SCREENSHOTS = ROOT / "target" / "test-gallery"
DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}


def landscape(width, height, seed):
    """A made evening: sky, sun, hills. Good enough to look at."""
    rng = random.Random(seed)
    hue = rng.random()
    colour = lambda h, s, v: tuple(int(255 * part) for part in colorsys.hsv_to_rgb(h % 1, s, v))  # noqa: E731
    image = Image.new("RGB", (width, height))
    draw = ImageDraw.Draw(image)
    for y in range(height):
        part = y / height
        draw.line((0, y, width, y), fill=colour(hue + 0.12 * part, 0.25 + 0.35 * (1 - part), 0.98 - 0.25 * part))
    sun = rng.uniform(0.2, 0.8) * width, rng.uniform(0.25, 0.5) * height, 0.07 * (width + height)
    draw.ellipse((sun[0] - sun[2], sun[1] - sun[2], sun[0] + sun[2], sun[1] + sun[2]), fill=colour(hue + 0.5, 0.12, 1))
    image = image.filter(ImageFilter.GaussianBlur(width / 200))
    draw = ImageDraw.Draw(image)
    for layer in range(4):
        base, phase = height * (0.5 + 0.13 * layer), rng.uniform(0, 9)
        waves = [(rng.uniform(1.5, 6), rng.uniform(0.01, 0.06) * height) for _ in range(3)]
        ridge = [
            (x, base + sum(size * math.sin(phase + turns * 6.28 * x / width) for turns, size in waves))
            for x in range(0, width + 9, 8)
        ]
        draw.polygon([(0, height), *ridge, (width, height)], fill=colour(hue + 0.3 + 0.03 * layer, 0.5, 0.55 - 0.12 * layer))
    return image


@pytest.fixture(scope="module")
def gallery(tmp_path_factory):
    """A server of its own, with photos in it: ids in the order of the page."""
    base = tmp_path_factory.mktemp("gallery")
    server = Hayloft(base / "data", base / "log").start()
    shapes = itertools.cycle([(1200, 800), (800, 1200), (1600, 900), (1000, 1000), (1500, 700), (900, 1200)])
    for number in range(26):
        album = ["Summer at the lake", "Harvest", None, "Grandmother’s kitchen"][number % 4]
        form = {"photo": (f"IMG_{number:04}.jpg", encode(landscape(*next(shapes), number), "JPEG", quality=88))}
        data = {"album": album} if album else {}
        assert requests.post(server.url("photos", "/photos"), files=form, data=data, timeout=60).status_code == 201
    yield server
    server.kill()


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, gallery):
    """Opens the gallery and fails the test for whatever the browser complains of."""
    contexts, complaints = [], []

    def complain(told):
        # What the server refuses is told on the page, and by the browser here.
        if told.type in ("error", "warning") and "status of 415" not in told.text:
            complaints.append(told.text)

    def open_page(path="/", viewport=None, dark=False, **options):
        context = browser.new_context(
            viewport=viewport or DESKTOP, color_scheme="dark" if dark else "light", device_scale_factor=1, **options
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", complain)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        hosts = gallery.photos
        page.on("request", lambda sent: complaints.append(sent.url) if hosts not in sent.url else None)
        page.goto(gallery.url("photos", path))
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def shoot(page, name):
    """Keeps a screenshot, once every picture that shows has come."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(400)
    page.screenshot(path=SCREENSHOTS / f"{name}.png")


def count_of(server):
    return len(requests.get(server.url("photos", "/photos?limit=1000"), timeout=30).json()["photos"])


def test_photos_show_newest_first_and_load_lazily(open_page):
    page = open_page()
    page.wait_for_selector(".tile img.loaded")
    assert page.locator("h1").inner_text() == "Photos"
    assert page.locator(".tile").count() == 26
    assert page.locator(".tile .show").first.get_attribute("aria-label") == "Show IMG_0025.jpg"
    assert page.locator(".tile img[loading=lazy]").count() == 26
    assert page.locator(".day").all_inner_texts() == ["Today"]
    for name, options in {"desktop": {}, "phone": {"viewport": PHONE}, "desktop-dark": {"dark": True}}.items():
        page = open_page(**options)
        page.wait_for_selector(".tile img.loaded")
        overflow = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert overflow <= 0, f"{name} scrolls sideways by {overflow} px"
        shoot(page, f"photos-{name}")


def test_albums_open_and_come_back(open_page):
    page = open_page("/#/albums")
    page.wait_for_selector(".album img.loaded")
    assert page.locator(".album b").all_inner_texts() == ["Grandmother’s kitchen", "Harvest", "Summer at the lake"]
    shoot(page, "albums-desktop")
    page.click("text=Harvest")
    page.wait_for_selector("text=7 photos")
    assert page.locator("h1").inner_text() == "Harvest"
    page.go_back()
    page.wait_for_selector(".album")
    shoot(open_page("/#/albums", viewport=PHONE, dark=True), "albums-phone-dark")


def test_the_viewer_goes_by_keyboard_and_shows_four_sizes_and_the_original(open_page, gallery):
    page = open_page()
    page.wait_for_selector(".tile")
    page.keyboard.press("Tab")
    page.locator(".tile .show").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.wait_for_selector("#viewer[open]")
    assert "IMG_0024.jpg" in page.locator("#caption").inner_text()
    page.keyboard.press("ArrowRight")
    playwright.expect(page.locator("#caption")).to_contain_text("IMG_0023")
    sizes = page.locator("#sizes button")
    assert [name.split()[0].lower() for name in sizes.all_inner_texts()] == ["original", "large", "medium", "small", "thumb"]
    for number in range(5):
        sizes.nth(number).click()
        page.locator("#shown").evaluate("(image) => image.decode()")
        shown = page.locator("#shown").evaluate("(image) => image.naturalWidth")
        assert f" {shown} × " in " " + sizes.nth(number).inner_text().replace("\n", " ")
    sizes.nth(1).click()
    page.mouse.move(5, 5)
    shoot(page, "viewer-desktop")
    address = page.url
    page.keyboard.press("Escape")
    page.wait_for_selector("#viewer:not([open])", state="attached")
    assert "/photo/" not in page.url
    sent = open_page("/" + address.split("/", 3)[3], viewport=PHONE)
    sent.wait_for_selector("#viewer[open]")
    assert "IMG_0023.jpg" in sent.locator("#caption").inner_text()
    for part in ("#shown", "#close", "#sizes", "#delete"):
        box = sent.locator(part).bounding_box()
        right, bottom = box["x"] + box["width"], box["y"] + box["height"]
        within = min(box["x"], box["y"]) >= 0 and right <= PHONE["width"] and bottom <= PHONE["height"]
        assert within, f"{part} stands beyond the window: {box}"
    shoot(sent, "viewer-phone")


def test_dropped_and_chosen_photos_are_uploaded_into_the_album_that_shows(open_page, gallery, tmp_path):
    page = open_page("/#/albums/Dropped%20%2F%20here")
    page.wait_for_selector("#empty:not([hidden])")
    shoot(page, "empty-desktop")
    data = encode(landscape(400, 300, 99), "JPEG")
    transfer = page.evaluate_handle(
        """(bytes) => { const made = new DataTransfer();
            made.items.add(new File([new Uint8Array(bytes)], "dropped.jpg", { type: "image/jpeg" })); return made; }""",
        list(data),
    )
    page.dispatch_event("main", "dragover", {"dataTransfer": transfer})
    assert page.evaluate("document.body.classList.contains('dropping')")
    page.dispatch_event("main", "drop", {"dataTransfer": transfer})
    page.wait_for_selector(".tile img.loaded")
    files = []
    for number in range(5):
        files.append(tmp_path / f"chosen-{number}.png")
        files[-1].write_bytes(encode(landscape(300, 200, number), "PNG"))
    bad = tmp_path / "diary.jpg"
    bad.write_bytes(b"Dear diary, this is no picture.")
    page.set_input_files("#files", [*files, bad])
    page.wait_for_selector("text=5 photos uploaded, 1 failed")
    assert "this is text" in page.locator("#uploads .failed .state").inner_text()
    page.wait_for_selector("text=6 photos")
    shoot(page, "uploads-desktop")
    listed = requests.get(gallery.url("photos", "/albums/Dropped%20%2F%20here"), timeout=30).json()["photos"]
    assert sorted(photo["filename"] for photo in listed) == [f"chosen-{number}.png" for number in range(5)] + ["dropped.jpg"]
    page.click("#delete-album")
    page.wait_for_selector("#ask[open]")
    shoot(page, "ask-desktop")
    page.click("#ask-yes")
    page.wait_for_selector(".album")
    assert requests.get(gallery.url("photos", "/albums/Dropped%20%2F%20here"), timeout=30).json()["photos"] == []


def test_photos_are_selected_and_deleted_and_links_are_copied(open_page, gallery):
    page = open_page(permissions=["clipboard-read", "clipboard-write"])
    page.wait_for_selector(".tile")
    before = count_of(gallery)
    url = page.evaluate("state.photos[0].sizes.large.url")
    page.locator(".tile .show").first.click()
    page.click("#copy")
    assert page.evaluate("navigator.clipboard.readText()") == gallery.url("photos", url)
    page.click("#delete")
    page.wait_for_selector("#ask[open]")
    page.keyboard.press("Escape")
    assert count_of(gallery) == before
    page.click("#delete")
    page.click("#ask-yes")
    page.wait_for_selector("text=1 photo deleted")
    page.keyboard.press("Escape")
    for number in (0, 2):
        page.locator(".tile").nth(number).hover()
        page.locator(".tile .pick").nth(number).click()
    assert page.locator("#selected").inner_text() == "2 selected"
    shoot(page, "selection-desktop")
    page.click("#delete-selected")
    page.click("#ask-yes")
    page.wait_for_selector("text=2 photos deleted")
    assert count_of(gallery) == before - 3
    assert page.locator(".tile").count() == before - 3


def test_the_page_may_load_nothing_from_elsewhere(gallery):
    answer = requests.get(gallery.url("photos", "/"), timeout=30)
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    for path in ("/gallery/style.css", "/gallery/script.js", "/gallery/icon.svg"):
        file = requests.get(gallery.url("photos", path), timeout=30)
        assert file.status_code == 200
        again = requests.get(gallery.url("photos", path), headers={"If-None-Match": file.headers["ETag"]}, timeout=30)
        assert again.status_code == 304

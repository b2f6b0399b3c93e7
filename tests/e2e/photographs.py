"""Real photographs for the tests, out of the wheels of two Python packages.

scikit-image and scikit-learn ship a few to try algorithms on. Neither package
is installed: pip only downloads the wheel, and the pictures are unpacked.

    python tests/e2e/photographs.py target/test-photos
"""

import io
import pathlib
import subprocess
import sys
import tempfile
import zipfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
HOME = ROOT / "target" / "test-photos"

WANTED = {
    "scikit-image>=0.22,<1": (
        "skimage/data/astronaut.png",
        "skimage/data/chelsea.png",
        "skimage/data/coffee.png",
        "skimage/data/hubble_deep_field.jpg",
        "skimage/data/motorcycle_left.png",
        "skimage/data/retina.jpg",
        "skimage/data/rocket.jpg",
    ),
    "scikit-learn>=1.3,<2": (
        "sklearn/datasets/images/china.jpg",
        "sklearn/datasets/images/flower.jpg",
    ),
}


def photographs(home=HOME):
    """The photographs that `./test` has fetched, sorted."""
    return sorted(path for path in home.glob("*") if path.suffix in (".jpg", ".png"))


def fetch(home):
    """Downloads the archives and unpacks what is wanted into `home`."""
    home.mkdir(parents=True, exist_ok=True)
    for requirement, names in WANTED.items():
        with tempfile.TemporaryDirectory() as scratch:
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
            subprocess.run([*pip, "--only-binary", ":all:", "-d", scratch, requirement], check=True, timeout=300)
            [archive] = pathlib.Path(scratch).iterdir()
            with zipfile.ZipFile(io.BytesIO(archive.read_bytes())) as packed:
                for name in names:
                    (home / pathlib.PurePosixPath(name).name).write_bytes(packed.read(name))


if __name__ == "__main__":
    target = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else HOME
    fetch(target)
    print(f"{len(photographs(target))} photographs in {target}")

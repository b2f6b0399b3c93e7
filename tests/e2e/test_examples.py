"""The programs of `examples/`, run as their pages say, against the session's server."""

import os
import pathlib
import subprocess

import pytest

from hayloft import binary, clean_environment
from photographs import photographs


def rust_documentation():
    """The HTML that the Rust toolchain installs, None where it was installed without."""
    found = subprocess.run(["rustc", "--print", "sysroot"], capture_output=True, text=True, check=False).stdout.strip()
    html = pathlib.Path(found, "share/doc/rust/html")
    return html if html.is_dir() else None


@pytest.fixture
def example():
    """Runs an example to its end and returns what it printed; a failure of it fails the test."""

    def run(name, *words):
        program = pathlib.Path(binary()).parent / "examples" / name
        if not program.exists():
            pytest.skip(f"{program} is not built (cargo build --release --examples)")
        done = subprocess.run(
            [program, *words], capture_output=True, text=True, timeout=110, env=clean_environment(), cwd=os.getcwd()
        )
        assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-3000:]
        return done.stdout + done.stderr

    return run


def test_webtable_loads_real_pages_and_answers_questions(example, server):
    if not rust_documentation():
        pytest.skip("the toolchain was installed without its documentation (rustup component add rust-docs)")
    printed = example("webtable", "--address", server.bigtable, "--limit", "300")
    assert "300" in printed and "pages/s" in printed


def test_photo_album_verifies_each_size(example, server):
    if not photographs():
        pytest.skip("no photographs under target/test-photos (./test fetches them)")
    printed = example("photo_album", "--dir", str(photographs()[0].parent), "--server", server.url("photos", ""))
    assert str(len(photographs())) in printed


def test_thundering_herd_reads_the_origin_once(example, server):
    printed = example("thundering_herd", server.memcached, server.bigtable, server.console)
    plain, first, second = [line for line in printed.splitlines() if "clients got" in line]
    assert "1000 clients got" in plain and '{"second"}' in first and '{"third"}' in second
    reads = [line.split()[-2] for line in printed.splitlines() if "the cache read the origin" in line]
    assert reads == ["0", "1", "1"], printed

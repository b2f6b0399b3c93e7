"""Google's client for Node, whose protobuf library reads less leniently than Python's.

The tests are `tests/node/bigtable.test.mjs`; `./test` installs the client.
"""

import os
import pathlib
import shutil
import subprocess

import pytest

HERE = pathlib.Path(__file__).resolve().parents[1] / "node"
INSTALLED = HERE.parents[1] / "target/test-node"

pytestmark = pytest.mark.skipif(
    shutil.which("node") is None or not (INSTALLED / "node_modules").is_dir(),
    reason="Node's client is not installed (./test installs it where there is npm)",
)


def test_the_official_client_for_node(bigtable_address):
    # Modules are looked for from where a file lies, so the tests go to where the client is.
    shutil.copy(HERE / "bigtable.test.mjs", INSTALLED)
    env = os.environ | {"BIGTABLE_EMULATOR_HOST": bigtable_address}
    command = ["node", "--test", "--test-reporter=spec", "bigtable.test.mjs"]
    done = subprocess.run(command, cwd=INSTALLED, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr

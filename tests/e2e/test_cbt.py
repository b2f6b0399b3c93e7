"""Google's command line client `cbt`, where the machine has it."""

import os
import shutil
import subprocess

import pytest

from conftest import INSTANCE, PROJECT

CBT = shutil.which("cbt")
pytestmark = pytest.mark.skipif(CBT is None, reason="cbt is not on PATH (it comes with the Google Cloud CLI)")


@pytest.fixture
def cbt(bigtable_address, tmp_path):
    """Runs `cbt` with words and returns its output; a failure of cbt fails the test.

    A credentials file is named only so that cbt does not ask gcloud for one each time.
    """

    def run(*words):
        command = [CBT, "-creds", os.devnull, "-project", PROJECT, "-instance", INSTANCE, *words]
        env = os.environ | {"BIGTABLE_EMULATOR_HOST": bigtable_address, "HOME": str(tmp_path)}
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=30)
        if done.returncode != 0:
            raise subprocess.SubprocessError(done.stderr.strip())
        return done.stdout

    return run


@pytest.fixture
def crops(cbt):
    """A table `crops` with the family `field` and three rows."""
    cbt("createtable", "crops", "families=field:maxversions=3", "splits=m")
    for row, crop in (("east", "oats"), ("north", "rye"), ("west", "barley")):
        cbt("set", "crops", row, f"field:crop={crop}@1000", "field:acres=7@2000")
    yield "crops"
    cbt("deletetable", "crops")


def test_ls_names_tables_and_families(cbt, crops):
    assert crops in cbt("ls").split()
    listed = cbt("ls", crops)
    assert "field" in listed and "versions() > 3" in listed


def test_read_prints_every_row(cbt, crops):
    printed = cbt("read", crops)
    assert [word for word in printed.split() if word in ("east", "north", "west")] == ["east", "north", "west"]
    assert '"barley"' in printed and "field:acres" in printed


def test_read_takes_ranges_counts_columns_and_regexes(cbt, crops):
    assert "east" not in cbt("read", crops, "start=f", "end=o")
    assert cbt("read", crops, "count=1").split("\n")[1] == "east"
    assert "acres" not in cbt("read", crops, "columns=field:crop")
    assert "oats" not in cbt("read", crops, "regex=(west|north)")
    assert "north" in cbt("read", crops, "prefix=no")


def test_read_goes_backwards(cbt, crops):
    printed = cbt("read", crops, "reversed=true")
    assert [word for word in printed.split() if word in ("east", "north", "west")] == ["west", "north", "east"]


def test_lookup_finds_one_row(cbt, crops):
    printed = cbt("lookup", crops, "west")
    assert '"barley"' in printed and "oats" not in printed


def test_count_counts_across_tablets(cbt, crops):
    assert cbt("count", crops).strip() == "3"


@pytest.mark.hayloft_only("the emulator collects once a minute and hides nothing")
def test_versions_stack_up_to_the_rule(cbt, crops):
    for version in range(5):
        cbt("set", crops, "east", f"field:crop=v{version}@{(version + 10) * 1000}")
    printed = cbt("read", crops, "prefix=east", "columns=field:crop")
    assert [word for word in printed.split() if word.startswith('"v')] == ['"v4"', '"v3"', '"v2"']


def test_rows_columns_and_families_are_deleted(cbt, crops):
    cbt("deletecolumn", crops, "east", "field", "acres")
    assert "acres" not in cbt("lookup", crops, "east")
    cbt("deleterow", crops, "north")
    assert cbt("count", crops).strip() == "2"
    cbt("createfamily", crops, "extra")
    cbt("set", crops, "east", "extra:note=hello")
    cbt("deletefamily", crops, "extra")
    assert "hello" not in cbt("read", crops)


def test_deleteallrows_empties_the_table(cbt, crops):
    cbt("deleteallrows", crops)
    assert cbt("count", crops).strip() == "0"


def test_setgcpolicy_is_listed(cbt, crops):
    cbt("setgcpolicy", crops, "field", "(maxage=30d and maxversions=2) or maxversions=9")
    listed = cbt("ls", crops)
    assert "versions() > 2" in listed and "versions() > 9" in listed


def test_a_missing_table_is_told_by_name(cbt):
    with pytest.raises(subprocess.SubprocessError, match="ghost"):
        cbt("read", "ghost")


def test_import_loads_a_csv(cbt, crops, tmp_path):
    csv = tmp_path / "rows.csv"
    csv.write_text(",field\n,crop\n" + "".join(f"plot{n:03},wheat\n" for n in range(200)))
    cbt("import", crops, str(csv))
    assert cbt("count", crops).strip() == "203"


@pytest.mark.hayloft_only("the emulator serves no instances")
def test_instances_clusters_and_app_profiles(cbt):
    cbt("createinstance", "by-cbt-1", "Made by cbt", "by-cbt-c1", "us-central1-b", "3", "SSD")
    try:
        assert "Made by cbt" in cbt("listinstances")
        assert "by-cbt-c1" in cbt("-instance", "by-cbt-1", "listclusters")
        cbt("-instance", "by-cbt-1", "createcluster", "by-cbt-c2", "europe-west1-b", "3", "SSD")
        cbt("-instance", "by-cbt-1", "updatecluster", "by-cbt-c2", "num-nodes=5")
        assert "READY (5 serve nodes)" in cbt("-instance", "by-cbt-1", "listclusters")
        cbt("createappprofile", "by-cbt-1", "anywhere", "Routes to any", "route-any")
        cbt("createappprofile", "by-cbt-1", "second", "Routes to one", "route-to=by-cbt-c2", "transactional-writes=true", "force=true")
        assert "anywhere" in cbt("listappprofile", "by-cbt-1")
        assert "by-cbt-c2" in cbt("getappprofile", "by-cbt-1", "second")
        cbt("updateappprofile", "by-cbt-1", "second", "Routes to any now", "route-any", "force=true")
        cbt("deleteappprofile", "by-cbt-1", "second")
        cbt("-instance", "by-cbt-1", "deletecluster", "by-cbt-c2")
    finally:
        cbt("deleteinstance", "by-cbt-1")
    assert "by-cbt-1" not in cbt("listinstances")

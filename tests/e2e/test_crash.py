"""A few kills of the crash test; `./test --full` or `python tests/e2e/crash.py` makes a hundred."""

import pytest

from crash import crash


@pytest.mark.timeout(3600)
def test_nothing_acknowledged_is_lost_when_the_server_is_killed(tmp_path, pytestconfig, capsys):
    def report(line):
        with capsys.disabled():
            print(f"\n    {line}", end="", flush=True)

    kills, seed = pytestconfig.getoption("--kills"), pytestconfig.getoption("--seed")
    ledger = crash(tmp_path / "data", tmp_path / "hayloft.log", kills, seed, report=report)
    assert all(ledger.counts.values()), f"a writer acknowledged nothing: {ledger.counts}"
    # A few kills of a busy machine may not get so far.
    assert kills < 20 or all(ledger.background.values()), f"the kills met no flush or no compaction: {ledger.background}"

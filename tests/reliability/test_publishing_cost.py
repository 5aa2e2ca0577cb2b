"""What publishing costs: the script benchmarks/publishing_cost.py, on few rows, or in full on many."""

from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import publishing_cost

    return publishing_cost


def test_publications_take_at_most_one_percent_of_a_run(script, count, publish):
    shares = {}
    for rows in (100, 1_000, 10_000, 100_000)[: count(short=2, full=4)]:
        found = script.one_publication(rows, 10) | script.share_of_a_run(rows, 0.1)
        shares[rows] = found["processor_share"]
        publish(
            f"16 publishing cost, {rows:7,} rows",
            f"{found['publication_processor_ms']:.1f} ms of the processor, {found['publication_ms']:.1f} ms on the "
            f"clock; {found['share']:.2%} of a run whose rows take 0.1 s",
        )
    most = count(short=5, full=1) / 100  # on a machine that does other work the short form only sees what is far off
    assert all(0 < share <= most for share in shares.values()), shares

"""What publishing costs: the script benchmarks/publishing_cost.py, on few rows, or in full on many."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "publishing_cost.py"


def test_publications_take_at_most_one_percent_of_a_run(tmp_path, count, publish):
    rows = ("100", "1000", "10000", "100000")[: count(short=2, full=4)]
    # as a script: in the tests every call checks its types, which takes longer than publishing
    command = [sys.executable, str(SCRIPT), "--rows", *rows, "--rounds", "10", "--out", str(tmp_path / "found.json")]
    subprocess.run(command, check=True, capture_output=True)
    measured = json.loads((tmp_path / "found.json").read_text())["rows"]
    for found in measured:
        publish(
            f"16 publishing cost, {found['rows']:7,} rows",
            f"{found['publication_processor_ms']:.1f} ms of the processor, {found['publication_ms']:.1f} ms on the "
            f"clock; {found['share']:.2%} of a run whose rows take 0.1 s",
        )
    shares = {found["rows"]: found["processor_share"] for found in measured}
    most = count(short=5, full=1) / 100  # on a machine that does other work the short form only sees what is far off
    assert len(shares) == len(rows)
    assert all(0 < share <= most for share in shares.values()), shares

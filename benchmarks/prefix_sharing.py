"""Epochs that a study saves because its runs share their common beginnings: the papers' plans, from the planner.

    python benchmarks/prefix_sharing.py [--seeds 1] [--out FILE.json]

Counts, no timings: `alone` is every distinct run from its first epoch on; `shared` trains each beginning once. Another
seed is another study of the same size.
"""

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from fisherkit.studies.arms import Study
from fisherkit.studies.plan import plan_runs, trained_epochs
from fisherkit.studies.protocols import StudyOptions, removal, window


@dataclass(frozen=True)
class Saving:
    """What a plan costs in epochs."""

    plan: str
    runs: int
    shared: int
    alone: int

    @property
    def share(self) -> float:
        """Of the epochs alone, those not trained."""
        return 1 - self.shared / self.alone


def saving(plan: str, study: Study) -> Saving:
    """What sharing saves in a study that begins with no run on disk."""
    shared, alone = trained_epochs(plan_runs(study.runs))
    return Saving(plan, len(study.runs), shared, alone)


def plans(seeds: int) -> Mapping[str, Study]:
    """The papers' removal and window plans, at the protocols' own lengths."""
    plain = StudyOptions({}, seeds=seeds)
    cosine = StudyOptions({"lr_schedule": "cosine"}, seeds=seeds)
    return {
        "removal, blur": removal(plain),
        "removal, blur; lr not reset and reset": removal(plain, lr_arms=("not-reset", "reset")),
        "removal, blur; lr not reset, reset, constant, restart": removal(
            plain, lr_arms=("not-reset", "reset", "constant", "restart")
        ),
        "removal, blur and flip": removal(plain, deficits=("blur", "flip")),
        "removal, blur; lr by cosine": removal(cosine),
        "window of 40, blur": window(plain),
        "window of 40, blur and flip": window(plain, deficits=("blur", "flip")),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    found = [saving(name, study) for name, study in plans(options.seeds).items()]
    width = max(len(row.plan) for row in found)
    print(f"{'plan':{width}}  runs  alone  shared  saved")
    for row in found:
        print(f"{row.plan:{width}}  {row.runs:4}  {row.alone:5}  {row.shared:6}  {row.share:5.1%}")
    if options.out is not None:
        rows = [{**asdict(row), "saved": row.share} for row in found]
        options.out.write_text(json.dumps({"seeds": options.seeds, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()

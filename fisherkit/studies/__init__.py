"""Whole experiments: what a run is (specification), running it (run), measuring checkpoints of any training."""

from fisherkit.studies.cadence import Cadence
from fisherkit.studies.measure import measure_checkpoints
from fisherkit.studies.run import Observer, Outcome, Run, probe_sets, track
from fisherkit.studies.specification import RunSpecification, specify

__all__ = [
    "Cadence",
    "Observer",
    "Outcome",
    "Run",
    "RunSpecification",
    "measure_checkpoints",
    "probe_sets",
    "specify",
    "track",
]

"""Whole experiments: what a run is (specification), running it (run), measuring checkpoints of any training."""

from fisherkit.studies.cadence import Cadence
from fisherkit.studies.measure import measure_checkpoints
from fisherkit.studies.observer import Observer, Outcome
from fisherkit.studies.run import Run, track
from fisherkit.studies.sets import load_sets, model_builder, probe_sets
from fisherkit.studies.specification import RunSpecification, specify

__all__ = [
    "Cadence",
    "Observer",
    "Outcome",
    "Run",
    "RunSpecification",
    "load_sets",
    "measure_checkpoints",
    "model_builder",
    "probe_sets",
    "specify",
    "track",
]

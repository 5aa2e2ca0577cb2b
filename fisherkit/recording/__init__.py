"""What a run measured: a labelled value, its file that is never torn, and the tracker that fills it."""

from typing import TYPE_CHECKING, Any

from fisherkit.recording.image import to_bytes
from fisherkit.recording.layout import SCHEMA_VERSION
from fisherkit.recording.reader import from_bytes, read
from fisherkit.recording.study import ArmRecord, RunRecord, StudyRecord
from fisherkit.recording.study_file import holds_study, read_study, study_to_bytes
from fisherkit.recording.trajectory import Trajectory
from fisherkit.recording.writer import RunFile

if TYPE_CHECKING:
    from fisherkit.recording.tracker import FisherTracker as FisherTracker

__all__ = [
    "SCHEMA_VERSION",
    "ArmRecord",
    "FisherTracker",
    "RunFile",
    "RunRecord",
    "StudyRecord",
    "Trajectory",
    "from_bytes",
    "holds_study",
    "read",
    "read_study",
    "study_to_bytes",
    "to_bytes",
]


def __getattr__(name: str) -> Any:
    """The tracker needs torch; readers and plots of finished runs do not wait for it."""
    if name == "FisherTracker":
        from fisherkit.recording.tracker import FisherTracker

        return FisherTracker
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

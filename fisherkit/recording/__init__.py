"""What a run measured: a labelled value, and its file that is never torn."""

from fisherkit.recording.layout import SCHEMA_VERSION
from fisherkit.recording.reader import from_bytes, read
from fisherkit.recording.trajectory import Trajectory
from fisherkit.recording.writer import RunFile, to_bytes

__all__ = ["SCHEMA_VERSION", "RunFile", "Trajectory", "from_bytes", "read", "to_bytes"]

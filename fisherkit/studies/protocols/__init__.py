"""The protocols of the papers: from what is asked for to the arms of a study."""

from fisherkit.studies.protocols.base import StudyOptions
from fisherkit.studies.protocols.custom import custom
from fisherkit.studies.protocols.early_fisher import early_fisher
from fisherkit.studies.protocols.regularization import regularization
from fisherkit.studies.protocols.removal import removal
from fisherkit.studies.protocols.warm_start import warm_start
from fisherkit.studies.protocols.window import window

__all__ = ["StudyOptions", "custom", "early_fisher", "regularization", "removal", "warm_start", "window"]

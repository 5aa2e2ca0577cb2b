"""Training: options and the papers' defaults, the loop over steps and epochs, checkpoints."""

from fisherkit.training.augmentation import augment_given, draw_augmentation
from fisherkit.training.batches import epoch_order, fraction_members
from fisherkit.training.checkpoints import (
    FoundCheckpoint,
    keep_checkpoint,
    kept_checkpoint,
    kept_epochs,
    newest_checkpoint,
    remove_kept,
    save_checkpoint,
)
from fisherkit.training.defaults import paper_defaults
from fisherkit.training.determinism import deterministic, differing_numerics, numerics
from fisherkit.training.evaluation import evaluate, refreshed_batchnorm
from fisherkit.training.gradient_norms import GradientNorms, gradient_norms
from fisherkit.training.loop import Training
from fisherkit.training.memory import keep_freed_memory
from fisherkit.training.options import ON_NONFINITE, OPTIMIZERS, PRECISIONS, TrainingOptions
from fisherkit.training.penalty import FisherPenalty
from fisherkit.training.preparation import check_phases
from fisherkit.training.reports import EpochReport, NonFiniteLossError, StepReport
from fisherkit.training.schedules import SCHEDULES, learning_rate, parse_schedule
from fisherkit.training.seeds import derive_seed

__all__ = [
    "ON_NONFINITE",
    "OPTIMIZERS",
    "PRECISIONS",
    "SCHEDULES",
    "EpochReport",
    "FisherPenalty",
    "FoundCheckpoint",
    "GradientNorms",
    "NonFiniteLossError",
    "StepReport",
    "Training",
    "TrainingOptions",
    "augment_given",
    "check_phases",
    "derive_seed",
    "deterministic",
    "differing_numerics",
    "draw_augmentation",
    "epoch_order",
    "evaluate",
    "fraction_members",
    "gradient_norms",
    "keep_checkpoint",
    "keep_freed_memory",
    "kept_checkpoint",
    "kept_epochs",
    "learning_rate",
    "newest_checkpoint",
    "numerics",
    "paper_defaults",
    "parse_schedule",
    "refreshed_batchnorm",
    "remove_kept",
    "save_checkpoint",
]

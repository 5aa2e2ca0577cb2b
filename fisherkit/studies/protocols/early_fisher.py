"""Early Fisher: the trace at the start of training against the accuracy at its end.

Jastrzebski et al., Catastrophic Fisher Explosion (ICML 2021).
"""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from fisherkit.studies.arms import PlannedArm, Study
from fisherkit.studies.protocols.base import StudyOptions, for_each_seed, given_options, scaled_run
from fisherkit.studies.protocols.grids import grid_of, numbers
from fisherkit.training import FisherPenalty
from fisherkit.training.defaults import paper_defaults

EPOCHS = 200
PENALTIES = ("none", "0.1:10")  # ours; the paper tunes alpha for each model
LR_FACTORS = (0.01, 0.03, 0.1, 0.3, 1.0)  # of the model's own learning rate; ours
# without other regularization, and at one learning rate throughout: that of the axis
SETTINGS: Mapping[str, Any] = {
    "weight_decay": ("0",),
    "augment": ("none",),
    "lr_schedule": "constant",
    "every": "log",  # steps 1, 2, 3, 4, 5, 6, 8, 11, 14 ...: dense early, sparse late
}


def early_fisher(
    options: StudyOptions, *, batch_sizes: Sequence[int] = (), penalties: Sequence[str] = PENALTIES
) -> Study:
    """A grid of learning rates (the arms), batch sizes and Fisher penalties, measured densely at the start.

    A penalty is `none`, ALPHA, ALPHA:EVERY or ALPHA:EVERY:held (`FisherPenalty`); its steps are not scaled in time.
    Unless the run's options say otherwise there is no weight decay, no augmentation, a constant learning rate, and a
    measurement after steps in geometric progression. The default learning rates are 0.01, 0.03, 0.1, 0.3 and 1 times
    the run's; every run takes `clean_epochs` (200) epochs. The control of each batch size is the arm without a penalty
    (with the first, where none is without) at the largest rate.

    Raises:
        ValueError: A penalty, a rate or a batch size is not one; or is also among the run's options.
    """
    given = given_options(options.run)
    rates = _rates(options, given)
    if "fisher_penalty" in given:
        raise ValueError("fisher_penalty must be left out here, for the study gives it. Use --penalty.")
    sizes = grid_of("batch_sizes", batch_sizes, given, option="batch_size")
    names = _names(penalties)
    run = scaled_run(options, {**SETTINGS, **given})
    epochs = options.epochs(options.clean_epochs or EPOCHS)
    control = min(names, key=lambda name: name != "no penalty")
    arms = []
    for batch, (name, penalty), rate in product(sizes, names.items(), rates):
        suffix = "" if batch is None else f", batch {batch}"
        more = {"lr": rate, "fisher_penalty": penalty} | ({} if batch is None else {"batch_size": batch})
        runs = for_each_seed(options, {**run, **more}, epochs=epochs)
        main = name == control and rate == max(rates)
        arms.append(PlannedArm(f"lr {rate:g}, {name}{suffix}", f"{name}{suffix}", rate, runs, control=main))
    asked = options.record(batch_sizes=list(batch_sizes), penalties=list(penalties), lrs=list(rates), epochs_run=epochs)
    return Study("early-fisher", "learning rate", tuple(arms), asked)


def _rates(options: StudyOptions, given: Mapping[str, Any]) -> tuple[float, ...]:
    """The learning rates, ascending, each once."""
    if options.arms is None:
        own = paper_defaults(given.get("model", "resnet18"), given.get("optimizer", "sgd"))["lr"]
        base = float(given.get("lr", own))
        return tuple(float(f"{base * factor:.6g}") for factor in LR_FACTORS)
    if "lr" in given:
        raise ValueError("lr must be left out where arms are given, for the arms are the learning rates.")
    return numbers("arms", "learning rates", options.arms, low=0)


def _names(penalties: Sequence[str]) -> dict[str, str | None]:
    """What an arm with each penalty is called, and the penalty as it is written."""
    parsed = [None if text == "none" else str(FisherPenalty.parse(text)) for text in dict.fromkeys(penalties)]
    if not parsed:
        raise ValueError("penalties must be at least one, or the word none for training without; got an empty list.")
    return {"no penalty" if text is None else f"penalty {text}": text for text in parsed}

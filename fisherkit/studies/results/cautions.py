"""What a reader of a study must know before believing its numbers."""

from collections.abc import Sequence

from fisherkit.analysis.comparison import FITTED
from fisherkit.plots.study import drawable
from fisherkit.recording import StudyRecord
from fisherkit.recording.study import RECORDED
from fisherkit.studies.results.arm_summary import ArmSummary

FEWEST_SEEDS = 3


def cautions(record: StudyRecord, arms: Sequence[ArmSummary]) -> list[str]:
    """Sentences: runs without a result, with the reason; few seeds; arms that do not fit; nothing to compare with."""
    texts = [*_runs(record), *_seeds(arms), *_training(arms), *_controls(record, arms), *_notes(record)]
    return texts if drawable(record) else [*texts, "No figure: it needs a finished run with a test accuracy."]


def _runs(record: StudyRecord) -> list[str]:
    found: dict[str, str] = {}
    for arm in record.arms:
        for seed, run in sorted(arm.runs.items()):
            if run.state == "finished":
                continue
            reason = " ".join(run.message.split())
            left_out = " It is not among the accuracies." if run.state in RECORDED else ""
            text = f"{arm.label}, seed {seed}: {run.state}{f' ({reason})' if reason else ''}, run {run.identity}."
            found.setdefault(run.identity, text + left_out)
    return list(found.values())


def _seeds(arms: Sequence[ArmSummary]) -> list[str]:
    none = [each.arm.label for each in arms if each.done == 0]
    single = [each.arm.label for each in arms if each.done == 1]
    few = [each.arm.label for each in arms if 1 < each.done < FEWEST_SEEDS]
    texts = []
    if none:
        texts.append(f"No finished run, so no numbers: {'; '.join(none)}.")
    if single:
        texts.append(f"One finished seed, so no interval and no seed noise: {'; '.join(single)}.")
    if few:
        texts.append(f"Fewer than {FEWEST_SEEDS} finished seeds, so the intervals are rough: {'; '.join(few)}.")
    return texts


def _training(arms: Sequence[ArmSummary]) -> list[str]:
    low = [f"{each.arm.label} ({100 * each.train.value:.1f} %)" for each in arms if each.undertrained]
    if not low:
        return []
    return [
        f"Undertrained: the final train accuracy is below {100 * FITTED:g} %, so a loss of test accuracy may be one of "
        f"training, and forgetting cannot show: {'; '.join(low)}."
    ]


def _controls(record: StudyRecord, arms: Sequence[ArmSummary]) -> list[str]:
    if not record.controls:
        return ["The study has no control, so losses are not known."]
    missing = [each.arm.label for each in arms if each.arm.control and each.done == 0]
    if not missing:
        return []
    return [f"The control has no finished run, so losses against it are not known: {'; '.join(missing)}."]


def _notes(record: StudyRecord) -> list[str]:
    """What the plan left out, as the protocol said."""
    notes = record.options.get("notes")
    return [str(note) for note in notes] if isinstance(notes, list) else []

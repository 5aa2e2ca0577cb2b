"""What a study found, in sentences that hold no more than its numbers."""

from collections.abc import Mapping, Sequence

import numpy as np

from fisherkit.analysis import CriticalPeriod, critical_period
from fisherkit.analysis.intervals import Interval
from fisherkit.plots.study_data import groups
from fisherkit.plots.study_scatter import correlation_text, early_correlation, early_until
from fisherkit.recording import ArmRecord, StudyRecord
from fisherkit.studies.results.arm_summary import LEVEL, ArmSummary
from fisherkit.studies.results.collect import analysed_arm

_MANY = 5  # arms, from which the sentence about chance is worth its line


def findings(record: StudyRecord, arms: Sequence[ArmSummary]) -> list[str]:
    """Of each group in order: where it loses test accuracy against the control, and the protocol's own question."""
    by_group = {group: [each for each in arms if each.arm.group == group] for group in groups(record)}
    found = [text for group, members in by_group.items() for text in _group(record, group, members)]
    found += [_arm(each) for each in arms if each.arm.control and np.isfinite(each.loss.value)]
    return [*found, *_own(record, by_group), *_chance(arms)]


def points(interval: Interval) -> str:
    """A loss of accuracy in percentage points: "loses 5.10 points [4.20, 6.00] (n=3)"."""
    word = "loses" if interval.value >= 0 else "gains"
    sign = 1 if interval.value >= 0 else -1
    bounds = sorted((sign * 100 * interval.low, sign * 100 * interval.high))
    inside = f" [{bounds[0]:.2f}, {bounds[1]:.2f}]" if np.isfinite(interval.low) else ", no interval"
    return f"{word} {abs(100 * interval.value):.2f} points{inside} (n={interval.n})"


def certain(interval: Interval) -> bool:
    """Whether the interval is there and leaves out zero."""
    return bool(np.isfinite(interval.low) and (interval.low > 0 or interval.high < 0))


def _arm(summary: ArmSummary) -> str:
    doubt = "" if certain(summary.loss) or not np.isfinite(summary.loss.low) else "; the interval includes 0"
    return f"{summary.arm.label}: {points(summary.loss)} of test accuracy against {summary.compared_with}{doubt}."


def _group(record: StudyRecord, group: str, members: Sequence[ArmSummary]) -> list[str]:
    known = [each for each in members if np.isfinite(each.loss.value)]
    placed = sorted((each for each in known if np.isfinite(each.arm.value)), key=lambda each: each.arm.value)
    texts = [_arm(each) for each in known if each not in placed]
    return [_curve(record, group, placed), *texts] if placed else texts


def _curve(record: StudyRecord, group: str, placed: Sequence[ArmSummary]) -> str:
    """The largest loss along the axis, and where losses are told apart from zero."""
    largest = max(placed, key=lambda each: each.loss.value)
    sure = [f"{each.arm.value:g}" for each in placed if certain(each.loss) and each.loss.value > 0]
    better = [f"{each.arm.value:g}" for each in placed if certain(each.loss) and each.loss.value < 0]
    known = sum(np.isfinite(each.loss.low) for each in placed)
    where = f"at {', '.join(sure)}" if sure else "nowhere"
    gains = f", and below 0 at {', '.join(better)}" if better else ""
    told = f" The interval of the loss is above 0 {where}{gains} (arms with an interval: {known})." if known else ""
    return (
        f"{group} ({record.axis}): against {largest.compared_with} it {points(largest.loss)} of test accuracy at most, "
        f"at {largest.arm.value:g}.{told}"
    )


def _chance(arms: Sequence[ArmSummary]) -> list[str]:
    """That many intervals are looked at."""
    count = sum(bool(np.isfinite(each.loss.low)) for each in arms)
    if count < _MANY:
        return []
    return [
        f"Each interval is at {100 * LEVEL:g} % for its arm alone: of {count} arms that lost nothing, about "
        f"{count * (1 - LEVEL):.1f} would leave out 0 by chance."
    ]


def _own(record: StudyRecord, by_group: Mapping[str, Sequence[ArmSummary]]) -> list[str]:
    """The protocol's own question."""
    if record.protocol in ("removal", "window"):
        return [_told(group, found) for group, found in critical_periods(record).items()]
    if record.protocol == "warm-start":
        return _best(by_group)
    if record.protocol == "early-fisher":
        until = early_until(record)
        return [
            f"Largest total trace in the first {until:g} epoch{'s' * (until != 1)} against final test accuracy: "
            f"{correlation_text(early_correlation(record))}."
        ]
    return []


def _best(by_group: Mapping[str, Sequence[ArmSummary]]) -> list[str]:
    """Where on the axis each group comes nearest to the control."""
    texts = []
    for group, members in by_group.items():
        known = [each for each in members if np.isfinite(each.loss.value) and np.isfinite(each.arm.value)]
        if known:
            best = min(known, key=lambda each: each.loss.value)
            texts.append(f"{group} does best at {best.arm.value:g}: there it {points(best.loss)} of test accuracy.")
    return texts


def critical_periods(record: StudyRecord) -> dict[str, CriticalPeriod]:
    """The end of the critical period of each group, by the rule of `fisherkit.analysis.critical_period`."""
    if record.protocol not in ("removal", "window"):
        return {}
    found = {group: _critical(record, [arm for arm in record.arms if arm.group == group]) for group in groups(record)}
    return {group: each for group, each in found.items() if each is not None}


def _critical(record: StudyRecord, members: Sequence[ArmRecord]) -> CriticalPeriod | None:
    """Of the arms with a place on the axis and a finished run; None where there is nothing to compare."""
    placed = [arm for arm in members if arm.with_state("finished") and np.isfinite(arm.value)]
    control = record.control_of(placed[0]) if placed else None
    if control is None or not control.with_state("finished"):
        return None
    return critical_period(
        [analysed_arm(arm) for arm in placed],
        analysed_arm(control),
        study="window" if record.protocol == "window" else "removal",
        last=record.attributes["final_epochs"],
        statistic=record.attributes["final_statistic"],
    )


def _told(group: str, found: CriticalPeriod) -> str:
    noise = f" (seed noise of one run: {100 * found.noise:.2f} points)" if np.isfinite(found.noise) else ""
    return f"{group}, critical period: {found.verdict}{_end(found)}{noise}."


def _end(found: CriticalPeriod) -> str:
    """Where it ends, with its bounds: ", at 4 [2, 6]"; "..." for beyond the arms."""
    if not np.isfinite(found.end):
        return ""
    low, high = (f"{bound:g}" if np.isfinite(bound) else "..." for bound in (found.low, found.high))
    return f", at {found.end:g} [{low}, {high}]"

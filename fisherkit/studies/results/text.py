"""summary.txt: what a person pastes into an e-mail. ASCII, at most 100 columns."""

import textwrap
from collections.abc import Sequence

import numpy as np

from fisherkit.analysis.intervals import Interval
from fisherkit.recording import StudyRecord
from fisherkit.studies.results.arm_summary import ArmSummary
from fisherkit.studies.results.cautions import cautions
from fisherkit.studies.results.findings import findings

WIDTH = 100
_LABEL = 28
# options of the runs that make up the line "model" and the line "data"
_MODEL = ("width", "optimizer", "batch_size", "precision")
_DATA = ("train_images", "held_out", "test_images")


def text_bytes(record: StudyRecord, arms: Sequence[ArmSummary]) -> bytes:
    """The summary: what was run, the arms, what to beware of, what was found."""
    found = findings(record, arms) or ["None: no arm can be compared with its control yet."]
    sections = [
        _head(record),
        _accuracies(arms),
        _traces(arms),
        _paragraphs("Warnings", cautions(record, arms)),
        _paragraphs("Findings", found),
    ]
    blocks = ["".join(f"{_ascii(line).rstrip()}\n" for line in lines) for lines in sections if lines]
    return "\n".join(blocks).encode("ascii")


def _head(record: StudyRecord) -> list[str]:
    runs = {run.identity: run for arm in record.arms for run in arm.runs.values()}
    finished = sum(run.state == "finished" for run in runs.values())
    title = f"Study {record.attributes.get('name', record.protocol)} ({record.protocol})"
    facts = {
        "command": str(record.attributes.get("command", "")),
        "model": _common(record, "model", _MODEL),
        "data": _common(record, "data", _DATA),
        "runs": f"{finished} of {len(runs)} finished; seeds {', '.join(map(str, record.seeds))}",
        "scale": f"all epochs times {record.options['time_scale']:g}" if record.options.get("time_scale") else "",
        "final": str(record.attributes.get("final_rule", "end of the run")),
        "numbers": "mean over n seeds [95 % interval]; loss: control less arm, seed by seed",
        "version": f"fisherkit {record.attributes['fisherkit_version']}",
    }
    lines = [_ascii(title), "=" * min(len(_ascii(title)), WIDTH)]
    for name, fact in facts.items():
        if fact:
            lines += textwrap.wrap(f"{name:9}{_ascii(fact)}", WIDTH, subsequent_indent=" " * 9)
    return lines


def _common(record: StudyRecord, name: str, more: Sequence[str]) -> str:
    """An option of the runs and others that go with it, each as it is or "several"."""
    specifications = [run.specification for arm in record.arms for run in arm.runs.values()]
    values = {key: {str(each.get(key)) for each in specifications} for key in (name, *more)}
    shown = {key: texts.pop() if len(texts) == 1 else "several" for key, texts in values.items()}
    given = [f"{key.replace('_', ' ')} {shown[key]}" for key in more if shown[key] != "None"]
    return ", ".join([shown[name], *given])


def _accuracies(arms: Sequence[ArmSummary]) -> list[str]:
    rows = [("arm", "n", "test accuracy, %", "train accuracy, %", "loss, points")]
    for each in arms:
        loss = _percent(each.loss, 2) if each.compared_with else ("control" if each.arm.control else "-")
        rows.append((short(each.arm.label), str(each.done), _percent(each.test, 2), _percent(each.train, 1), loss))
    return [f"{a:{_LABEL}} {n:>3} {b:20} {c:20} {d}" for a, n, b, c, d in rows]


def _traces(arms: Sequence[ArmSummary]) -> list[str]:
    """What the total trace did; nothing where it was not measured."""
    if not any(each.verdicts for each in arms):
        return []
    rows = [("Fisher trace, all layers", "peak epoch", "forgotten", "last quarter", "verdict")]
    for each in arms:
        numbers = (_plain(each.peak_epoch, 1), _plain(each.forgotten, 2), _plain(each.last_quarter, 2))
        rows.append((short(each.arm.label), *numbers, each.verdict or "not measured"))
    lines = []
    for a, b, c, d, e in rows:
        start = f"{a:{_LABEL}} {b:>10} {c:>10} {d:>13}  "
        lines += textwrap.wrap(start + _ascii(e), WIDTH, subsequent_indent=" " * len(start), drop_whitespace=False)
    return [*lines, "forgotten: 1 - last / largest trace; last quarter: its share of the trace in the end"]


def _paragraphs(title: str, texts: Sequence[str]) -> list[str]:
    if not texts:
        return []
    wrapped = [
        line for t in texts for line in textwrap.wrap(_ascii(t), WIDTH, initial_indent="- ", subsequent_indent="  ")
    ]
    return [title, *wrapped]


def short(label: str) -> str:
    """A label of at most 28 letters; the end, which tells arms apart, is kept."""
    text = _ascii(label)
    return text if len(text) <= _LABEL else f"...{text[3 - _LABEL :]}"


def _percent(interval: Interval, digits: int) -> str:
    if not interval.n:
        return "-"
    value, low, high = (f"{100 * number:.{digits}f}" for number in (interval.value, interval.low, interval.high))
    return f"{value} [{low}, {high}]" if np.isfinite(interval.low) else value


def _plain(interval: Interval, digits: int) -> str:
    return f"{interval.value:.{digits}f}" if np.isfinite(interval.value) else "-"


def _ascii(text: str) -> str:
    """The text in printable ASCII, on one line; everything else as an escape."""
    plain = text.encode("ascii", "backslashreplace").decode("ascii")
    return "".join(letter if letter.isprintable() else " " for letter in plain)

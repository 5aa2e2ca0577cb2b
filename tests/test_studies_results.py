"""What a study writes: runs collected, summed up in table and text, drawn; whatever is missing is said."""

import csv
import dataclasses
import io
import os

import numpy as np
import pytest
import study_records
from study_records import arm, removal, run, trajectory

import fisherkit
import fisherkit.studies.results.findings as findings_module
from fisherkit.analysis import CriticalPeriod, Interval, mean_interval
from fisherkit.recording import ArmRecord, StudyRecord, to_bytes
from fisherkit.studies import specify
from fisherkit.studies.arms import PlannedArm, Study
from fisherkit.studies.results import (
    analysed_arms,
    collect,
    csv_bytes,
    end_rule,
    summarise,
    text_bytes,
    write_results,
)
from fisherkit.studies.results.findings import certain, findings, points
from fisherkit.studies.results.text import short

NAN = float("nan")


def specification(t0: int, seed: int, epochs: int = 16):
    deficit = (f"blur:0-{t0}",) if t0 else ()
    return specify(model="resnet18", width="4", data="fashion-mini", epochs=epochs + t0, deficit=deficit, seed=seed)


def planned(times=(0, 4, 8), seeds=2, **options) -> Study:
    """A removal study by hand."""
    arms = [
        PlannedArm(
            f"blur until epoch {t0}" if t0 else "control",
            "blur" if t0 else "control",
            float(t0),
            tuple(specification(t0, seed) for seed in range(seeds)),
            control=t0 == 0,
        )
        for t0 in times
    ]
    return Study("removal", "deficit removed at epoch", tuple(arms), {"time_scale": 0.2, **options})


def write_run(out, spec, *, final=0.8, rows=None, **attributes):
    """The file that such a run leaves."""
    until = next((windowed.window.stop for windowed in spec.conditions().deficits), 0)
    made = trajectory(spec.epochs, seed=spec.seed, until=until, final=final)
    known = {**made.attributes, "configuration": spec.model_dump(mode="json"), "finished": True, **attributes}
    made = dataclasses.replace(made, attributes=known)
    folder = out / "runs" / spec.identity
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.h5").write_bytes(to_bytes(made if rows is None else made.rows(0, rows)))


@pytest.fixture
def complete(tmp_path):
    """A folder in which every run has finished; each epoch under blur has cost 0.02."""
    study = planned()
    for each in study.arms:
        for spec in each.runs:
            write_run(tmp_path, spec, final=0.8 - 0.02 * each.value + 0.01 * spec.seed)
    return study, tmp_path


def test_all_files_are_written_and_hold_the_runs(complete):
    study, out = complete
    results = write_results(study, out, "removal", command="fisherkit study removal")
    names = ["study.h5", "summary.csv", "summary.txt", "figure.png", "figure.pdf", "figure.svg"]
    assert [path.name for path in results.files] == names
    assert sorted(os.listdir(out / "removal")) == sorted(names)
    assert results.text == (out / "removal" / "summary.txt").read_text()
    record = fisherkit.read_study(out / "removal" / "study.h5")
    assert record.differences(results.record) == []
    assert record.attributes["command"] == "fisherkit study removal"
    assert record.attributes["name"] == "removal"
    assert record.attributes["final_rule"] == "last epoch"  # 5 epochs at a fifth of the time
    assert record.arm("blur until epoch 8").runs[1].specification == study.arms[2].runs[1].model_dump(mode="json")
    np.testing.assert_allclose(record.arm("blur until epoch 8").finals("test_accuracy"), [0.64, 0.65])


def test_the_same_runs_give_the_same_bytes(complete):
    study, out = complete
    first = {path.name: path.read_bytes() for path in write_results(study, out, "a").files}
    again = {path.name: path.read_bytes() for path in write_results(study, out, "a").files}
    assert first == again


def test_states_of_runs_that_are_not_whole(tmp_path):
    study = planned(seeds=3)
    control, early, late = study.arms
    for spec in control.runs:
        write_run(tmp_path, spec)
    write_run(tmp_path, early.runs[0], rows=6, finished=False, exploded="loss inf at step 77")
    write_run(tmp_path, early.runs[1], rows=6, finished=False)
    (tmp_path / "runs" / early.runs[2].identity).mkdir()
    (tmp_path / "runs" / early.runs[2].identity / "run.h5").write_bytes(b"nonsense")
    write_run(tmp_path, late.runs[1], rows=3, finished=False)
    failures = {late.runs[0].identity: "out of memory", late.runs[1].identity: "killed", control.runs[0].identity: "x"}
    record = collect(study, tmp_path, failures=failures)
    found = [[(run.state, run.message) for _, run in sorted(arm.runs.items())] for arm in record.arms]
    assert found == [
        [("finished", "")] * 3,
        [
            ("exploded", "loss inf at step 77"),
            ("unfinished", "stopped after 5 of 20 epochs"),
            ("failed", "run.h5: is not a run file of fisherkit: it is not HDF5."),
        ],
        [("failed", "out of memory"), ("failed", "killed"), ("missing", "")],
    ]
    assert record.arms[1].runs[0].final == {}
    assert [len(each.runs) for each in analysed_arms(record)] == [3, 1, 0]
    assert analysed_arms(record)[1].seeds == (0,)


def test_the_file_of_another_run_is_not_taken(tmp_path):
    study = planned(times=(0,), seeds=2)
    first, second = study.arms[0].runs
    write_run(tmp_path, first)
    (tmp_path / "runs" / first.identity).rename(tmp_path / "runs" / second.identity)
    record = collect(study, tmp_path)
    assert record.arms[0].runs[0].state == "missing"
    assert record.arms[0].runs[1].state == "failed"
    assert record.arms[0].runs[1].message == "run.h5: is of another run: --seed 0 (this command: 1)."
    write_run(tmp_path, first, configuration={"model": "x"})
    assert "its configuration is none of a run" in collect(study, tmp_path).arms[0].runs[0].message


def test_seeds_of_an_arm_must_differ(tmp_path):
    one = specification(0, 0)
    arms = (PlannedArm("control", "control", None, (one, specification(4, 0)), control=True),)
    with pytest.raises(ValueError, match=r"runs of an arm must have a seed each; those of 'control' have \[0, 0\]"):
        collect(Study("custom", "x", arms, {}), tmp_path)


@pytest.mark.parametrize(
    ("protocol", "scale", "text"),
    [
        ("removal", 1.0, "mean of the last 5 epochs"),
        ("removal", 0.4, "mean of the last 2 epochs"),
        ("removal", 2.0, "mean of the last 5 epochs"),
        ("window", 1.0, "median of the last 10 epochs"),
        ("window", 0.05, "last epoch"),
        ("warm-start", 1.0, "last epoch"),
        ("early-fisher", 1.0, "mean of the last 5 epochs"),
    ],
)
def test_the_end_of_a_run_is_the_papers_scaled_in_time(protocol, scale, text):
    study = dataclasses.replace(planned(), protocol=protocol, options={"time_scale": scale})
    assert str(end_rule(study)) == text


def test_the_end_of_a_run_is_what_the_rule_says(tmp_path):
    study = dataclasses.replace(planned(times=(0,), seeds=1), options={})
    write_run(tmp_path, study.arms[0].runs[0])
    found = collect(study, tmp_path).arms[0].runs[0]
    assert found.final["test_accuracy"] == pytest.approx(found.trajectory.series["test_accuracy"][-5:].mean())
    assert found.final["train_loss"] == pytest.approx(found.trajectory.series["train_loss"][-5:].mean())


def small() -> StudyRecord:
    """One seed an arm, so that no interval is in the way of exact numbers."""
    arms = (
        arm(0, "control", "control", 0.0, 0.8, control=True, seeds=1),
        arm(1, "blur until epoch 4", "blur", 4.0, 0.7, seeds=1, train=0.9),
        ArmRecord("blur until epoch 8, Größe", "blur", 8.0, False, {0: run(99, state="failed", message="no\nmemory")}),
    )
    attributes = {**study_records.RULE, "command": "fisherkit study removal --seeds 1"}
    return StudyRecord("removal", "deficit removed at epoch", arms, {"time_scale": 0.2}, attributes)


def test_the_table_has_a_row_for_each_arm():
    rows = list(csv.DictReader(io.StringIO(csv_bytes(summarise(small())).decode())))
    assert [row["arm"] for row in rows] == ["control", "blur until epoch 4", "blur until epoch 8, Größe"]
    control, early, late = rows
    expected = {"value": "4", "group": "blur", "control": "no", "compared_with": "control", "seeds_planned": "1"}
    expected |= {"finished": "1", "exploded": "0", "failed": "0", "unfinished": "0", "missing": "0"}
    expected |= {"test_accuracy": "0.7", "test_accuracy_low": "", "test_accuracy_high": "", "test_accuracy_n": "1"}
    expected |= {"train_accuracy": "0.9", "loss": "0.1", "loss_low": "", "loss_n": "1", "undertrained": "yes"}
    assert {name: early[name] for name in expected} == expected
    assert control["loss"] == control["compared_with"] == ""
    assert control["undertrained"] == "no"
    assert (late["failed"], late["test_accuracy"], late["verdict"]) == ("1", "", "")
    rows = small().arms[1].runs[0].trajectory
    shares = rows.variables["fisher_true"][-1]
    assert float(early["last_quarter"]) == pytest.approx(shares[-5:].sum() / shares.sum(), rel=1e-5)


def test_the_table_has_means_and_intervals_over_seeds():
    record = removal(deficits=("blur",), times=(4,))
    row = list(csv.DictReader(io.StringIO(csv_bytes(summarise(record)).decode())))[1]
    expected = mean_interval(record.arms[1].finals("test_accuracy"), level=0.95)
    found = [float(row[f"test_accuracy{end}"]) for end in ("", "_low", "_high", "_n")]
    np.testing.assert_allclose(found, [expected.value, expected.low, expected.high, 3], rtol=1e-5)
    assert float(row["loss"]) == pytest.approx(0.08)


TEXT = r"""
Study removal (removal)
=======================
command  fisherkit study removal --seeds 1
model    resnet18
data     cifar10
runs     2 of 3 finished; seeds 0
scale    all epochs times 0.2
final    mean of the last 5 epochs
numbers  mean over n seeds [95 % interval]; loss: control less arm, seed by seed
version  fisherkit {version}

arm                            n test accuracy, %     train accuracy, %    loss, points
control                        1 80.00                99.0                 control
blur until epoch 4             1 70.00                90.0                 10.00
...ntil epoch 8, Gr\xf6\xdfe   0 -                    -                    -
"""

WARNINGS = r"""
Warnings
- blur until epoch 8, Gr\xf6\xdfe, seed 0: failed (no memory), run 0000000000000063.
- No finished run, so no numbers: blur until epoch 8, Gr\xf6\xdfe.
- One finished seed, so no interval and no seed noise: control; blur until epoch 4.
- Undertrained: the final train accuracy is below 95 %, so a loss of test accuracy may be one of
  training, and forgetting cannot show: blur until epoch 4 (90.0 %).

Findings
- blur (deficit removed at epoch): against control it loses 10.00 points, no interval (n=1) of test
  accuracy at most, at 4.
"""


def test_the_text_says_all_of_it():
    record = small()
    text = text_bytes(record, summarise(record)).decode("ascii")
    assert text.startswith(TEXT.lstrip().format(version=fisherkit.__version__))
    assert WARNINGS in text
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize("protocol", study_records.PROTOCOLS)
def test_every_text_fits_an_e_mail(protocol):
    record = study_records.PROTOCOLS[protocol]()
    text = text_bytes(record, summarise(record)).decode("ascii")
    assert max(map(len, text.splitlines())) <= 100
    assert text.endswith("\n")
    assert "\n\n\n" not in text
    assert "Findings\n- " in text
    assert text.splitlines()[0].startswith("Study ")


def test_a_study_without_a_finished_run_is_written_without_a_figure(tmp_path):
    results = write_results(planned(), tmp_path, "removal", failures={})
    assert [path.name for path in results.files] == ["study.h5", "summary.csv", "summary.txt"]
    assert "- No figure: it needs a finished run with a test accuracy.\n" in results.text
    assert "- None: no arm can be compared with its control yet.\n" in results.text
    assert "- The control has no finished run, so losses against it are not known: control.\n" in results.text
    assert "runs     0 of 6 finished; seeds 0, 1\n" in results.text


def test_exploded_runs_are_counted_and_are_not_among_the_accuracies():
    record = removal(deficits=("blur",), times=(4,))
    runs = {**record.arms[1].runs, 2: run(12, None, state="exploded", message="loss inf at step 9")}
    record = dataclasses.replace(record, arms=(record.arms[0], dataclasses.replace(record.arms[1], runs=runs)))
    found = summarise(record)[1]
    assert found.states["exploded"] == 1
    assert found.test.n == 2
    text = text_bytes(record, summarise(record)).decode()
    assert "seed 2: exploded (loss inf at step 9), run 000000000000000c. It is not among" in text
    assert "Fewer than 3 finished seeds, so the intervals are rough: blur until epoch 4." in text


def test_a_study_without_a_control_says_so():
    record = dataclasses.replace(removal(), arms=removal().arms[1:])
    assert "The study has no control, so losses are not known." in text_bytes(record, summarise(record)).decode()


def test_notes_of_the_plan_are_warnings():
    record = dataclasses.replace(small(), options={"notes": ["window from epoch 9 left out."]})
    assert "- window from epoch 9 left out.\n" in text_bytes(record, summarise(record)).decode()


def test_a_loss_is_told_in_points_with_its_direction():
    assert points(Interval(0.051, 0.042, 0.06, 3)) == "loses 5.10 points [4.20, 6.00] (n=3)"
    assert points(Interval(-0.02, -0.03, -0.01, 4)) == "gains 2.00 points [1.00, 3.00] (n=4)"
    assert points(Interval(0.02, NAN, NAN, 1)) == "loses 2.00 points, no interval (n=1)"
    assert certain(Interval(0.1, 0.05, 0.2, 3))
    assert certain(Interval(-0.1, -0.2, -0.05, 3))
    assert not certain(Interval(0.1, -0.05, 0.2, 3))
    assert not certain(Interval(0.1, NAN, NAN, 1))


def test_labels_keep_their_end():
    assert short("x" * 30 + "epoch 7") == "..." + "x" * 18 + "epoch 7"
    assert len(short("x" * 99)) == 28


def test_findings_of_a_warm_start_name_the_gap_and_the_best_lambda():
    record = study_records.warm_start()
    found = findings(record, summarise(record))
    assert any(text.startswith("warm start: loses 5.00 points") and "against fresh start" in text for text in found)
    assert any(text.startswith("shrink-perturb does best at 0.2: there it loses 1.00 points") for text in found)


def test_findings_of_early_fisher_hold_the_correlation():
    record = study_records.early_fisher()
    found = findings(record, summarise(record))
    assert any("in the first 2 epochs against final test accuracy: Spearman correlation -0." in text for text in found)


def test_many_intervals_are_said_to_be_many():
    record = removal()
    last = findings(record, summarise(record))[-1]
    assert last.startswith("Each interval is at 95 % for its arm alone: of 7 arms that lost nothing, about 0.4 would")


def test_the_critical_period_is_asked_with_the_rule_of_the_study(monkeypatch):
    asked = []

    def answer(arms, control, *, study, last, statistic):
        rule = (control.label, study, last, statistic)
        asked.append(([each.label for each in arms], [len(each.runs) for each in arms], *rule))
        return CriticalPeriod("ends", end=4.0, low=2.0, high=np.inf, noise=0.0123)

    monkeypatch.setattr(findings_module, "critical_period", answer)
    record = removal(deficits=("blur", "flip"), times=(4, 8))
    found = findings(record, summarise(record))
    assert "blur, critical period: ends, at 4 [2, ...] (seed noise of one run: 1.23 points)." in found
    assert asked[0] == (["blur until epoch 4", "blur until epoch 8"], [3, 3], "control", "removal", 5, "mean")
    assert asked[1][0] == ["flip until epoch 4", "flip until epoch 8"]
    unfinished = dataclasses.replace(
        record.arms[0], runs={seed: run(seed, state="missing") for seed in record.arms[0].runs}
    )
    record = dataclasses.replace(record, arms=(unfinished, *record.arms[1:]))
    findings(record, summarise(record))
    assert len(asked) == 2  # without a control there is nothing to ask

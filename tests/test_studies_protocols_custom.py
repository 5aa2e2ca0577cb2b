"""A grid over any option of a run, from a TOML file."""

from pathlib import Path

import pytest
from planned import asked, differing, only

from fisherkit.studies.protocols import StudyOptions, custom

GRID = """
[run]
model = "allcnn"
clean_epochs = 40
[grid]
lr = [0.1, 0.01]
deficit = ["", "blur:0-40", ["blur:0-20", "flip:20-60"]]
"""


def study_of(folder: Path, text: str, options: StudyOptions | None = None):
    """The study of a file with that text."""
    path = folder / "grid.toml"
    path.write_text(text)
    return custom(options or asked(), path)


def test_an_arm_for_every_combination_labelled_by_what_differs(tmp_path):
    study = study_of(tmp_path, GRID)
    assert [(arm.label, only(arm).lr, only(arm).deficit, only(arm).epochs) for arm in study.arms] == [
        ("lr=0.1, deficit=none", 0.1, (), 40),
        ("lr=0.1, deficit=blur:0-40", 0.1, ("blur(4):0-40",), 80),
        ("lr=0.1, deficit=blur:0-20+flip:20-60", 0.1, ("blur(4):0-20", "flip:20-60"), 100),
        ("lr=0.01, deficit=none", 0.01, (), 40),
        ("lr=0.01, deficit=blur:0-40", 0.01, ("blur(4):0-40",), 80),
        ("lr=0.01, deficit=blur:0-20+flip:20-60", 0.01, ("blur(4):0-20", "flip:20-60"), 100),
    ]
    assert {arm.value for arm in study.arms} == {None}
    assert not any(arm.control for arm in study.arms)
    assert [arm.group for arm in study.arms] == ["deficit, lr=0.1"] * 3 + ["deficit, lr=0.01"] * 3
    assert (study.protocol, study.axis) == ("custom", "arm")
    for arm in study.arms:
        assert differing(only(arm), only(study.arms[0])) <= {"lr", "deficit", "epochs"}


def test_an_arm_is_compared_with_the_control_that_has_its_other_values(tmp_path):
    from fisherkit.recording import ArmRecord, StudyRecord

    study = study_of(tmp_path, GRID + '[control]\ndeficit = ""\n')
    arms = tuple(ArmRecord(arm.label, arm.group, float("nan"), arm.control, {}) for arm in study.arms)
    record = StudyRecord(study.protocol, study.axis, arms, study.options)
    assert [arm.label for arm in record.controls] == ["lr=0.1, deficit=none", "lr=0.01, deficit=none"]
    for arm in record.arms:
        if not arm.control:
            assert record.control_of(arm).label == f"{arm.label.partition(',')[0]}, deficit=none"


def test_all_epochs_of_the_file_are_scaled(tmp_path):
    text = GRID.replace("[grid]", 'lr_schedule = "exponential(0.97)"\nevent = "lr_scale(0.1):30"\n[grid]')
    study = study_of(tmp_path, text, asked(time_scale=0.1))
    assert [only(arm).epochs for arm in study.arms[:3]] == [4, 8, 10]
    run = only(study.arms[2])
    assert (run.deficit, run.event) == (("blur(4):0-2", "flip:2-6"), ("lr_scale(0.1):3",))
    assert float(run.lr_schedule[len("exponential(") : -1]) == pytest.approx(0.97**10)
    epochs = study_of(tmp_path, "[grid]\nepochs = [100, 200]", asked(time_scale=0.1))
    assert [(arm.label, only(arm).epochs) for arm in epochs.arms] == [("epochs=100", 10), ("epochs=200", 20)]


def test_the_command_line_takes_precedence_over_the_files_run(tmp_path):
    text = '[run]\nmodel = "allcnn"\nbatch_size = 64\nepochs = 10\n[grid]\nlr = [0.1, 0.2]'
    study = study_of(tmp_path, text, asked({"model": "mlp", "width": "32"}, clean_epochs=7))
    assert {(run.model, run.width, run.batch_size, run.epochs) for run in study.runs} == {("mlp", "32", 64, 7)}


def test_an_option_of_the_grid_must_not_be_given_beside_it(tmp_path):
    with pytest.raises(ValueError, match=r"lr must not be given beside .*grid\.toml, for its grid has it"):
        study_of(tmp_path, GRID, asked({"lr": 0.3}))
    with pytest.raises(ValueError, match="epochs must not be given beside"):
        study_of(tmp_path, "[grid]\nepochs = [1, 2]", asked(clean_epochs=3))
    with pytest.raises(ValueError, match="model_option must not be given beside"):
        study_of(tmp_path, '[run]\nepochs = 1\n[grid]\nmodel_option = ["a=1"]', asked({"model_options": {"a": "2"}}))


def test_every_kind_of_option_can_be_varied(tmp_path):
    text = """
    [run]
    epochs = 3
    seed = 5
    probe = ["train", "test"]
    [grid]
    width = ["", "32"]
    train_images = ["", 1000]
    refresh_batchnorm = [true, false]
    held_out = [0.25]
    fisher_penalty = ["", "0.1:10"]
    model_option = [["a=1", "b=2"]]
    """
    study = study_of(tmp_path, text, StudyOptions({}, seeds=2))
    assert len(study.arms) == 2 * 2 * 2 * 2
    first, last = study.arms[0], study.arms[-1]
    assert [run.seed for run in first.runs] == [5, 6]
    run = first.runs[0]
    assert (run.width, run.train_images, run.refresh_batchnorm, run.held_out) == (None, None, True, 0.25)
    assert (run.fisher_penalty, run.model_options, run.probe) == (None, {"a": "1", "b": "2"}, ("train", "test"))
    run = last.runs[0]
    assert (run.width, run.train_images, run.refresh_batchnorm, run.fisher_penalty) == ("32", 1000, False, "0.1:10")
    assert first.label == (
        "width=default, train_images=default, refresh_batchnorm=True, held_out=0.25, fisher_penalty=none, "
        "model_option=a=1+b=2"
    )


def test_numbers_will_do_where_texts_are_wanted(tmp_path):
    study = study_of(tmp_path, "[run]\nepochs = 1\nwidth = 16\n[grid]\nweight_decay = [5e-4, 0.001]\nevery = [1]")
    assert [only(arm).weight_decay for arm in study.arms] == [("0.0005",), ("0.001",)]
    assert {(run.width, run.every) for run in study.runs} == {("16", "1")}


def test_of_arms_that_are_the_same_run_one_is_kept_the_control_if_there_is_one(tmp_path):
    text = '[run]\nmodel = "resnet18"\nepochs = 1\n[grid]\nlr = ["", 0.1, 0.2]\n[control]\nlr = 0.1'
    study = study_of(tmp_path, text)
    assert [(arm.label, arm.control) for arm in study.arms] == [("lr=0.1", True), ("lr=0.2", False)]
    assert study.options["notes"] == ["lr=default is the same run as lr=0.1; it is left out."]
    scaled = study_of(
        tmp_path, '[run]\nepochs = 20\n[grid]\ndeficit = ["blur:0-10", "blur:0-11"]', asked(time_scale=0.1)
    )
    assert [arm.label for arm in scaled.arms] == ["deficit=blur:0-10"]
    assert scaled.options["notes"] == ["deficit=blur:0-11 is the same run as deficit=blur:0-10; it is left out."]


RUN = "[run]\nepochs = 4\n"
ERRORS = {
    "toml": ("[grid\n", r"grid\.toml must be a TOML file; it is not: "),
    "bytes": (b"\xff\xfe", r"grid\.toml must be a TOML file; it is not: "),
    "no_grid": (RUN, r"must have a table \[grid\] with at least one option.*got none"),
    "empty_grid": (RUN + "[grid]\n", r"must have a table \[grid\] with at least one option"),
    "empty_list": (RUN + "[grid]\nlr = []", r"grid\.toml: \[grid\] lr must be a list of at least one value; got \[\]"),
    "not_a_list": (RUN + "[grid]\nlr = 0.1", r"\[grid\] lr must be a list of at least one value; got 0\.1"),
    "table": (RUN + "[grid]\nlr = [0.1]\n[arms]\nx = 1", r"tables \[run\], \[grid\], \[control\] .*; got 'arms'"),
    "top_level": ("epochs = 3\n[grid]\nlr = [0.1]", r"got 'epochs'\. Options of all runs belong into \[run\]"),
    "not_a_table": ("grid = 3", r"must hold the tables .*; got 'grid'"),
    "unknown": (RUN + "[grid]\nlearning_rate = [0.1]", r"\[grid\] learning_rate is no option of a run; .*augment"),
    "near": ("[run]\nmomentun = 0.1\n[grid]\nlr = [0.1]", r"\[run\] momentun is no option.* Did you mean momentum\?"),
    "text_for_number": (RUN + '[grid]\nlr = [0.1, "x"]', r"\[grid\] lr must be a number; got 'x'"),
    "float_for_count": (RUN + "[grid]\nbatch_size = [1.5]", r"\[grid\] batch_size must be a whole number; got 1\.5"),
    "bool_for_count": (RUN + "[grid]\nbatch_size = [true]", r"\[grid\] batch_size must be a whole number; got True"),
    "number_for_flag": (RUN + "[grid]\nrefresh_batchnorm = [1]", "refresh_batchnorm must be true or false; got 1"),
    "flag_for_text": (RUN + "[grid]\nwidth = [true]", r"\[grid\] width must be a text; got True"),
    "list_for_text": (RUN + "[grid]\nwidth = [[16]]", r"\[grid\] width must be a text; got \[16\]"),
    "flag_for_texts": (RUN + "[grid]\naugment = [false]", "augment must be a text or a list of texts; got False"),
    "optional_count": (RUN + '[grid]\ntrain_images = ["x"]', "train_images must be a whole number; got 'x'"),
    "epochs": ("[run]\nepochs = 0\n[grid]\nlr = [0.1]", r"\[run\] epochs must be a whole number >= 1; got 0"),
    "no_length": ("[grid]\nlr = [0.1]", r"grid\.toml: arm lr=0.1: epochs or clean_epochs must be .*; got none"),
    "two_lengths": (RUN + "clean_epochs = 3\n[grid]\nlr = [0.1]", r"one of them; got \['epochs', 'clean_epochs'\]"),
    "twice": (RUN + "lr = 0.1\n[grid]\nlr = [0.2]", r"lr must be in \[run\] or in \[grid\]; got it in both"),
    "repeated": (RUN + "[grid]\nlr = [0.1, 0.1]", r"\[grid\] lr must have each value once; got 0\.1 twice"),
    "seed": (RUN + "[grid]\nseed = [1, 2]", r"\[grid\] seed must not be in a grid\. Seeds are given with --seeds"),
    "out": (RUN + 'out = "x"\n[grid]\nlr = [0.1]', r"\[run\] out is no option of a run"),
    "device": (RUN + 'device = "auto"\n[grid]\nlr = [0.1]', r"\[run\] device is of the machine; .* as --device"),
    "model_option": (RUN + '[grid]\nmodel_option = ["a"]', r"\[grid\] model_option must be NAME=VALUE; got 'a'"),
    "control_key": (RUN + "[grid]\nlr = [1]\n[control]\nmodel = 'mlp'", r"\[control\] model must be .* grid \(lr\)"),
    "control_value": (
        RUN + "[grid]\nlr = [0.1, 0.2]\n[control]\nlr = 0.3",
        r"\[control\] lr must be one of the grid's values 0\.1, 0\.2; got 0\.3",
    ),
    "range": (RUN + "[grid]\nbatch_size = [0]", "arm batch_size=0: batch_size: Input should be greater than .*; got 0"),
    "window": (RUN + '[grid]\ndeficit = ["blr:0-2"]', "arm deficit=blr:0-2: deficit 'blr:0-2': name must be one of"),
    "late": (RUN + '[grid]\ndeficit = ["blur:9-"]', "arm deficit=blur:9-: .* must start before the run ends after 4"),
    "many": (
        RUN + f"[grid]\nlr = {[0.1 + k for k in range(15)]}\nbatch_size = {list(range(1, 15))}",
        r"\[grid\] must make at most 200 arms; its values make 210",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "message"), ERRORS.values(), ids=ERRORS)
def test_errors_name_file_and_key(tmp_path, text, message: str):
    path = tmp_path / "grid.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=message) as caught:
        custom(asked(), path)
    assert "grid.toml" in str(caught.value)


def test_arms_are_the_files(tmp_path):
    with pytest.raises(ValueError, match="arms must be left out here"):
        study_of(tmp_path, GRID, asked(arms=("0.1",)))

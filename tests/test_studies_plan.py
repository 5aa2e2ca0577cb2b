"""Which runs are the same up to an epoch, and the plan that trains each beginning once."""

import itertools
import random

import pytest
from planned import asked

from fisherkit.studies import specify
from fisherkit.studies.plan import Branch, plan_runs, trained_epochs
from fisherkit.studies.prefix import Course
from fisherkit.studies.protocols import regularization, removal, warm_start, window


def shared(first, second) -> int:
    """The epoch up to which two runs are the same; either way round."""
    one, other = (Course.of(specify(**{"model": "allcnn", "epochs": 20, **options})) for options in (first, second))
    assert one.shared(other) == other.shared(one)
    return one.shared(other)


HALF = {"fraction": ("0.5:0-10",)}
# two runs of 20 epochs unless they say otherwise, and the epoch up to which they are the same, by hand
COURSES = {
    "same": ({}, {}, 19),
    "longer": ({}, {"epochs": 30}, 19),  # not 20: the last epoch of a run is measured, the other's may not be due
    "deficit": ({}, {"deficit": ("blur:7-9",)}, 7),
    "deficit_ends_later": ({"deficit": ("blur:0-5",)}, {"deficit": ("blur:0-8",), "epochs": 28}, 5),
    "another_deficit": ({"deficit": ("blur:0-5",)}, {"deficit": ("flip:0-5",)}, 0),
    "stronger_deficit": ({"deficit": ("blur(4):3-5",)}, {"deficit": ("blur(8):3-5",)}, 3),
    "same_in_other_words": ({"deficit": ("blur:0-5",)}, {"deficit": ("blur(4):0-5",)}, 19),
    "in_two_parts": ({"deficit": ("blur:0-5",)}, {"deficit": ("blur:0-3", "blur:3-5")}, 19),
    "lr": ({}, {"lr": 0.1}, 0),
    "lr_restart": ({}, {"event": ("lr_restart:6",)}, 6),
    "lr_restart_of_a_constant": (
        {"lr_schedule": "constant"},
        {"lr_schedule": "constant", "event": ("lr_restart:6",)},
        6,
    ),
    "lr_restart_earlier": ({"event": ("lr_restart:4",)}, {"event": ("lr_restart:6",)}, 4),
    "lr_scale": ({}, {"event": ("lr_scale(0.1):12",)}, 12),
    "other_decay": ({}, {"lr_schedule": "exponential(0.9)"}, 1),  # the first epoch has the same rate
    "step_later": ({"lr_schedule": "step(0.1,5)"}, {"lr_schedule": "step(0.1,8)"}, 5),
    "cosine": ({"lr_schedule": "cosine"}, {"lr_schedule": "cosine", "deficit": ("blur:7-9",)}, 7),
    "cosine_longer": ({"lr_schedule": "cosine"}, {"lr_schedule": "cosine", "epochs": 21}, 1),
    "weight_decay": ({}, {"weight_decay": ("0.001:0-11",)}, 11),
    "weight_decay_off": ({}, {"weight_decay": ("0",)}, 0),
    "augment": ({}, {"augment": ("crop+flip:0-2", "crop:2-")}, 2),
    "augment_under_noise": ({"deficit": ("noise:0-5",)}, {"deficit": ("noise:0-5",), "augment": ("crop+flip:3-",)}, 19),
    "event": (HALF, {**HALF, "event": ("shrink_perturb(0.4,0.1):10",)}, 10),
    "fraction": ({}, HALF, 0),
    "fraction_ends_later": (HALF, {"fraction": ("0.5:0-12",)}, 0),  # the phase's end is in all its epochs
    "seed": ({}, {"seed": 1}, 0),
    "model": ({}, {"model": "resnet18", "lr": 0.05, "weight_decay": ("0.001",)}, 0),
    "batch_size": ({}, {"batch_size": 64}, 0),
    "images": ({}, {"train_images": 1000}, 0),
    "precision": ({}, {"precision": "bf16"}, 0),
    "measured_otherwise": ({}, {"every": "2"}, 0),
    "penalty": ({}, {"fisher_penalty": "0.1"}, 0),
    "threads": ({"threads": 1}, {"threads": 2}, 0),
    "data_dir": ({}, {"data_dir": "/elsewhere", "max_memory": 10**9}, 19),  # where things are
    "deficit_probe": (
        {"deficit": ("blur:0-5",), "probe": ("deficit",)},
        {"deficit": ("blur:0-8",), "probe": ("deficit",)},
        5,
    ),
    "deficit_probe_of_another": (  # all deficits of a run are on its probe from the start
        {"deficit": ("blur:0-5",), "probe": ("deficit",)},
        {"deficit": ("blur:0-5", "flip:8-9"), "probe": ("deficit",)},
        0,
    ),
    "train_probe_of_another": ({"deficit": ("blur:0-5",)}, {"deficit": ("blur:0-5", "flip:8-9")}, 8),
    "stop_accuracy": ({}, {"stop_accuracy": 0.9}, 0),
    "stopped_phases": (
        {**HALF, "stop_accuracy": 0.9},
        {**HALF, "stop_accuracy": 0.9, "event": ("shrink_perturb(0.4,0.1):10",)},
        10,
    ),
    "stopped_phases_of_other_ends": (
        {**HALF, "stop_accuracy": 0.9},
        {"fraction": ("0.5:0-12",), "stop_accuracy": 0.9},
        0,
    ),
    # a checkpoint of epoch 19 is there only if neither has come to the accuracy before
    "stopped_runs_of_other_lengths": ({"stop_accuracy": 0.9}, {"stop_accuracy": 0.9, "epochs": 30}, 19),
}


@pytest.mark.parametrize(("first", "second", "epoch"), COURSES.values(), ids=COURSES)
def test_runs_are_the_same_up_to_an_epoch(first, second, epoch: int):
    assert shared(first, second) == epoch


# --- plans


def counted(study) -> tuple[int, int]:
    """Epochs trained with sharing, and without."""
    return trained_epochs(plan_runs(study.runs))


REMOVAL = 160 + 7 * (20 + 160)  # each later removal has 20 epochs of deficit that the one before it has not
WINDOW = 200 + sum(200 - onset for onset in (0, 10, 20, 30, 40, 60, 80, 100, 120))
INNER = (25, 50, 75, 100, 125, 150, 175)
# `until t` goes on from always-on at t, `from t` from never-on; a window is `from t` until it ends (two of the windows
# are runs of other sweeps)
REGULARIZATION = 2 * 200 + 2 * sum(200 - t for t in INNER) + sum(200 - (t + 50) for t in (25, 50, 75, 100, 125))
PLANS = {
    "removal": (lambda: removal(asked()), REMOVAL, 1840),
    "removal_scaled": (lambda: removal(asked(time_scale=0.1)), REMOVAL // 10, 184),
    "removal_2_seeds": (lambda: removal(asked(seeds=2, time_scale=0.1)), 2 * REMOVAL // 10, 2 * 184),
    "window": (lambda: window(asked()), WINDOW, 2000),
    "window_scaled": (lambda: window(asked(time_scale=0.1)), WINDOW // 10, 200),
    "regularization": (lambda: regularization(asked(time_scale=0.2)), REGULARIZATION // 5, 21 * 40),
    # the half is trained once for the warm start and five lambdas
    "warm_start": (lambda: warm_start(asked(time_scale=0.1)), 35 + 35 + 6 * 35, 35 + 6 * 70),
    "warm_start_online": (lambda: warm_start(asked(clean_epochs=4), online=2500), 4 + 4 + 6 * 4, 4 + 6 * 8),
}


@pytest.mark.parametrize(("make", "shared_epochs", "alone"), PLANS.values(), ids=PLANS)
def test_epochs_of_the_papers_plans_by_hand(make, shared_epochs: int, alone: int):
    assert counted(make()) == (shared_epochs, alone)


def test_hand_arithmetic_in_numbers():
    assert (REMOVAL, WINDOW, REGULARIZATION) == (1420, 1540, 2175)


def test_each_removal_goes_on_from_the_one_before_it():
    runs = removal(asked(time_scale=0.1)).runs
    plan = plan_runs(runs)
    assert [run.specification for run in plan] == list(runs)
    assert [run.branches[:1] for run in plan[:2]] == [(), ()]
    for before, run, t0 in zip(plan[1:], plan[2:], range(2, 14, 2), strict=False):
        assert run.branches[0] == Branch(before.specification.identity, t0)
        assert before.keep == (t0,)
        assert run.epochs == 18
    assert (plan[0].keep, plan[-1].keep) == ((), ())


def test_other_places_to_begin_are_named_best_first_and_are_held():
    plan = plan_runs(removal(asked(time_scale=0.1)).runs)
    held = {Branch(run.specification.identity, epoch) for run in plan for epoch in run.keep}
    for run in plan[3:]:
        epochs = [branch.epoch for branch in run.branches]
        assert epochs == sorted(epochs, reverse=True)
        assert len(epochs) == len(set(run.branches)) > 1
        assert set(run.branches) <= held


def test_a_finished_run_is_left_out_and_others_begin_where_it_has_a_checkpoint():
    control, *others = window(asked(arms=("20", "40"))).runs
    plan = plan_runs([control, *others], finished={control.identity: (10, 30)})
    assert [run.specification for run in plan] == others
    assert plan[0].branches == (Branch(control.identity, 10),)
    # the first run has the same 20 epochs, but the control's checkpoint is of epoch 30
    assert plan[1].branches[0] == Branch(control.identity, 30)
    assert plan[0].keep == ()
    assert trained_epochs(plan) == (190 + 170, 400)
    nothing_kept = plan_runs([control, *others], finished={control.identity: ()})
    assert [run.branches for run in nothing_kept] == [(), (Branch(others[0].identity, 20),)]
    assert plan_runs([control, *others], finished={run.identity: () for run in (control, *others)}) == ()


def random_runs(seed: int, count: int = 7):
    """Distinct runs with windows and events at random epochs, of 5 to 8 epochs."""
    draw = random.Random(seed)
    found = {}
    while len(found) < count:
        start = draw.randrange(4)
        options = draw.choice(
            [
                {},
                {"deficit": (f"{draw.choice(['blur', 'flip'])}:{start}-{start + draw.randint(1, 3)}",)},
                {"weight_decay": (f"0.001:0-{start + 1}",)},
                {"event": (f"lr_restart:{start}",)},
            ]
        )
        run = specify(model="allcnn", epochs=draw.randint(5, 8), seed=draw.randrange(2), **options)
        found[run.identity] = run
    return list(found.values())


@pytest.mark.parametrize("seed", range(6))
def test_a_plan_trains_each_common_beginning_once_whatever_the_order(seed: int):
    """The beginnings are the nodes of the tree of courses; the last epoch of a run is its own."""
    runs = random_runs(seed)
    courses = [Course.of(run) for run in runs]
    nodes = {(course.constant, course.epochs[:k]) for course in courses for k in range(1, len(course.epochs))}
    for order in itertools.islice(itertools.permutations(runs), 0, None, 997):
        assert trained_epochs(plan_runs(order))[0] == len(nodes) + len(runs)


@pytest.mark.parametrize("seed", range(3))
def test_runs_begin_only_in_runs_before_them_where_both_are_still_the_same(seed: int):
    done: dict[str, object] = {}
    plan = plan_runs(random_runs(seed, 12))
    kept = {run.specification.identity: run.keep for run in plan}
    for run in plan:
        for branch in run.branches:
            course, other = Course.of(run.specification), done[branch.identity]
            assert course.constant == other.constant
            assert course.epochs[: branch.epoch] == other.epochs[: branch.epoch]
            assert 0 < branch.epoch < min(len(course.epochs), len(other.epochs))
            assert branch.epoch in kept[branch.identity]
        done[run.specification.identity] = Course.of(run.specification)

"""`fisherkit study`: the papers' experiments, each as one command."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .run_options import for_specify, given_options, run_option_names, run_options

if TYPE_CHECKING:
    from fisherkit.studies.arms import Study
    from fisherkit.studies.execution import ExecutorChoice
    from fisherkit.studies.protocols import StudyOptions

Build = Callable[..., "Study"]


@click.group()
def study() -> None:
    """Do an experiment of the papers: many runs, planned, trained once where they agree, analysed.

    \b
    fisherkit study removal --dry-run
    fisherkit study removal --data cifar10 --width 16 --time-scale 0.15 --seeds 3
    fisherkit study window --deficit blur --deficit flip --executor local:2

    Every option of `fisherkit track` that the study does not set itself holds for all runs. The same command again
    goes on where it was interrupted. Results are in OUT/NAME/: summary.txt, summary.csv, study.h5, figure.png.
    """


def _list(_: click.Context, parameter: click.Parameter, text: str | None) -> tuple[str, ...] | None:
    if text is None:
        return None
    items = tuple(item.strip() for item in text.split(","))
    if not all(items):
        raise click.BadParameter(f"must be values with commas between them, such as 0,20,40; got {text!r}.")
    return items


STUDY_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option("--arms", callback=_list, metavar="LIST", help="The values of the axis: 0,20,40."),
    click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True, help="Runs of each arm."),
    click.option(
        "--time-scale",
        type=float,
        default=1.0,
        show_default=True,
        help="Factor of all epochs and of the decay of the learning rate: with 0.1 a protocol of 200 epochs takes 20.",
    ),
    click.option("--clean-epochs", type=click.IntRange(min=1), help="Epochs without deficit, before --time-scale."),
    click.option("--dry-run", is_flag=True, help="Say what there is to do, how long it takes, and how much disk."),
    click.option(
        "--out",
        type=click.Path(file_okay=False, path_type=Path),
        default=Path("studies"),
        show_default=True,
        help="Folder of the runs, which several studies may share.",
    ),
    click.option("--name", help="Folder of the results in OUT.  [default: that of the study]"),
    click.option(
        "--executor",
        default="local",
        show_default=True,
        metavar="local[:SLOTS]|dask[:ADDRESS]",
        help="Where the runs run, and how many at a time.",
    ),
    click.option(
        "--retries", type=click.IntRange(min=0), default=2, show_default=True, help="Of a run that was killed."
    ),
    click.option("--keep-checkpoints", is_flag=True, help="Keep those at which runs branch, for further studies."),
)
_STUDY_NAMES = (
    *("arms", "seeds", "time_scale", "clean_epochs", "dry_run", "out", "name", "executor"),
    *("retries", "keep_checkpoints"),
)


def _protocol(name: str, *, without: tuple[str, ...] = ()) -> Callable[[Build], click.Command]:
    """A command of the group: options of the protocol, of every study, and of every run but those of `without`."""

    def decorate(build: Build) -> click.Command:
        def command(context: click.Context, /, **values: Any) -> None:
            _go(context, build, values)

        command.__doc__ = build.__doc__
        function = run_options(without=("epochs", "clean_epochs", *without))(command)
        for option in reversed(STUDY_OPTIONS):
            function = option(function)
        function.__click_params__ += getattr(build, "__click_params__", [])  # first in the help
        return study.command(name)(click.pass_context(function))

    return decorate


def _go(context: click.Context, build: Build, values: dict[str, Any]) -> None:
    """Build the study from all options, and do it."""
    from fisherkit.names import check_new_folder
    from fisherkit.studies.conduct import plan_study
    from fisherkit.studies.execution import ExecutorChoice

    check_new_folder(values["out"], "--out")
    executor = ExecutorChoice.parse(values["executor"])
    names = run_option_names() - set(_STUDY_NAMES)
    run = given_options(context, {name: values[name] for name in values if name in names})
    options = _study_options(run, values, executor)
    own = {name: values[name] for name in values if name not in names and name not in _STUDY_NAMES}
    made = build(options, **own)
    plan = plan_study(made, values["out"])
    name = values["name"] or made.protocol
    from . import study_report as report

    if values["dry_run"]:
        report.say_plan(plan, name, executor)
        return
    context.exit(report.conduct(plan, name, executor, values))


def _study_options(run: dict[str, Any], values: dict[str, Any], executor: "ExecutorChoice") -> "StudyOptions":
    from fisherkit.studies.protocols import StudyOptions

    device = run.pop("device", "auto")
    if executor.address is None or device == "auto":  # else the workers' machines have it, or not
        device = for_specify({"device": device})["device"]
    run = {**for_specify(run), "device": device}
    if device == "cpu":
        run.setdefault("threads", 1)
    return StudyOptions(
        run,
        seeds=values["seeds"],
        time_scale=values["time_scale"],
        arms=values["arms"],
        clean_epochs=values["clean_epochs"],
    )


_deficits = click.option(
    "--deficit",
    "deficits",
    multiple=True,
    default=("blur",),
    show_default=True,
    metavar="NAME",
    help="blur, blur(8), flip, noise, ...: without a window; may be given several times.",
)


@_protocol("removal", without=("deficit",))
@_deficits
@click.option(
    "--lr-arm",
    "lr_arms",
    multiple=True,
    type=click.Choice(["not-reset", "reset", "constant", "restart"]),
    default=("not-reset",),
    show_default=True,
    help="The learning rate after the removal; may be given several times.",
)
def removal(options: "StudyOptions", **own: Any) -> "Study":
    """Deficit until t0, then the same number of clean epochs, for a list of t0 (Achille et al. 2019)."""
    from fisherkit.studies import protocols

    return protocols.removal(options, **own)


@_protocol("window", without=("deficit",))
@_deficits
@click.option("--length", type=click.IntRange(min=1), default=40, show_default=True, help="Epochs of the deficit.")
def window(options: "StudyOptions", **own: Any) -> "Study":
    """A deficit of fixed length at each of several onsets (Achille et al. 2019)."""
    from fisherkit.studies import protocols

    return protocols.window(options, **own)


@_protocol("regularization")
@click.option(
    "--regularizer",
    type=click.Choice(["weight-decay", "augment"]),
    default="weight-decay",
    show_default=True,
    help="Which one is on in a part of the training only; the other one stays on.",
)
@click.option("--length", type=click.IntRange(min=1), help="Of the sliding window.  [default: a quarter of the run]")
@click.option(
    "--sweep",
    "sweeps",
    multiple=True,
    type=click.Choice(["until", "from", "window"]),
    default=("until", "from", "window"),
    show_default=True,
    help="On until t, from t on, or in a window from t; may be given several times.",
)
def regularization(options: "StudyOptions", **own: Any) -> "Study":
    """A regularizer in a part of the training only (Golatkar et al. 2019)."""
    from fisherkit.studies import protocols

    return protocols.regularization(options, **own)


@_protocol("warm-start", without=("fraction",))
@click.option("--share", type=float, default=0.5, show_default=True, help="Of the images, in the first phase.")
@click.option("--warm-epochs", type=click.IntRange(min=1), default=350, show_default=True, help="Of the first phase.")
@click.option("--online", type=click.IntRange(min=1), metavar="N", help="N more images a round, instead of --share.")
@click.option(
    "--noise", "noises", type=float, multiple=True, default=(0.1,), show_default=True, help="Of shrink-perturb."
)
@click.option("--sweep-batch-size", "batch_sizes", type=int, multiple=True, help="Do all of it at each batch size.")
@click.option("--sweep-lr", "lrs", type=float, multiple=True, help="Do all of it at each learning rate.")
def warm_start(options: "StudyOptions", **own: Any) -> "Study":
    """A part of the images first, then all of them; fresh start; shrink-perturb (Ash and Adams 2020)."""
    from fisherkit.studies import protocols

    return protocols.warm_start(options, **own)


@_protocol("early-fisher")
@click.option("--sweep-batch-size", "batch_sizes", type=int, multiple=True, help="Do all of it at each batch size.")
@click.option(
    "--penalty",
    "penalties",
    multiple=True,
    default=("none", "0.1:10"),
    show_default=True,
    metavar="none|ALPHA[:EVERY]",
    help="Fisher penalty; may be given several times.",
)
def early_fisher(options: "StudyOptions", **own: Any) -> "Study":
    """The early Fisher trace against final generalization over learning rates (Jastrzebski et al. 2021)."""
    from fisherkit.studies import protocols

    return protocols.early_fisher(options, **own)


@_protocol("custom")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def custom(options: "StudyOptions", file: Path) -> "Study":
    """A grid over any options of `track`, from a TOML file."""
    from fisherkit.studies import protocols

    return protocols.custom(options, file)

"""Hostile texts: configuration in TOML and JSON, windows, names, model specifications, labels, executors."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from reliability.corpus import SECRET, Case, nothing, write

TRACK = ("track", "--model", "linear", "--train-images", "20", "--test-images", "10", "--probe-images", "5")
ONE_EPOCH = (*TRACK, "--epochs", "1", "--out", "{}/out")
STUDY = ("--seeds", "1", "--executor", "local:1", "--out", "{}/studies")
CONTROL = "\x1b[2J\x07"
BIDI = "\u202egnp.exe\u2066"
LONG = "x" * 100_000
GRID = '[run]\nmodel = "linear"\nepochs = 1\n[grid]\nlr = [0.1, 0.01]\n'
TOML = "is not a TOML file|must be a TOML file"

# ---------------------------------------------------------------- TOML

BAD_TOML: dict[str, bytes] = {
    "text": b"hello world",
    "JSON": b'{"model": "linear"}',
    "no end": b'model = "linear',
    "not UTF-8": b'model = "\xff\xfe"',
    "NUL": b"model = \0",
    "UTF-16": 'model = "linear"'.encode("utf-16"),
    "the same key twice": b"epochs = 1\nepochs = 2\n",
    "a run file": b"\x89HDF\r\n\x1a\n" + bytes(100),
    "nested deeply": b"a = " + b"[" * 50_000 + b"]" * 50_000,
    "nested tables": b"a = " + b"{a = " * 20_000 + b"1" + b"}" * 20_000,
    "a dotted key of 50,000 parts": b"a" + b".a" * 50_000 + b" = 1",
    "a number of 100,000 digits": b"epochs = " + b"9" * 100_000,
    "a date": b"epochs = 2026-13-45\n",
}
WRONG_CONFIG: dict[str, tuple[str, str]] = {
    "an unknown option": ("colour = 1\n", "unknown options colour"),
    "a hostile option": (f'"{CONTROL}" = 1\n'.replace("\x1b", "\\u001b").replace("\x07", "\\u0007"), "unknown options"),
    "a long option": (f"{LONG} = 1\n", "unknown options"),
    "a table": ("[model]\na = 1\n", "model"),
    "epochs as text": ('epochs = "many"\n', "epochs|not a valid integer"),
    "epochs below 1": ("epochs = -3\n", "epochs"),
    "epochs of infinity": ("epochs = inf\n", "epochs|integer"),
    "epochs not a number": ("epochs = nan\n", "epochs|integer"),
    "lr as a list": ("lr = [1, 2]\n", "lr"),
    "deficit as a number": ("deficit = 3\n", "deficit"),
    "deficit in lists": ('deficit = [["blur:0-1"]]\n', "deficit"),
    "a choice that is none": ('estimator = "wild"\n', "estimator"),
    "threads below 1": ("threads = 0\n", "threads"),
    "memory of text": ('max_memory = "all"\n', "must be a number of bytes"),
    "another file": ('config = "secret.txt"\nmodel = "nothing"\n', "model"),
}
WRONG_GRID: dict[str, tuple[str, str]] = {
    "nothing": ("", r"table \[grid\] with at least one option"),
    "no grid": ("[run]\nepochs = 1\n", r"table \[grid\] with at least one option"),
    "another table": (GRID + "[code]\nrun = 1\n", "got 'code'"),
    "a key outside": ("epochs = 1\n" + GRID, "got 'epochs'"),
    "a table that is a number": ("run = 3\n[grid]\nlr=[1]\n", "got 'run'"),
    "an unknown option": (GRID + "colour = [1]\n", "colour is no option of a run"),
    "a hostile option": (GRID + '"\\u001b[2J" = [1]\n', "is no option of a run"),
    "no list": (GRID.replace("[0.1, 0.01]", "0.1"), "must be a list of at least one value"),
    "an empty list": (GRID.replace("[0.1, 0.01]", "[]"), "must be a list of at least one value"),
    "a list of tables": (GRID.replace("[0.1, 0.01]", "[{a = 1}]"), "lr must be a number"),
    "nested lists": (GRID.replace("[0.1, 0.01]", "[[[0.1]]]"), "lr must be a number"),
    "a value twice": (GRID.replace("[0.1, 0.01]", "[0.1, 0.1]"), "must have each value once"),
    "not a number": (GRID.replace("[0.1, 0.01]", "[nan, nan]"), "lr"),
    "infinity": (GRID.replace("[0.1, 0.01]", "[inf]"), "lr"),
    "a negative rate": (GRID.replace("[0.1, 0.01]", "[-1.0]"), "lr"),
    "too many arms": (GRID + f"deficit = {[f'blur:0-{n}' for n in range(1, 200)]}\n", "at most 200 arms"),
    "many values": (GRID + f"batch_size = {list(range(1, 100_000))}\n", "at most 200 values"),
    "seeds in the grid": (GRID + "seed = [1, 2]\n", "seed must not be in a grid"),
    "folders in the grid": (GRID + 'data_dir = ["/"]\n', "data_dir must not be in a grid"),
    "in both tables": (GRID + "epochs = [1]\n", r"must be in \[run\] or in \[grid\]"),
    "a control that is not in it": (GRID + "[control]\nlr = 5.0\n", "must be one of the grid's values"),
    "a control of another option": (GRID + "[control]\nmodel = 'mlp'\n", "must be an option of the grid"),
    "a wrong window": (GRID + 'deficit = ["blur:9-1"]\n', "stop of a window must be after its start"),
    "a window of control characters": (GRID + 'deficit = ["\\u001b[2J"]\n', "deficit"),
    "a model that is not there": (GRID + 'data = ["nowhere"]\n', "nowhere|image set"),
    "epochs of text": (GRID.replace("epochs = 1", 'epochs = "all"'), "epochs must be a whole number"),
    "epochs of 2 ** 200": (GRID.replace("epochs = 1", f"epochs = {2**200}"), "epochs|arms"),
    "model options without a value": (GRID + 'model_option = ["depth"]\n', "model_option must be NAME=VALUE"),
}

# ---------------------------------------------------------------- JSON


def specification(**changes: Any) -> str:
    """A specification of a run with other values."""
    run = {"model": "linear", "epochs": 1, "lr": 0.1, "lr_schedule": "constant", "momentum": 0.9}
    small = {"train_images": 20, "test_images": 10, "probe_images": 5}
    return json.dumps({**run, **small, **changes})


NOT_ONE = "not the specification of a run"
BAD_JSON: dict[str, tuple[bytes | str, str]] = {
    "empty": (b"", NOT_ONE),
    "text": (b"hello", NOT_ONE),
    "list": (b"[1, 2]", NOT_ONE),
    "number": (b"3", NOT_ONE),
    "null": (b"null", NOT_ONE),
    "not UTF-8": (b'{"model": "\xff"}', NOT_ONE),
    "no end": (b'{"model": "linear"', NOT_ONE),
    "nested deeply": (b"[" * 100_000 + b"]" * 100_000, NOT_ONE),
    "a number of 100,000 digits": (b'{"epochs": ' + b"9" * 100_000 + b"}", NOT_ONE),
    "a list as configuration": (b'{"configuration": [1]}', NOT_ONE),
    "configuration within configuration": (b'{"configuration": {"configuration": {}}}', NOT_ONE),
    "nothing in it": (b"{}", NOT_ONE),
    "an unknown field": (specification(colour="red"), NOT_ONE),
    "a hostile field": (specification(**{CONTROL + BIDI: 1}), NOT_ONE),
    "a long field": (specification(**{LONG: 1}), NOT_ONE),
    "epochs as text": (specification(epochs="many"), NOT_ONE),
    "epochs below 1": (specification(epochs=0), NOT_ONE),
    "epochs of infinity": (specification(epochs=float("inf")), NOT_ONE),
    "epochs as a list": (specification(epochs=[1]), NOT_ONE),
    "lr as text": (specification(lr="fast"), NOT_ONE),
    "lr not a number": (specification(lr=float("nan")), "lr"),
    "lr of infinity": (specification(lr=1e999), "lr"),
    "a negative rate": (specification(lr=-1.0), "lr"),
    "a deficit that is none": (specification(deficit=["fog:0-1"]), "name must be one of blur"),
    "a deficit of numbers": (specification(deficit=[3]), NOT_ONE),
    "a million deficits": (specification(deficit=["blur:0-1"] * 20_000), "at most once"),
    "images that are none": (specification(data="../../etc"), "image set must be one of"),
    "a schedule that is none": (specification(lr_schedule="__import__('os')"), "lr_schedule|schedule"),
    "a probe that is none": (specification(probe=["x"]), "probe"),
    "an engine that is none": (specification(engine="x"), "engine"),
    "a seed below 0": (specification(seed=-1), NOT_ONE),
    "threads of a million": (specification(threads=10**9), "threads"),
}

# a specification of this form; what it names is not there
MEANT: dict[str, tuple[bytes | str, str]] = {
    "a model that is none": (specification(model="resnet81"), "resnet81"),
    "a model of control characters": (specification(model=CONTROL + BIDI), "model"),
    "a device that is none": (specification(device="x:y"), "device"),
}

# ---------------------------------------------------------------- windows, models, names, labels

WINDOWS = (
    *("", " ", ":", "blur:", "blur:40-0", "blur:-1-5", "blur:1--5", "blur:0-1:2-3", "blur((4)):0-1", "blur(4"),
    *("blur)4(", "blur(4,8):0-1", "blur(1e999):0-1", "blur(nan):0-1", "blur(4):0-99999999999999999999",),
    *("blur(" + "9" * 5_000 + ")",),
    *("blur:\u0660-\u0661", "blur:\uff10-\uff11", "blur:0\u20131", "bl\u200bur:0-1", f"{CONTROL}:0-1", f"{BIDI}:0-1"),
    *("(" * 5_000, ":" * 5_000, LONG, "os:system:0-1:2", "../blur:0-1", "$(touch executed):0-1"),
    *("a" + ".b" * 20_000 + ":c", "no_such_module:f:0-1", "noise(0):0-1", "occlude(-1):0-1", "%s%n:0-1"),
    *("blur(true):0-1", "blur;touch executed:0-1"),
)  # fmt: skip
EVENTS = ("lr_restart", "lr_restart:0-4", "shrink_perturb(2):1", "lr_scale(nan):1", "lr_scale(0):0", "explode:1", ":1")
DECAYS = ("-1", "nan", "inf", "1e999", "5e-4:9-1", "0x10", "1_0", "\u0663", "5e-4:0-1:2")
AUGMENTS = ("cutout", "crop+crop", "crop+none", "+", "crop:9-1")
FRACTIONS = ("0", "-1", "2", "nan", "half", "0.5:9-1")
PENALTIES = ("", "-1", "nan", "inf", "0.1:0", "0.1:held:10", "0.1:10:held:x", "1e999", ":", LONG)
CADENCES = ("", "0", "-1", "daily", "0steps", "1e9steps", "50 steps x", "log2", "9" * 5_000)
MODELS = (
    *("resnet81", "", ":", "a:", ":b", "no_such_module:build", "json:no_such_name", "math:pi", "math:sqrt"),
    *("collections:OrderedDict", "../evil:build", "/tmp/evil:build", "evil.py", CONTROL, BIDI, LONG),
    *("$(touch executed)", "linear; touch executed", "%s%n", "{0}", "nul\0byte"),
    *("json:__doc__", "a" + ".b" * 5_000 + ":c"),
)  # fmt: skip
MODEL_OPTIONS = ("depth", "=1", "depth=", "depth=-1", "depth=1e999", "heads=0", "patch=7", "width=3", f"{CONTROL}=1")
WIDTHS = ("0", "-1", "wide", "1.5", "9" * 50, "16-", "\u0664", "1e3", "10000000000")
NAMES = (
    *("../outside", "..", ".", "/tmp/outside", "a/b", "a\\b", "a.", ".hidden", "-rf", "con", "NUL.txt", "lpt1"),
    *("com3.h5", "a b", "a\nb", CONTROL, BIDI, "x" * 101, "a..b", "~", "$HOME", "%s", "a:b", "a*", "caf\u00e9", "runs"),
)  # fmt: skip
EXECUTORS = (
    *("", ":", "local:", "local:0", "local:-1", "local:99999", "local:x", "dask:", "dask:4", "dask:nowhere"),
    *("dask:a b:1", "slurm", "local:1:2", "dask:tcp://host:999999", CONTROL, LONG, "local:\u0661", "dask:file:///etc/passwd"),
)  # fmt: skip


def _track(name: str, option: str, texts: tuple[str, ...], *, first: tuple[str, ...] = ONE_EPOCH) -> list[Case]:
    """The option with each of the texts."""
    return [Case(f"{name} {text[:40]!r}", (*first, f"{option}={text}"), status=2) for text in texts]


def _window_cases() -> list[Case]:
    return [
        *_track("deficit", "--deficit", WINDOWS),
        *_track("event", "--event", EVENTS),
        *_track("weight decay", "--weight-decay", DECAYS),
        *_track("augment", "--augment", AUGMENTS),
        *_track("fraction", "--fraction", FRACTIONS),
        *_track("penalty", "--fisher-penalty", PENALTIES),
        *_track("every", "--every", CADENCES),
        *_track("model", "--model", MODELS),
        *_track("width", "--width", WIDTHS, first=(*ONE_EPOCH, "--model", "allcnn")),
        *_track("model option", "--model-option", MODEL_OPTIONS, first=(*ONE_EPOCH, "--model", "vit_tiny")),
    ]


def _files(
    kind: str, command: tuple[str, ...], file: str, made: Mapping[str, tuple[Any, str]], status: int
) -> list[Case]:
    return [Case(f"{kind}: {n}", command, write(file, data), says, status, file) for n, (data, says) in made.items()]


def _file_cases() -> list[Case]:
    config = (*ONE_EPOCH[:1], "--config", "{}/run.toml", *ONE_EPOCH[9:])
    grid = ("study", "custom", "{}/grid.toml", *STUDY)
    run = ("track", "--specification", "{}/run.json", "--out", "{}/out")
    return [
        *_files("TOML", config, "run.toml", {name: (data, "") for name, data in BAD_TOML.items()}, 2),
        *_files("configuration", config, "run.toml", WRONG_CONFIG, 2),
        *_files("TOML of a grid", grid, "grid.toml", {name: (data, "") for name, data in BAD_TOML.items()}, 2),
        *_files("grid", grid, "grid.toml", WRONG_GRID, 2),
        *_files("specification", run, "run.json", BAD_JSON, 65),
        *[
            Case(f"specification: {name}", run, write("run.json", data), says, 2)
            for name, (data, says) in MEANT.items()
        ],
    ]


def _name_cases() -> list[Case]:
    grid = ("study", "custom", "{}/grid.toml", *STUDY)
    names = [Case(f"name {name!r}", (*grid, f"--name={name}"), write("grid.toml", GRID), "name", 64) for name in NAMES]
    track = [
        Case(f"out {name!r}", (*TRACK, "--epochs", "1", "--out", f"{{}}/{name}"), nothing, "out", 64)
        for name in ("a\nb", CONTROL, BIDI, "x" * 101, "a.", "con", "a b")
    ]
    executors = [
        Case(f"executor {text[:40]!r}", ("study", "custom", "{}/grid.toml", "--executor", text, "--out", "{}/s"),
             write("grid.toml", GRID), "executor", 2)
        for text in EXECUTORS
    ]  # fmt: skip
    return [*names, *track, *executors]


def _folder(**files: bytes | str) -> Callable[[Path], object]:
    """Writes files into the folder `out` of a run, or `study` of a study; underlines stand for dots."""

    def make(folder: Path) -> None:
        for place in ("out", "study"):
            (folder / place).mkdir()
            for name, data in files.items():
                contents = data.encode() if isinstance(data, str) else data
                (folder / place / name.replace("_", ".")).write_bytes(contents)

    return make


def _folder_cases() -> list[Case]:
    """Folders of runs and studies whose descriptions are not ours."""
    wrong = {"text": b"hello", "a list": b"[]", "a number": b"3", "nested": b"[" * 50_000, "not UTF-8": b"\xff\xfe"}
    wrong |= {"null": b"null", "empty": b"", "no runs": b"{}", "runs that are numbers": b'{"runs": 3, "protocol": 1}'}
    wrong |= {"runs of nulls": b'{"runs": [null, {}], "protocol": "custom"}', "null in it": b'{"runs": null}'}
    lock = r"/out'?(,.*|/\.lock)?$|leaves out"  # the folder is there, and locked while it is looked at
    cases = [Case(f"config.json: {name}", ONE_EPOCH, _folder(config_json=data), "", 65, "config.json", lock)
             for name, data in wrong.items()]  # fmt: skip
    cases += [Case(f"plan.json: {name}", ("show", "{}/study"), _folder(plan_json=data), "", 65, "plan.json")
              for name, data in wrong.items()]  # fmt: skip
    return cases


def _link_out(folder: Path) -> None:
    (folder / "grid.toml").write_text(GRID)
    (folder / "elsewhere").mkdir()
    (folder / "studies").mkdir()
    (folder / "studies" / "study").symlink_to(folder / "elsewhere")


def _pipe(folder: Path) -> None:
    os.mkfifo(folder / "run.json")


def _secret_specification(folder: Path) -> None:
    (folder / "secret.txt").write_text(SECRET)
    (folder / "run.json").symlink_to("secret.txt")


def _other_cases() -> list[Case]:
    grid = ("study", "custom", "{}/grid.toml", *STUDY)
    return [
        Case("a name that is a link out", (*grid, "--name", "study"), _link_out, "is a link to", 64),
        Case("specification in a folder", ("track", "--specification", "{}"), nothing, "is a directory", 2),
        Case("specification that is not there", ("track", "--specification", "{}/no"), nothing, "does not exist", 2),
        Case("branch without an epoch", (*ONE_EPOCH, "--branch-from", "{}"), nothing, "must be given together", 2),
        Case("title of control characters", ("plot", "{}/run.h5", "--title", CONTROL), nothing, "run must be", 2),
        Case("data of another place", ("data", "check", "../../etc/passwd"), nothing, "image set must be one of", 2),
        Case("data of control characters", ("data", "check", CONTROL + BIDI), nothing, "image set must be one of", 2),
        Case("layer of a pattern", ("plot", "{}/no.h5", "--layer", "[" * 10_000), nothing, "run must be", 2),
        Case("command of control characters", (CONTROL,), nothing, "No such command", 2),
        Case("option of control characters", ("show", f"--{CONTROL}"), nothing, "No such option", 2),
        Case("device of a path", (*ONE_EPOCH, "--device", "/dev/null"), nothing, "cannot be used", 2),
    ]


def cases() -> list[Case]:
    """All of them."""
    return [*_window_cases(), *_file_cases(), *_name_cases(), *_folder_cases(), *_other_cases()]

"""track, measure and verify as a user types them."""

import subprocess
import sys

import pytest
import torch
from click.testing import CliRunner
from fisherkit_cli import failure
from fisherkit_cli.main import fisherkit as command
from runs import ARGUMENTS
from safetensors.torch import save_file

import fisherkit
from fisherkit.models import build_model


def call(*arguments: str) -> tuple[int, str]:
    """Exit status and everything printed, as `main()` would do it."""
    result = CliRunner().invoke(command, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        status, text = report(result.exception)
        return status, result.output + text
    return result.exit_code, result.output


def report(error: BaseException) -> tuple[int, str]:
    import contextlib
    import io

    with contextlib.redirect_stderr(io.StringIO()) as text:
        status = failure.report(error)
    return status, text.getvalue()


def test_help_does_not_import_torch_and_lists_every_command():
    code = "import sys; from fisherkit_cli.main import main; sys.argv = ['fisherkit', '--help']\n"
    code += "try: main()\nexcept SystemExit: pass\nassert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in ("track", "measure", "study", "plot", "show", "verify", "doctor", "data"):
        assert name in done.stdout


@pytest.mark.parametrize("name", ["track", "measure", "study", "plot", "show", "verify", "doctor", "data"])
def test_every_command_has_help(name: str):
    status, text = call(name, "--help")
    assert status == 0
    assert "Usage:" in text


def test_track_prints_an_epoch_a_line_and_a_summary(tmp_path):
    status, text = call(*ARGUMENTS, "--out", str(tmp_path / "run"))
    assert status == 0, text
    assert "starts: 3 epochs of 60 training images on cpu" in text
    assert "epoch   1/3  train" in text
    assert "[blur(4)]" in text
    assert "accuracy test" in text
    assert "total peaked at" in text
    assert "fisherkit plot" in text
    status, text = call(*ARGUMENTS, "--out", str(tmp_path / "run"))
    assert status == 0
    assert "is finished: nothing to do" in text


def test_track_takes_its_options_from_a_file(tmp_path):
    config = tmp_path / "run.toml"
    config.write_text(
        'model = "linear"\nepochs = 1\ntrain_images = 20\ntest_images = 10\ndeficit = ["flip:0-1"]\nprobe_images = 10\n'
    )
    status, text = call("track", "--config", str(config), "--seed", "3", "--out", str(tmp_path / "run"))
    assert status == 0, text
    attributes = fisherkit.read(tmp_path / "run" / "run.h5").attributes
    assert attributes["configuration"]["deficit"] == ["flip:0-1"]
    assert attributes["configuration"]["seed"] == 3
    assert attributes["option_sources"]["model"] == "default_map"
    config.write_text("colour = 1\n")
    status, text = call("track", "--config", str(config))
    assert status == 2
    assert "unknown options colour" in text


ERRORS = {
    "deficit": (["--deficit", "blurr:0-4"], 2, ["blurr", "blur"]),
    "overlap": (["--deficit", "blur:0-4", "--deficit", "blur(8):2-6"], 2, ["blur:0-4", "blur(8):2-6"]),
    "model": (["--model", "resnet81"], 2, ["resnet81", "resnet18"]),
    "data": (["--data", "cifar"], 2, ["'cifar'", "cifar10"]),
    "width": (["--width", "wide"], 2, ["wide"]),
    "optimizer": (["--optimizer", "sdg"], 2, ["sgd", "adam"]),
    "lr": (["--lr", "-1"], 2, ["lr must be"]),
    "every": (["--every", "daily"], 2, ["every must be", "daily"]),
    "device": (["--device", "tpu9"], 2, ["device 'tpu9' cannot be used", "--device cpu"]),
    "model_option": (["--model-option", "depth"], 2, ["NAME=VALUE"]),
    "too_many": (["--train-images", "9999999"], 2, ["9999999"]),
    "draws": (["--estimator", "exact", "--draws", "2"], 2, ["draws must be 1"]),
    "option": (["--dificit", "blur:0-4"], 2, ["--dificit", "--deficit"]),
}


@pytest.mark.parametrize(("arguments", "status", "texts"), ERRORS.values(), ids=ERRORS)
def test_wrong_options_end_with_one_or_two_lines(tmp_path, arguments, status: int, texts):
    got, text = call("track", *arguments, "--epochs", "1", "--out", str(tmp_path / "run"))
    assert got == status, text
    assert all(part in text for part in texts), text
    assert "Traceback" not in text
    message = [line for line in text.splitlines() if not line.startswith(("Usage", "Try", "note"))]
    assert 1 <= len([line for line in message if line]) <= 2, text


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Three state dicts as people save them: bare, wrapped with prefixes, safetensors."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for number, name in enumerate(("epoch_2.pt", "epoch_10.pt", "epoch_30.safetensors")):
        state = build_model("mlp", classes=10, channels=1, image_size=32, width="8", seed=number).state_dict()
        if number == 1:
            state = {"epoch": 10, "state_dict": {f"module.{key}": value for key, value in state.items()}}
        if name.endswith("pt"):
            torch.save(state, folder / name)
        else:
            save_file(state, folder / name)
    return folder


def measure(folder, out, *names: str) -> tuple[int, str]:
    paths = [str(folder / name) for name in names]
    return call("measure", *paths, "--model", "mlp", "--width", "8", "--probe-images", "20", "--out", str(out))


def test_measure_reads_checkpoints_of_any_training(checkpoints, tmp_path):
    status, text = measure(checkpoints, tmp_path / "m.h5", "epoch_30.safetensors", "epoch_2.pt", "epoch_10.pt")
    assert status == 0, text
    run = fisherkit.read(tmp_path / "m.h5")
    assert run.series["epoch"].tolist() == [2, 10, 30]
    model = build_model("mlp", classes=10, channels=1, image_size=32, width="8", seed=1)
    norm = float(next(model.parameters()).detach().norm())
    assert run.variables["weight_norm"][1, 0] == pytest.approx(norm, rel=1e-6)


def test_measure_reads_its_own_checkpoints(tmp_path):
    status, text = call(*ARGUMENTS, "--out", str(tmp_path / "run"))
    assert status == 0, text
    paths = [str(path) for path in (tmp_path / "run").glob("ckpt-*.pt")]
    status, text = call(
        "measure", *paths, "--model", "allcnn", "--width", "2", "--probe-images", "10", "--out", str(tmp_path / "m.h5")
    )
    assert status == 0, text
    tracked, measured = fisherkit.read(tmp_path / "run" / "run.h5"), fisherkit.read(tmp_path / "m.h5")
    assert measured.series["step"][-1] == tracked.series["step"][-1]
    assert measured.variables["weight_norm"][-1] == pytest.approx(tracked.variables["weight_norm"][-1], rel=1e-12)


class Evil:
    def __reduce__(self):
        import os

        return os.system, ("touch /tmp/fisherkit-was-here",)


def test_measure_refuses_what_it_cannot_trust_or_use(checkpoints, tmp_path):
    torch.save({"state_dict": Evil()}, tmp_path / "evil.pt")
    (tmp_path / "text.pt").write_text("hello")
    torch.save({"loss": 3.0}, tmp_path / "empty.pt")
    expected = {
        "evil.pt": "not a checkpoint that is safe to load",
        "text.pt": "not a checkpoint",
        "empty.pt": "holds no state dict (its keys are 'loss')",
        "absent.pt": "there is no such file",
    }
    for name, message in expected.items():
        status, text = measure(tmp_path, tmp_path / "m.h5", name)
        assert status == 65, text
        assert name in text
        assert message in text
        assert "Traceback" not in text
    status, text = call(
        "measure", str(checkpoints / "epoch_2.pt"), "--model", "mlp", "--width", "9", "--out", str(tmp_path / "n.h5")
    )
    assert status == 65
    assert "does not fit the model: it has other shapes" in text
    assert "--width" in text


def test_verify_prints_every_layer_and_passes():
    status, text = call("verify", "--model", "vit_tiny", "--width", "12", "--model-option", "depth=1", "--images", "2")
    assert status == 0, text
    assert "(model)" in text
    assert "ghost" in text
    assert "rows agree to 1e-08" in text


def test_debug_shows_the_traceback():
    done = subprocess.run(
        [sys.executable, "-m", "fisherkit_cli", "--debug", "track", "--epochs", "1", "--lr", "-1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_more_threads_than_processors_are_noted(tmp_path, monkeypatch):
    monkeypatch.setattr("fisherkit_cli.checks.processors", lambda: 1)
    arguments = [*ARGUMENTS, "--on-nonfinite", "stop", "--epochs", "1", "--out", str(tmp_path / "run")]
    text = call(*arguments, "--threads", "2", "--data", "nowhere")[1]
    assert "note: --threads 2 is more than the 1 processors here, which is slower.\n" in text
    assert "processors" not in call(*arguments, "--threads", "1", "--data", "nowhere")[1]

"""The command line: what it parses, the one call it makes, what it prints, how it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from edgekd import pipeline
from edgekd.cli import app
from edgekd.config import RunConfig, load_config
from edgekd.errors import ConfigError, RunError
from edgekd.progress import NullProgress
from edgekd.stage import write_json

REPORT: dict[str, Any] = {
    "ledger": [],
    "latency": [],
    "verdict": {"students": []},
    "quantize": None,
    "lint": {},
    "stages": [{"name": "search", "seconds": 1.5, "cached": True, "fingerprint": "ab"}],
}
COMMANDS = ["compress", "search", "distill", "quantize", "export", "profile", "report", "status"]
COMMANDS += ["build", "lint", "verify", "inspect", "diff", "estimate", "aspects", "select"]
COMMANDS += ["init", "methods", "spaces", "scorers", "targets", "doctor"]


def edgekd(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """`compress` calls land here instead of running."""
    seen: list[dict[str, Any]] = []

    def compress(config: RunConfig, out: Path, **options: Any) -> dict[str, Any]:
        print("a library's chatter")
        seen.append({"config": config, "out": out, **options})
        return REPORT

    monkeypatch.setattr(pipeline, "compress", compress)
    return seen


@pytest.fixture
def run(tmp_path: Path) -> Path:
    directory = tmp_path / "run"
    directory.mkdir()
    (directory / ".edgekd").touch()
    write_json(directory / "run.json", {})
    return directory


def test_help_is_fast() -> None:
    def seconds() -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "edgekd", "--help"], check=True, capture_output=True)
        return time.perf_counter() - start

    assert min(seconds() for _ in range(5)) <= 0.5


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)])
def test_help_imports_nothing_heavy(command: list[str]) -> None:
    script = (
        "import sys\nfrom edgekd.cli import app\n"
        f"app([*{command!r}, '--help'], standalone_mode=False)\n"
        "heavy = {'torch', 'numpy', 'onnx', 'onnxruntime', 'timm', 'rich'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Usage:" in done.stdout


@pytest.mark.parametrize(
    "module", ["config", "catalog", "stage", "artifacts", "errors", "progress", "pipeline", "init"]
)
def test_light_modules_stay_light(module: str) -> None:
    script = f"import sys, edgekd.{module}; sys.exit(any(name in sys.modules for name in ('torch', 'onnxruntime')))"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


def test_version() -> None:
    import edgekd as package

    assert edgekd("--version").stdout.strip() == f"edgekd {package.__version__}"


def test_flags_win_over_set_and_yaml(calls: list[dict[str, Any]], tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("data: digits\ntarget: x86-cpu\nseed: 1\ndistill: {epochs: 3, lr: 0.2}\nlatency: 4x\n")
    done = edgekd(
        "compress", file, "--seed", 5, "--set", "distill.epochs=7", "--set", "latency=2ms", "--latency", "9us"
    )
    assert done.exit_code == 0, done.output
    config = calls[0]["config"]
    assert (config.seed, config.distill.epochs, config.distill.lr, config.latency) == (5, 7, 0.2, "9us")


def test_stage_options_reach_the_library(calls: list[dict[str, Any]], tmp_path: Path) -> None:
    flags = ("--data", "digits", "--target", "x86-cpu", "--teacher", "timm:resnet18", "--out", tmp_path / "r")
    done = edgekd(
        "compress", *flags, "--until", "export", "--from", "distill", "--force", "search", "--force", "export"
    )
    assert done.exit_code == 0, done.output
    call = calls[0]
    assert call["out"] == tmp_path / "r" and call["config"].teacher.source == "timm:resnet18"
    assert (call["until"], call["start"], call["force"]) == ("export", "distill", ["search", "export"])


def test_default_out_is_under_runs(calls: list[dict[str, Any]], tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("data: digits\ntarget: x86-cpu\n")
    edgekd("compress", file)
    edgekd("compress", "--data", "digits", "--target", "x86-cpu")
    assert [call["out"] for call in calls] == [Path("runs/mine"), Path("runs/digits-x86-cpu")]


def test_distill_alone_takes_a_student(calls: list[dict[str, Any]]) -> None:
    done = edgekd("distill", "--data", "digits", "--target", "x86-cpu", "--student", "resnet8", "--force")
    assert done.exit_code == 0, done.output
    assert calls[0]["config"].search.student == "resnet8"
    assert (calls[0]["until"], calls[0]["force"]) == ("distill", ["distill"])


@pytest.mark.parametrize("stage", ["search", "distill", "quantize", "export", "profile"])
def test_a_stage_of_a_run(stage: str, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def run_stage(name: str, path: Path, **options: Any) -> dict[str, Any]:
        seen.append((name, path, options["force"]))
        return REPORT

    monkeypatch.setattr(pipeline, "run_stage", run_stage)
    assert edgekd(stage, run, "--force").exit_code == 0
    assert seen == [(stage, run, True)]


def test_a_run_keeps_its_own_config(run: Path) -> None:
    done = edgekd("distill", run, "--seed", 3)
    assert done.exit_code == 2 and "its own config" in done.stderr


def test_json_is_alone_on_stdout(calls: list[dict[str, Any]]) -> None:
    done = edgekd("compress", "--data", "digits", "--target", "x86-cpu", "--json")
    assert json.loads(done.stdout) == REPORT
    assert "chatter" in done.stderr and isinstance(calls[0]["progress"], NullProgress)


def test_a_cached_run_says_so(calls: list[dict[str, Any]]) -> None:
    assert "nothing was done" in edgekd("compress", "--data", "digits", "--target", "x86-cpu").stdout


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ConfigError("distill.lr is odd", "Set it to 0.1."), 2, "error: distill.lr is odd\nSet it to 0.1.\n"),
        (RunError("the stage failed", "Try again."), 3, "error: the stage failed\nTry again.\n"),
        (KeyboardInterrupt(), 130, "stopped; the same command goes on from here\n"),
    ],
)
def test_errors_end_with_a_code(
    error: BaseException, code: int, text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def compress(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(pipeline, "compress", compress)
    done = edgekd("compress", "--data", "digits", "--target", "x86-cpu", "--out", tmp_path / "r")
    assert done.exit_code == code
    assert done.stderr.endswith(text) and "Traceback" not in done.output and done.stdout == ""


def test_a_fault_leaves_its_traceback_in_the_run(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def compress(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(pipeline, "compress", compress)
    done = edgekd("compress", "--data", "digits", "--target", "x86-cpu", "--out", run)
    assert done.exit_code == 3 and "Traceback" not in done.output
    assert str(run / "error.log") in done.stderr
    assert "ZeroDivisionError: by zero" in (run / "error.log").read_text()


def test_usage_errors_exit_2() -> None:
    for arguments in (["compres"], ["compress", "--nope"], ["compress", "--until", "nope"], ["profile", "x.onnx"]):
        assert edgekd(*arguments).exit_code == 2


def test_a_directory_that_is_no_run(tmp_path: Path) -> None:
    for command in ("status", "report", "distill"):
        done = edgekd(command, tmp_path)
        assert done.exit_code == 2 and f"{tmp_path} holds no run.json" in done.stderr
    assert not list(tmp_path.iterdir())


def test_dry_run_writes_nothing(tmp_path: Path) -> None:
    flags = ("--data", "digits", "--target", "x86-cpu", "--out", tmp_path / "r", "--dry-run")
    done = edgekd("compress", *flags)
    assert done.exit_code == 0, done.output
    assert "quantize" in done.stdout and "nothing was written" in done.stdout
    names = [stage["name"] for stage in json.loads(edgekd("compress", *flags, "--json").stdout)]
    assert [name for name in names if name != "teacher"] == list(pipeline.STAGES)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["methods", "spaces", "scorers", "targets"])
def test_lists(command: str) -> None:
    rows = json.loads(edgekd(command, "--json").stdout)
    shown = edgekd(command)
    assert rows and shown.exit_code == 0
    assert all(row["name"] in shown.stdout for row in rows)


def test_a_space_is_shown() -> None:
    record = json.loads(edgekd("spaces", "show", "cifar-resnet", "--json").stdout)
    assert record["points"] == 784_404 and record["genes"]["widths"]["rising"]
    assert record["genes"]["widths"]["choices"][0] == [8, 16, 24, 32, 40, 48, 56, 64]
    assert record["named"]["resnet20"]["params"] == 272_474
    assert {(rule["scheme"], rule["name"]) for rule in record["rules"]} >= {("ort", "multiples of 8")}
    shown = edgekd("spaces", "show", "mobilenet").stdout
    for text in ("kernels 1-7", "3 5", "never falls", "mobilenetv2", "3,504,872", "x86-cpu", "at least 16"):
        assert text in shown
    unknown = edgekd("spaces", "show", "resnets")
    assert unknown.exit_code == 2 and "Known: resnet" in unknown.stderr


def test_a_point_is_checked() -> None:
    done = edgekd("spaces", "check", "cifar-resnet", "depths=3,3,3 widths=16,32,64", "--target", "x86-cpu")
    assert done.exit_code == 0 and "272,474 parameters, 40,813,184 MACs, depth 9" in done.stdout
    options = ("--classes", 7, "--images", 1, 28, 28, "--json")
    record = json.loads(edgekd("spaces", "check", "resnet", "resnet18", *options).stdout)
    assert (record["classes"], record["images"], record["depth"]) == (7, [1, 28, 28], 8)
    refused = edgekd("spaces", "check", "cifar-resnet", "depths=3,3,3 widths=16,36,64")
    assert refused.exit_code == 2 and refused.stdout == ""
    assert "genotype: 'depths=3,3,3 widths=16,36,64'" in refused.stderr and "widths 36 in place 2" in refused.stderr
    unknown = edgekd("spaces", "check", "cifar-resnet", "resnet20", "--target", "x86-cup")
    assert unknown.exit_code == 2 and "Known: x86-cpu" in unknown.stderr


def test_a_point_that_the_target_excludes(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgekd.profile.device import Device
    from edgekd.search.spaces import describe

    jetson = Device("jetson-orin-nano", "Jetson Orin Nano", "jetson", backend="tensorrt", scheme="tensorrt")
    monkeypatch.setattr(describe, "load_device", lambda name: jetson)
    refused = edgekd("spaces", "check", "cifar-resnet", "depths=1,1,1 widths=8,16,16", "--target", "jetson-orin-nano")
    assert refused.exit_code == 2
    assert "8 channels, and jetson-orin-nano wants at least 16: INT8 tensor cores" in refused.stderr
    assert "Write depths=1,1,1 widths=16,16,16" in refused.stderr


def test_targets_are_a_table_by_kind() -> None:
    shown = edgekd("targets").stdout
    assert all(len(line.rstrip()) <= 100 for line in shown.splitlines())
    (line,) = [line.split() for line in shown.splitlines() if line.strip().startswith("jetson-agx-orin-64gb ")]
    assert line[1:] == ["sm_87", "64", "204.8", "42.6", "85.2", "fp32", "fp16", "bf16", "int8", "int4"]
    titles = [shown.index(f"(kind {kind})") for kind in ("cpu", "jetson", "gpu")]
    assert titles == sorted(titles) and titles[0] < shown.index("x86-cpu") < titles[1]


def test_one_target_with_every_source() -> None:
    record = json.loads(edgekd("targets", "show", "jetson-agx-orin-64gb", "--json").stdout)
    assert record["compute_capability"] == 8.7 and record["jetpacks"][0]["tensorrt"] == "8.4.1"
    shown = edgekd("targets", "show", "jetson-agx-orin-64gb").stdout
    for name, figure in record["figures"].items():
        line = next(line for line in shown.splitlines() if line.strip().startswith(name.replace("_", " ")))
        assert f"{figure['value']:g}" in line and figure["unit"] in line and figure["source"] in line
    for text in ("Ampere, sm_87", "8.4.1 to 11.4.1", "5.0.2 to 7.2.2", "MAXN", "0.62475", "36.4.0 to 36.5"):
        assert text in shown
    plain = edgekd("targets", "show", "x86-cpu").stdout
    assert "requires   avx2" in plain and "figures" not in plain and "jetpack" not in plain
    unknown = edgekd("targets", "show", "x86-cup")
    assert unknown.exit_code == 2 and "Known: x86-cpu" in unknown.stderr


@pytest.fixture
def own_target(tmp_path: Path) -> Path:
    """A profile of the user's, for this machine."""
    file = tmp_path / "my-box.yaml"
    facts = {"title": "My box", "kind": "cpu", "backend": "onnxruntime-cpu", "scheme": "ort"}
    file.write_text("\n".join(f"{key}: {value}" for key, value in facts.items()))
    return file


def test_a_profile_of_the_users_stands_where_a_name_does(
    own_target: Path, calls: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert json.loads(edgekd("targets", "show", own_target, "--json").stdout)["title"] == "My box"
    point = ("spaces", "check", "cifar-resnet", "resnet20", "--target", own_target)
    assert edgekd(*point).exit_code == 0
    done = edgekd("compress", "--data", "digits", "--target", own_target)
    assert done.exit_code == 0 and calls[0]["out"] == Path("runs/digits-my-box")
    (own_target.parent / "configs").mkdir()
    monkeypatch.chdir(own_target.parent)
    file = Path("configs/mine.yaml")
    assert edgekd("init", file, "--data", "digits", "--target", "my-box.yaml").exit_code == 0
    assert "target: ../my-box.yaml" in file.read_text() and load_config(file).target == str(own_target)
    own_target.write_text(own_target.read_text().replace("ort", "orc"))
    for command in (("targets", "show", own_target), point, ("targets", "calibrate", own_target)):
        refused = edgekd(*command)
        assert refused.exit_code == 2 and "my-box.yaml: scheme: Input should be" in refused.stderr


def test_a_target_is_calibrated(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgekd.search import latency_calibration

    figures = {"n": 30, "rho": 0.998, "within_5": 0.9, "within_10": 1.0, "median_error": 0.0123}
    conv = {"launch_ms": 0.0025, "ms_per_mac": 1e-8, "macs": [1, 2], "traffic": [3, 4]}
    record: dict[str, Any] = {
        "target": "x86-cpu",
        "space": "resnet",
        "measurements": 299,
        "check": {"MACs alone": {**figures, "within_10": 0.5}, "fitted predictor": figures},
        "balance": 64.0,
        "noise": 0.015,
        "families": {"Conv 3x3": conv, "Input": {**conv, "ms_per_mac": 0.0}},
        "path": "latency/0.json",
    }
    seen: list[Any] = []

    def calibrate(*arguments: Any, progress: Any, **options: Any) -> dict[str, Any]:
        print("a library's chatter")
        seen.append((arguments, options))
        return record

    monkeypatch.setattr(latency_calibration, "calibrate", calibrate)
    shown = edgekd("targets", "calibrate", "x86-cpu", "--space", "resnet", "--images", 3, 64, 64)
    assert shown.exit_code == 0, shown.output
    given = {"measurements": 300, "classes": None, "images": (3, 64, 64), "seed": 0}
    assert seen == [(("x86-cpu", "resnet"), given)]
    for text in (
        "299 points of resnet on x86-cpu",
        "30 of them",
        "0.998",
        "100.0%",
        "1.23%",
        "2.5",
        "100",
        "latency/0",
    ):
        assert text in shown.stdout
    asked = edgekd("targets", "calibrate", "x86-cpu", "--measurements", 80, "--classes", 5, "--seed", 3, "--json")
    assert json.loads(asked.stdout) == record and "chatter" in asked.stderr
    assert seen[1] == (("x86-cpu", "cifar-resnet"), {"measurements": 80, "classes": 5, "images": None, "seed": 3})
    assert edgekd("targets", "calibrate", "x86-cpu", "--measurements", 10).exit_code == 2


def test_a_target_or_space_that_is_not_known_is_not_calibrated() -> None:
    for arguments in (("x86-cup",), ("x86-cpu", "--space", "resnets")):
        done = edgekd("targets", "calibrate", *arguments)
        assert done.exit_code == 2 and "Known: " in done.stderr


def test_one_method(tmp_path: Path) -> None:
    record = json.loads(edgekd("methods", "show", "kd", "--json").stdout)
    assert record["name"] == "kd" and record["options"]["alpha"] == 0.9 and record["options"]["temperature"] is None
    shown = edgekd("methods", "show", "kd").stdout
    assert "T^2 KL(" in shown and "Hinton et al. 2015" in shown and "temperature = None" in shown
    assert "warmup = 0.083333\n" in edgekd("methods", "show", "dkd").stdout
    assert "refuses      crd ofakd\n" in edgekd("methods", "show", "mixkd").stdout
    unknown = edgekd("methods", "show", "kdd")
    assert unknown.exit_code == 2 and "Known: kd" in unknown.stderr
    own = tmp_path / "my.py"
    lines = ["class Mine(Method):", '    """Nothing."""', "    def __init__(self, a: int = 1) -> None:", "        ..."]
    own.write_text("\n".join(['"""L = 0."""', "from edgekd.distill.methods._base import Method", *lines]))
    shown = edgekd("methods", "show", f"{own}:Mine").stdout
    assert "Mine: Nothing." in shown and "L = 0." in shown and "a = 1" in shown


def test_methods_say_what_they_need() -> None:
    rows = {row["name"]: row for row in json.loads(edgekd("methods", "--json").stdout)}
    assert rows["kd"]["replay"] and rows["kd"]["owns_labels"] and rows["kd"]["needs"] == ["labels"]
    assert set(rows["kd"]) == {"name", "family", "needs", "replay", "owns_labels", "anchor", "paper"}


def test_methods_are_timed_against_kd(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgekd.catalog import METHODS
    from edgekd.distill import listing

    few = {name: METHODS[name] for name in ("ce", "kd")}
    monkeypatch.setattr(listing, "METHODS", few)
    monkeypatch.setattr(listing, "TIMED", 3)
    monkeypatch.setattr(listing, "BATCH", 8)
    rows = {row["name"]: row for row in json.loads(edgekd("methods", "--measure", "--json").stdout)}
    assert rows.keys() == {"ce", "kd"} and rows["kd"]["of_kd"] == 1 and rows["ce"]["step_ms"] > 0
    assert (rows["ce"]["targets"], rows["kd"]["targets"]) == ("-", "replay")


def test_init_gives_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    (tmp_path / "configs").mkdir()
    flags = ("--data", "images", "--target", "x86-cpu", "--teacher", "timm:resnet18", "--latency", "2ms")
    done = edgekd(
        "init", "configs/mine.yaml", *flags, "--set", "distill.lr=1e-3", "--set", "teacher.mean=[0.1,0.2,0.3]"
    )
    assert done.exit_code == 0, done.output
    assert load_config(Path("configs/mine.yaml")) == load_config(
        assignments=["distill.lr=0.001"],
        flags={
            "data": str(tmp_path / "images"),
            "target": "x86-cpu",
            "teacher.source": "timm:resnet18",
            "teacher.mean": [0.1, 0.2, 0.3],
            "latency": "2ms",
        },
    )
    written = Path("configs/mine.yaml").read_text()
    again = edgekd("init", "configs/mine.yaml", "--data", "digits", "--target", "x86-cpu")
    assert again.exit_code == 2 and "configs/mine.yaml exists" in again.stderr
    assert Path("configs/mine.yaml").read_text() == written


def test_init_refuses_an_unknown_target(tmp_path: Path) -> None:
    done = edgekd("init", tmp_path / "mine.yaml", "--data", "digits", "--target", "x86-cpus")
    assert done.exit_code == 2 and "x86-cpu" in done.stderr and not list(tmp_path.iterdir())


def test_doctor() -> None:
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    done = subprocess.run([sys.executable, "-m", "edgekd", "doctor", "--json"], capture_output=True, env=environment)
    checks = {check["name"]: check for check in json.loads(done.stdout)}
    assert {"python", "torch", "processor", "target x86-cpu", "disk"} <= set(checks)
    assert done.returncode == (0 if all(check["ok"] for check in checks.values()) else 3)

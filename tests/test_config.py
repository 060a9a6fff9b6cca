"""RunConfig: what wins, what is refused, and that `init`'s file says the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from edgekd.config import RunConfig, load_config, parse_latency
from edgekd.errors import ConfigError
from edgekd.init import config_text

NEEDED = {"data": "digits", "target": "x86-cpu"}
EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.yaml"))


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "run.yaml"
    file.write_text(text)
    return file


def test_data_and_target_are_all_that_is_required() -> None:
    config = load_config(flags=NEEDED)
    assert config.teacher.source is None and config.quantize.scheme is None


@pytest.mark.parametrize("key", ["data", "target"])
def test_a_missing_key_is_named_with_its_flag(key: str) -> None:
    with pytest.raises(ConfigError, match=f"{key} is required(?s:.*)--{key}"):
        load_config(flags={k: v for k, v in NEEDED.items() if k != key})


def test_later_sources_win(tmp_path: Path) -> None:
    file = write(tmp_path, "data: digits\ntarget: x86-cpu\nseed: 1\nsearch: {evaluations: 5, inits: 2}\n")
    config = load_config(file, ["search.evaluations=6", "seed=2"], {"seed": 3, "latency": None})
    assert (config.seed, config.search.evaluations, config.search.inits, config.latency) == (3, 6, 2, None)


def test_set_takes_yaml_values() -> None:
    config = load_config(
        None, ["profile.batches=[1, 8]", "distill.ema=null", "distill.lr=1e-3", "distill.method.kd.zscore=true"], NEEDED
    )
    assert config.profile.batches == (1, 8) and config.distill.lr == 1e-3
    assert config.distill.method == {"kd": {"zscore": True}}


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("distil.epochs=1", "unknown key distil\nDid you mean distill"),
        ("distill.epoch=1", "unknown key distill.epoch\nDid you mean epochs"),
        ("quantize.qad.zzz=1", "unknown key quantize.qad.zzz\nKnown keys: epochs"),
        ("distill.epochs=0", "distill.epochs: .*greater than or equal to 1, got 0"),
        ("distill.epochs=many", "distill.epochs: .*integer"),
        ("distill.optimizer=adam", "distill.optimizer: .*'sgd', 'adamw' or 'muon'"),
        ("profile.runs=10", "profile.runs: .*200"),
        ("latency=2 lightyears", "latency: '2 lightyears' is not a latency"),
        ("latency=0ms", "latency: '0ms'"),
        ("seed", "--set 'seed' is not KEY=VALUE"),
        ("seed.x=1", "seed"),
        ("data.x=1", "data"),
    ],
)
def test_what_is_wrong_is_named(assignment: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(None, ["data=digits", "target=x86-cpu", "seed=0", assignment])


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "data: [\n", "just words"])
def test_a_file_that_is_no_mapping(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="run.yaml"):
        load_config(write(tmp_path, text))


def test_paths_in_a_file_are_relative_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "net.pt").touch()
    file = write(tmp_path, "data: images\ntarget: x86-cpu\nteacher: {source: 'file:net.pt', arch: resnet8}\n")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    config = load_config(file)
    assert config.data == str(tmp_path / "images") and config.teacher.source == f"file:{tmp_path / 'net.pt'}"
    (tmp_path / "t.npz").touch()
    distill = "distill: {unlabelled: images, table: t.npz}\n"
    streams = load_config(write(tmp_path, f"data: images\ntarget: x86-cpu\n{distill}")).distill
    assert (streams.unlabelled, streams.table) == (str(tmp_path / "images"), str(tmp_path / "t.npz"))
    words = load_config(write(tmp_path, "data: digits\ntarget: x86-cpu\ndistill: {unlabelled: digits}\n"))
    assert words.distill.unlabelled == "digits"


def test_a_target_of_the_users_is_found_from_the_file_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "boards").mkdir()
    file = write(tmp_path, "data: digits\ntarget: boards/my-board.yaml\n")
    assert load_config(file).target == str(tmp_path / "boards" / "my-board.yaml")
    assert load_config(file, flags={"target": "./other.yaml"}).target == "./other.yaml"


def test_a_teacher_may_be_a_word() -> None:
    config = load_config(None, ["teacher=timm:resnet18", "teacher.arch=resnet8"], NEEDED)
    assert (config.teacher.source, config.teacher.arch) == ("timm:resnet18", "resnet8")


@pytest.mark.parametrize(
    ("text", "value"), [("2ms", ("ms", 2.0)), ("0.5 ms", ("ms", 0.5)), ("500us", ("ms", 0.5)), (" 6x", ("x", 6.0))]
)
def test_latencies(text: str, value: tuple[str, float]) -> None:
    assert parse_latency(text) == value


def test_the_commented_file_reads_back_as_the_same_run() -> None:
    config = load_config(
        None, ["distill.ema=0.999", "profile.batches=[1, 2]", "distill.lr=1e-05", "search.student=resnet20"], NEEDED
    )
    text = config_text(config)
    assert RunConfig.model_validate(yaml.safe_load(text)) == config


def test_the_commented_file_holds_every_key_and_description() -> None:
    text = config_text(load_config(flags=NEEDED))
    record = yaml.safe_load(text)

    def check(section: type[BaseModel], values: dict[str, object], default: BaseModel) -> None:
        assert set(values) == set(section.model_fields)
        for name, info in section.model_fields.items():
            assert info.description is None or info.description in text
            if isinstance(below := getattr(default, name), BaseModel):
                check(type(below), values[name], below)  # type: ignore[arg-type]

    check(RunConfig, record, load_config(flags=NEEDED))


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_examples_load(file: Path) -> None:
    assert load_config(file).target == "x86-cpu"


def test_there_are_examples() -> None:
    assert {file.stem for file in EXAMPLES} >= {"quickstart", "cifar10", "cifar100"}

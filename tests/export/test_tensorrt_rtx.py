"""TensorRT-RTX, the one builder of NVIDIA's that needs no GPU: real engines, and what it is not asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from engines import write_onnx

from edgekd.artifacts import ModelSpec
from edgekd.errors import BackendError, ConfigError, ModelError, TargetError
from edgekd.export import export_fp32
from edgekd.export.engine import build_engine
from edgekd.export.tensorrt import BUILDERS, BuildOptions, choose, read_header, require_loadable
from edgekd.models import build_model
from edgekd.profile.devices import load_device
from edgekd.standalone import lint_onnx

RTX = BUILDERS["tensorrt-rtx"]
pytestmark = [
    pytest.mark.trt,
    pytest.mark.skipif(RTX.version() is None, reason="tensorrt-rtx-cu13 is not installed"),
]
SPEC = ModelSpec("edgekd", "resnet8", 4, (3, 16, 16))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "student.onnx"
    export_fp32(build_model(SPEC), path, SPEC.input_shape, 18)
    return path


@pytest.mark.parametrize(("target", "sm"), [("a100-40gb", 80), ("rtx-3060", 86), ("rtx-4090", 89), ("rtx-5090", 120)])
def test_the_same_bytes_again_and_a_header_that_says_what_for(
    target: str, sm: int, model: Path, tmp_path: Path
) -> None:
    records = [
        build_engine(model, target, tmp_path / name, BuildOptions((1, 4, 8)), builder="tensorrt-rtx") for name in "ab"
    ]
    files = [Path(record["path"]) for record in records]
    assert files[0].read_bytes() == files[1].read_bytes()
    header = read_header(files[0])
    assert (header.runtime, header.version, header.compute_capabilities) == ("tensorrt-rtx", RTX.version(), (sm,))
    assert header.bytes == records[0]["bytes"] == files[0].stat().st_size
    assert records[0]["figures"]["generation_seconds"] > 0
    other = 86 if sm != 86 else 89
    with pytest.raises(ModelError, match=f"was built for sm_{sm}, and this is sm_{other}"):
        require_loadable(files[0], "tensorrt-rtx", header.version, other)
    files[0].write_bytes(files[0].read_bytes()[:-1])
    with pytest.raises(ModelError, match="is cut off"):
        read_header(files[0])


def test_its_words_where_it_refuses(tmp_path: Path) -> None:
    import onnx

    graph = onnx.load(write_onnx(tmp_path / "net.onnx"))
    graph.graph.node[0].op_type = "Det"  # ONNX has it, NVIDIA's parser does not
    onnx.save(graph, tmp_path / "net.onnx")
    with pytest.raises(BackendError, match=r"tensorrt-rtx .* on net.onnx built nothing: .*Det"):
        build_engine(tmp_path / "net.onnx", "rtx-3060", tmp_path / "out", BuildOptions((1, 1, 1)))


@pytest.mark.parametrize("options", [{"version_compatible": True}, {"hardware": "same"}])
def test_what_only_the_full_tensorrt_has(options: dict[str, object], model: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="are for the full TensorRT"):
        build_engine(
            model, "rtx-3060", tmp_path / "out", BuildOptions((1, 1, 1), **options), builder="tensorrt-rtx"  # type: ignore[arg-type]
        )  # fmt: skip


def test_gpus_it_does_not_know() -> None:
    with pytest.raises(TargetError, match="tensorrt-rtx: TensorRT-RTX builds nothing for sm_90"):
        choose(load_device("h100-sxm"), "tensorrt-rtx")


def test_lint_asks_it(model: Path) -> None:
    record = lint_onnx(model, "rtx-4090")["builder"]
    assert record["compute_capability"] == 89 and record["version"] == RTX.version() and record["plan_bytes"] > 0
    assert "builds nothing for sm_87" in lint_onnx(model, "jetson-orin-nano")["builder"]["skipped"]

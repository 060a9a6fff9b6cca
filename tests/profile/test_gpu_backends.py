"""Backends that need a GPU, on simulated ones; what runs on a real one is marked gpu or trt."""

from __future__ import annotations

import ctypes
import json
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from simulated_gpu import SIMULATED_TRTEXEC, SimulatedCuda, SimulatedOrt, simulated_tensorrt

from edgekd.artifacts import Checkpoint, Engine, ModelSpec, OnnxModel
from edgekd.catalog import BACKENDS
from edgekd.errors import BackendError, ModelError, TargetError
from edgekd.export.tensorrt import trtexec as trtexec_builder
from edgekd.profile import driver
from edgekd.profile.abilities import obstacle, require_runnable
from edgekd.profile.backends import ort_gpu, tensorrt
from edgekd.profile.backends.torch_cuda import TorchCuda
from edgekd.profile.backends.trtexec import Trtexec
from edgekd.profile.device import Device
from edgekd.profile.devices import load_device

IMAGES = np.arange(2 * 3 * 4 * 4, dtype=np.float32).reshape(2, 3, 4, 4)
SUMS = IMAGES.sum(axis=(1, 2, 3))[:, None]
FEEDS = {"images": IMAGES}
GPUS = [row for row in BACKENDS.values() if row.gpu]


def plan(path: Path, version: tuple[int, int, int, int] = (10, 3, 0, 30)) -> Path:
    """The header of an engine and nothing that runs."""
    head = b"ftrt" + struct.pack("<IQQ", 0, 1, 100) + bytes(version)
    path.write_bytes(head.ljust(100, b"\0"))
    return path


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> SimulatedCuda:
    """A simulated RTX 4090 and its driver."""
    cuda = SimulatedCuda()
    monkeypatch.setattr(driver, "probe", lambda: driver.Driver("12.6", (89,)))
    load = ctypes.CDLL
    monkeypatch.setattr(ctypes, "CDLL", lambda name, *rest: cuda if name == "libcuda.so.1" else load(name, *rest))
    return cuda


@pytest.fixture
def rtx() -> Device:
    return load_device("rtx-4090")


# --- what is not here ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", GPUS, ids=lambda row: row.name)
def test_without_a_gpu_every_backend_says_so(row: Any, rtx: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "probe", lambda: None)
    with pytest.raises(TargetError, match="target rtx-4090: no NVIDIA GPU answers here\n(?s:.)*device itself"):
        require_runnable(replace(rtx, backend=row.name))
    assert obstacle(replace(rtx, backend=row.name, host="board")) is None
    what, _ = obstacle(replace(load_device("x86-cpu"), backend=row.name)) or ("", "")
    assert "x86-cpu has no GPU" in what


@pytest.mark.parametrize("row", GPUS, ids=lambda row: row.name)
def test_another_gpu_is_not_the_target(row: Any, gpu: SimulatedCuda) -> None:
    what, _ = obstacle(replace(load_device("t4"), backend=row.name)) or ("", "")
    assert "the GPU here is sm_89, not sm_75" in what


@pytest.mark.parametrize(
    ("backend", "said", "way_out"),
    [
        ("onnxruntime-cuda", "has no CUDAExecutionProvider", "onnxruntime-gpu"),
        ("onnxruntime-tensorrt", "has no TensorrtExecutionProvider", "onnxruntime-gpu"),
        ("onnxruntime-tensorrt-rtx", "onnxruntime_ep_nv_tensorrt_rtx is not installed", "onnxruntime-ep-nv"),
        ("trtexec", "it is not on the PATH", "Install TensorRT"),
    ],
)
def test_a_runtime_that_is_not_installed(
    backend: Any, said: str, way_out: str, rtx: Device, gpu: SimulatedCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trtexec_builder, "_found", lambda: (None, None, "it is not on the PATH"))
    cpu_only = SimulatedOrt((), ("CPUExecutionProvider",))
    monkeypatch.setitem(sys.modules, "onnxruntime", cpu_only)  # type: ignore[arg-type]
    monkeypatch.setattr(ort_gpu, "find_spec", lambda name: None if name == ort_gpu.PLUGIN else True)
    with pytest.raises(TargetError, match=said) as caught:
        require_runnable(replace(rtx, backend=backend))
    assert way_out in caught.value.fix


def test_the_real_onnx_runtime_is_asked_for_its_providers(tmp_path: Path) -> None:
    import onnxruntime

    if ort_gpu.CUDA in onnxruntime.get_available_providers():
        pytest.skip("it has CUDA here")
    engine = Engine(str(tmp_path / "x.onnx"), "onnxruntime-cuda", {}, {})
    for backend in (ort_gpu.OrtCuda(), ort_gpu.OrtTensorRt()):
        with pytest.raises(BackendError, match=f"has no {backend.provider}"):
            backend.open(engine, 1)


# --- ONNX Runtime ----------------------------------------------------------------------------------------------------


@pytest.fixture
def with_cuda(monkeypatch: pytest.MonkeyPatch) -> SimulatedOrt:
    found = SimulatedOrt((ort_gpu.CUDA, "CPUExecutionProvider"), (ort_gpu.CUDA, "CPUExecutionProvider"))
    monkeypatch.setitem(sys.modules, "onnxruntime", found)  # type: ignore[arg-type]
    return found


@pytest.mark.parametrize("cuda_graph", [False, True])
def test_cuda_by_bound_memory(cuda_graph: bool, with_cuda: SimulatedOrt) -> None:
    with ort_gpu.OrtCuda().open(Engine("m.onnx", "onnxruntime-cuda", {}, {}), 1, cuda_graph) as session:
        (made,) = with_cuda.sessions
        assert made.options.entries == {"session.disable_cpu_ep_fallback": "1"} and not made.fallback
        assert made.providers == [(ort_gpu.CUDA, {"device_id": "0", "enable_cuda_graph": str(int(cuda_graph))})]
        assert session.provider == ort_gpu.CUDA and session.settings["cuda_graph"] is cuda_graph
        np.testing.assert_array_equal(session.infer(FEEDS)["logits"], SUMS)
        samples = session.time(FEEDS, 5, 1)
        assert set(session.phases) == {"h2d", "compute", "d2h"} and made.bound_runs >= 7
        for i, sample in enumerate(samples):
            assert sample == sum(session.phases[name][i] for name in session.phases)
        other = {"images": 2 * IMAGES[:1]}
        np.testing.assert_array_equal(session.infer(other)["logits"], 2 * SUMS[:1])  # another batch, other memory


def test_a_session_that_fell_back_is_refused(with_cuda: SimulatedOrt) -> None:
    with_cuda.runs_on = ("CPUExecutionProvider",)
    with pytest.raises(BackendError, match="m.onnx would run on CPUExecutionProvider, not CUDAExecutionProvider"):
        ort_gpu.OrtCuda().open(Engine("m.onnx", "onnxruntime-cuda", {}, {}), 1)


def test_a_graph_that_cuda_has_no_kernels_for(with_cuda: SimulatedOrt, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **options: Any) -> Any:
        raise RuntimeError("This session contains graph nodes that are assigned to the default CPU EP")

    monkeypatch.setattr(with_cuda, "InferenceSession", refuse)
    with pytest.raises(BackendError, match="on CUDAExecutionProvider alone: .*default CPU EP(?s:.)*Integers run on"):
        ort_gpu.OrtCuda().open(Engine("m.onnx", "onnxruntime-cuda", {}, {}), 1)


@pytest.mark.parametrize(("formats", "int8", "fp16"), [("", "0", "0"), ("int8", "1", "1"), ("fp16", "0", "1")])
def test_tensorrt_is_told_the_precision_of_the_graph(
    formats: str, int8: str, fp16: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from edgekd.export.tensorrt import graph

    monkeypatch.setattr(graph, "read_graph", lambda path: SimpleNamespace(formats=frozenset(formats.split())))
    monkeypatch.setenv("EDGEKD_CACHE", str(tmp_path))
    options = ort_gpu.OrtTensorRt().options("m.onnx", True)
    assert (options["trt_int8_enable"], options["trt_fp16_enable"]) == (int8, fp16)
    assert options["trt_cuda_graph_enable"] == "1" and Path(options["trt_engine_cache_path"]).is_dir()


def test_tensorrt_rtx_is_a_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    found = SimulatedOrt((ort_gpu.RTX,), ("CPUExecutionProvider",), plugin=True)
    monkeypatch.setitem(sys.modules, "onnxruntime", found)  # type: ignore[arg-type]
    engine = Engine("m.onnx", "onnxruntime-tensorrt-rtx", {}, {})
    with pytest.raises(BackendError, match="does not load: No module named"):
        ort_gpu.OrtTensorRtRtx().open(engine, 1)
    library = SimpleNamespace(get_library_path=lambda: "/lib/plugin.so")
    monkeypatch.setitem(sys.modules, ort_gpu.PLUGIN, library)  # type: ignore[arg-type]
    with ort_gpu.OrtTensorRtRtx().open(engine, 1, cuda_graph=True) as session:
        assert found.registered == [(ort_gpu.RTX, "/lib/plugin.so")] and session.provider == ort_gpu.RTX
        assert found.sessions[0].options.device_options == {"enable_cuda_graph": "1"}
        np.testing.assert_array_equal(session.infer(FEEDS)["logits"], SUMS)
        assert len(session.time(FEEDS, 4, 1)) == 4 and session.phases == {}
    found.plugin = False
    with pytest.raises(BackendError, match="finds no GPU it can use"):
        ort_gpu.OrtTensorRtRtx().open(engine, 1)


# --- TensorRT --------------------------------------------------------------------------------------------------------


@pytest.fixture
def package(gpu: SimulatedCuda, monkeypatch: pytest.MonkeyPatch) -> Any:
    module = simulated_tensorrt(gpu)
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    return module


@pytest.mark.parametrize("cuda_graph", [False, True])
def test_a_native_engine(cuda_graph: bool, package: Any, gpu: SimulatedCuda, tmp_path: Path, rtx: Device) -> None:
    model = OnnxModel(str(plan(tmp_path / "m.engine")), "m.engine", "engine", 0, (0, 0, 0))
    backend = tensorrt.TensorRt()
    engine = backend.build(model, rtx, 2)
    assert engine.path == model.path and engine.versions == {"tensorrt": "10.3.0.30"}
    with backend.open(engine, 1, cuda_graph) as session:
        assert session.provider == "TensorRT 10.3.0"
        assert session.inputs == {"images": (np.dtype(np.float32), (None, 3, 4, 4))}
        np.testing.assert_array_equal(session.infer(FEEDS)["logits"], SUMS)
        samples = session.time(FEEDS, 6, 2)
        assert len(samples) == 6 and {len(values) for values in session.phases.values()} == {6}
        assert all(sum(parts) <= total for *parts, total in zip(*session.phases.values(), samples, strict=True))
        assert gpu.launched == (1 + 2 + 6 if cuda_graph else 0)
        np.testing.assert_array_equal(session.infer({"images": 3 * IMAGES[:1]})["logits"], 3 * SUMS[:1])
        with pytest.raises(BackendError, match=r"takes no images of \(9, 3, 4, 4\)"):
            session.infer({"images": np.zeros((9, 3, 4, 4), np.float32)})
        with pytest.raises(BackendError, match="wants images too"):
            session.infer({})
    assert gpu.memory == {}  # nothing stays on the device


def test_the_header_is_read_before_the_runtime_sees_the_file(package: Any, tmp_path: Path) -> None:
    engine = Engine(str(plan(tmp_path / "m.engine", (8, 5, 2, 2))), "tensorrt", {}, {})
    with pytest.raises(ModelError, match=r"was built by tensorrt 8\.5\.2\.2, and 10\.3\.0 is here"):
        tensorrt.TensorRt().open(engine, 1)
    file = tmp_path / "junk.engine"
    file.write_bytes(b"not an engine")
    with pytest.raises(ModelError, match="not a TensorRT engine"):
        tensorrt.TensorRt().open(replace(engine, path=str(file)), 1)


def test_an_engine_that_is_refused_and_a_package_that_is_not_there(
    gpu: SimulatedCuda, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(str(plan(tmp_path / "m.engine")), "tensorrt", {}, {})
    monkeypatch.setitem(sys.modules, "tensorrt", simulated_tensorrt(gpu, refuses=True))
    with pytest.raises(BackendError, match="TensorRT 10.3.0 refuses m.engine"):
        tensorrt.TensorRt().open(engine, 1)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(BackendError, match="tensorrt does not load"):
        tensorrt.TensorRt().open(engine, 1)
    monkeypatch.setattr(driver, "probe", lambda: None)
    with pytest.raises(BackendError, match="no NVIDIA GPU answers"):
        tensorrt.TensorRt().open(engine, 1)


def test_layers_by_tensorrts_profiler(package: Any, tmp_path: Path) -> None:
    engine = Engine(str(plan(tmp_path / "m.engine")), "tensorrt", {}, {})
    layers = tensorrt.TensorRt().layers(engine, FEEDS, 3, 1)
    assert [(layer["name"], layer["ms"]) for layer in layers] == [
        ("node_Conv_1 + node_relu", 0.25),
        ("node_linear", 0.25),
    ]


def test_an_engine_is_built_once_for_its_batch(
    gpu: SimulatedCuda, rtx: Device, models: list[OnnxModel], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from edgekd.export import tensorrt as builders

    monkeypatch.setenv("EDGEKD_CACHE", str(tmp_path))
    asked: list[Any] = []
    builder = SimpleNamespace(name="simulated", runtime="tensorrt", version=lambda: "10.3.0")
    monkeypatch.setattr(builders, "choose", lambda device, wanted: builder)

    def build(request: Any, device: Device, builder: Any, file: Path, log: Path) -> None:
        asked.append(request.batch)
        plan(file)

    monkeypatch.setattr(builders, "build", build)
    first, again, larger = (tensorrt.TensorRt().build(models[0], rtx, batch) for batch in (8, 8, 32))
    assert first == again and first.path != larger.path and asked == [(1, 8, 8), (1, 32, 32)]
    assert tensorrt.read_beside(Path(first.path))["batch"] == [1, 8, 8]


# --- trtexec ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def program(tmp_path: Path, gpu: SimulatedCuda, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Path]]:
    """Puts a simulated trtexec on the PATH; returns the file with its calls."""
    monkeypatch.setattr(trtexec_builder, "PLACE", Path("nowhere/trtexec"))

    def put(banner: int, fails: bool = False) -> Path:
        file, log = tmp_path / "trtexec", tmp_path / "calls"
        file.write_text(SIMULATED_TRTEXEC.format(python=sys.executable, banner=banner, log=log, fails=fails))
        file.chmod(0o755)
        monkeypatch.setattr(trtexec_builder.shutil, "which", lambda name: str(file))
        trtexec_builder._found.cache_clear()
        return log

    yield put
    trtexec_builder._found.cache_clear()


@pytest.mark.parametrize(
    ("banner", "version"), [(8502, (8, 5, 2, 2)), (100300, (10, 3, 0, 30)), (110400, (11, 4, 0, 1))]
)
def test_trtexec_times_by_its_own_clock(
    banner: int, version: Any, program: Callable[..., Path], tmp_path: Path
) -> None:
    log = program(banner)
    file = plan(tmp_path / "m.engine", version)
    beside = {"inputs": {"images": [None, 3, 4, 4]}, "batch": [1, 8, 8]}
    (tmp_path / "m.engine.json").write_text(json.dumps(beside))
    engine = Engine(str(file), "trtexec", {}, {})
    with Trtexec().open(engine, 1, cuda_graph=True) as session:
        samples = session.time({"images": np.zeros((8, 3, 4, 4), np.float32)}, 50, 2)
        assert samples[:2] == [1_375_000, 1_376_000] and len(samples) == 50
        assert {name: values[0] for name, values in session.phases.items()} == {
            "h2d": 250_000,
            "compute": 1_000_000,
            "d2h": 125_000,
        }
        assert "CUDA events" in session.settings["clock"] and "trtexec" in session.provider
        with pytest.raises(BackendError, match="trtexec gives no outputs"):
            session.infer({})
    words = json.loads(log.read_text().splitlines()[0])
    assert "--shapes=images:8x3x4x4" in words and "--iterations=50" in words and "--duration=0" in words
    assert ("--useCudaGraph" in words) == (banner < 110000)
    (conv, linear) = Trtexec().layers(engine, {}, 10, 1)
    assert (conv["name"], conv["ms"]) == ("node_Conv_1 + node_relu", 0.4) and linear["name"] == "node_linear"


def test_trtexec_that_fails_gives_its_last_words(program: Callable[..., Path], tmp_path: Path) -> None:
    program(100300, fails=True)
    engine = Engine(str(plan(tmp_path / "m.engine")), "trtexec", {}, {})
    with pytest.raises(BackendError, match="failed on m.engine: .*out of memory"):
        Trtexec().open(engine, 1).time({}, 10, 1)
    with pytest.raises(ModelError, match="was built by tensorrt 8"):
        Trtexec().open(replace(engine, path=str(plan(tmp_path / "old.engine", (8, 5, 2, 2)))), 1)


# --- torch -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> OnnxModel:
    import torch
    from safetensors.torch import save_file

    from edgekd.models import build_model

    path = tmp_path_factory.mktemp("fp32")
    spec = ModelSpec("edgekd", "resnet8", 10, (3, 8, 8))
    torch.manual_seed(0)
    save_file(build_model(spec).state_dict(), path / "model.safetensors")
    Checkpoint(str(path), spec).save()
    return OnnxModel(str(path), "fp32", "fp32", 0, (3, 8, 8))


def test_torch_takes_checkpoints_and_needs_a_gpu(
    checkpoint: OnnxModel, models: list[OnnxModel], rtx: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    backend = TorchCuda()
    engine = backend.build(checkpoint, replace(rtx, backend="torch-cuda"))
    with pytest.raises(BackendError, match="finds no GPU"):
        backend.open(engine, 1)
    with pytest.raises(BackendError, match="onnx-fp32 is no checkpoint"):
        backend.build(models[0], rtx)
    with pytest.raises(BackendError, match="no profile of layers"):
        backend.layers(engine, FEEDS, 1, 1)


@pytest.mark.gpu
@pytest.mark.parametrize("cuda_graph", [False, True])
def test_torch_on_a_real_gpu_computes_what_it_does_on_the_processor(
    cuda_graph: bool, checkpoint: OnnxModel, rtx: Device
) -> None:
    import torch

    from edgekd.models import load_checkpoint

    images = np.random.default_rng(0).standard_normal((4, 3, 8, 8)).astype(np.float32)
    expected = load_checkpoint(Checkpoint.load(Path(checkpoint.path))).eval()(torch.from_numpy(images))
    backend = TorchCuda()
    with backend.open(backend.build(checkpoint, rtx), 1, cuda_graph) as session:
        for scale in (1.0, 0.5):
            found = session.infer({"images": images * np.float32(scale)})["logits"]
            if scale == 1.0:
                np.testing.assert_allclose(found, expected.detach().numpy(), rtol=1e-2, atol=1e-3)
        assert not np.allclose(found, expected.detach().numpy(), rtol=1e-2, atol=1e-3)  # new inputs, new outputs
        samples = session.time({"images": images}, 50, 5)
        assert all(sum(p[i] for p in session.phases.values()) <= 1.05 * s for i, s in enumerate(samples))


@pytest.mark.gpu
@pytest.mark.parametrize("cuda_graph", [False, True])
def test_onnx_runtime_on_a_real_gpu_computes_what_the_processor_does(
    cuda_graph: bool, models: list[OnnxModel], device: Device
) -> None:
    from edgekd.profile.backends.ort_cpu import OrtCpuSession

    images = np.random.default_rng(0).standard_normal((4, 3, 8, 8)).astype(np.float32)
    with OrtCpuSession(models[0].path, 1) as reference:
        (name,) = reference.inputs
        (expected,) = reference.infer({name: images}).values()
    with ort_gpu.OrtCuda().open(Engine(models[0].path, "onnxruntime-cuda", {}, {}), 1, cuda_graph) as session:
        session.time({name: images}, 10, 3)
        (found,) = session.infer({name: images}).values()
        np.testing.assert_allclose(found, expected, rtol=1e-2, atol=1e-3)

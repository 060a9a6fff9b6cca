"""Run a model of this bundle: numpy and ONNX Runtime, or numpy and TensorRT where build.sh has made the engine.

python3 runner.py --model student-int8 photo.png     the five likeliest classes (PNG and JPEG need Pillow)
python3 runner.py --model student-int8 images.npy    uint8 [N, H, W, C]
python3 runner.py --model student-int8 --time 200    latency at batch 1, in ms

runner = Runner(".")                                 from Python
runner.infer(pixels)["logits"]                       pixels: uint8 [N, H, W, C]
"""

import argparse
import json
import os
import sys
import time
from typing import Any, Dict, List, Optional, Sequence

sys.dont_write_bytecode = True  # a file more, and the bundle would not be as it was

import numpy as np  # noqa: E402

import manifest  # noqa: E402
from manifest import Failed, Refused  # noqa: E402

CPU = "CPUExecutionProvider"
GOLDENS = "goldens.npz"
WARMUP = 20


class OrtSession:
    """ONNX Runtime on one execution provider: it raises Failed where the runtime would take another."""

    def __init__(self, path: str, provider: str, threads: Optional[int], optimised: bool) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise Failed("ONNX Runtime is not installed", "Run pip install onnxruntime.") from None
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if threads is not None:
            options.intra_op_num_threads = threads
            options.inter_op_num_threads = 1
        if not optimised:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        self.version = "ONNX Runtime " + onnxruntime.__version__
        if provider not in onnxruntime.get_available_providers():
            raise Failed(f"{self.version} has no {provider}", "Install the package that has it.")
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=[provider])
        except Exception as error:  # ONNX Runtime has a class of its own for every status code
            raise Failed(
                f"{self.version} cannot load {os.path.basename(path)}: {str(error).strip()[:500]}",
                "Install the version that the manifest was made with, or a newer one.",
            ) from None
        self.provider = self._session.get_providers()[0]
        if self.provider != provider:  # it falls back to the processor without an error
            raise Failed(f"{self.version} runs on {self.provider} instead of {provider}", "Check CUDA.")
        self.batch = self._session.get_inputs()[0].shape[0]  # a name where it is dynamic
        self.outputs = [output.name for output in self._session.get_outputs()]

    def infer(self, feeds: Dict[str, Any]) -> Dict[str, Any]:
        return dict(zip(self.outputs, self._session.run(self.outputs, feeds)))


class Cuda:
    """Device memory and a stream through the driver's own library: there is no CUDA toolkit to look for."""

    def __init__(self) -> None:
        import ctypes

        self._c = ctypes
        self._driver = ctypes.CDLL("libcuda.so.1")
        device, context, stream = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cuInit", 0)
        self._call("cuDeviceGet", ctypes.byref(device), 0)
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)  # the one that TensorRT uses
        self._context = context
        self.make_current()
        self._call("cuStreamCreate", ctypes.byref(stream), 1)  # not synchronised with the default stream
        self._stream = stream

    @property
    def stream(self) -> int:
        return int(self._stream.value or 0)

    def make_current(self) -> None:
        """In this thread."""
        self._call("cuCtxSetCurrent", self._context)

    def allocate(self, size: int) -> int:
        pointer = self._c.c_uint64()
        self._call("cuMemAlloc_v2", self._c.byref(pointer), self._c.c_size_t(max(size, 1)))
        return int(pointer.value)

    def free(self, pointer: int) -> None:
        self._call("cuMemFree_v2", self._c.c_uint64(pointer))

    def upload(self, pointer: int, array: Any) -> None:
        source, size = self._c.c_void_p(array.ctypes.data), self._c.c_size_t(array.nbytes)
        self._call("cuMemcpyHtoDAsync_v2", self._c.c_uint64(pointer), source, size, self._stream)

    def download(self, array: Any, pointer: int) -> None:
        target, size = self._c.c_void_p(array.ctypes.data), self._c.c_size_t(array.nbytes)
        self._call("cuMemcpyDtoHAsync_v2", target, self._c.c_uint64(pointer), size, self._stream)

    def wait(self) -> None:
        self._call("cuStreamSynchronize", self._stream)

    def _call(self, name: str, *arguments: Any) -> None:
        code = getattr(self._driver, name)(*arguments)
        if code != 0:
            raise Failed(f"the CUDA driver's {name} gave error {code}", "See nvidia-smi or tegrastats.")


class TensorRtSession:
    """A TensorRT engine, from version 8.5 on, where tensors go by their names. Not for two threads at once."""

    provider = "TensorRT"

    def __init__(self, path: str, bundle: Dict[str, Any]) -> None:
        if manifest.compute_capability() is None:  # without a driver TensorRT may end the process
            raise Failed("there is no GPU here, or no driver of it", "Use --runtime onnxruntime.")
        try:
            import tensorrt
        except ImportError as error:
            raise Failed(f"TensorRT's Python package is not there: {error}", "Install JetPack's.") from None
        manifest.check_tensorrt(bundle, tensorrt.__version__)
        self.version = "TensorRT " + tensorrt.__version__
        self._cuda = Cuda()
        self._logger = tensorrt.Logger(tensorrt.Logger.WARNING)
        self._runtime = tensorrt.Runtime(self._logger)
        with open(path, "rb") as file:
            self._engine = self._runtime.deserialize_cuda_engine(file.read())
        if self._engine is None:
            name = os.path.basename(path)
            raise Failed(f"{self.version} refuses {name}: see its log above", "Run sh build.sh here.")
        self._context = self._engine.create_execution_context()
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        inputs = [n for n in names if self._engine.get_tensor_mode(n) == tensorrt.TensorIOMode.INPUT]
        self.batch = self._engine.get_tensor_shape(inputs[0])[0]
        self.outputs = [name for name in names if name not in inputs]
        self._types = {name: tensorrt.nptype(self._engine.get_tensor_dtype(name)) for name in names}
        self._memory = {}  # type: Dict[str, Any]

    def infer(self, feeds: Dict[str, Any]) -> Dict[str, Any]:
        self._cuda.make_current()
        for name, array in feeds.items():
            array = np.ascontiguousarray(array, self._types[name])
            if not self._context.set_input_shape(name, array.shape):
                raise Failed(f"the engine takes no {name} of shape {array.shape}", "Use smaller batches.")
            self._cuda.upload(self._place(name, array.nbytes), array)
        results = {}
        for name in self.outputs:
            results[name] = np.empty(tuple(self._context.get_tensor_shape(name)), self._types[name])
            self._place(name, results[name].nbytes)
        if not self._context.execute_async_v3(self._cuda.stream):
            raise Failed("the engine did not run: see TensorRT's log above", "Run sh build.sh here.")
        for name, array in results.items():
            self._cuda.download(array, self._memory[name][0])
        self._cuda.wait()
        return results

    def _place(self, name: str, size: int) -> int:
        """Device memory for a tensor, kept until it needs more."""
        pointer, held = self._memory.get(name, (0, 0))
        if held < size:
            if held:
                self._cuda.free(pointer)
            pointer = self._cuda.allocate(size)
            self._memory[name] = (pointer, size)
            self._context.set_tensor_address(name, pointer)
        return int(pointer)


class Runner:
    """A model of the bundle at `root`: pixels in, outputs by name. Raises Refused for an engine of another device.

    `runtime` is `onnxruntime`, `tensorrt`, or None: TensorRT where build.sh has made the engine, else ONNX Runtime.
    `session.version` and `session.provider` say what it became.
    """

    def __init__(
        self,
        root: str,
        model: Optional[str] = None,
        runtime: Optional[str] = None,
        provider: str = CPU,
        threads: Optional[int] = None,
    ) -> None:
        self.root = root
        bundle = manifest.load(root)
        models = {row["name"]: row for row in bundle["models"]}
        name = model or bundle["default"]
        if name not in models:
            raise Refused(f"the bundle has no model {name!r}", "It has {}.".format(", ".join(models)))
        self.model, self.target_runtime = models[name], bundle["target"]["runtime"]
        with open(os.path.join(root, "preprocessing.json")) as file:
            self.preprocessing = json.load(file)
        with open(os.path.join(root, "labels.json")) as file:
            self.labels = json.load(file)
        capability = manifest.compute_capability()
        built = manifest.check_engine(root, bundle, self.model, capability)
        if runtime is None:
            runtime = "tensorrt" if built and capability is not None else "onnxruntime"
        if runtime == "tensorrt":
            if not built:
                raise Failed(f"{name} has no engine yet", "Run sh build.sh on the device that runs it.")
            path = os.path.join(root, self.model["engine"])
            self.session = TensorRtSession(path, bundle)  # type: Any
        else:
            # fused int8 kernels saturate on some processors: a graph for another runtime is run as it is written
            optimised = self.target_runtime == "onnxruntime" or provider != CPU
            self.session = OrtSession(os.path.join(root, self.model["path"]), provider, threads, optimised)

    def infer(self, pixels: Any) -> Dict[str, Any]:
        """Every output by name, for uint8 [N, H, W, C]. Raises Refused for pixels of another shape."""
        return self.infer_tensor(self.preprocess(pixels))

    def infer_tensor(self, tensor: Any) -> Dict[str, Any]:
        """As `infer`, of what the graph takes; a graph of one batch size is run as often as it takes."""
        name, batch = self.preprocessing["input"], self.session.batch
        if not isinstance(batch, int) or batch < 1 or batch == len(tensor):
            return dict(self.session.infer({name: tensor}))
        parts = []
        for start in range(0, len(tensor), batch):
            part = tensor[start : start + batch]
            fill = np.repeat(part[-1:], batch - len(part), axis=0)
            found = self.session.infer({name: np.concatenate([part, fill])})
            parts.append({key: array[: len(part)] for key, array in found.items()})
        return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}

    def preprocess(self, pixels: Any) -> Any:
        """uint8 [N, H, W, C] as the graph takes it: float32 [N, C, H, W], or the pixels where the graph does it."""
        expected = tuple(self.preprocessing[key] for key in ("height", "width", "channels"))
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1:] != expected or not len(pixels):
            text = "images are {} {}, and the model takes uint8 [N, {}, {}, {}]"
            raise Refused(
                text.format(pixels.dtype, list(pixels.shape), *expected), "Resize them; see preprocessing.json."
            )
        if self.preprocessing["dtype"] == "uint8":
            return pixels
        mean, std = (np.asarray(self.preprocessing[key], np.float64) for key in ("mean", "std"))
        # one multiply-add: (x / 255 - mean) / std = x * scale + shift
        scale, shift = (1 / (255 * std)).astype(np.float32), (-mean / std).astype(np.float32)
        return np.ascontiguousarray((pixels.astype(np.float32) * scale + shift).transpose(0, 3, 1, 2))

    def time(self, runs: int) -> Dict[str, Any]:
        """Latency of one golden image, in ms a call: from the graph's input in memory to its outputs there."""
        with np.load(os.path.join(self.root, GOLDENS)) as goldens:
            tensor = self.preprocess(goldens["pixels"][:1])
        for _ in range(WARMUP):
            self.infer_tensor(tensor)
        samples = []
        for _ in range(runs):
            start = time.perf_counter()
            self.infer_tensor(tensor)
            samples.append(1000 * (time.perf_counter() - start))
        samples.sort()
        ranks = {"p50_ms": 0.5, "p90_ms": 0.9, "p99_ms": 0.99}
        found = {key: samples[max(0, int(np.ceil(q * runs)) - 1)] for key, q in ranks.items()}  # nearest rank
        found["mean_ms"] = sum(samples) / runs
        return dict({key: round(ms, 6) for key, ms in found.items()}, n=runs, batch=1)


def read_images(path: str, preprocessing: Dict[str, Any]) -> Any:
    """uint8 [N, H, W, C] of a .npy file, or [1, H, W, C] of a picture, scaled to cover the size and cropped."""
    try:
        if path.endswith(".npy"):
            return np.load(path)
        from PIL import Image, ImageOps

        with Image.open(path) as opened:
            size = (preprocessing["width"], preprocessing["height"])
            picture = opened.convert("L" if preprocessing["channels"] == 1 else "RGB")
            bicubic = 3  # Image.BICUBIC, which newer versions of Pillow call Image.Resampling.BICUBIC
            array = np.asarray(ImageOps.fit(picture, size, bicubic))
            return array.reshape((1, size[1], size[0], preprocessing["channels"]))
    except ImportError:
        raise Failed(f"{path}: pictures need the Python package Pillow", "Install it, or pass a .npy.") from None
    except (OSError, ValueError) as error:
        raise Refused(f"{path} cannot be read: {error}", "Name a picture or a .npy file.") from None


def likeliest(outputs: Dict[str, Any], labels: Sequence[str], row: int, count: int = 5) -> List[Dict[str, Any]]:
    """The `count` largest of an image's row in the first output, with their labels; by logit, not probability."""
    logits = next(iter(outputs.values()))[row]
    best = np.argsort(-logits, kind="stable")[:count]
    return [{"label": labels[i], "class": int(i), "logit": float(logits[i])} for i in best]


def main(arguments: Optional[List[str]] = None) -> int:
    parser = argparse.ArgumentParser(description="Run a model of this bundle.")
    parser.add_argument("images", nargs="*", help="pictures, or .npy files of uint8 [N, H, W, C]")
    parser.add_argument("--bundle", default=os.path.dirname(os.path.abspath(__file__)), help="default: this one")
    parser.add_argument("--model", help="default: the one that the manifest names")
    parser.add_argument("--runtime", choices=["onnxruntime", "tensorrt"], help="default: TensorRT if it is built")
    parser.add_argument("--provider", default=CPU, help="of ONNX Runtime, such as CUDAExecutionProvider")
    parser.add_argument("--threads", type=int, help="of ONNX Runtime on the processor; default: all cores")
    parser.add_argument("--time", type=int, metavar="RUNS", help="measure the latency at batch 1")
    chosen = parser.parse_args(arguments)
    try:
        runner = Runner(chosen.bundle, chosen.model, chosen.runtime, chosen.provider, chosen.threads)
        ran = {"model": runner.model["name"], "runtime": runner.session.version, "provider": runner.session.provider}
        if chosen.time:
            print(json.dumps(dict(ran, **runner.time(chosen.time))))
        for path in chosen.images:
            outputs = runner.infer(read_images(path, runner.preprocessing))
            for row in range(len(next(iter(outputs.values())))):
                print(json.dumps(dict(ran, image=path, row=row, top=likeliest(outputs, runner.labels, row))))
    except Refused as error:
        sys.stderr.write(f"error: {error.what}\n{error.fix}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Serve a model of this bundle over HTTP: the REST calls of the Open Inference Protocol v2, as Triton has them.

    pip install gunicorn prometheus-client
    PYTHONDONTWRITEBYTECODE=1 gunicorn --workers 1 --threads 4 --bind 127.0.0.1:8000 "serve:create_app()"

    GET  /v2/health/live, /v2/health/ready   200 once the bundle is whole, the model loaded and its goldens reached
    GET  /v2/models/NAME                     inputs, outputs, labels
    POST /v2/models/NAME/infer               {"inputs": [{"name": "pixels", "datatype": "UINT8",
                                              "shape": [1, H, W, C], "data": [...]}]}
                                             or the graph's own input by its name
    GET  /metrics                            Prometheus: requests by status, seconds a request, images

EDGEKD_MODEL, EDGEKD_RUNTIME, EDGEKD_PROVIDER and EDGEKD_THREADS choose as the options of runner.py do. One worker
process: its threads share the model and the metrics.
"""

import argparse
import json
import os
import sys
import threading
import time
from typing import Any, Callable, Dict, Iterable, Tuple

sys.dont_write_bytecode = True  # a file more, and the bundle would not be as it was

import numpy as np  # noqa: E402
from prometheus_client import CONTENT_TYPE_LATEST, Counter, Histogram, generate_latest  # noqa: E402

import verify  # noqa: E402
from manifest import Refused  # noqa: E402
from runner import CPU, Runner  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))
GIVE_UP = 3  # gunicorn starts a worker that ends with any other code again and again
LARGEST_BODY = 64 << 20  # bytes; a request is held in memory
TYPES = {"uint8": "UINT8", "float32": "FP32", "float16": "FP16", "int64": "INT64", "int32": "INT32"}
NAMES = {name: dtype for dtype, name in TYPES.items()}
BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)

REQUESTS = Counter("edgekd_requests", "Inference requests, by HTTP status", ["model", "status"])
SECONDS = Histogram("edgekd_request_seconds", "From the request read to the answer", ["model"], buckets=BUCKETS)
IMAGES = Counter("edgekd_images", "Images inferred", ["model"])


class Rejected(Exception):
    """A request that is answered with `status` and a message."""

    def __init__(self, status: str, message: str) -> None:
        super().__init__(message)
        self.status = status


class App:
    """The WSGI application. Made only where the bundle is whole and gives its goldens: raises Refused else."""

    def __init__(self) -> None:
        threads = os.environ.get("EDGEKD_THREADS")
        chosen = argparse.Namespace(
            runtime=os.environ.get("EDGEKD_RUNTIME"),
            provider=os.environ.get("EDGEKD_PROVIDER", CPU),
            threads=int(threads) if threads else None,
            public=None,
            atol=None,
            compute_capability=None,
            hashes_only=True,
        )
        verify.verify(HERE, chosen)
        self.runner = Runner(HERE, os.environ.get("EDGEKD_MODEL"), chosen.runtime, chosen.provider, chosen.threads)
        self.name = self.runner.model["name"]
        verify.goldens(HERE, self.name, chosen)
        one_at_a_time = self.runner.session.provider == "TensorRT"
        self.lock = threading.Lock() if one_at_a_time else None

    def __call__(self, environ: Dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path, method = environ.get("PATH_INFO", "/"), environ.get("REQUEST_METHOD", "GET")
        model = "/v2/models/" + self.name
        status, body, kind = "200 OK", b"", "application/json"
        try:
            if path == model + "/infer":
                require(method == "POST", "405 Method Not Allowed", "infer takes POST")
                body = self.answer(environ)
            else:
                require(method == "GET", "405 Method Not Allowed", f"{path} takes GET")
                if path == "/metrics":
                    body, kind = generate_latest(), CONTENT_TYPE_LATEST
                elif path in (model, "/v2"):
                    body = encode(self.describe() if path == model else {"name": "edgekd", "extensions": []})
                else:
                    ready = ("/v2/health/live", "/v2/health/ready", model + "/ready")
                    require(path in ready, "404 Not Found", f"there is no {path}; the model is {self.name}")
        except Rejected as error:
            status, body = error.status, encode({"error": str(error)})
        start_response(status, [("Content-Type", kind), ("Content-Length", str(len(body)))])
        return [body]

    def describe(self) -> Dict[str, Any]:
        pre, model = self.runner.preprocessing, self.runner.model
        pixels = {"name": "pixels", "datatype": "UINT8", "shape": [-1, pre["height"], pre["width"], pre["channels"]]}
        session = self.runner.session
        return {
            "name": self.name,
            "versions": ["1"],
            "platform": f"{session.version} ({session.provider})",
            "inputs": [pixels] + [tensor(row) for row in model["inputs"]],
            "outputs": [tensor(row) for row in model["outputs"]],
            "parameters": {"labels": self.runner.labels},
        }

    def answer(self, environ: Dict[str, Any]) -> bytes:
        """The body of a request's answer, counted and timed."""
        start, status = time.perf_counter(), "500"
        try:
            body, count = self.infer(read_body(environ))
            status = "200"
            IMAGES.labels(self.name).inc(count)
            return body
        except Rejected as error:
            status = error.status[:3]
            raise
        finally:
            REQUESTS.labels(self.name, status).inc()
            SECONDS.labels(self.name).observe(time.perf_counter() - start)

    def infer(self, request: Any) -> Tuple[bytes, int]:
        row = only_input(request)
        array = read_tensor(row)
        known = {entry["name"]: entry for entry in self.runner.model["inputs"]}
        try:
            if row["name"] == "pixels":
                array = self.runner.preprocess(array)
            else:
                require(row["name"] in known, "400 Bad Request", "there is no input {!r}".format(row["name"]))
                check_tensor(array, known[row["name"]])
            if self.lock is None:
                outputs = self.runner.infer_tensor(array)
            else:
                with self.lock:
                    outputs = self.runner.infer_tensor(array)
        except Refused as error:
            raise Rejected("400 Bad Request", f"{error.what}. {error.fix}") from None
        rows = [
            {
                "name": name,
                "datatype": TYPES[str(value.dtype)],
                "shape": list(value.shape),
                "data": value.ravel().tolist(),
            }
            for name, value in outputs.items()
        ]
        answer = {"model_name": self.name, "model_version": "1", "outputs": rows}
        if "id" in request:
            answer["id"] = request["id"]
        return encode(answer), len(array)


def require(condition: bool, status: str, message: str) -> None:
    if not condition:
        raise Rejected(status, message)


def encode(record: Any) -> bytes:
    return json.dumps(record).encode()


def tensor(row: Dict[str, Any]) -> Dict[str, Any]:
    """A tensor of the manifest as the protocol describes one: -1 is any size."""
    shape = [-1 if size is None else size for size in row["shape"]]
    return {"name": row["name"], "datatype": TYPES[row["dtype"]], "shape": shape}


def read_body(environ: Dict[str, Any]) -> Any:
    try:
        length = int(environ.get("CONTENT_LENGTH") or 0)
    except ValueError:
        length = 0
    require(length > 0, "411 Length Required", "the request needs a Content-Length")
    require(length <= LARGEST_BODY, "413 Payload Too Large", f"{length} bytes, more than {LARGEST_BODY}")
    try:
        return json.loads(environ["wsgi.input"].read(length).decode())
    except ValueError as error:
        raise Rejected("400 Bad Request", f"the body is not JSON: {error}") from None


def only_input(request: Any) -> Dict[str, Any]:
    """The one entry of a request's `inputs`."""
    inputs = request.get("inputs") if isinstance(request, dict) else None
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise Rejected("400 Bad Request", "the request needs one entry in inputs")
    return inputs[0]


def read_tensor(row: Dict[str, Any]) -> Any:
    """The array of an entry of `inputs`."""
    for key in ("name", "datatype", "shape", "data"):
        require(key in row, "400 Bad Request", f"the input has no {key}")
    require(row["datatype"] in NAMES, "400 Bad Request", "the datatype {!r} is not known".format(row["datatype"]))
    try:
        values = np.array(row["data"])
        array = values.astype(NAMES[row["datatype"]]).reshape(row["shape"])
        whole = row["datatype"] != "UINT8" or bool((array.ravel() == values.ravel()).all())
    except (ValueError, TypeError, OverflowError) as error:
        raise Rejected("400 Bad Request", "{}: {}".format(row["name"], error)) from None
    require(whole, "400 Bad Request", "{}: pixels are whole numbers from 0 to 255".format(row["name"]))
    return array


def check_tensor(array: Any, row: Dict[str, Any]) -> None:
    fits = array.ndim == len(row["shape"]) and all(
        wanted is None or wanted == size for wanted, size in zip(row["shape"][1:], array.shape[1:])
    )
    text = "{} is {} {}, and the model takes {} {}"
    shown = ["N"] + row["shape"][1:]
    message = text.format(row["name"], array.dtype, list(array.shape), row["dtype"], shown)
    require(str(array.dtype) == row["dtype"] and fits and len(array) > 0, "400 Bad Request", message)


def create_app() -> App:
    """What gunicorn calls; it ends where the bundle cannot be served."""
    try:
        return App()
    except Refused as error:
        sys.stderr.write(f"error: {error.what}\n{error.fix}\n")
        sys.exit(GIVE_UP)

"""The HTTP runner, called as a WSGI server calls it."""

from __future__ import annotations

import io
import json
import shutil
import sys
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("prometheus_client", reason="prometheus-client is not installed: pip install prometheus-client")


@pytest.fixture(scope="module")
def serve(written: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """serve.py of a bundle, with its own metrics."""
    from prometheus_client import REGISTRY

    root = Path(shutil.copytree(written, tmp_path_factory.mktemp("served") / "bundle"))
    before = set(REGISTRY._collector_to_names)
    spec = spec_from_file_location("serve_of_a_bundle", root / "serve.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    for collector in set(REGISTRY._collector_to_names) - before:
        REGISTRY.unregister(collector)


@pytest.fixture(scope="module")
def app(serve: Any) -> Any:
    return serve.create_app()


def call(app: Any, path: str, body: Any = None) -> tuple[str, Any]:
    """(status, answer): a GET, or a POST of `body`."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    environ = {"PATH_INFO": path, "REQUEST_METHOD": "GET" if body is None else "POST"}
    if body is not None:
        environ |= {"CONTENT_LENGTH": str(len(content)), "wsgi.input": io.BytesIO(content)}  # type: ignore[dict-item]
    status: list[str] = []
    (answer,) = app(environ, lambda code, headers: status.append(code))
    return status[0], answer.decode() if path == "/metrics" else json.loads(answer or b"null")


def test_health(app: Any) -> None:
    for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/student-int8/ready"):
        assert call(app, path)[0] == "200 OK"


def test_model(app: Any) -> None:
    status, record = call(app, "/v2/models/student-int8")
    assert status == "200 OK" and record["parameters"]["labels"] == [str(i) for i in range(10)]
    assert record["inputs"] == [
        {"name": "pixels", "datatype": "UINT8", "shape": [-1, 8, 8, 1]},
        {"name": "images", "datatype": "FP32", "shape": [-1, 1, 8, 8]},
    ]
    assert record["outputs"] == [{"name": "logits", "datatype": "FP32", "shape": [-1, 10]}]


@pytest.mark.parametrize("name", ["pixels", "images"])
def test_infer(app: Any, written: Path, name: str) -> None:
    stored = np.load(written / "goldens.npz")
    array, datatype = stored["pixels"][:3], "UINT8"
    if name == "images":
        array, datatype = (array * stored["scale"] + stored["shift"]).transpose(0, 3, 1, 2), "FP32"
    row = {"name": name, "datatype": datatype, "shape": list(array.shape), "data": array.ravel().tolist()}
    status, answer = call(app, "/v2/models/student-int8/infer", {"id": "a1", "inputs": [row]})
    assert status == "200 OK", answer
    assert (answer["model_name"], answer["id"]) == ("student-int8", "a1")
    (logits,) = answer["outputs"]
    assert (logits["name"], logits["datatype"], logits["shape"]) == ("logits", "FP32", [3, 10])
    found = np.array(logits["data"]).reshape(3, 10)
    assert np.abs(found - stored["student-int8/logits"][:3]).max() <= stored["student-int8/logits.atol"]


PIXELS = {"name": "pixels", "datatype": "UINT8", "shape": [1, 8, 8, 1], "data": [0] * 64}


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        (b"not JSON", "400", "not JSON"),
        (b"", "411", "Content-Length"),
        ([1], "400", "one entry in inputs"),
        ({"inputs": []}, "400", "one entry in inputs"),
        ({"inputs": ["pixels"]}, "400", "one entry in inputs"),
        ({"inputs": [{"name": "pixels"}]}, "400", "no datatype"),
        ({"inputs": [{**PIXELS, "datatype": "BYTES"}]}, "400", "'BYTES' is not known"),
        ({"inputs": [{**PIXELS, "name": "other"}]}, "400", "no input 'other'"),
        ({"inputs": [{**PIXELS, "data": [0] * 63}]}, "400", "pixels: "),
        ({"inputs": [{**PIXELS, "data": [300] * 64}]}, "400", "pixels"),
        ({"inputs": [{**PIXELS, "data": [0.5] * 64}]}, "400", "whole numbers"),
        ({"inputs": [{**PIXELS, "shape": [1, 4, 16, 1]}]}, "400", "takes uint8"),
        ({"inputs": [{**PIXELS, "name": "images"}]}, "400", "takes float32"),
        (
            {"inputs": [{**PIXELS, "name": "images", "datatype": "FP32", "shape": [0, 1, 8, 8], "data": []}]},
            "400",
            "takes",
        ),
    ],
)
def test_bad_requests(app: Any, body: Any, status: str, text: str) -> None:
    code, answer = call(app, "/v2/models/student-int8/infer", body)
    assert code.startswith(status) and text in answer["error"]


def test_a_body_that_is_too_large(app: Any, serve: Any) -> None:
    environ = {"PATH_INFO": "/v2/models/student-int8/infer", "REQUEST_METHOD": "POST"}
    environ |= {"CONTENT_LENGTH": str(serve.LARGEST_BODY + 1)}
    status: list[str] = []
    app(environ, lambda code, headers: status.append(code))  # and it is not read
    assert status[0].startswith("413")


def test_other_paths_and_methods(app: Any) -> None:
    assert call(app, "/etc/passwd")[0].startswith("404")
    assert call(app, "/v2/models/teacher/infer", {})[0].startswith("405")
    assert call(app, "/v2/models/student-int8/infer")[0].startswith("405")


def test_metrics(app: Any) -> None:
    def value(text: str, name: str) -> float:
        return next((float(line.split()[-1]) for line in text.splitlines() if line.startswith(name)), 0.0)

    ok, bad = (f'edgekd_requests_total{{model="student-int8",status="{code}"}}' for code in (200, 400))
    _, before = call(app, "/metrics")
    call(app, "/v2/models/student-int8/infer", {"inputs": [PIXELS]})
    call(app, "/v2/models/student-int8/infer", {"inputs": []})
    _, after = call(app, "/metrics")
    assert value(after, ok) == value(before, ok) + 1 and value(after, bad) == value(before, bad) + 1
    for name, more in (("edgekd_images_total", 1), ("edgekd_request_seconds_count", 2)):
        assert value(after, name) == value(before, name) + more


def test_a_bundle_that_was_changed_is_not_served(serve: Any, capsys: pytest.CaptureFixture[str]) -> None:
    labels = Path(serve.HERE) / "labels.json"
    content = labels.read_bytes()
    labels.write_bytes(b"[]")
    try:
        with pytest.raises(SystemExit) as stopped:
            serve.create_app()
    finally:
        labels.write_bytes(content)
    assert stopped.value.code == 3 and "labels.json" in capsys.readouterr().err
    assert "serve_of_a_bundle" not in sys.modules

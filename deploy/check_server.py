"""Send a bundle's golden images to a server and compare its answers: Triton, or the bundle's own serve.py.

    python3 deploy/check_server.py BUNDLE MODEL [http://127.0.0.1:8000]

Both speak the Open Inference Protocol v2. Needs numpy. Exit code 0: the golden outputs are reached. 3: they are not.
"""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np


def check(bundle: Path, name: str, server: str) -> dict[str, float]:
    """The largest error of every output over all golden images, sent one by one. Raises SystemExit beyond `atol`."""
    manifest = json.loads((bundle / "MANIFEST.json").read_text())
    model = next((row for row in manifest["models"] if row["name"] == name), None)
    if model is None:
        sys.exit(f"{bundle} has no model {name!r}: it has {', '.join(row['name'] for row in manifest['models'])}")
    (tensor,) = model["inputs"]
    errors: dict[str, float] = {}
    with np.load(bundle / "goldens.npz") as stored:
        images = stored["pixels"]
        if tensor["dtype"] != "uint8":
            images = (images.astype(np.float32) * stored["scale"] + stored["shift"]).transpose(0, 3, 1, 2)
        for i in range(len(images)):
            for output in infer(server, name, tensor, images[i : i + 1]):
                expected = stored[f"{name}/{output['name']}"][i]
                got = np.array(output["data"], np.float64).reshape(expected.shape)
                error = float(np.abs(got - expected).max())
                errors[output["name"]] = max(errors.get(output["name"], 0.0), error)
        for output, error in errors.items():
            atol = float(stored[f"{name}/{output}.atol"])
            print(f"{name}/{output}: at most {error:.3g} from {len(images)} goldens, {atol:.3g} allowed")
            if not error <= atol:
                raise SystemExit(3)
    return errors


def infer(server: str, name: str, tensor: dict[str, Any], images: Any) -> list[dict[str, Any]]:
    """The outputs of a batch, as the protocol's JSON has them."""
    datatype = {"float32": "FP32", "uint8": "UINT8"}[tensor["dtype"]]
    row = {"name": tensor["name"], "datatype": datatype, "shape": images.shape, "data": images.ravel().tolist()}
    request = urllib.request.Request(
        f"{server}/v2/models/{name}/infer",
        json.dumps({"inputs": [row]}).encode(),
        {"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            outputs: list[dict[str, Any]] = json.load(answer)["outputs"]
            return outputs
    except urllib.error.HTTPError as error:
        sys.exit(f"{server} answers {error.code}: {error.read().decode(errors='replace')}")
    except urllib.error.URLError as error:
        sys.exit(f"{server} does not answer: {error.reason}")


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(str(__doc__))
    check(Path(sys.argv[1]), sys.argv[2], sys.argv[3] if len(sys.argv) == 4 else "http://127.0.0.1:8000")

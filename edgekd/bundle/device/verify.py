"""Is this bundle whole, is it for this device, and does it compute here what it should?

    python3 verify.py                        the bundle that this file lies in
    python3 verify.py FILE.zip --json
    python3 verify.py --hashes-only          nothing but Python 3.6 is needed

Exit code 0: yes. 2: a file was changed, is missing, too many, or the bundle is for another device. 3: the golden
outputs are not reached, or no runtime is there.
"""

import argparse
import json
import os
import sys
from typing import Any, Dict, List, Optional

sys.dont_write_bytecode = True  # a file more, and the bundle would not be as it was

import manifest  # noqa: E402
from manifest import Failed, Refused  # noqa: E402


def verify(path: str, chosen: argparse.Namespace) -> Dict[str, Any]:
    """The record of a bundle that passes. Raises Refused."""
    with manifest.opened(path) as root:
        bundle = manifest.check(root, chosen.public)
        capability = chosen.compute_capability or manifest.compute_capability()
        manifest.check_device(bundle, capability)
        record = {
            "bundle": path,
            "ok": True,
            "target": bundle["target"]["name"],
            "gpu": capability and manifest.sm(capability),
            "files": len(bundle["files"]),
            "signed": manifest.signed(root),
            "signature_checked": chosen.public is not None,
            "models": [],
        }  # type: Dict[str, Any]
        if not chosen.hashes_only:
            for model in bundle["models"]:
                record["models"].append(goldens(root, model["name"], chosen))
        record["lines"] = lines(record)
        return record


def goldens(root: str, name: str, chosen: argparse.Namespace) -> Dict[str, Any]:
    """How far the model's outputs are from the golden ones, in the unit of the output. Raises Failed beyond `atol`."""
    try:
        import numpy as np
    except ImportError:
        raise Failed("numpy is not installed", "Install it, or use --hashes-only.") from None
    from runner import GOLDENS, Runner

    runner = Runner(root, name, chosen.runtime, chosen.provider, chosen.threads)
    ran = {"model": name, "runtime": runner.session.version, "provider": runner.session.provider}
    stands_in = runner.target_runtime == "tensorrt" and runner.session.provider != "TensorRT"
    with np.load(os.path.join(root, GOLDENS)) as stored:
        found = runner.infer(stored["pixels"])
        errors = {}
        for output in runner.model["outputs"]:
            key = "{}/{}".format(name, output["name"])
            got, expected = found[output["name"]], stored[key]
            atol = float(stored[key + ".atol"]) if chosen.atol is None else chosen.atol
            if got.shape != expected.shape:
                what = f"{key} has shape {list(got.shape)}, not {list(expected.shape)}"
                raise Failed(what, f"Report it with the versions in this message: {ran}")
            error = float(np.abs(got.astype(np.float64) - expected).max())
            errors[output["name"]] = {"max_abs_error": error, "atol": atol, "n": len(expected)}
            if not error <= atol:  # NaN too
                text = "{}: an error of {:.3g} on {} golden images by {} ({}), and {:.3g} is allowed"
                what = text.format(key, error, len(expected), ran["runtime"], ran["provider"], atol)
                raise Failed(what, "Use the manifest's version of the runtime, or see goldens.json and set --atol.")
    return dict(ran, stands_in=stands_in, outputs=errors)


def lines(record: Dict[str, Any]) -> List[str]:
    """The record for people."""
    checked = "signed with that key" if record["signature_checked"] else "signed, which was not checked: --public"
    signed = f", {checked}" if record["signed"] else ""
    found = ["{} files as the manifest lists them{}".format(record["files"], signed)]
    for model in record["models"]:
        for name, error in model["outputs"].items():
            by = f"{model['runtime']} ({model['provider']})"
            figures = f"{error['max_abs_error']:.3g} from {error['n']} goldens, {error['atol']:.3g} allowed"
            found.append(f"{model['model']}/{name}: {by} is at most {figures}")
        if model["stands_in"]:
            found.append(f"{model['model']}: its engine was not run, {model['runtime']} stands in for TensorRT")
    return found + ["no GPU here to check against" if record["gpu"] is None else "GPU {}".format(record["gpu"])]


def main(arguments: Optional[List[str]] = None) -> int:
    parser = argparse.ArgumentParser(description="Verify a bundle: files, device, golden outputs.")
    here = os.path.dirname(os.path.abspath(__file__))
    parser.add_argument("bundle", nargs="?", default=here, help="directory or zip file; default: this one")
    parser.add_argument("--public", metavar="KEY.pem", help="ed25519 key that must have signed it")
    parser.add_argument("--hashes-only", action="store_true", help="run nothing")
    parser.add_argument("--runtime", choices=["onnxruntime", "tensorrt"], help="default: TensorRT if it is built")
    parser.add_argument("--provider", default="CPUExecutionProvider", help="of ONNX Runtime")
    parser.add_argument("--threads", type=int, help="of ONNX Runtime on the processor; default: all cores")
    parser.add_argument("--atol", type=float, help="allowed error; default: the one that was measured")
    parser.add_argument("--compute-capability", metavar="8.7", help="check for a GPU other than this machine's")
    parser.add_argument("--json", action="store_true", help="the record, or the error, on standard output")
    chosen = parser.parse_args(arguments)
    try:
        record = verify(chosen.bundle, chosen)
    except Refused as error:
        if chosen.json:
            print(json.dumps({"ok": False, "error": error.what, "fix": error.fix, "exit_code": error.exit_code}))
        else:
            sys.stderr.write(f"error: {error.what}\n{error.fix}\n")
        return error.exit_code
    print(json.dumps(record) if chosen.json else "\n".join(record["lines"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Build this bundle's engines with trtexec: Python 3.6 and its standard library alone. `build.sh` finds both.

What trtexec is told is in build.json, by the version of TensorRT. An engine runs on the GPU and with the version that
built it, so it is built on the device.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from typing import Any, Dict, List, Optional

sys.dont_write_bytecode = True  # a file more, and the bundle would not be as it was

import manifest  # noqa: E402
from manifest import Failed, Refused  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))


def tensorrt_version(trtexec: str) -> str:
    """ "8.5.2" of the banner `[TensorRT v8502]`, "10.3.0" of `[TensorRT v100300]`. Raises Failed."""
    try:
        done = subprocess.run([trtexec, "--help"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    except OSError as error:
        raise Failed(f"{trtexec} does not run: {error}", "Set TRTEXEC to its path.") from None
    banner = re.search(r"\[TensorRT v([0-9.]+)\]", done.stdout.decode(errors="replace"))
    if banner is None:
        raise Failed(f"{trtexec} does not say its version", "Set TRTEXEC to TensorRT's own program.")
    digits = banner.group(1)
    if "." in digits:
        return ".".join(digits.split(".")[:3])
    number, ten = int(digits), len(digits) > 4  # major * 1000 up to version 8, major * 10000 from 10 on
    major = number // (10000 if ten else 1000)
    return f"{major}.{number // 100 % (100 if ten else 10)}.{number % 100}"


def command(engine: Dict[str, Any], version: str) -> List[str]:
    """trtexec's options for this version. Raises Refused where build.json has none."""
    parts = manifest.version_parts(version)
    for row in engine["commands"]:
        if manifest.version_parts(row["from"]) <= parts and (
            row["before"] is None or parts < manifest.version_parts(row["before"])
        ):
            if "refused" in row:
                raise Refused(row["refused"], row["fix"])
            return list(row["options"])
    known = ", ".join("{} to {}".format(row["from"], row["before"] or "any later") for row in engine["commands"])
    what = f"build.json has no options for TensorRT {version}: it has {known}"
    raise Refused(what, "Export a bundle for a target with that TensorRT.")


def build(name: str, engine: Dict[str, Any], trtexec: str, version: str, bundle: Dict[str, Any]) -> None:
    """Make the engine, its log and its record, or leave none of them. Raises Failed."""
    model = next(row for row in bundle["models"] if row["name"] == name)
    plan = os.path.join(HERE, model["engine"])
    full = [trtexec] + command(engine, version)
    print("{}: {}".format(name, " ".join(full)), flush=True)
    for old in (plan, plan + ".json"):
        if os.path.exists(old):
            os.remove(old)
    start = time.time()
    with open(plan + ".log", "wb") as log:
        code = subprocess.run(full, stdout=log, stderr=subprocess.STDOUT, cwd=HERE).returncode
    if code != 0 or not os.path.isfile(plan):
        raise Failed(f"trtexec ended with exit code {code} on {name}", f"Read {plan}.log")
    record = {
        "engine_sha256": manifest.digest(HERE, model["engine"]),
        "onnx_sha256": bundle["files"][model["path"]]["sha256"],
        "compute_capability": manifest.compute_capability(),
        "tensorrt": version,
        "options": full[1:],
        "seconds": round(time.time() - start, 1),
    }
    with open(plan + ".json", "w") as file:
        json.dump(record, file, indent=2)
    print("{}: {} bytes in {} s".format(model["engine"], os.path.getsize(plan), record["seconds"]))


def main(arguments: Optional[List[str]] = None) -> int:
    parser = argparse.ArgumentParser(description="Build the engines of this bundle on the device that runs them.")
    parser.add_argument("models", nargs="*", help="default: the one that the manifest names")
    parser.add_argument("--trtexec", default="trtexec", help="its path")
    parser.add_argument("--dry-run", action="store_true", help="print the commands")
    chosen = parser.parse_args(arguments)
    try:
        bundle = manifest.check(HERE)
        with open(os.path.join(HERE, "build.json")) as file:
            engines = json.load(file)["engines"]
        names = chosen.models or [bundle["default"]]
        unknown = [name for name in names if name not in engines]
        if unknown:
            raise Refused(f"the bundle has no model {unknown[0]!r}", "It has {}.".format(", ".join(engines)))
        version = tensorrt_version(chosen.trtexec)
        manifest.check_tensorrt(bundle, version)
        for name in names if chosen.dry_run else ():
            print(" ".join([chosen.trtexec] + command(engines[name], version)))
        if chosen.dry_run:
            return 0
        capability = manifest.compute_capability()
        if capability is None:
            raise Failed("there is no GPU here, or no driver of it", "Run this on the device that runs the engine.")
        manifest.check_device(bundle, capability)
        for name in names:
            build(name, engines[name], chosen.trtexec, version, bundle)
    except Refused as error:
        sys.stderr.write(f"error: {error.what}\n{error.fix}\n")
        return error.exit_code
    print("now run: python3 verify.py")
    return 0


if __name__ == "__main__":
    sys.exit(main())

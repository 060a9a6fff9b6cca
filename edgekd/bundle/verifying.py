"""`edgekd verify`: the bundle's own verify.py, of this package and not of the bundle, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from edgekd.errors import BackendError, BundleError, ParityError, TargetError

VERIFY = Path(__file__).parent / "device" / "verify.py"
PARITY_EXIT = 3


def verify_bundle(
    path: Path,
    *,
    target: str | None = None,
    public: Path | None = None,
    runtime: str | None = None,
    provider: str | None = None,
    atol: float | None = None,
    run: bool = True,
) -> dict[str, Any]:
    """The record of a bundle, a directory or a zip file, that is whole and gives its golden outputs here.

    `target` has it checked for that device's GPU instead of this machine's; `public` is the PEM file of the key that
    must have signed it; `atol` is allowed instead of the errors that were measured; without `run` only files are
    compared. Raises BundleError, naming the file or the devices at fault; ParityError where the golden outputs are not
    reached or nothing can run it; BackendError where its runtime ends the process.
    """
    options = ["--json"]
    if target is not None:
        from edgekd.profile.devices import load_device

        device = load_device(target)
        if device.compute_capability is None:
            raise TargetError(f"target {device.name} has no GPU to check for", "Leave out --target, or name a GPU.")
        options += ["--compute-capability", f"{device.compute_capability:.1f}"]
    for option, value in (("--public", public), ("--runtime", runtime), ("--provider", provider), ("--atol", atol)):
        if value is not None:
            options += [option, str(value)]
    if not run:
        options.append("--hashes-only")
    done = subprocess.run([sys.executable, VERIFY, path, *options], capture_output=True, text=True)
    try:
        record: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        said = " | ".join(done.stderr.strip().splitlines()[-3:]) or "it said nothing"
        raise BackendError(
            f"the runtime ended with exit code {done.returncode} on {path}: {said}",
            "Use --no-run to compare files only.",
        ) from None
    if not record["ok"]:
        kind = ParityError if record["exit_code"] == PARITY_EXIT else BundleError
        raise kind(record["error"], record["fix"])
    return record

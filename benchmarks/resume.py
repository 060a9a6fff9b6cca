"""kill -9 in the middle of each stage of the quickstart, rerun, and compare with an unbroken run byte for byte.

    python benchmarks/resume.py            # about fifteen minutes on two cores

Every run uses one latency table (EDGEKD_CACHE), as two runs on one machine do.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _record import record

ROOT = Path(__file__).parent.parent
STAGES = ("teacher", "search", "distill", "quantize", "export", "profile")
FILES = (
    "search/search.json",
    "distill/model.safetensors",
    "quantize/model.safetensors",
    "export/student-fp32.onnx",
    "export/student-int8.onnx",
)


def command(out: Path) -> list[str]:
    """QAD runs whatever calibration loses, so that it can be struck."""
    config = [str(ROOT / "examples" / "quickstart.yaml"), "--set", "quantize.qad.tolerance=null"]
    return [sys.executable, "-m", "edgekd", "compress", *config, "--out", str(out)]


def seconds(out: Path, stage: str) -> float:
    return float(json.loads((out / stage / "stage.json").read_text())["seconds"])


def digest(out: Path, file: str) -> str:
    content = (out / file).read_bytes()
    if file.endswith("search.json"):  # its seconds differ; its choice may not
        content = json.dumps(json.loads(content)["chosen"]["spec"]).encode()
    return hashlib.sha256(content).hexdigest()


def kill_in(stage: str, out: Path, after: float, environment: dict[str, str]) -> bool:
    """Start the run, kill it `after` seconds into `stage`; False when the stage was over before."""
    process = subprocess.Popen(
        command(out), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    while process.poll() is None and not any(out.glob(f".{stage}-*.partial")):
        time.sleep(0.02)
    time.sleep(after)
    struck = process.poll() is None and any(out.glob(f".{stage}-*.partial"))
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return struck


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        environment = {**os.environ, "EDGEKD_CACHE": f"{directory}/cache"}
        whole = Path(directory) / "unbroken"
        subprocess.run(command(whole), env=environment, check=True, stdout=subprocess.DEVNULL)
        expected = {file: digest(whole, file) for file in FILES}
        warm = Path(directory) / "warm"  # the first run's search also filled the latency table
        subprocess.run(command(warm), env=environment, check=True, stdout=subprocess.DEVNULL)
        if any(digest(warm, file) != expected[file] for file in FILES):
            raise SystemExit("two unbroken runs differ")
        rows = []
        for stage in STAGES:
            for fraction in (0.6, 0.3, 0.1):  # on a machine that has become faster the first kill can come too late
                out = Path(directory) / f"{stage}-{fraction}"
                struck = kill_in(stage, out, seconds(warm, stage) * fraction, environment)
                if struck:
                    break
            begun = time.perf_counter()
            subprocess.run(command(out), env=environment, check=True, stdout=subprocess.DEVNULL)
            same = all(digest(out, file) == expected[file] for file in FILES)
            rows.append({"stage": stage, "killed_inside": struck, "same_bytes": same, "report": True})
            rows[-1]["report"] = (out / "report.html").is_file()
            print(f"{stage:<10} killed inside: {struck}  same bytes: {same}  rerun {time.perf_counter() - begun:.0f} s")
        record("resume", {"stages": rows})
        if not all(row["same_bytes"] and row["killed_inside"] for row in rows):
            raise SystemExit("a resumed run differs from the unbroken one, or a kill missed its stage")


if __name__ == "__main__":
    main()

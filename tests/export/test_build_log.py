"""Build logs of each kind: those of trtexec are written after its sources, that of TensorRT-RTX is a real one."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.export.tensorrt.log import last_lines, parse, trtexec_version

LOGS = Path(__file__).parent / "build_logs"


def test_trtexec_8() -> None:
    log = parse((LOGS / "trtexec-8.5.txt").read_text())
    assert (log.version, log.passed, log.errors) == ((8, 5, 2), True, ())
    assert log.figures == {
        "build_seconds": 99.5012, "scratch_bytes": 262144, "activation_bytes": 1310720,
        "peak_cpu_mib": 1, "peak_gpu_mib": 12,
    }  # fmt: skip
    assert len(log.warnings) == 2 and log.warnings[1].startswith("Calibrator is not being used")


def test_trtexec_10() -> None:
    log = parse((LOGS / "trtexec-10.3.txt").read_text())
    assert (log.version, log.passed) == ((10, 3, 0), True)
    assert log.figures["parse_seconds"] == 0.0382958 and log.figures["engine_mib"] == 1.37001
    assert log.figures["build_seconds"] == 38.6201 and log.figures["generation_seconds"] == 37.25
    assert log.figures["weights_bytes"] == 96260
    assert len(log.warnings) == 1  # said twice


def test_trtexec_11() -> None:
    log = parse((LOGS / "trtexec-11.1.txt").read_text())
    assert (log.version, log.passed, log.warnings) == ((11, 1, 0), True, ())
    assert log.figures["build_seconds"] == 9.75 and log.figures["activation_bytes"] == 8290304


def test_tensorrt_rtx() -> None:
    log = parse((LOGS / "tensorrt-rtx-1.7.txt").read_text())
    assert (log.version, log.passed, log.errors) == (None, None, ())
    assert log.figures == {
        "scratch_bytes": 19267584, "activation_bytes": 19267584, "weights_bytes": 84870,
        "generation_seconds": 0.157897, "peak_cpu_mib": 0, "peak_gpu_mib": 4,
    }  # fmt: skip
    assert log.warnings == tuple(
        f"(foreignNode) Converting conv {what} scales to fp32." for what in ("activation", "weight")
    )


def test_a_refusal_says_why() -> None:
    text = (LOGS / "trtexec-8.4-refused.txt").read_text()
    assert (parse(text).version, parse(text).passed) == ((8, 4, 1), False)
    assert "Error[3]: conv1.weight: invalid weights type of Int8" in last_lines(text)


def test_a_log_that_breaks_off() -> None:
    text = "".join((LOGS / "trtexec-10.3.txt").read_text().splitlines(keepends=True)[:6])
    log = parse(text)
    assert (log.version, log.passed) == ((10, 3, 0), None) and log.figures == {"parse_seconds": 0.0382958}
    assert last_lines(text, 1).endswith("Profiling results in this builder pass will not be stored.")
    assert last_lines("") == "it said nothing"


@pytest.mark.parametrize(
    ("digits", "version"),
    [("8201", (8, 2, 1)), ("8601", (8, 6, 1)), ("9300", (9, 3, 0)), ("101303", (10, 13, 3)), ("110401", (11, 4, 1))],
)
def test_versions_in_the_banner(digits: str, version: tuple[int, int, int]) -> None:
    assert trtexec_version(digits) == version

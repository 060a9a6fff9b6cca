from __future__ import annotations

import io
import json
import re
import shutil
import xml.etree.ElementTree as ET
from math import comb
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from sample_report import STAGES, latency_row, write_run

from edgekd.errors import RunDirectoryError
from edgekd.intervals import median_interval
from edgekd.report import build_report, charts, collect, remarks, units, verdict
from edgekd.report.html import SENSITIVE, lint_lines, render
from edgekd.report.terminal import latency_table, ledger_table, remark_lines

TARGETS = ("", *STAGES)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return collect(write_run(tmp_path_factory.mktemp("run")))


@pytest.fixture(scope="module")
def page(report: dict[str, Any]) -> str:
    return render(report)


def parse(page: str) -> ET.Element:
    """The page is XML as well, so a parser finds every tag that is not closed and every `<` that is not escaped."""
    return ET.fromstring(page)


def text(page: str) -> str:
    return " ".join("".join(parse(page).itertext()).replace("\u00a0", " ").split())


def test_the_keys_are_stable(report: dict[str, Any]) -> None:
    contract = {"teacher", "search", "ledger", "latency", "stages"}
    beside = {"schema", "target", "data", "verdict", "distill", "quantize", "parity", "lint", "fidelity"}
    beside |= {"conditions", "config"}
    assert set(report) == contract | beside
    assert set(report["teacher"]) == {"name", "top1", "params", "macs"}
    assert {"space", "scorer", "scored", "seconds", "chosen", "ranking"} <= set(report["search"])
    assert {"spec", "params", "macs", "latency_ms"} <= set(report["search"]["chosen"])
    ledger = {"artifact", "metric", "value", "n", "agreement_with_teacher", "size_bytes", "runtime", "path"}
    latency = {"artifact", "target", "backend", "precision", "batch", "p50_ms", "p90_ms", "p99_ms", "mean_ms"}
    latency |= {"throughput_per_s", "n", "measured", "conditions"}
    assert all(ledger <= set(row) for row in report["ledger"])
    assert all(latency <= set(row) for row in report["latency"])
    assert all({"name", "seconds", "cached", "fingerprint"} <= set(row) for row in report["stages"])


def test_the_verdict_compares_what_ships(report: dict[str, Any]) -> None:
    found = report["verdict"]
    assert (found["artifact"], found["batch"], found["threads"]) == ("onnx-int8", 1, 1)
    assert (found["teacher_top1"], found["top1"]) == (0.9437, 0.9169)
    assert found["drop"] == pytest.approx(0.0268)
    assert found["speedup"] == pytest.approx(9.41 / 1.183)
    assert found["size_ratio"] == pytest.approx(3_448_211 / 402_113)
    assert report["teacher"]["top1"] == 0.9437


def test_an_estimate_is_no_verdict() -> None:
    rows = [latency_row("teacher", 1, 9.0), latency_row("onnx-int8", 1, 1.0, measured=False)]
    found = verdict([], [*rows, latency_row("onnx-int8", 32, 30.0)])
    assert found["p50_ms"] is found["speedup"] is None
    assert verdict([], [*rows, latency_row("onnx-int8", 1, 2.0)])["speedup"] == 4.5


def turns_of(artifact: str, turns: list[float], batch: int = 1) -> dict[str, Any]:
    row = latency_row(artifact, batch, sorted(turns)[len(turns) // 2])
    return {**row, "turn_p50_ms": turns}


FP32 = [1.00, 1.01, 1.02, 1.00, 1.10, 1.01, 1.00, 1.02, 1.01, 1.00]


@pytest.mark.parametrize(
    ("ratios", "faster", "said"),
    [
        ([0.95] * 10, True, None),
        ([1.04, 1.05] * 5, False, "INT8 does not pay on this device: FP32 is 4.5 % faster at batch 1."),
        ([2.5] * 10, False, "INT8 does not pay on this device: FP32 is 2.5× as fast at batch 1."),
        ([0.98, 1.03] * 5, False, "not faster than FP32 beyond noise at batch 1 (time −2 to +3 %, 95 % interval)"),
        ([0.98] * 7 + [1.2] * 3, False, "not faster than FP32 beyond noise"),
        ([0.98] * 9 + [1.2], True, None),
        ([1.1] * 5, False, "FP32 is 10 % faster at batch 1 (no turns to compare"),
    ],
)
def test_int8_pays_where_it_is_faster_beyond_noise(ratios: list[float], faster: bool, said: str | None) -> None:
    fp32 = FP32[: len(ratios)]
    int8 = [ratio * one for ratio, one in zip(ratios, fp32, strict=True)]
    found = verdict([], [turns_of("onnx-fp32", fp32), turns_of("onnx-int8", int8)])
    (row,) = found["students"]
    assert (row["artifact"], row["against"], row["batch"], row["faster"]) == ("onnx-int8", "onnx-fp32", 1, faster)
    assert (row["ci95"] is None) == (len(ratios) < 6)
    sentence = remarks.speed(found)
    assert sentence is None if said is None else said in str(sentence)


def test_turns_are_compared_side_by_side() -> None:
    """The medians of the whole are far apart on a busy machine, the turns are not."""
    fp32, int8 = [1.0, 1, 1, 1, 1, 1, 2, 2, 2, 2], [1.01, 0.99, 1.01, 0.99, 2.2, 2.4, 2.02, 1.98, 2.02, 1.98]
    (row,) = verdict([], [turns_of("onnx-fp32", fp32), turns_of("onnx-int8", int8)])["students"]
    assert row["ratio"] == pytest.approx(1.01) and row["ci95"] == pytest.approx([0.99, 2.2])
    other = {**turns_of("onnx-int8", int8), "conditions": {"turns": {"runs": 20, "models": ["onnx-int8"]}}}
    (row,) = verdict([], [turns_of("onnx-fp32", fp32), other])["students"]
    assert row["ratio"] == pytest.approx(1.98) and row["ci95"] is None


def test_the_fastest_other_precision_is_named_and_batches_that_pay_are_not() -> None:
    small = [turns_of("onnx-fp32", [1.1] * 10), turns_of("onnx-int8", [1.2] * 10)]
    half = {**turns_of("onnx-fp16", [1.0] * 10), "precision": "fp16"}
    large = [turns_of("onnx-fp32", [9.0] * 10, 32), turns_of("onnx-int8", [3.0] * 10, 32)]
    found = verdict([], [*small, half, *large])
    assert remarks.speed(found) == "INT8 does not always pay on this device: FP16 is 20 % faster at batch 1."
    guess = {**half, "measured": False}
    elsewhere = {**half, "target": "another"}
    assert remarks.speed(verdict([], [*small, guess, elsewhere])) == (
        "INT8 does not pay on this device: FP32 is 9.1 % faster at batch 1."
    )


@pytest.mark.parametrize("n", range(6, 40))
def test_the_interval_of_a_median_is_the_narrowest_that_covers_it(n: int) -> None:
    """However many of n values lie below the median: those for which the interval holds it have 95 % together."""

    def coverage(low: int, high: int) -> float:
        return sum(comb(n, below) for below in range(n + 1) if low < below <= high) / 2**n

    low, high = (int(bound) for bound in median_interval(range(n)) or ())
    assert coverage(low, high) >= 0.95 > coverage(low + 1, high - 1)
    assert median_interval(range(5)) is None


def test_build_writes_what_it_returns(tmp_path: Path) -> None:
    report = build_report(write_run(tmp_path))
    assert json.loads((tmp_path / "report.json").read_text()) == report
    assert (tmp_path / "report.html").read_text() == render(report)


def test_same_report_same_bytes(report: dict[str, Any], page: str) -> None:
    assert render(json.loads(json.dumps(report))) == page


def test_the_page_needs_nothing_else(page: str) -> None:
    root = parse(page)
    assert root.tag == "html"
    assert not re.search(r"https?:|//|@import|url\((?!#)", page.replace("</", "<"))
    assert not {"script", "link", "img", "iframe", "object"} & {element.tag for element in root.iter()}
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    assert all(reference in ids for reference in re.findall(r'(?:href="|url\()#([^")]+)', page))


def test_the_page_shows_the_figures(page: str) -> None:
    shown = text(page)
    for figure in (
        "91.69 %",
        "−2.68 pt",
        "91.13 – 92.22",
        "8.0×",
        "8.6×",
        "1.18 ms",
        "402 kB",
        "onnxruntime-cpu 1.31.1",
    ):
        assert figure in shown
    for figure in ("21/21", "10,000", "unsteady: one run", "26 min 44 s", "cached", "4.1e−06", "over a limit"):
        assert figure in shown
    drawn = ("accuracy", "size", "search", "training", *("latency", "distribution") * 2, "batches", *("blocks",) * 3)
    assert len(parse(page).findall(".//svg")) == len(drawn)


def test_a_name_is_text_and_never_markup(tmp_path: Path) -> None:
    name = "<script>alert('x')</script> & \"$\\alpha$ 数据"
    page = render(collect(write_run(tmp_path, data=name)))
    assert "<script" not in page and name in text(page)


@pytest.mark.parametrize("until", TARGETS)
def test_a_run_that_stopped_says_what_has_not_run(tmp_path: Path, until: str) -> None:
    report = collect(write_run(tmp_path, until))
    shown = text(render(report))
    done = STAGES[: STAGES.index(until) + 1] if until else ()
    for stage in STAGES:
        named = "Student search Space" in shown if stage == "search" else f"{stage.capitalize()}: not run." not in shown
        assert named == (stage in done), stage
    assert ("the run is not complete" in shown) == (until not in ("export", "profile"))
    assert bool(report["latency"]) == (until == "profile")
    for draw in (ledger_table, latency_table):
        assert ("not run" in str(draw(report).title)) == (not report["ledger" if draw is ledger_table else "latency"])


def test_a_directory_of_other_inputs_is_not_reported(tmp_path: Path) -> None:
    write_run(tmp_path)
    (tmp_path / "profile" / "stage.json").write_text(json.dumps({"name": "profile", "fingerprint": "old"}))
    report = collect(tmp_path)
    assert report["latency"] == [] and report["ledger"]
    shutil.rmtree(tmp_path / "search")
    assert collect(tmp_path)["search"] is None


def test_no_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match=r"run\.json"):
        build_report(tmp_path)
    assert not list(tmp_path.iterdir())
    write_run(tmp_path)
    (tmp_path / "export" / "ledger.json").write_text("[{")
    with pytest.raises(RunDirectoryError, match=r"ledger\.json"):
        build_report(tmp_path)


def test_an_estimate_is_marked_and_not_drawn(report: dict[str, Any], page: str) -> None:
    unknown = dict.fromkeys(("p90_ms", "p95_ms", "p99_ms"))
    guess = {**latency_row("engine-int8", 1, 0.5, measured=False), **unknown}
    marked = render({**report, "latency": [*report["latency"], guess]})
    (row,) = [row for row in parse(marked).iter("tr") if row.get("class") == "estimate"]
    cells = [" ".join("".join(cell.itertext()).split()) for cell in row]
    assert cells[:5] == ["engine-int8", "1", "≈ 0.500 ms", units.DASH, units.DASH] and "estimate" in cells
    assert [*re.findall(r"<svg.*?</svg>", marked, re.S)] == [*re.findall(r"<svg.*?</svg>", page, re.S)]
    with pytest.raises(AssertionError, match="never drawn"):
        charts.latency([guess], 1)


def test_a_student_that_was_named_has_no_ranking(report: dict[str, Any]) -> None:
    chosen = {**report["search"]["chosen"], "score": None}
    named = {**report["search"], "scorer": None, "scored": 0, "chosen": chosen, "ranking": [chosen], "baselines": []}
    shown = text(render({**report, "search": {**named, "tau_params": None, "latency_limit_ms": None}}))
    assert "the student was named, nothing was scored" in shown


def test_what_runs_in_float_stands_out(report: dict[str, Any]) -> None:
    from edgekd.quantize.lint import LintReport

    record = LintReport((19, 20), (9, 9), (0, 0), ("Softmax", "Mul+Add"), ()).to_json()
    assert lint_lines(record) == [
        ("convolutions INT8", ["19/20"], "1 float"),
        ("adds INT8", ["9/9"], ""),
        ("linear layers INT8", ["none in the graph"], ""),
        ("float islands", ["Softmax", "Mul+Add"], ""),
    ]
    page = render({**report, "lint": {"onnx-int8": record}})
    assert "part float nothing is wrong with it" in text(page) and "19/20 1 float" in text(page)
    assert not marked_bad(page)
    assert "all in integers nothing is wrong with it" in text(render(report))


def test_what_is_wrong_with_a_graph_comes_first(report: dict[str, Any]) -> None:
    from edgekd.quantize.lint import LintReport

    record = LintReport((21, 21), (9, 9), (1, 1), (), ("conv1: its scale is 0", "fc: <float> bias")).to_json()
    changed = {**report, "lint": {"onnx-int8": record}}
    page = render(changed)
    assert marked_bad(page) == ["2 problems", "conv1: its scale is 0 fc: <float> bias"]
    shown = text(page)
    assert shown.index("2 problems it will not run as it should") < shown.index("its scale is 0") < shown.index("21/21")
    first, second, last = remark_lines(changed)
    assert (first.plain, str(first.style)) == ("wrong: conv1: its scale is 0", "red")
    assert second.plain == "wrong: fc: <float> bias" and last.plain.endswith("; it will not run as it should")


def marked_bad(page: str) -> list[str]:
    """The texts of all elements that stand out as bad."""
    found = [element for element in parse(page).iter() if "bad" in (element.get("class") or "").split()]
    return [" ".join(" ".join(element.itertext()).split()) for element in found]


def test_what_is_simulated_is_said_in_red(tmp_path: Path) -> None:
    why = "4-bit weights in INT8 storage: no runtime executes them as such"
    skipped = "PTQ is 0.03 points below FP32, and 0.1 are allowed"
    more = {"simulated": why, "measured_with": "onnxruntime-reference", "qad_skipped": skipped}
    report = collect(write_run(tmp_path, kept_float=["conv1", "fc"], **more))
    page = render(report)
    reference = "accuracy by ONNX Runtime unoptimised on this machine: the target's runtime is not here."
    assert marked_bad(page) == ["simulated", f"{why}.", "simulated", reference]
    assert f"QAD skipped {skipped}." in text(page) and "kept float conv1, fc." in text(page)
    lines = [(line.plain, str(line.style)) for line in remark_lines(report)]
    assert lines[:2] == [(f"simulated: {why}.", "red"), (f"simulated: {reference}", "red")]
    assert lines[2:4] == [(f"QAD skipped: {skipped}.", ""), ("kept float: conv1, fc.", "")]


def test_a_run_without_them_has_no_remarks(report: dict[str, Any], page: str) -> None:
    assert remarks.quantization(report) == [] and remarks.speed(report["verdict"]) is None
    assert not marked_bad(page) and "Mixed precision" not in text(page)
    (line,) = remark_lines(report)
    assert line.plain.startswith("Student, INT8 ONNX: 21/21 convolutions INT8")


def test_where_int8_does_not_pay_the_page_and_the_terminal_say_so(report: dict[str, Any]) -> None:
    latency = [turns_of("teacher", [9.0] * 10), turns_of("onnx-fp32", [1.0] * 10), turns_of("onnx-int8", [1.04] * 10)]
    slow = {**report, "latency": latency, "verdict": verdict(report["ledger"], latency)}
    said = "INT8 does not pay on this device: FP32 is 4 % faster at batch 1."
    assert marked_bad(render(slow)) == [said]
    assert (remark_lines(slow)[0].plain, str(remark_lines(slow)[0].style)) == (said, "red")


def test_mixed_precision_is_drawn(tmp_path: Path) -> None:
    report = collect(write_run(tmp_path, budget=0.001))
    mixed = report["quantize"]["mixed"]
    page = render(report)
    assert render(json.loads(json.dumps(report))) == page
    assert len(parse(page).findall(".//svg")) == 13
    rows = re.findall(r'<th scope="row">([\w.]+)( <span class="tag good">float</span>)?</th><td class="num">[+−]', page)
    gains = sorted(mixed["layers"], key=lambda row: -row["kl"])
    assert [name for name, _ in rows] == [row["layer"] for row in gains[:SENSITIVE]]
    assert {name for name, float_ in rows if float_} == set(mixed["chosen"]["kept_float"])
    chosen = mixed["chosen"]
    figures = (len(chosen["kept_float"]), units.ms(chosen["latency_ms"]), units.percent(chosen["val_top1"]))
    assert "The fastest within the budget is taken: {} float, {}, {}".format(*figures) in text(page)
    assert f"{len(gains) - SENSITIVE} more layers" in text(page)


def test_a_student_that_is_all_float_is_not_called_quantized(tmp_path: Path) -> None:
    report = collect(write_run(tmp_path, budget=0.001))
    assert [remark.label for remark in remarks.quantization(report)] == ["kept float"]
    report["quantize"]["kept_float"] = [row["layer"] for row in report["quantize"]["mixed"]["layers"]]
    first, _ = remarks.quantization(report)
    assert first.bad and first.text == "every one of 21 layers is kept float: nothing is quantized."


def test_the_front_is_marked_with_its_float_layers(tmp_path: Path) -> None:
    quantize = collect(write_run(tmp_path, budget=0.001))["quantize"]
    svg = charts.mixed(quantize["mixed"], quantize["fp32"]["val_top1"])
    assert svg == charts.mixed(json.loads(json.dumps(quantize["mixed"])), quantize["fp32"]["val_top1"])
    texts = [("".join(element.itertext())).strip() for element in ET.fromstring(svg).iter("text")]
    counts = [str(len(point["kept_float"])) for point in quantize["mixed"]["front"]]
    assert [shown for shown in texts if shown.isdigit()] == counts
    assert {"FP32", "measured", "front", "chosen"} <= set(texts)


def test_a_budget_that_nothing_meets_is_said(tmp_path: Path) -> None:
    report = collect(write_run(tmp_path, budget=0.0))
    assert not report["quantize"]["mixed"]["within_budget"]
    over, kept = remarks.quantization(report)
    lost = 100 * (report["quantize"]["fp32"]["val_top1"] - report["quantize"]["mixed"]["chosen"]["val_top1"])
    assert over.bad and not kept.bad and lost > 0
    assert over.text.startswith("every choice of float layers loses more validation top-1 than 0.00 points")
    assert f"which loses {lost:.2f} after calibration" in over.text
    assert "None is within the budget; the most accurate is taken" in text(render(report))


def test_without_export_the_lint_is_that_of_the_quantized_graph(tmp_path: Path) -> None:
    lint = collect(write_run(tmp_path, "quantize"))["lint"]
    assert list(lint) == ["student-qad"] and lint["student-qad"]["conv"] == [21, 21]


def test_terminal_tables(report: dict[str, Any]) -> None:
    rows = [*report["latency"], latency_row("engine-int8", 1, 0.5, measured=False)]
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(ledger_table(report), latency_table({**report, "latency": rows}))
    shown = console.export_text()
    for figure in ("10,000 test images", "91.69 %", "91.13 – 92.22", "402 kB", "1.18 ms", "~0.500 ms", "estimate"):
        assert figure in shown


@pytest.mark.parametrize(
    ("form", "value", "shown"),
    [
        (units.ms, 0.0421, "0.042 ms"),
        (units.ms, 1.183, "1.18 ms"),
        (units.ms, 288.1, "288 ms"),
        (units.ms, None, units.DASH),
        (units.size, 402_113, "402 kB"),
        (units.size, 3_448_211, "3.45 MB"),
        (units.size, 12, "12 B"),
        (units.count, 272_474, "272 k"),
        (units.seconds, 59.96, "60.0 s"),
        (units.seconds, 1604.2, "26 min 44 s"),
        (units.seconds, 7300, "2 h 01 min"),
        (units.points, -0.0268, "−2.68 pt"),
        (units.percent, 0.91694, "91.69 %"),
    ],
)
def test_figures_have_units(form: Any, value: float | None, shown: str) -> None:
    assert form(value) == shown

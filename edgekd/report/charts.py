"""Charts as inline SVG: same report, same bytes; colours are the page's CSS variables, text takes the page's font."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from edgekd.report import units

# matplotlib wants colours, the page wants variables that follow light and dark: these stand in until `_inline`.
INK, MUTED, LINE, ACCENT, SOFT, WARM = (f"#0{i}0{i}0{i}" for i in range(1, 7))
VARIABLES = {INK: "ink", MUTED: "muted", LINE: "line", ACCENT: "accent", SOFT: "soft", WARM: "warm"}


def colour_of(artifact: str) -> str:
    """The quantized graph that ships stands out."""
    if artifact == "teacher":
        return MUTED
    return ACCENT if artifact.startswith("onnx-") and artifact != "onnx-fp32" else SOFT


# A user's matplotlibrc does not change the report; the backend is not touched, for a notebook may be using one.
DEFAULTS: dict[Any, Any] = {
    key: matplotlib.rcParamsDefault[key] for key in matplotlib.rcParamsDefault if key != "backend"
}
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 10,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.titlesize": 10,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": INK,
    "text.color": INK,
    "lines.linewidth": 1.6,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "path.simplify": False,
}
AMONG = ("largest legal", "random, equally fast")  # they lie among the candidates: a label there hides them
BLOCKS = 20  # bars of a chart by block
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (2, 2)))  # two artifacts may share a colour
WIDTH = 4.8  # inches: the text stays readable when the page is 400 px wide


def accuracy(rows: Sequence[dict[str, Any]]) -> str:
    """Top-1 of every artifact in percent, with its 95 % interval."""
    with _figure("accuracy", 0.75 + 0.3 * len(rows)) as (figure, out):
        ax = figure.subplots()
        for y, row in enumerate(rows):
            low, high = (100 * bound for bound in row["ci95"])
            colour = colour_of(row["artifact"])
            ax.plot([low, high], [y, y], color=colour, linewidth=2.2, solid_capstyle="butt")
            ax.plot(100 * row["value"], y, "o", color=colour, markersize=6)
            _label(ax, f"{100 * row['value']:.2f}", high, y)
        _rows(ax, rows)
        ax.margins(x=0.2)
        ax.set_xlabel("top-1 in %, with 95 % interval")
    return out[0]


def size(rows: Sequence[dict[str, Any]]) -> str:
    """Bytes on disk of every artifact."""
    with _figure("size", 0.75 + 0.3 * len(rows)) as (figure, out):
        ax = figure.subplots()
        for y, row in enumerate(rows):
            ax.barh(y, row["size_bytes"] / 1e6, height=0.5, color=colour_of(row["artifact"]))
            _label(ax, units.size(row["size_bytes"]), row["size_bytes"] / 1e6, y)
        _rows(ax, rows)
        ax.set_xlim(0, max(row["size_bytes"] for row in rows) / 1e6 * 1.25)
        ax.set_xlabel("file size in MB")
    return out[0]


def latency(rows: Sequence[dict[str, Any]], batch: int) -> str:
    """p50 as a bar, p90 and p99 as ticks, of the rows at this batch size. Only measured rows may come here."""
    assert all(row["measured"] for row in rows), "an estimate is never drawn as a measurement"
    rows = [row for row in rows if row["batch"] == batch]
    with _figure(f"latency-{batch}", 0.75 + 0.32 * len(rows)) as (figure, out):
        ax = figure.subplots()
        for y, row in enumerate(rows):
            ax.barh(y, row["p50_ms"], height=0.56, color=colour_of(row["artifact"]))
            ax.plot([row["p50_ms"], row["p99_ms"]], [y, y], color=INK, linewidth=0.8)
            ax.plot([row["p90_ms"], row["p99_ms"]], [y, y], "|", color=INK, markersize=7, markeredgewidth=0.9)
            _label(ax, units.ms(row["p50_ms"]), row["p99_ms"], y)
        _rows(ax, rows)
        ax.set_xlim(0, max(row["p99_ms"] for row in rows) * 1.25)
        ax.set_xlabel(f"ms a batch of {batch}")
    return out[0]


def distribution(rows: Sequence[dict[str, Any]], batch: int) -> str:
    """Share of calls that took no longer, of the measured rows at this batch size that kept their quantiles."""
    rows = [row for row in rows if row["batch"] == batch and row.get("quantiles_ms")]
    assert all(row["measured"] for row in rows), "an estimate is never drawn as a measurement"
    with _figure(f"distribution-{batch}", 2.6) as (figure, out):
        ax = figure.subplots()
        ax.grid(True)
        for row, dashes in zip(rows, cycle(DASHES), strict=False):
            times = row["quantiles_ms"]
            shares = [100 * i / (len(times) - 1) for i in range(len(times))]
            style: dict[str, Any] = {
                "color": colour_of(row["artifact"]),
                "drawstyle": "steps-post",
                "linestyle": dashes,
            }
            ax.plot(times, shares, label=units.artifact(row["artifact"]), **style)
        _logarithmic(ax, "x", [time for row in rows for time in row["quantiles_ms"]])
        ax.set_ylim(0, 102)
        ax.set_xlabel(f"ms a batch of {batch}, every call counted")
        ax.set_ylabel("calls in %")
        ax.tick_params(axis="y", labelcolor=MUTED)
        figure.legend(loc="outside upper left", ncols=2, frameon=False, handlelength=1.8, columnspacing=0.9)
    return out[0]


def batches(rows: Sequence[dict[str, Any]]) -> str:
    """p50 of measured rows by batch size, per image; the band reaches from there to p99."""
    assert all(row["measured"] for row in rows), "an estimate is never drawn as a measurement"
    names = list(dict.fromkeys(row["artifact"] for row in rows))
    with _figure("batches", 2.6) as (figure, out):
        ax = figure.subplots()
        ax.grid(True)
        for name, dashes in zip(names, cycle(DASHES), strict=False):
            own = sorted((row for row in rows if row["artifact"] == name), key=lambda row: int(row["batch"]))
            sizes = [row["batch"] for row in own]
            p50, p99 = ([row[key] / row["batch"] for row in own] for key in ("p50_ms", "p99_ms"))
            ax.plot(sizes, p50, marker="o", markersize=3.5, color=colour_of(name), linestyle=dashes, label=name)
            ax.fill_between(sizes, p50, p99, color=colour_of(name), alpha=0.18, linewidth=0)
        ax.set_xscale("log", base=2)
        sizes = sorted({row["batch"] for row in rows})
        ax.set_xticks(sizes, [str(size) for size in sizes])
        ax.xaxis.set_minor_locator(NullLocator())
        _logarithmic(ax, "y", [row[key] / row["batch"] for row in rows for key in ("p50_ms", "p99_ms")])
        ax.set_xlabel("images a call")
        ax.set_ylabel("ms an image, p50 to p99")
        ax.tick_params(axis="y", labelcolor=MUTED)
        handles, labels = ax.get_legend_handles_labels()
        labels = [units.artifact(label) for label in labels]
        figure.legend(handles, labels, loc="outside upper left", ncols=2, frameon=False, columnspacing=0.9)
    return out[0]


def blocks(row: dict[str, Any], name: str) -> str:
    """Time of every block in the order in which they run; of many the largest, and the rest together."""
    found = row["blocks"]
    if len(found) > BLOCKS:
        kept = sorted(found, key=lambda block: -block["ms"])[: BLOCKS - 1]
        rest = [block for block in found if block not in kept]
        together = {
            "block": f"{len(rest)} more",
            "ms": sum(b["ms"] for b in rest),
            "share": sum(b["share"] for b in rest),
        }
        found = [*(block for block in found if block in kept), together]
    with _figure(name, 0.75 + 0.24 * len(found)) as (figure, out):
        ax = figure.subplots()
        for y, block in enumerate(found):
            ax.barh(y, block["ms"], height=0.6, color=colour_of(row["artifact"]))
            _label(ax, f"{100 * block['share']:.0f} %", block["ms"], y)
        ax.set_yticks(range(len(found)), [block["block"] for block in found])
        _horizontal(ax, len(found))
        ax.set_xlim(0, max(block["ms"] for block in found) * 1.2 or 1)
        ax.set_xlabel(f"ms a batch of {row['batch']}, profiled apart from the timed calls")
    return out[0]


def roofline(rows: Sequence[dict[str, Any]]) -> str:
    """Operations a second that measured rows reached, under what the device's datasheet allows for their traffic."""
    assert all(row["measured"] for row in rows), "an estimate is never drawn as a measurement"
    places = [(row["roofline"]["gops"] * 1e3 / row["roofline"]["mbytes"], reached_tops(row)) for row in rows]
    roofs = {(row["roofline"]["peak_tops"], row["roofline"]["bandwidth_gbs"]) for row in rows}
    ridges = [1e3 * peak / bandwidth for peak, bandwidth in roofs]
    low = min(*(x for x, _ in places), *ridges) / 3
    high = max(*(x for x, _ in places), *ridges) * 4
    with _figure("roofline", 2.8) as (figure, out):
        ax = figure.subplots()
        ax.grid(True)
        for peak, bandwidth in sorted(roofs):
            ridge = 1e3 * peak / bandwidth
            ax.plot([low, ridge, high], [low * bandwidth / 1e3, peak, peak], color=MUTED, linewidth=1.2)
            ax.annotate(f"{peak:.3g} TOP/s", (high, peak), (-4, 3), textcoords="offset points", ha="right", fontsize=9)
        for row, (x, y) in zip(rows, places, strict=True):
            ax.plot([x], [y], "o", markersize=5, color=colour_of(row["artifact"]))
            text, right = f"{units.artifact(row['artifact'])}, batch {row['batch']}", x * x > low * high
            offset, side = ((-6, -3), "right") if right else ((6, -3), "left")
            ax.annotate(text, (x, y), offset, textcoords="offset points", ha=side, fontsize=9)
        for axis in ("x", "y"):
            _logarithmic(ax, axis, (1, 100))
        ax.set_xlim(low, high)
        ax.set_ylim(min(y for _, y in places) / 4, 3 * max(peak for peak, _ in roofs))
        ax.set_xlabel("operations a byte of the graph's kernels")
        ax.set_ylabel("TOP/s")
        ax.tick_params(axis="y", labelcolor=MUTED)
    return out[0]


def reached_tops(row: dict[str, Any]) -> float:
    """Operations a second of a measured row with a `roofline`, in TOP/s."""
    return float(row["roofline"]["gops"]) / float(row["p50_ms"])


def search(search: dict[str, Any]) -> str:
    """Score against latency of the ranking, the Pareto front, the baselines, the chosen student and the limit.

    A filled mark is a latency measured on the whole graph, a hollow one the sum of its operators'.
    """
    with _figure("search", 3.1) as (figure, out):
        ax = figure.subplots()
        ax.grid(True)

        def draw(rows: Sequence[dict[str, Any]], marker: str, label: str, **style: Any) -> None:
            for measured, fill in ((True, style["color"]), (False, "none")):
                points = [(r["latency_ms"], r["score"]) for r in _placed(rows) if bool(r.get("measured")) == measured]
                if points:
                    ax.plot(*zip(*points, strict=True), marker, markerfacecolor=fill, **style)
            if _placed(rows):
                ax.plot([], [], marker, label=label, **style)

        draw(search["ranking"], "o", "candidates", color=SOFT, markersize=4.5)
        front = [(row["latency_ms"], row["score"]) for row in _placed(search.get("pareto") or [])]
        if len(front) > 1:
            ax.plot(*zip(*front, strict=True), color=SOFT, linewidth=0.9, drawstyle="steps-post", label="Pareto front")
        baselines = search.get("baselines") or []
        draw(baselines, "D", "baselines", color=WARM, markersize=5.5)
        for row in _placed(baselines):
            if row.get("name") not in AMONG:
                place = (row["latency_ms"], row["score"])
                ax.annotate(name_of(row, True), place, (0, 7), textcoords="offset points", ha="center", fontsize=9)
        if search.get("chosen"):
            draw([search["chosen"]], "*", "chosen", color=ACCENT, markersize=13)
        if search.get("latency_limit_ms") is not None:
            ax.axvline(search["latency_limit_ms"], color=INK, linewidth=0.9, linestyle=(0, (4, 3)), label="limit")
        ax.set_xlabel("latency in ms, batch 1; hollow: predicted from operators")
        ax.set_ylabel(f"{search.get('scorer') or ''} score".strip())
        ax.tick_params(axis="y", labelcolor=MUTED)
        ax.margins(x=0.1, y=0.15)
        figure.legend(loc="outside upper left", ncols=4, frameon=False, handletextpad=0.2, columnspacing=0.9)
    return out[0]


def training(history: Sequence[dict[str, Any]]) -> str:
    """Validation top-1 and training loss by epoch."""
    panels = [
        (name, unit, [(row["epoch"], row[key] * scale) for row in history if row.get(key) is not None], colour)
        for name, key, unit, scale, colour in (
            ("validation top-1", "val_top1", "%", 100, ACCENT),
            ("training loss", "loss", "", 1, MUTED),
        )
    ]
    with _figure("training", 2.9) as (figure, out):
        axes = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        for ax, (name, unit, points, colour) in zip(axes, panels, strict=True):
            ax.grid(True)
            ax.set_title(f"{name}, {unit}" if unit else name)
            ax.tick_params(axis="y", labelcolor=MUTED)
            if points:
                ax.plot(*zip(*points, strict=True), "-o", color=colour, markersize=3)
                ax.annotate(
                    f"{points[-1][1]:.4g}", points[-1], (0, 6), textcoords="offset points", ha="right", fontsize=9.5
                )
            ax.margins(y=0.2)
        axes[-1].set_xlabel("epoch")
        axes[-1].xaxis.get_major_locator().set_params(integer=True)
    return out[0]


def mixed(found: dict[str, Any], fp32_top1: float) -> str:
    """Validation top-1 against latency of every assignment that was measured, the front, the chosen one and FP32.

    The front counts the KL as well, so a point of it may lie below another here.
    """
    with _figure("mixed", 3.1) as (figure, out):
        ax = figure.subplots()
        ax.grid(True)

        def places(points: Sequence[dict[str, Any]]) -> list[tuple[float, float]]:
            return [(point["latency_ms"], 100 * point["val_top1"]) for point in points]

        ax.axhline(100 * fp32_top1, color=INK, linewidth=0.9, linestyle=(0, (4, 3)), label="FP32")
        ax.plot(*zip(*places(found["points"]), strict=True), "o", color=SOFT, markersize=4.5, label="measured")
        front = places(found["front"])
        ax.plot(*zip(*front, strict=True), "o", color=INK, markersize=4.5, label="front")
        ax.plot(*places([found["chosen"]])[0], "*", color=ACCENT, markersize=13, label="chosen")
        for point, place in zip(found["front"], front, strict=True):
            count, above = str(len(point["kept_float"])), 9 if point == found["chosen"] else 7
            ax.annotate(count, place, (0, above), textcoords="offset points", ha="center", fontsize=9)
        ax.set_xlabel("latency in ms, batch 1; on the front: layers kept float")
        ax.set_ylabel("validation top-1 in %")
        ax.tick_params(axis="y", labelcolor=MUTED)
        ax.margins(x=0.1, y=0.15)
        figure.legend(loc="outside upper left", ncols=4, frameon=False, handletextpad=0.4, columnspacing=0.9)
    return out[0]


def name_of(row: dict[str, Any], named: bool = False) -> str:
    """A student as blocks × channels of its stages; by its own name where it is `named`, or has no such shape."""
    spec = row.get("spec") or {}
    kwargs = spec.get("kwargs") or {}
    if not (named and row.get("name")) and "depths" in kwargs and "widths" in kwargs:
        return f"{'-'.join(map(str, kwargs['depths']))} × {'-'.join(map(str, kwargs['widths']))}"
    return str(row.get("name") or spec.get("name") or units.DASH)


def _placed(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if row.get("latency_ms") is not None and row.get("score") is not None]


def _label(ax: Axes, text: str, x: float, y: float) -> None:
    ax.annotate(text, (x, y), (6, 0), textcoords="offset points", va="center", fontsize=9.5)


def _rows(ax: Axes, rows: Sequence[dict[str, Any]]) -> None:
    """One artifact a row, from the top."""
    ax.set_yticks(range(len(rows)), [units.artifact(row["artifact"]) for row in rows])
    _horizontal(ax, len(rows))


def _horizontal(ax: Axes, count: int) -> None:
    """Bars from the top down, without an axis beside their names."""
    ax.set_ylim(count - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.grid(True, axis="x")


def _logarithmic(ax: Axes, side: str, values: Sequence[float]) -> None:
    """Logarithmic with plain numbers where the values span more than a factor of three, for a tail to be seen."""
    if max(values) < 3 * min(values):
        return
    getattr(ax, f"set_{side}scale")("log")
    axis = getattr(ax, f"{side}axis")
    axis.set_major_locator(LogLocator(subs=(1, 2, 3, 5) if max(values) < 30 * min(values) else (1, 3)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.5g}"))
    axis.set_minor_locator(NullLocator())


@contextmanager
def _figure(name: str, height: float) -> Iterator[tuple[Figure, list[str]]]:
    """A figure `height` inches high; its SVG is appended to the list when the block ends."""
    out: list[str] = []
    with matplotlib.rc_context({**DEFAULTS, **STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        yield figure, out
        buffer = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        FigureCanvasSVG(figure).print_svg(buffer, metadata=nothing)  # type: ignore[no-untyped-call]
    out.append(_inline(buffer.getvalue(), name))


def _inline(svg: str, name: str) -> str:
    """An <svg> element for HTML: no prolog or namespaces, ids of its own, the page's font and colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.S)
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.S)
    svg = re.sub(r'<svg [^>]*?viewBox="([^"]+)"[^>]*>', r'<svg viewBox="\1" role="img">', svg, count=1)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg).replace("xlink:href", "href")
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\1{name}-", svg)
    svg = re.sub(r"font: (?:[a-z0-9]+ )*?([\d.]+)px [^;\"]+", r"font-size: \1px", svg)
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, f"var(--{variable})")
    return svg

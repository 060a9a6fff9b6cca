"""YOLO detectors for counting: layers and sizes as their papers and configurations publish them, without weights.

    YOLOv7 (Wang et al. 2022), YOLOv8 and YOLO11 (Ultralytics 2023, 2024), YOLOv9 (Wang et al. 2024), YOLOv10 (Wang et
    al. 2024), YOLOX (Ge et al. 2021)

80 classes, as deployed: branches that only training uses are left out, re-parametrised convolutions are one.
`PUBLISHED` holds the parameters (millions) and FLOPs (billions, two a MAC) that their authors state.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from _yolo7 import Yolo7
from _yolo_blocks import C3, Conv, Detect, Paths, Psa, Pyramid, Residual, Split, bottleneck, plain, sppf
from _yolox import YoloX
from torch import nn

SCALES = {  # depth, width, most channels
    "yolov8": {"n": (0.33, 0.25, 1024), "s": (0.33, 0.5, 1024), "m": (0.67, 0.75, 768)},
    "yolov10": {"n": (0.33, 0.25, 1024), "s": (0.33, 0.5, 1024), "m": (0.67, 0.75, 768)},
    "yolo11": {
        "n": (0.5, 0.25, 1024),
        "s": (0.5, 0.5, 1024),
        "m": (0.5, 1.0, 512),
        "l": (1.0, 1.0, 512),
        "x": (1.0, 1.5, 512),
    },
}
PUBLISHED = {  # parameters, FLOPs, at this image size
    "yolov7t": (6.2, 13.8, 640),
    "yolov7m": (36.9, 104.7, 640),
    "yolov8n": (3.2, 8.7, 640),
    "yolov8s": (11.2, 28.6, 640),
    "yolov8m": (25.9, 78.9, 640),
    "yolov9t": (2.0, 7.7, 640),
    "yolov9s": (7.2, 26.7, 640),
    "yolov9m": (20.1, 76.8, 640),
    "yolov10n": (2.3, 6.7, 640),
    "yolov10s": (7.2, 21.6, 640),
    "yolov10m": (15.4, 59.1, 640),
    "yoloxn": (0.91, 1.08, 416),
    "yoloxt": (5.06, 6.45, 416),
    "yoloxs": (9.0, 26.8, 640),
    "yoloxm": (25.3, 73.8, 640),
    "yolo11n": (2.6, 6.5, 640),
    "yolo11s": (9.4, 21.5, 640),
    "yolo11m": (20.1, 68.0, 640),
    "yolo11l": (25.3, 86.9, 640),
    "yolo11x": (56.9, 194.9, 640),
}


def build(name: str) -> nn.Module:
    """A detector of `PUBLISHED`: [1, 3, H, W] -> boxes and scores."""
    for family, make in FAMILIES.items():
        if name.startswith(family):
            return make(name.removeprefix(family))
    raise KeyError(name)


def _scaled(family: str, size: str) -> tuple[Callable[[int], int], Callable[[int], int]]:
    """Channels and repeats at a size."""
    depth, width, most = SCALES[family][size]
    return (lambda c: round(min(c, most) * width / 8) * 8), (lambda n: max(1, round(n * depth)))


def c2f(c1: int, c2: int, n: int, shortcut: bool) -> Split:
    h = c2 // 2
    return Split(c1, c2, h, [bottleneck(h, shortcut) for _ in range(n)], [h] * n)


def yolov8(size: str) -> nn.Module:
    w, d = _scaled("yolov8", size)
    c = [w(x) for x in (64, 128, 256, 512, 1024)]
    stages = [
        nn.Sequential(
            Conv(3, c[0], 3, 2),
            Conv(c[0], c[1], 3, 2),
            c2f(c[1], c[1], d(3), True),
            Conv(c[1], c[2], 3, 2),
            c2f(c[2], c[2], d(6), True),
        ),
        nn.Sequential(Conv(c[2], c[3], 3, 2), c2f(c[3], c[3], d(6), True)),
        nn.Sequential(Conv(c[3], c[4], 3, 2), c2f(c[4], c[4], d(3), True), sppf(c[4], c[4])),
    ]
    down = [c2f(c[4] + c[3], c[3], d(3), False), c2f(c[3] + c[2], c[2], d(3), False)]
    up = [
        Conv(c[2], c[2], 3, 2),
        c2f(c[2] + c[3], c[3], d(3), False),
        Conv(c[3], c[3], 3, 2),
        c2f(c[3] + c[4], c[4], d(3), False),
    ]
    return Paths(stages, down, up, Detect(c[2:]))


def c3k2(c1: int, c2: int, n: int, deep: bool, e: float = 0.5) -> Split:
    h = int(c2 * e)

    def block() -> nn.Module:
        return C3(h, h, [bottleneck(h // 2, True) for _ in range(2)]) if deep else bottleneck(h, True, 0.5)

    return Split(c1, c2, h, [block() for _ in range(n)], [h] * n)


def yolo11(size: str) -> nn.Module:
    w, d = _scaled("yolo11", size)
    c, n, deep = [w(x) for x in (64, 128, 256, 512, 1024)], d(2), size in "mlx"
    stages = [
        nn.Sequential(
            Conv(3, c[0], 3, 2),
            Conv(c[0], c[1], 3, 2),
            c3k2(c[1], c[2], n, deep, 0.25),
            Conv(c[2], c[2], 3, 2),
            c3k2(c[2], c[3], n, deep, 0.25),
        ),
        nn.Sequential(Conv(c[3], c[3], 3, 2), c3k2(c[3], c[3], n, True)),
        nn.Sequential(Conv(c[3], c[4], 3, 2), c3k2(c[4], c[4], n, True), sppf(c[4], c[4]), Psa(c[4], n)),
    ]
    down = [c3k2(c[4] + c[3], c[3], n, deep), c3k2(2 * c[3], c[2], n, deep)]
    up = [
        Conv(c[2], c[2], 3, 2),
        c3k2(c[2] + c[3], c[3], n, deep),
        Conv(c[3], c[3], 3, 2),
        c3k2(c[3] + c[4], c[4], n, True),
    ]
    return Paths(stages, down, up, Detect(c[2:], light=True))


def c2fcib(c1: int, c2: int, n: int, large: bool) -> Split:
    h = c2 // 2

    def cib() -> nn.Module:
        middle = Conv(2 * h, 2 * h, 7 if large else 3, g=2 * h)
        return Residual(nn.Sequential(Conv(h, h, 3, g=h), Conv(h, 2 * h), middle, Conv(2 * h, h), Conv(h, h, 3, g=h)))

    return Split(c1, c2, h, [cib() for _ in range(n)], [h] * n)


def scdown(c1: int, c2: int) -> nn.Module:
    return nn.Sequential(Conv(c1, c2), plain(c2, c2, 3, 2, c2))


def yolov10(size: str) -> nn.Module:
    w, d = _scaled("yolov10", size)
    c, large, block = [w(x) for x in (64, 128, 256, 512, 1024)], size in "ns", partial(c2f, shortcut=False)
    last = c2f(c[4], c[4], d(3), True) if size == "n" else c2fcib(c[4], c[4], d(3), large)
    stages = [
        nn.Sequential(
            Conv(3, c[0], 3, 2),
            Conv(c[0], c[1], 3, 2),
            c2f(c[1], c[1], d(3), True),
            Conv(c[1], c[2], 3, 2),
            c2f(c[2], c[2], d(6), True),
        ),
        nn.Sequential(scdown(c[2], c[3]), c2f(c[3], c[3], d(6), True)),
        nn.Sequential(scdown(c[3], c[4]), last, sppf(c[4], c[4]), Psa(c[4])),
    ]
    down = [block(c[4] + c[3], c[3], d(3)), block(c[3] + c[2], c[2], d(3))]
    middle = c2fcib(c[2] + c[3], c[3], d(3), large) if size == "m" else block(c[2] + c[3], c[3], d(3))
    up = [Conv(c[2], c[2], 3, 2), middle, scdown(c[3], c[3]), c2fcib(c[3] + c[4], c[4], d(3), large)]
    return Paths(stages, down, up, Detect(c[2:], light=True, best=True))


def gelan(c1: int, c2: int, c3: int, n: int) -> Split:
    h = c3 // 2

    def part(c: int) -> nn.Module:
        return nn.Sequential(C3(c, h, [bottleneck(h // 2, True) for _ in range(n)]), Conv(h, h, 3))

    return Split(c1, c2, h, [part(h), part(h)], [h, h])


def aconv(c1: int, c2: int) -> nn.Module:
    return nn.Sequential(nn.AvgPool2d(2, 1), Conv(c1, c2, 3, 2))


def yolov9(size: str) -> nn.Module:
    first, c, n, up = {
        "t": (16, (32, 64, 96, 128), 3, (48, 64)),
        "s": (32, (64, 128, 192, 256), 3, (96, 128)),
        "m": (32, (128, 240, 360, 480), 1, (184, 240)),
    }[size]
    start = [Conv(3, first, 3, 2), Conv(first, 2 * first, 3, 2)]
    h = c[0] // 2
    elan = Split(c[0], c[0], h, [Conv(h, h, 3), Conv(h, h, 3)], [h, h]) if size != "m" else gelan(64, 128, 128, 1)
    spp = Pyramid(Conv(c[3], c[3] // 2), Conv(2 * c[3], c[3]), (5, 5, 5), chained=True)
    stages = [
        nn.Sequential(*start, elan, aconv(c[0], c[1]), gelan(c[1], c[1], c[1], n)),
        nn.Sequential(aconv(c[1], c[2]), gelan(c[2], c[2], c[2], n)),
        nn.Sequential(aconv(c[2], c[3]), gelan(c[3], c[3], c[3], n), spp),
    ]
    down = [gelan(c[3] + c[2], c[2], c[2], n), gelan(c[2] + c[1], c[1], c[1], n)]
    ups = [
        aconv(c[1], up[0]),
        gelan(up[0] + c[2], c[2], c[2], n),
        aconv(c[2], up[1]),
        gelan(up[1] + c[3], c[3], c[3], n),
    ]
    return Paths(stages, down, ups, Detect(c[1:]))


FAMILIES = {"yolov7": Yolo7, "yolov8": yolov8, "yolov9": yolov9, "yolov10": yolov10, "yolo11": yolo11, "yolox": YoloX}

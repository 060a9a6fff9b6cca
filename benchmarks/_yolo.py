"""YOLO detectors for counting: layers and sizes as their papers and configurations publish them, without weights.

    YOLOv7 (Wang et al. 2022), YOLOv8 and YOLO11 (Ultralytics 2023, 2024), YOLOv9 (Wang et al. 2024), YOLOv10 (Wang et
    al. 2024), YOLOX (Ge et al. 2021)

80 classes, as deployed: branches that only training uses are left out, re-parametrised convolutions are one. `PUBLISHED`
holds the parameters (millions) and FLOPs (billions, two a MAC) that their authors state.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CLASSES, BINS = 80, 16
SCALES = {  # depth, width, most channels
    "yolov8": {"n": (0.33, 0.25, 1024), "s": (0.33, 0.5, 1024), "m": (0.67, 0.75, 768)},
    "yolov10": {"n": (0.33, 0.25, 1024), "s": (0.33, 0.5, 1024), "m": (0.67, 0.75, 768)},
    "yolo11": {"n": (0.5, 0.25, 1024), "s": (0.5, 0.5, 1024), "m": (0.5, 1.0, 512), "l": (1.0, 1.0, 512), "x": (1.0, 1.5, 512)},
    "yolox": {"n": (0.33, 0.25, 1024), "t": (0.33, 0.375, 1024), "s": (0.33, 0.5, 1024), "m": (0.67, 0.75, 1024)},
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


class Conv(nn.Sequential):
    """Convolution with its BatchNorm folded, and an activation."""

    def __init__(self, c1: int, c2: int, k: int = 1, s: int = 1, g: int = 1, act: nn.Module | None = None) -> None:
        super().__init__(nn.Conv2d(c1, c2, k, s, k // 2, groups=g), nn.SiLU() if act is None else act)


def plain(c1: int, c2: int, k: int = 1, s: int = 1, g: int = 1) -> Conv:
    return Conv(c1, c2, k, s, g, act=nn.Identity())


def leaky(c1: int, c2: int, k: int = 1, s: int = 1) -> Conv:
    return Conv(c1, c2, k, s, act=nn.LeakyReLU(0.1))


def depthwise(c1: int, c2: int, k: int = 1, s: int = 1) -> nn.Module:
    return nn.Sequential(Conv(c1, c1, k, s, c1), Conv(c1, c2))


class Residual(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def bottleneck(c: int, shortcut: bool, e: float = 1.0, first: int = 3, three: type = Conv) -> nn.Module:
    body = nn.Sequential(Conv(c, int(c * e), first), three(int(c * e), c, 3))
    return Residual(body) if shortcut else body


class Split(nn.Module):
    """A convolution, half of it through blocks one after the other, all of it joined: C2f, C3k2, ELAN of YOLOv9."""

    def __init__(self, c1: int, c2: int, hidden: int, blocks: Sequence[nn.Module], widths: Sequence[int]) -> None:
        super().__init__()
        self.enter, self.blocks = Conv(c1, 2 * hidden), nn.ModuleList(blocks)
        self.leave = Conv(2 * hidden + sum(widths), c2)

    def forward(self, x: Tensor) -> Tensor:
        found = list(self.enter(x).chunk(2, 1))
        for block in self.blocks:
            found.append(block(found[-1]))
        return self.leave(torch.cat(found, 1))


class C3(nn.Module):
    """Two branches, one of them through the body, joined."""

    def __init__(self, c1: int, c2: int, body: Sequence[nn.Module]) -> None:
        super().__init__()
        hidden = c2 // 2
        self.one, self.two, self.body = Conv(c1, hidden), Conv(c1, hidden), nn.Sequential(*body)
        self.leave = Conv(2 * hidden, c2)

    def forward(self, x: Tensor) -> Tensor:
        return self.leave(torch.cat([self.body(self.one(x)), self.two(x)], 1))


class Pyramid(nn.Module):
    """Max-pools of one map, joined; `chained`, each takes what the last one gave."""

    def __init__(self, enter: nn.Module, leave: nn.Module, windows: Sequence[int], chained: bool) -> None:
        super().__init__()
        self.enter, self.leave, self.chained = enter, leave, chained
        self.pools = nn.ModuleList(nn.MaxPool2d(k, 1, k // 2) for k in windows)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        found = [x]
        for pool in self.pools:
            found.append(pool(found[-1] if self.chained else x))
        return self.leave(torch.cat(found, 1))


def sppf(c1: int, c2: int) -> Pyramid:
    return Pyramid(Conv(c1, c1 // 2), Conv(2 * c1, c2), (5, 5, 5), chained=True)


class Attention(nn.Module):
    """Of YOLOv10's PSA: keys half as wide as values, and a depthwise convolution of the values for the places."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.heads = max(1, c // 64)
        self.dim = c // self.heads
        self.key = self.dim // 2
        self.qkv, self.proj, self.place = plain(c, 2 * c), plain(c, c), plain(c, c, 3, g=c)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        q, k, v = self.qkv(x).view(b, self.heads, -1, h * w).split([self.key, self.key, self.dim], 2)
        weights = ((q.transpose(-2, -1) @ k) * self.key**-0.5).softmax(-1)
        mixed = (v @ weights.transpose(-2, -1)).view(b, c, h, w) + self.place(v.reshape(b, c, h, w))
        return self.proj(mixed)


class Psa(nn.Module):
    """Half of the channels through attention and two layers, `n` times."""

    def __init__(self, c: int, n: int = 1) -> None:
        super().__init__()
        h = c // 2
        blocks = [b for _ in range(n) for b in (Residual(Attention(h)), Residual(nn.Sequential(Conv(h, 2 * h), plain(2 * h, h))))]
        self.enter, self.leave, self.body = Conv(c, c), Conv(c, c), nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.enter(x).chunk(2, 1)
        return self.leave(torch.cat([a, self.body(b)], 1))


class Detect(nn.Module):
    """Boxes as distributions over 16 bins, and scores. `light` scores by depthwise convolutions, `best` picks 300."""

    def __init__(self, channels: Sequence[int], light: bool = False, best: bool = False) -> None:
        super().__init__()
        box, score = max(16, channels[0] // 4, 4 * BINS), max(channels[0], min(CLASSES, 100))
        self.best = best

        def scores(c: int) -> list[nn.Module]:
            if light:
                return [Conv(c, c, 3, g=c), Conv(c, score), Conv(score, score, 3, g=score), Conv(score, score)]
            return [Conv(c, score, 3), Conv(score, score, 3)]

        self.boxes = nn.ModuleList(
            nn.Sequential(Conv(c, box, 3), Conv(box, box, 3), nn.Conv2d(box, 4 * BINS, 1)) for c in channels
        )
        self.scores = nn.ModuleList(nn.Sequential(*scores(c), nn.Conv2d(score, CLASSES, 1)) for c in channels)
        self.bins = nn.Conv2d(BINS, 1, 1, bias=False)

    def forward(self, maps: Sequence[Tensor]) -> Tensor | tuple[Tensor, Tensor]:
        both = [torch.cat([b(x), s(x)], 1) for b, s, x in zip(self.boxes, self.scores, maps, strict=True)]
        flat = torch.cat([x.view(x.shape[0], x.shape[1], -1) for x in both], 2)
        boxes, scores = flat.split([4 * BINS, CLASSES], 1)
        batch, _, places = boxes.shape
        bins = boxes.view(batch, 4, BINS, places).transpose(2, 1).softmax(1)
        near, far = self.bins(bins).view(batch, 4, places).chunk(2, 1)
        scores, boxes = scores.sigmoid(), torch.cat([far + near, far - near], 1) * 0.5
        if not self.best:
            return torch.cat([boxes, scores], 1)
        boxes, scores = boxes.transpose(1, 2), scores.transpose(1, 2)
        _, index = torch.topk(scores.amax([-1]), min(300, places))
        boxes = boxes.gather(1, index.unsqueeze(-1).expand(-1, -1, 4))
        scores = scores.gather(1, index.unsqueeze(-1).expand(-1, -1, CLASSES))
        values, _ = torch.topk(scores.reshape(batch, -1), min(300, places))
        return boxes, values


class Paths(nn.Module):
    """A backbone of three maps, down the pyramid and up again, and the head: what all of these share."""

    def __init__(
        self, stages: Sequence[nn.Module], down: Sequence[nn.Module], up: Sequence[nn.Module], head: nn.Module
    ) -> None:
        super().__init__()
        self.stages, self.down, self.up, self.head = map(nn.ModuleList, (stages, down, up, [head]))

    def forward(self, x: Tensor) -> object:
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        p3, p4, p5 = maps
        middle = self.down[0](torch.cat([grown(p5), p4], 1))
        low = self.down[1](torch.cat([grown(middle), p3], 1))
        second = self.up[1](torch.cat([self.up[0](low), middle], 1))
        third = self.up[3](torch.cat([self.up[2](second), p5], 1))
        return self.head[0]([low, second, third])


def grown(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def _scaled(family: str, size: str):
    depth, width, most = SCALES[family][size]
    return (lambda c: round(min(c, most) * width / 8) * 8), (lambda n: max(1, round(n * depth)))


def c2f(c1: int, c2: int, n: int, shortcut: bool) -> Split:
    h = c2 // 2
    return Split(c1, c2, h, [bottleneck(h, shortcut) for _ in range(n)], [h] * n)


def yolov8(size: str) -> nn.Module:
    w, d = _scaled("yolov8", size)
    c = [w(x) for x in (64, 128, 256, 512, 1024)]
    stages = [
        nn.Sequential(Conv(3, c[0], 3, 2), Conv(c[0], c[1], 3, 2), c2f(c[1], c[1], d(3), True), Conv(c[1], c[2], 3, 2), c2f(c[2], c[2], d(6), True)),
        nn.Sequential(Conv(c[2], c[3], 3, 2), c2f(c[3], c[3], d(6), True)),
        nn.Sequential(Conv(c[3], c[4], 3, 2), c2f(c[4], c[4], d(3), True), sppf(c[4], c[4])),
    ]
    down = [c2f(c[4] + c[3], c[3], d(3), False), c2f(c[3] + c[2], c[2], d(3), False)]
    up = [Conv(c[2], c[2], 3, 2), c2f(c[2] + c[3], c[3], d(3), False), Conv(c[3], c[3], 3, 2), c2f(c[3] + c[4], c[4], d(3), False)]
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
        nn.Sequential(Conv(3, c[0], 3, 2), Conv(c[0], c[1], 3, 2), c3k2(c[1], c[2], n, deep, 0.25), Conv(c[2], c[2], 3, 2), c3k2(c[2], c[3], n, deep, 0.25)),
        nn.Sequential(Conv(c[3], c[3], 3, 2), c3k2(c[3], c[3], n, True)),
        nn.Sequential(Conv(c[3], c[4], 3, 2), c3k2(c[4], c[4], n, True), sppf(c[4], c[4]), Psa(c[4], n)),
    ]
    down = [c3k2(c[4] + c[3], c[3], n, deep), c3k2(2 * c[3], c[2], n, deep)]
    up = [Conv(c[2], c[2], 3, 2), c3k2(c[2] + c[3], c[3], n, deep), Conv(c[3], c[3], 3, 2), c3k2(c[3] + c[4], c[4], n, True)]
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
        nn.Sequential(Conv(3, c[0], 3, 2), Conv(c[0], c[1], 3, 2), c2f(c[1], c[1], d(3), True), Conv(c[1], c[2], 3, 2), c2f(c[2], c[2], d(6), True)),
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
    ups = [aconv(c[1], up[0]), gelan(up[0] + c[2], c[2], c[2], n), aconv(c[2], up[1]), gelan(up[1] + c[3], c[3], c[3], n)]
    return Paths(stages, down, ups, Detect(c[1:]))


class Elan(nn.Module):
    """Of YOLOv7: two 1x1 branches, 3x3 convolutions on the second, those of `kept` joined."""

    def __init__(self, c1: int, c2: int, h: int, inner: int, n: int, kept: Sequence[int], conv: type) -> None:
        super().__init__()
        self.one, self.two, self.kept = conv(c1, h), conv(c1, h), kept
        self.chain = nn.ModuleList(conv(h if i == 0 else inner, inner, 3) for i in range(n))
        widths = [h, h] + [inner] * n
        self.leave = conv(sum(widths[i] for i in kept), c2)

    def forward(self, x: Tensor) -> Tensor:
        found = [self.one(x), self.two(x)]
        for conv in self.chain:
            found.append(conv(found[-1]))
        return self.leave(torch.cat([found[i] for i in self.kept], 1))


class Shrink(nn.Module):
    """Of YOLOv7: half by a max-pool, half by a convolution of stride 2."""

    def __init__(self, c1: int, h: int) -> None:
        super().__init__()
        self.pool = nn.Sequential(nn.MaxPool2d(2), Conv(c1, h))
        self.conv = nn.Sequential(Conv(c1, h), Conv(h, h, 3, 2))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.conv(x), self.pool(x)], 1)


class Spp(nn.Module):
    """YOLOv7's SPPCSPC: pools between convolutions, and a branch around them."""

    def __init__(self, c1: int, c2: int, before: nn.Module, after: nn.Module, h: int, conv: type) -> None:
        super().__init__()
        self.around, self.leave = conv(c1, h), conv(2 * h, c2)
        self.pools = Pyramid(before, after, (5, 9, 13), chained=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.leave(torch.cat([self.pools(x), self.around(x)], 1))


class Yolo7(nn.Module):
    def __init__(self, size: str) -> None:
        super().__init__()
        tiny = size == "t"
        conv: type = leaky if tiny else Conv
        if tiny:
            elan = partial(_tiny_elan, conv=conv)
            pool = nn.MaxPool2d
            stages = [
                nn.Sequential(conv(3, 32, 3, 2), conv(32, 64, 3, 2), elan(64, 64, 32), pool(2), elan(64, 128, 64)),
                nn.Sequential(pool(2), elan(128, 256, 128)),
                nn.Sequential(pool(2), elan(256, 512, 256), Spp(512, 256, conv(512, 256), conv(1024, 256), 256, conv)),
            ]
            down, c = [elan(256, 128, 64), elan(128, 64, 32)], (128, 256, 256)
            lateral = [conv(256, 128), conv(256, 128), conv(128, 64), conv(128, 64)]
            shrink = [conv(64, 128, 3, 2), conv(128, 256, 3, 2)]
            up, out, before = [elan(256, 128, 64), elan(512, 256, 128)], [(64, 128), (128, 256), (256, 512)], c
        else:
            elan = partial(Elan, n=4, kept=(5, 3, 1, 0), conv=conv)
            wide = partial(Elan, n=4, kept=(5, 4, 3, 2, 1, 0), conv=conv)
            stages = [
                nn.Sequential(conv(3, 32, 3), conv(32, 64, 3, 2), conv(64, 64, 3), conv(64, 128, 3, 2), elan(128, 256, 64, 64), Shrink(256, 128), elan(256, 512, 128, 128)),
                nn.Sequential(Shrink(512, 256), elan(512, 1024, 256, 256)),
                nn.Sequential(Shrink(1024, 512), elan(1024, 1024, 256, 256), Spp(1024, 512, nn.Sequential(conv(1024, 512), conv(512, 512, 3), conv(512, 512)), nn.Sequential(conv(2048, 512), conv(512, 512, 3)), 512, conv)),
            ]
            down = [wide(512, 256, 256, 128), wide(256, 128, 128, 64)]
            lateral = [conv(512, 256), conv(1024, 256), conv(256, 128), conv(512, 128)]
            shrink = [Shrink(128, 128), Shrink(256, 256)]
            up, out = [wide(512, 256, 256, 128), wide(1024, 512, 512, 256)], [(128, 256), (256, 512), (512, 1024)]
        self.stages, self.down, self.lateral, self.shrink, self.up = map(nn.ModuleList, (stages, down, lateral, shrink, up))
        self.ends = nn.ModuleList(nn.Sequential(conv(a, b, 3), nn.Conv2d(b, 3 * (5 + CLASSES), 1)) for a, b in out)

    def forward(self, x: Tensor) -> Tensor:
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        p3, p4, p5 = maps
        middle = self.down[0](torch.cat([self.lateral[1](p4), grown(self.lateral[0](p5))], 1))
        low = self.down[1](torch.cat([self.lateral[3](p3), grown(self.lateral[2](middle))], 1))
        second = self.up[0](torch.cat([self.shrink[0](low), middle], 1))
        third = self.up[1](torch.cat([self.shrink[1](second), p5], 1))
        found = []
        for end, x in zip(self.ends, (low, second, third), strict=True):
            y = end(x)
            b, _, h, w = y.shape
            y = y.view(b, 3, 5 + CLASSES, h, w).permute(0, 1, 3, 4, 2).sigmoid()
            place, size, score = y.split([2, 2, 1 + CLASSES], 4)
            found.append(torch.cat([(place * 2 - 0.5) * 8, (size * 2) * (size * 2), score], 4).view(b, -1, 5 + CLASSES))
        return torch.cat(found, 1)


def _tiny_elan(c1: int, c2: int, h: int, conv: type) -> Elan:
    return Elan(c1, c2, h, h, 2, (3, 2, 1, 0), conv)


class Focus(nn.Module):
    """Every other pixel four times, as channels."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.conv = Conv(12, c, 3)

    def forward(self, x: Tensor) -> Tensor:
        corners = [x[..., i::2, j::2] for j in (0, 1) for i in (0, 1)]
        return self.conv(torch.cat(corners, 1))


class DecoupledHead(nn.Module):
    def __init__(self, channels: Sequence[int], h: int, three: type) -> None:
        super().__init__()
        self.stems = nn.ModuleList(Conv(c, h) for c in channels)
        self.classes = nn.ModuleList(nn.Sequential(three(h, h, 3), three(h, h, 3)) for _ in channels)
        self.boxes = nn.ModuleList(nn.Sequential(three(h, h, 3), three(h, h, 3)) for _ in channels)
        self.ends = nn.ModuleList(nn.ModuleList(nn.Conv2d(h, n, 1) for n in (CLASSES, 4, 1)) for _ in channels)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        found = []
        for stem, classes, boxes, ends, x in zip(self.stems, self.classes, self.boxes, self.ends, maps, strict=True):
            x = stem(x)
            score, box = classes(x), boxes(x)
            joined = torch.cat([ends[1](box), ends[2](box).sigmoid(), ends[0](score).sigmoid()], 1)
            found.append(joined.view(joined.shape[0], joined.shape[1], -1))
        return torch.cat(found, 2).permute(0, 2, 1)


class YoloX(nn.Module):
    def __init__(self, size: str) -> None:
        super().__init__()
        depth, width, _ = SCALES["yolox"][size]
        c = [int(x * width) for x in (64, 128, 256, 512, 1024)]
        n, three = round(3 * depth), depthwise if size == "n" else Conv

        def csp(c1: int, c2: int, count: int, shortcut: bool = False) -> C3:
            return C3(c1, c2, [bottleneck(c2 // 2, shortcut, 1.0, 1, three) for _ in range(count)])

        spp = Pyramid(Conv(c[4], c[4] // 2), Conv(2 * c[4], c[4]), (5, 9, 13), chained=False)
        stages = [
            nn.Sequential(Focus(c[0]), three(c[0], c[1], 3, 2), csp(c[1], c[1], n, True), three(c[1], c[2], 3, 2), csp(c[2], c[2], 3 * n, True)),
            nn.Sequential(three(c[2], c[3], 3, 2), csp(c[3], c[3], 3 * n, True)),
            nn.Sequential(three(c[3], c[4], 3, 2), spp, csp(c[4], c[4], n)),
        ]
        self.stages = nn.ModuleList(stages)
        self.lateral = nn.ModuleList([Conv(c[4], c[3]), Conv(c[3], c[2])])
        self.down = nn.ModuleList([csp(2 * c[3], c[3], n), csp(2 * c[2], c[2], n)])
        self.up = nn.ModuleList([three(c[2], c[2], 3, 2), csp(2 * c[2], c[3], n), three(c[3], c[3], 3, 2), csp(2 * c[3], c[4], n)])
        self.head = DecoupledHead(c[2:], int(256 * width), three)

    def forward(self, x: Tensor) -> Tensor:
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        p3, p4, p5 = maps
        top = self.lateral[0](p5)
        middle = self.lateral[1](self.down[0](torch.cat([grown(top), p4], 1)))
        low = self.down[1](torch.cat([grown(middle), p3], 1))
        second = self.up[1](torch.cat([self.up[0](low), middle], 1))
        third = self.up[3](torch.cat([self.up[2](second), top], 1))
        return self.head([low, second, third])


FAMILIES = {"yolov7": Yolo7, "yolov8": yolov8, "yolov9": yolov9, "yolov10": yolov10, "yolo11": yolo11, "yolox": YoloX}

"""What YOLO detectors are put together from: layers on the meta device, for counting, without weights."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CLASSES, BINS = 80, 16


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
        blocks = [
            b
            for _ in range(n)
            for b in (Residual(Attention(h)), Residual(nn.Sequential(Conv(h, 2 * h), plain(2 * h, h))))
        ]
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
        p3, p4, p5 = run(self.stages, x)
        middle = self.down[0](torch.cat([grown(p5), p4], 1))
        low = self.down[1](torch.cat([grown(middle), p3], 1))
        second = self.up[1](torch.cat([self.up[0](low), middle], 1))
        third = self.up[3](torch.cat([self.up[2](second), p5], 1))
        return self.head[0]([low, second, third])


def grown(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def run(stages: Iterable[nn.Module], x: Tensor) -> list[Tensor]:
    """What every stage of a backbone gives."""
    maps = []
    for stage in stages:
        x = stage(x)
        maps.append(x)
    return maps

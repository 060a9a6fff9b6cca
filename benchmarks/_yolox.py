"""YOLOX (Ge et al. 2021), as deployed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from _yolo_blocks import C3, CLASSES, Conv, Pyramid, bottleneck, depthwise, grown, run
from torch import Tensor, nn

SCALES = {"n": (0.33, 0.25), "t": (0.33, 0.375), "s": (0.33, 0.5), "m": (0.67, 0.75)}  # depth, width


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
        depth, width = SCALES[size]
        c = [int(x * width) for x in (64, 128, 256, 512, 1024)]
        n, three = round(3 * depth), depthwise if size == "n" else Conv

        def csp(c1: int, c2: int, count: int, shortcut: bool = False) -> C3:
            return C3(c1, c2, [bottleneck(c2 // 2, shortcut, 1.0, 1, three) for _ in range(count)])

        spp = Pyramid(Conv(c[4], c[4] // 2), Conv(2 * c[4], c[4]), (5, 9, 13), chained=False)
        stages = [
            nn.Sequential(
                Focus(c[0]),
                three(c[0], c[1], 3, 2),
                csp(c[1], c[1], n, True),
                three(c[1], c[2], 3, 2),
                csp(c[2], c[2], 3 * n, True),
            ),
            nn.Sequential(three(c[2], c[3], 3, 2), csp(c[3], c[3], 3 * n, True)),
            nn.Sequential(three(c[3], c[4], 3, 2), spp, csp(c[4], c[4], n)),
        ]
        self.stages = nn.ModuleList(stages)
        self.lateral = nn.ModuleList([Conv(c[4], c[3]), Conv(c[3], c[2])])
        self.down = nn.ModuleList([csp(2 * c[3], c[3], n), csp(2 * c[2], c[2], n)])
        self.up = nn.ModuleList(
            [three(c[2], c[2], 3, 2), csp(2 * c[2], c[3], n), three(c[3], c[3], 3, 2), csp(2 * c[3], c[4], n)]
        )
        self.head = DecoupledHead(c[2:], int(256 * width), three)

    def forward(self, x: Tensor) -> Tensor:
        p3, p4, p5 = run(self.stages, x)
        top = self.lateral[0](p5)
        middle = self.lateral[1](self.down[0](torch.cat([grown(top), p4], 1)))
        low = self.down[1](torch.cat([grown(middle), p3], 1))
        second = self.up[1](torch.cat([self.up[0](low), middle], 1))
        third = self.up[3](torch.cat([self.up[2](second), top], 1))
        return self.head([low, second, third])

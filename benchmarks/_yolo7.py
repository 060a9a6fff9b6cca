"""YOLOv7 and its tiny version (Wang et al. 2022), as deployed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from _yolo_blocks import CLASSES, Conv, Pyramid, grown, leaky, run
from torch import Tensor, nn


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
            down = [elan(256, 128, 64), elan(128, 64, 32)]
            lateral = [conv(256, 128), conv(256, 128), conv(128, 64), conv(128, 64)]
            shrink = [conv(64, 128, 3, 2), conv(128, 256, 3, 2)]
            up, out = [elan(256, 128, 64), elan(512, 256, 128)], [(64, 128), (128, 256), (256, 512)]
        else:
            elan = partial(Elan, n=4, kept=(5, 3, 1, 0), conv=conv)
            wide = partial(Elan, n=4, kept=(5, 4, 3, 2, 1, 0), conv=conv)
            stages = [
                nn.Sequential(
                    conv(3, 32, 3),
                    conv(32, 64, 3, 2),
                    conv(64, 64, 3),
                    conv(64, 128, 3, 2),
                    elan(128, 256, 64, 64),
                    Shrink(256, 128),
                    elan(256, 512, 128, 128),
                ),
                nn.Sequential(Shrink(512, 256), elan(512, 1024, 256, 256)),
                nn.Sequential(
                    Shrink(1024, 512),
                    elan(1024, 1024, 256, 256),
                    Spp(
                        1024,
                        512,
                        nn.Sequential(conv(1024, 512), conv(512, 512, 3), conv(512, 512)),
                        nn.Sequential(conv(2048, 512), conv(512, 512, 3)),
                        512,
                        conv,
                    ),
                ),
            ]
            down = [wide(512, 256, 256, 128), wide(256, 128, 128, 64)]
            lateral = [conv(512, 256), conv(1024, 256), conv(256, 128), conv(512, 128)]
            shrink = [Shrink(128, 128), Shrink(256, 256)]
            up, out = [wide(512, 256, 256, 128), wide(1024, 512, 512, 256)], [(128, 256), (256, 512), (512, 1024)]
        self.stages, self.down, self.lateral, self.shrink, self.up = map(
            nn.ModuleList, (stages, down, lateral, shrink, up)
        )
        self.ends = nn.ModuleList(nn.Sequential(conv(a, b, 3), nn.Conv2d(b, 3 * (5 + CLASSES), 1)) for a, b in out)

    def forward(self, x: Tensor) -> Tensor:
        p3, p4, p5 = run(self.stages, x)
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

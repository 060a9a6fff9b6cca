"""Space `cifar-resnet`: three stages of basic blocks at strides 1, 2, 2 with 3x3 kernels and 1x1 shortcuts.

A genotype is (depths, widths): 1-9 blocks a stage; widths in multiples of 8 that never fall, 8-64, 16-128 and 16-160.
ResNet-8, 14, 20, 32, 44 and 56 (He et al. 2016, section 4.2) are points of it.
"""

from __future__ import annotations

import math
import random
import re
from dataclasses import replace

from edgekd.artifacts import ModelSpec
from edgekd.errors import ConfigError
from edgekd.profile.operators import Conv, Head, Layer, cifar_resnet, operators
from edgekd.search.spaces import Genotype, Point

DEPTHS = tuple(range(1, 10))
WIDTHS = (tuple(range(8, 65, 8)), tuple(range(16, 129, 8)), tuple(range(16, 161, 8)))


class CifarResNetSpace:
    name = "cifar-resnet"
    named = {f"resnet{6 * n + 2}": Genotype((n, n, n), (16, 32, 64)) for n in (1, 2, 3, 5, 7, 9)}

    def __init__(self, num_classes: int, input_shape: tuple[int, int, int]) -> None:
        self.num_classes, self.input_shape = num_classes, input_shape

    def illegal(self, genotype: Genotype) -> str | None:
        """Why the genotype is not in the space, or None."""
        if len(genotype.depths) != 3 or len(genotype.widths) != 3:
            return "it needs three depths and three widths"
        for stage, (depth, width) in enumerate(zip(genotype.depths, genotype.widths, strict=True), 1):
            if depth not in DEPTHS:
                return f"depth {depth} of stage {stage} is not in {DEPTHS[0]}-{DEPTHS[-1]}"
            legal = WIDTHS[stage - 1]
            if width not in legal:
                return f"width {width} of stage {stage} is not a multiple of 8 in {legal[0]}-{legal[-1]}"
        if list(genotype.widths) != sorted(genotype.widths):
            return "a width is below the one of the stage before it"
        return None

    def spec(self, genotype: Genotype) -> ModelSpec:
        """How to build the point; its input normalisation is left to the caller."""
        kwargs = {"depths": list(genotype.depths), "widths": list(genotype.widths)}  # lists: what JSON gives back
        return ModelSpec("edgekd", self.name, self.num_classes, self.input_shape, kwargs)

    def network(self, genotype: Genotype) -> list[Layer]:
        """The deployed graph's layers: BatchNorm folded, ReLU fused."""
        return cifar_resnet(genotype.depths, genotype.widths, self.input_shape, self.num_classes)

    def point(self, genotype: Genotype) -> Point:
        """The genotype with its spec, trainable parameters and MACs, counted without building it."""
        params = macs = 0
        for op in operators(self.network(genotype)):
            if isinstance(op, Conv):
                weights = op.c_in * op.c_out * op.kernel**2
                params += weights + 2 * op.c_out  # BatchNorm's scale and shift
                macs += weights * op.out[1] * op.out[2]
            elif isinstance(op, Head):
                params += (op.c + 1) * op.classes
                macs += op.c * op.classes
        entropy = sum(d * math.log(w) for d, w in zip(genotype.depths, genotype.widths, strict=True))
        return Point(genotype, self.spec(genotype), params, macs, sum(genotype.depths), entropy)

    def parse(self, text: str) -> Genotype:
        """`resnet20`, or `depths=3,3,3 widths=16,32,64`. Raises ConfigError."""
        if text in self.named:
            return self.named[text]
        match = re.fullmatch(r"\s*depths=([\d,]+)\s+widths=([\d,]+)\s*", text)
        fix = f"Write one of {', '.join(self.named)}, or depths=3,3,3 widths=16,32,64."
        if match is None:
            raise ConfigError(f"search.student: {text!r} is not a point of {self.name}", fix)
        depths, widths = (tuple(int(number) for number in group.split(",") if number) for group in match.groups())
        genotype = Genotype(depths, widths)
        reason = self.illegal(genotype)
        if reason is not None:
            raise ConfigError(f"search.student: {text!r} is not a point of {self.name}: {reason}", fix)
        return genotype

    def smallest(self) -> Genotype:
        """The point that has the fewest parameters and MACs of all."""
        return Genotype((1, 1, 1), (WIDTHS[0][0], WIDTHS[1][0], WIDTHS[2][0]))

    def sample(self, generator: random.Random) -> Genotype:
        """A random point: depths uniform, each width uniform among those not below the one before."""
        widths: tuple[int, ...] = ()
        for legal in WIDTHS:
            widths += (generator.choice([w for w in legal if not widths or w >= widths[-1]]),)
        return Genotype(tuple(generator.choice(DEPTHS) for _ in range(3)), widths)

    def mutate(self, genotype: Genotype, generator: random.Random) -> Genotype:
        """Another point that differs in one gene, by up to two steps."""
        while True:
            child = self._step(genotype, generator.randrange(6), generator.choice((-2, -1, 1, 2)))
            if self.illegal(child) is None:
                return child

    def crossover(self, a: Genotype, b: Genotype, generator: random.Random) -> Genotype:
        """Each stage's depth and width from one of the two parents; widths put in order."""
        stages = [generator.choice((a, b)) for _ in range(3)]
        widths = sorted(parent.widths[i] for i, parent in enumerate(stages))
        child = Genotype(tuple(parent.depths[i] for i, parent in enumerate(stages)), tuple(widths))
        return child if self.illegal(child) is None else generator.choice((a, b))

    def shrink(self, genotype: Genotype, generator: random.Random) -> Genotype:
        """A neighbour one step smaller in one gene; `smallest()` shrinks to itself."""
        smaller = [self._step(genotype, gene, -1) for gene in range(6)]
        legal = [child for child in smaller if self.illegal(child) is None]
        return generator.choice(legal) if legal else genotype

    @staticmethod
    def _step(genotype: Genotype, gene: int, steps: int) -> Genotype:
        if gene < 3:
            depths = tuple(d + steps * (i == gene) for i, d in enumerate(genotype.depths))
            return replace(genotype, depths=depths)
        return replace(genotype, widths=tuple(w + 8 * steps * (i == gene - 3) for i, w in enumerate(genotype.widths)))

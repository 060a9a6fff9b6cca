import random

import pytest
import torch

from edgekd.errors import ConfigError
from edgekd.models import build_model, cost
from edgekd.models.cifar import DEPTHS
from edgekd.search.spaces import Genotype
from edgekd.search.spaces.cifar_resnet import CifarResNetSpace

SPACE = CifarResNetSpace(10, (3, 32, 32))


def test_reference_nets_are_legal_points():
    for name in ("resnet8", "resnet14", "resnet20", "resnet32", "resnet44", "resnet56"):
        genotype = SPACE.named[name]
        assert genotype == Genotype(DEPTHS[name], (16, 32, 64))
        assert SPACE.illegal(genotype) is None
    assert SPACE.point(SPACE.named["resnet20"]).params == 272_474


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 8, 8), (3, 30, 17)])
def test_closed_form_cost_is_the_built_models_cost(shape):
    space, generator = CifarResNetSpace(7, shape), random.Random(0)
    for genotype in [space.smallest(), Genotype((1, 2, 1), (16, 16, 16)), *(space.sample(generator) for _ in range(3))]:
        point = space.point(genotype)
        real = cost(build_model(point.spec), shape)
        assert (point.params, point.macs) == (real.params, real.macs)


def test_sampling_mutation_crossover_and_shrinking_stay_legal():
    generator, smallest = random.Random(1), SPACE.smallest()
    for _ in range(300):
        a, b = SPACE.sample(generator), SPACE.sample(generator)
        child = SPACE.mutate(a, generator)
        assert child != a
        for genotype in (a, child, SPACE.crossover(a, b, generator)):
            assert SPACE.illegal(genotype) is None
        assert SPACE.crossover(a, a, generator) == a
        steps = 0
        while a != smallest:
            shrunk = SPACE.shrink(a, generator)
            assert SPACE.illegal(shrunk) is None
            assert SPACE.point(shrunk).params < SPACE.point(a).params
            a, steps = shrunk, steps + 1
            assert steps < 100
    assert SPACE.shrink(smallest, generator) == smallest


@pytest.mark.parametrize(
    ("genotype", "reason"),
    [
        (Genotype((0, 1, 1), (8, 16, 16)), "depth 0 of stage 1"),
        (Genotype((1, 1, 10), (8, 16, 16)), "depth 10 of stage 3"),
        (Genotype((1, 1, 1), (8, 20, 32)), "width 20 of stage 2 is not a multiple of 8"),
        (Genotype((1, 1, 1), (48, 32, 64)), "below"),
        (Genotype((1, 1), (16, 32)), "three"),
    ],
)
def test_an_illegal_genotype_says_why(genotype, reason):
    assert reason in str(SPACE.illegal(genotype))


def test_parse():
    assert SPACE.parse("resnet56") == SPACE.named["resnet56"]
    assert SPACE.parse("depths=2,2,1 widths=24,48,72") == Genotype((2, 2, 1), (24, 48, 72))
    for text in ("resnet18", "depths=3 widths=16", "depths=1,1,1 widths=16,32,65", "depths=1,1,1"):
        with pytest.raises(ConfigError, match="search.student"):
            SPACE.parse(text)


def test_spec_builds_the_genotype():
    model = build_model(SPACE.spec(Genotype((1, 2, 3), (8, 24, 40))))
    assert [len(stage) for stage in (model.layer1, model.layer2, model.layer3)] == [1, 2, 3]
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)

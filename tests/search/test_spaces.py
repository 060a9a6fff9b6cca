"""Every space: one contract over all rows, costs of the built networks, and what each says for itself."""

import itertools
import math
import random
import time
from dataclasses import replace

import pytest
import torch
from torch import nn

from edgekd.artifacts import ModelSpec
from edgekd.catalog import SPACES
from edgekd.errors import ConfigError, TargetError
from edgekd.models import build_model, cost
from edgekd.models.cifar import DEPTHS
from edgekd.models.nasbench201 import EDGES, Cell
from edgekd.profile.device import Device
from edgekd.profile.operators import Head, Relu
from edgekd.search._scores import ScoreBook
from edgekd.search.scorers import Score
from edgekd.search.spaces import Gene, Genotype, Space, _rules
from edgekd.search.spaces._rules import Rule
from edgekd.search.spaces.autoformer import AutoFormerSpace
from edgekd.search.spaces.cifar_resnet import CifarResNetSpace
from edgekd.search.spaces.mobilenet import MobileNetSpace
from edgekd.search.spaces.nasbench201 import CHOICES, CONV1, CONV3, NONE, POOL, SKIP, NasBench201Space, _representatives
from edgekd.search.spaces.pit import PiTSpace
from edgekd.search.spaces.resnet import ResNetSpace

SPACE = CifarResNetSpace(10, (3, 32, 32))
JETSON = Device("jetson-orin-nano", "Jetson Orin Nano", "jetson", backend="tensorrt", scheme="tensorrt")
CPU = Device("x86-cpu", "x86", "cpu", backend="onnxruntime-cpu", scheme="ort")
SHAPES = {
    "cifar-resnet": [(1, 8, 8), (3, 30, 17)],
    "resnet": [(1, 28, 28), (3, 96, 80)],
    "mobilenet": [(1, 28, 28), (3, 96, 80)],
    "nasbench201": [(1, 28, 28), (3, 16, 12)],
    "autoformer": [(1, 8, 8), (3, 64, 64)],
    "pit": [(1, 28, 28), (3, 96, 96)],
}


def space_of(name: str, device: Device | None = None) -> Space:
    return SPACES[name].load()(7, (3, 32, 32), device)


@pytest.mark.parametrize("name", SPACES)
def test_closed_form_cost_is_the_built_models_cost(name):
    generator = random.Random(0)
    for shape in SHAPES[name]:
        space = SPACES[name].load()(7, shape)
        for genotype in [space.smallest(), space.sample(generator), space.sample(generator)]:
            point = space.point(genotype)
            model = build_model(point.spec)
            assert cost(model, shape) == replace(cost(model, shape), params=point.params, macs=point.macs), genotype
            if name != "nasbench201":
                assert len(model.blocks) == point.depth
            assert model(torch.zeros(2, *shape)).shape == (2, 7)


@pytest.mark.parametrize(
    ("name", "point", "params", "macs"),
    [
        ("cifar-resnet", "resnet20", 272_474, 40_813_184),
        ("resnet", "resnet18", 11_689_512, 1_814_073_344),  # this and what follows: timm's own nets
        ("resnet", "resnet26", 15_995_176, 2_342_256_640),
        ("resnet", "resnet50", 25_557_032, 4_089_184_256),
        ("mobilenet", "mobilenetv2", 3_504_872, 300_774_272),
        ("autoformer", "deit-tiny", 5_717_416, 1_253_683_200),
        ("pit", "pit-tiny", 4_847_272, None),
        ("nasbench201", "largest", 1_531_546, None),
    ],
)
def test_published_networks_have_the_published_size(name, point, params, macs):
    space = SPACES[name].load()(SPACES[name].classes, SPACES[name].images)
    found = space.point(space.parse(point))
    assert found.params == params
    assert macs is None or found.macs == macs


@pytest.mark.parametrize("name", SPACES)
def test_a_point_is_counted_without_building_it(name):
    """In 0.2 ms for a CIFAR ResNet and under 2 for all on a quiet machine; the bounds leave room for a busy one."""
    space = SPACES[name].load()(SPACES[name].classes, SPACES[name].images)
    point = max(space.named.values(), key=lambda genotype: len(space.network(genotype)))
    times = []
    for _ in range(10):
        start = time.process_time()
        space.point(point)
        times.append(time.process_time() - start)
    assert min(times) < (1e-3 if name == "cifar-resnet" else 1e-2)


@pytest.mark.parametrize("device", [None, CPU, JETSON], ids=["any", "ort", "tensorrt"])
@pytest.mark.parametrize("name", SPACES)
def test_sampling_mutation_crossover_and_shrinking_stay_legal(name, device):
    space, generator = space_of(name, device), random.Random(1)
    assert space.illegal(space.smallest()) is None
    assert space.shrink(space.smallest(), generator) == space.smallest()
    least = space.point(space.smallest())
    for _ in range(8):
        a, b = space.sample(generator), space.sample(generator)
        child, crossed = space.mutate(a, generator), space.crossover(a, b, generator)
        assert child != a
        assert space.crossover(a, a, generator) == a
        for genotype in (a, b, child, crossed):
            assert space.illegal(genotype) is None
            assert space.canonical(genotype) == genotype == space.parse(str(genotype))
            point = space.point(genotype)
            assert (point.params, point.macs) >= (least.params, least.macs)
        steps = 0
        while a != space.smallest():
            a, steps = space.shrink(a, generator), steps + 1
            assert space.illegal(a) is None
            assert steps < 200


@pytest.mark.parametrize("name", SPACES)
def test_a_search_replays_from_a_seed(name):
    space = space_of(name)
    walks = []
    for _ in range(2):
        generator = random.Random(7)
        start = space.sample(generator)
        walks.append([start, space.mutate(start, generator), space.shrink(start, generator)])
    assert walks[0] == walks[1]


@pytest.mark.parametrize("name", SPACES)
def test_named_points_are_legal_and_scores_are_read_back(name, tmp_path):
    space = space_of(name)
    assert space.named and all(space.illegal(genotype) is None for genotype in space.named.values())
    assert {key: space.parse(key) for key in space.named} == dict(space.named)
    book = ScoreBook(tmp_path / "scores.json", "inputs")
    points = [*space.named.values(), space.sample(random.Random(0))]
    for value, genotype in enumerate(points):
        book.add(genotype, Score(float(value), 0.5, {"term": 1.5}))
    book.save()
    again = ScoreBook(tmp_path / "scores.json", "inputs")
    assert again.scores == book.scores
    assert all(genotype in again and again[genotype].value == value for value, genotype in enumerate(points))
    assert not ScoreBook(tmp_path / "scores.json", "others").scores


def test_mutation_changes_one_gene_by_up_to_two_steps():
    generator, steps = random.Random(2), set()
    genes = SPACE.genes["depths"].choices + SPACE.genes["widths"].choices
    for _ in range(300):
        a = SPACE.sample(generator)
        b = SPACE.mutate(a, generator)
        changed = [
            choices.index(y) - choices.index(x)
            for x, y, choices in zip(a.depths + a.widths, b.depths + b.widths, genes, strict=True)
            if x != y
        ]
        assert len(changed) == 1
        steps |= set(changed)
    assert steps == {-2, -1, 1, 2}


def test_a_name_mutates_into_any_other():
    space, generator = space_of("resnet"), random.Random(0)
    blocks = {space.mutate(space.named["resnet18"], generator).block for _ in range(100)}
    assert blocks == {("basic",), ("bottleneck",)}


def test_a_gene_counts_its_ways():
    assert Gene(((1, 2), (1, 2, 3))).size() == 6
    assert Gene(((1, 2), (1, 2, 3)), rising=True).size() == 5  # all but (2, 1)
    assert Gene.alike(3, "a", "b").size() == 8
    assert space_of("pit").size() == 4 * 3**3 * 10 * 4
    assert space_of("autoformer").size() == 3 * (4**12 + 4**13 + 4**14)


def test_genotypes_are_values():
    a = Genotype(depths=[1, 2], widths=(8, 16))
    assert a == Genotype(depths=(1, 2), widths=(8, 16)) and len({a, Genotype(depths=(1, 2), widths=(8, 16))}) == 1
    assert str(a) == "depths=1,2 widths=8,16" and a.widths == (8, 16)
    assert a != Genotype(depths=(1, 2), widths=(8, 24))
    with pytest.raises(AttributeError):
        a.kernels  # noqa: B018


@pytest.mark.parametrize(
    ("genotype", "reason"),
    [
        (Genotype(depths=(0, 1, 1), widths=(8, 16, 16)), "depths 0 in place 1"),
        (Genotype(depths=(1, 1, 10), widths=(8, 16, 16)), "depths 10 in place 3"),
        (Genotype(depths=(1, 1, 1), widths=(8, 20, 32)), "widths 20 in place 2 is not one of 16, 24, 32"),
        (Genotype(depths=(1, 1, 1), widths=(48, 32, 64)), "below the one before"),
        (Genotype(depths=(1, 1), widths=(16, 32)), "depths has 2 values, not 3"),
        (Genotype(widths=(16, 32, 64)), "its fields are depths, widths"),
    ],
)
def test_an_illegal_genotype_says_why(genotype, reason):
    assert reason in str(SPACE.illegal(genotype))


def test_parse():
    assert SPACE.parse("resnet56") == Genotype(depths=DEPTHS["resnet56"], widths=(16, 32, 64))
    assert SPACE.parse("  depths=2,2,1  widths=24,48,72 ") == Genotype(depths=(2, 2, 1), widths=(24, 48, 72))
    for text in ("depths=3 widths=16", "depths=1,1,1", "depths=1,x,1 widths=8,16,16", "a depths=1,1,1 widths=8,16,16"):
        with pytest.raises(ConfigError, match="search.student: .*is not a point of cifar-resnet"):
            SPACE.parse(text)
    with pytest.raises(ConfigError, match="depths takes numbers, not 1,x,1"):
        SPACE.parse("depths=1,x,1 widths=8,16,16")
    with pytest.raises(ConfigError, match="genotype: 'resnet21'.*\n.*one of .*resnet20"):
        SPACE.parse("resnet21", "genotype")
    with pytest.raises(ConfigError, match="depths 13 in place 3.*\nWrite depths=1,1,9 widths=16,32,64, or"):
        SPACE.parse("depths=1,1,13 widths=16,32,65")


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("nasbench201", (3, 30, 30), "30 x 30 cannot be halved twice.*\n.*multiple of 4"),
        ("autoformer", (3, 64, 32), "64 x 32 are not square"),
        ("autoformer", (3, 230, 230), "no multiple of its patches of 16.*\nSet image_size to 224 or 240"),
        ("pit", (3, 64, 32), "not square"),
        ("pit", (3, 1, 1), "holds no patch"),
    ],
)
def test_images_a_space_cannot_take(name, shape, message):
    with pytest.raises(ConfigError, match=message):
        SPACES[name].load()(10, shape)


@pytest.mark.parametrize(("side", "autoformer", "pit"), [(224, 16, 16), (96, 8, 8), (64, 8, 8), (32, 4, 4), (28, 4, 4)])
def test_patches_shrink_with_the_image(side, autoformer, pit):
    assert AutoFormerSpace(10, (3, side, side)).patch == autoformer
    assert PiTSpace(10, (3, side, side)).patch == pit


def test_a_target_excludes_channels_and_says_why():
    narrow = Genotype(depths=(1, 1, 1), widths=(8, 16, 16))
    for_cpu, for_jetson = (CifarResNetSpace(10, (3, 32, 32), device) for device in (CPU, JETSON))
    assert for_cpu.illegal(narrow) is None and for_cpu.smallest() == narrow
    reason = for_jetson.illegal(narrow)
    assert reason is not None and reason.startswith("8 channels, and jetson-orin-nano wants at least 16: INT8 tensor")
    assert for_jetson.smallest() == Genotype(depths=(1, 1, 1), widths=(16, 16, 16))
    with pytest.raises(ConfigError, match="8 channels, and jetson.*\nWrite depths=1,1,1 widths=16,16,16, or"):
        for_jetson.parse(str(narrow))


def test_a_target_sees_what_genes_multiply_to():
    """216 x 3.5 = 756 is no multiple of 8; on ONNX Runtime's CPUs that costs a linear layer nothing."""
    odd = Genotype(hidden_dim=(216,), depth=(12,), num_heads=(3,) * 12, mlp_ratio=(4.0,) * 11 + (3.5,))
    assert "756 channels, and jetson-orin-nano wants multiples of 8" in str(
        AutoFormerSpace(10, (3, 32, 32), JETSON).illegal(odd)
    )
    assert AutoFormerSpace(10, (3, 32, 32), CPU).illegal(odd) is None
    even = Genotype(hidden_dim=(216,), depth=(12,), num_heads=(3,) * 12, mlp_ratio=(4.0,) * 12)
    assert AutoFormerSpace(10, (3, 32, 32), JETSON).illegal(even) is None


def test_rules():
    rule = Rule("", "", least=16, multiple=8)
    assert [channels for channels in range(1, 41) if rule.allows(channels)] == [16, 24, 32, 40]


def test_a_target_that_excludes_all_is_named(monkeypatch):
    monkeypatch.setitem(_rules.RULES, "ort", (Rule("a multiple of 7", "of no reason", multiple=7),))
    for name in ("resnet", "nasbench201"):
        with pytest.raises(TargetError, match=r"x86-cpu excludes the .* cheapest points .* wants a multiple of 7"):
            space_of(name, CPU)


def test_resnet_points_take_timms_weights():
    import timm

    space = ResNetSpace(5, (3, 224, 224))
    for name in ("resnet18", "resnet26"):
        theirs = timm.create_model(name, num_classes=5).eval()
        ours = build_model(space.spec(space.named[name]))
        ours.load_state_dict(theirs.state_dict(), strict=True)
        images = torch.randn(1, 3, 64, 64)
        assert torch.equal(ours(images), theirs(images))


def test_small_images_keep_their_resolution():
    for space, factor in ((ResNetSpace(5, (3, 32, 32)), 8), (MobileNetSpace(5, (3, 32, 32)), 8)):
        model = build_model(space.spec(space.smallest()))
        assert model.forward_features(torch.zeros(1, 3, 32, 32)).shape[2:] == (32 // factor,) * 2
    assert not ResNetSpace(5, (3, 96, 96)).small_stem


def test_blocks_beyond_the_depth_are_no_genes():
    space = space_of("autoformer")
    deep = Genotype(hidden_dim=(192,), depth=(14,), num_heads=(3,) * 12 + (4, 4), mlp_ratio=(4.0,) * 14)
    shallow = space._with(deep, "depth", 0, 12)
    assert shallow == space.named["deit-tiny"]
    assert space._with(shallow, "depth", 0, 13).num_heads == (3,) * 13  # a new block is the cheapest
    assert "num_heads has 14 values, not 12" in str(space.illegal(replace_field(deep, depth=(12,))))


def replace_field(genotype, **fields):
    return Genotype(**{**dict(genotype.fields), **fields})


def cell_value(operations, x=0.3):
    """A cell on one number, every kernel of a kind the same function: equal cells have equal values."""
    apply = {
        NONE: lambda v: 0.0,
        SKIP: lambda v: v,
        POOL: lambda v: 1.7 * v + 0.011 * v**2,
        CONV1: lambda v: math.sin(1.3 * v) + 0.21,
        CONV3: lambda v: math.cos(0.7 * v) + 0.13,
    }
    nodes = {0: x, 1: 0.0, 2: 0.0, 3: 0.0}
    dead = {0: False, 1: True, 2: True, 3: True}
    for (a, b), operation in zip(EDGES, operations, strict=True):
        if operation != NONE and not dead[a]:
            nodes[b], dead[b] = nodes[b] + apply[operation](nodes[a]), False
    return round(nodes[3], 9)


def test_nasbench201_has_one_genotype_a_network():
    space = space_of("nasbench201")
    points = {space.canonical(Genotype(operations=cell)) for cell in itertools.product(CHOICES, repeat=6)}
    assert len(points) - 1 == space.size() == len(_representatives()) - 1
    # As functions of shared kernels there are fewer still: two equal convolutions of one node can be told apart.
    values = {cell_value(cell) for cell in itertools.product(CHOICES, repeat=6)}
    assert len(values) == len({key[0] for key in _representatives()})
    dead_end = Genotype(operations=(CONV3, NONE, NONE, SKIP, NONE, NONE))
    assert "the same network as operations=none,none,none,skip_connect,none,none" in str(space.illegal(dead_end))
    renamed = Genotype(operations=(SKIP, NONE, NONE, NONE, CONV3, NONE))
    assert space.canonical(renamed).operations == (NONE, NONE, NONE, CONV3, NONE, NONE)
    swapped = [Genotype(operations=cell) for cell in ((CONV3, CONV1, NONE, NONE, POOL, SKIP),)]
    swapped.append(Genotype(operations=(CONV1, CONV3, NONE, NONE, SKIP, POOL)))
    assert space.canonical(swapped[0]) == space.canonical(swapped[1])
    assert "connects the input" in str(space.illegal(Genotype(operations=(NONE,) * 6)))


def test_a_canonical_cell_computes_what_the_cell_computes():
    space, generator = space_of("nasbench201"), random.Random(3)
    x = torch.randn(1, 8, 6, 6)

    def value(operations):
        """With every kernel the identity times its size, so that which edge it is on does not matter."""
        cell = Cell(operations, 8).eval()
        for conv in (m for m in cell.modules() if isinstance(m, nn.Conv2d)):
            nn.init.dirac_(conv.weight)
            conv.weight.data *= conv.kernel_size[0]
        return cell(x)

    for _ in range(40):
        operations = tuple(generator.choice(CHOICES) for _ in EDGES)
        canonical = space.canonical(Genotype(operations=operations)).operations
        assert torch.allclose(value(operations), value(canonical), atol=1e-4)


def test_relu_joins_only_what_nothing_else_takes():
    space = NasBench201Space(10, (3, 8, 8))
    ops = [layer.op for layer in space.network(space.named["largest"])]
    assert sum(isinstance(op, Relu) for op in ops) == 15 * 2 + 2  # nodes 0 and 1 feed several kernels; node 2 feeds one
    lone = [layer.op for layer in space.network(Genotype(operations=(NONE, NONE, NONE, CONV3, NONE, NONE)))]
    assert not any(isinstance(op, Relu) for op in lone[:6]) and lone[1].relu


def test_spec_builds_the_genotype():
    model = build_model(SPACE.spec(Genotype(depths=(1, 2, 3), widths=(8, 24, 40))))
    assert [len(stage) for stage in (model.layer1, model.layer2, model.layer3)] == [1, 2, 3]
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert isinstance(SPACE.network(SPACE.smallest()).layers[-1].op, Head)


@pytest.mark.parametrize("name", SPACES)
def test_a_spec_survives_json(name):
    space = space_of(name)
    spec = space.spec(space.sample(random.Random(0)))
    assert ModelSpec.from_json(spec.to_json()) == spec

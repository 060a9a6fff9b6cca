"""Every scorer: a contract over all rows, and values worked out by hand on networks of a few weights."""

import math
import random
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from edgekd.artifacts import ModelSpec
from edgekd.catalog import SCORERS, SPACES
from edgekd.models import build_model
from edgekd.search.scorers import ScoringTask
from edgekd.search.scorers._network import NetworkScorer, kernels, loss_gradients, random_network
from edgekd.search.scorers.az import Expressivity, Progressivity, Trainability, channel_map, spectral_entropy
from edgekd.search.scorers.cka import linear_cka
from edgekd.search.scorers.depth import Depth
from edgekd.search.scorers.fisher import Fisher
from edgekd.search.scorers.grad_norm import GradNorm
from edgekd.search.scorers.grasp import Grasp
from edgekd.search.scorers.jacov import Jacov, K
from edgekd.search.scorers.naswot import Naswot
from edgekd.search.scorers.snip import Snip
from edgekd.search.scorers.sqnr import Sqnr
from edgekd.search.scorers.synflow import Synflow
from edgekd.search.scorers.zico import Zico
from edgekd.search.spaces import Genotype
from edgekd.search.spaces.cifar_resnet import CifarResNetSpace

SPACE = CifarResNetSpace(5, (3, 16, 16))
TEACHER = ModelSpec("edgekd", "resnet8", 5, (3, 16, 16))
POINT = SPACE.point(Genotype(depths=(1, 2, 1), widths=(8, 16, 24)))


def task(images=None, labels=None, inits=2, seed=0):
    if images is None:
        images = torch.randn(12, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    return ScoringTask(TEACHER, images, torch.arange(len(images)) % 5 if labels is None else labels, seed, inits)


def linear(*rows):
    """A linear classifier with these weights and no bias."""
    net = nn.Linear(len(rows[0]), len(rows), bias=False)
    net.weight.data = torch.tensor(rows, dtype=torch.float32)
    return net


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    weights = tmp_path_factory.mktemp("teacher") / "model.safetensors"
    save_file(build_model(TEACHER).state_dict(), weights)
    return replace(TEACHER, weights=str(weights))


@pytest.mark.parametrize("name", SCORERS)
def test_contract(name, teacher):
    def scorer_of(**changes):
        scorer = SCORERS[name].load()(replace(task(**changes), teacher=teacher))
        scorer.settle([POINT])
        return scorer

    scorer = scorer_of()
    state = torch.random.get_rng_state()
    first = scorer.score(POINT)
    assert math.isfinite(first.value) and first.spread >= 0
    scorer.score(SPACE.point(Genotype(depths=(1, 1, 1), widths=(8, 16, 16))))
    assert scorer.score(POINT) == first, "a score depends on what was scored before it"
    assert scorer_of().score(POINT) == first
    assert torch.equal(torch.random.get_rng_state(), state), "the global generator was used up"
    random = not SCORERS[name].cost.startswith("none")
    assert (scorer_of(seed=1).score(POINT) != first) == random
    assert (first.spread > 0) == random
    assert scorer_of(inits=1).score(POINT).spread == 0


@pytest.mark.parametrize("space", [name for name in SPACES if name != SPACE.name])
@pytest.mark.parametrize("name", SCORERS)
def test_every_space_can_be_scored(name, space, teacher):
    shape = (3, 32, 32)
    images = torch.randn(8, *shape, generator=torch.Generator().manual_seed(0))
    found = SPACES[space].load()(5, shape)
    point = found.point(found.sample(random.Random(1)))
    scorer = SCORERS[name].load()(replace(task(images, inits=1), teacher=replace(teacher, resize=16)))
    scorer.settle([point])
    assert math.isfinite(scorer.score(point).value)


def test_depth_counts_blocks():
    assert Depth(task()).score(POINT).value == math.log(4)


def test_networks_differ_by_init_alone():
    a, b, c = (kernels(random_network(POINT.spec, 0, init))[0] for init in (0, 1, 0))
    assert torch.equal(a, c) and not torch.equal(a, b)


def test_scores_of_one_linear_layer():
    """z = W x with x = (1, 0), label 0 and W = I: p = softmax(1, 0); dL/dW = (p - y) x^T."""
    images, labels = torch.tensor([[1.0, 0.0]]), torch.tensor([0])
    given = task(images, labels)
    p = 1 / (1 + math.exp(-1))
    assert torch.allclose(
        loss_gradients(linear((1, 0), (0, 1)), images, labels)[0], torch.tensor([[p - 1, 0], [1 - p, 0]])
    )
    assert GradNorm(given).measure(linear((1, 0), (0, 1))) == pytest.approx(math.sqrt(2) * (1 - p))
    assert Snip(given).measure(linear((1, 0), (0, 1))) == pytest.approx(1 - p)
    # H over the first column is p(1-p) [[1, -1], [-1, 1]]; H g there is -2 p (1-p)^2 (1, -1), and w = (1, 0).
    assert Grasp(given).measure(linear((1, 0), (0, 1))) == pytest.approx(2 * p * (1 - p) ** 2)
    # a = z = (1, 0), dL/dz = (p - 1, 1 - p)
    assert Fisher(given).measure(linear((1, 0), (0, 1))) == pytest.approx((1 - p) ** 2 / 2)


def test_synflow_is_the_sum_over_paths_for_every_layer():
    net = nn.Sequential(linear((1, -2), (0.5, 0)), linear((3, -1)))
    paths = 3 * (1 + 2) + 1 * 0.5
    given = task(torch.zeros(1, 2))
    assert Synflow(given).measure(net) == pytest.approx(math.log(2 * paths))  # both layers carry every path


def test_synflow_follows_the_values_through_attention():
    class Attention(nn.Module):
        """Three tokens of one channel; queries and keys are scaled by 5 and 7, values by 3."""

        def __init__(self):
            super().__init__()
            self.query, self.key, self.value = (linear((w,)) for w in (5, 7, 3))

        def forward(self, x):
            tokens = x.expand(1, 3, 1)
            return F.scaled_dot_product_attention(*(w(tokens) for w in (self.query, self.key, self.value))).sum()

    assert Synflow(task(torch.zeros(1, 1, 1))).measure(Attention()) == pytest.approx(math.log(3 * 3))


def test_naswot_tells_images_apart():
    given = task(torch.tensor([[1.0, 1.0], [1.0, -1.0]]))
    net = nn.Sequential(linear((1, 0), (0, 1)), nn.ReLU())
    assert Naswot(given).measure(net) == pytest.approx(math.log(2 * 2 - 1 * 1))  # K = [[2, 1], [1, 2]]


def test_sqnr_of_one_rounded_weight():
    """Weights (127, .4) become (127, 0): of 127 x 127.4 the rounding takes 127 x .4; the inputs are exact."""
    given = task(torch.tensor([[127.0, 127.0]]))
    assert Sqnr(given).measure(linear((127, 0.4))) == pytest.approx(20 * math.log10(127.4 / 0.4), abs=1e-4)


def test_jacov_of_orthogonal_and_of_equal_jacobians():
    class Gate(nn.Module):
        def __init__(self, slopes):
            super().__init__()
            self.slopes = torch.tensor(slopes)

        def forward(self, x):
            return (x * self.slopes).sum(1, keepdim=True)

    images = torch.zeros(2, 4)
    apart = Jacov(task(images)).measure(Gate([[1.0, -1, 0, 0], [0, 0, 1.0, -1]]))
    assert apart == pytest.approx(-2 * (math.log(1 + K) + 1 / (1 + K)))
    assert Jacov(task(images)).measure(Gate([[1.0, -1, 0, 0], [2.0, -2, 0, 0]])) < apart - 1e4


def test_zico_falls_with_the_gradients_spread():
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(1, 6, generator=generator)
    labels = torch.zeros(8, dtype=torch.long)
    steady, noisy = (task(base + s * torch.randn(8, 6, generator=generator), labels) for s in (0.1, 2.0))
    torch.manual_seed(0)
    net = nn.Linear(6, 3)
    assert Zico(steady).measure(net) > Zico(noisy).measure(net) + 1


def test_spectral_entropy_counts_directions():
    generator = torch.Generator().manual_seed(0)
    assert spectral_entropy(torch.randn(4096, 8, generator=generator)) == pytest.approx(math.log(8), abs=0.01)
    line = torch.randn(4096, 1, generator=generator) * torch.ones(1, 8)
    assert spectral_entropy(line) == pytest.approx(0, abs=1e-6)


def test_az_on_blocks_of_known_spectrum():
    class Blocks(nn.Module):
        def __init__(self, *weights):
            super().__init__()
            self.blocks = nn.ModuleList(nn.Conv2d(4, 4, 1, bias=False) for _ in weights)
            for block, weight in zip(self.blocks, weights, strict=True):
                block.weight.data = weight.view(4, 4, 1, 1)

        def forward(self, x):
            x.requires_grad_()
            for block in self.blocks:
                x = block(x)
            return x

    given = task(torch.zeros(32, 4, 16, 16))
    flat, narrow = torch.eye(4), torch.diag(torch.tensor([1.0, 1.0, 0, 0]))
    assert Expressivity(given).measure(Blocks(flat, narrow)) == pytest.approx(math.log(4) + math.log(2), abs=0.02)
    assert Progressivity(given).measure(Blocks(flat, narrow)) == pytest.approx(math.log(2) - math.log(4), abs=0.02)
    assert Progressivity(given).measure(Blocks(flat, flat, flat)) == pytest.approx(0, abs=0.02)
    assert Trainability(given).measure(Blocks(flat, flat)) == pytest.approx(0, abs=0.01)
    assert Trainability(given).measure(Blocks(flat, 4 * flat)) == pytest.approx((2 - 4 - 1 / 4) / 2, abs=0.1)


def test_channel_map_brings_a_stride_to_one_grid():
    assert channel_map(torch.ones(2, 3, 4, 4), torch.ones(2, 5, 8, 8)).shape == (3, 5)


def test_linear_cka():
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(64, 10, generator=generator)
    rotation = torch.linalg.qr(torch.randn(10, 10, generator=generator)).Q
    assert linear_cka(a, 3 * a @ rotation) == pytest.approx(1, abs=1e-6)
    # 64 images in 400 channels: the biased estimate of two unrelated embeddings would be above .8
    assert abs(linear_cka(*(torch.randn(64, 400, generator=generator) for _ in range(2)))) < 0.1


def test_the_teacher_must_have_a_classifier():
    from edgekd.errors import ModelError

    spec = ModelSpec("edgekd", "resnet8", 7, (3, 16, 16))
    given = task()
    assert isinstance(build_model(spec), nn.Module)
    broken = ScoringTask(ModelSpec("timm", "resnet18", 0, (3, 32, 32)), given.images, given.labels, 0, 1)
    with pytest.raises(ModelError, match="no linear classifier"):
        SCORERS["cka"].load()(broken)


def test_network_scorers_average_their_inits():
    class Constant(NetworkScorer):
        values = iter((1.0, 3.0))

        def measure(self, model):
            return next(self.values)

    score = Constant(task()).score(POINT)
    assert score.value == 2 and score.spread == pytest.approx(math.sqrt(2))

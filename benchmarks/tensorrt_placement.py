"""Where Q/DQ goes for ONNX Runtime and for TensorRT, on real architectures, judged by NVIDIA's own parser and builder.

    python benchmarks/tensorrt_placement.py --store DIR [--nets resnet18,vit_tiny] [--sm 75,86,89,120]

Each net is exported in the schemes `ort`, `tensorrt` and `int8+fp16`, linted, and `int8+fp16` is built by TensorRT-RTX
for every compute capability. Weights are random, which neither placement nor a build depends on; nothing runs, so there
is no latency and no accuracy.

A plan that builds need not compute in INT8. Beside the weights it holds kernels, megabytes that differ from net to
net, so bytes a parameter are those that a wider net of the same kind adds over the parameters that it adds, for
`int8+fp16` and for `fp16`: about 1 and about 2. Images are small for this: for larger maps TensorRT-RTX stores a
depthwise kernel of nine weights as a kilobyte and a half, which would be all there is to see of a MobileNet.

Every net appends its line, and one that is there is not built again.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from _graphs import TARGETS, engine, export_ptq, settled
from _record import lines, record
from timm.models import efficientnet, mobilenetv3
from torch import Tensor, nn

from edgekd.catalog import SCHEMES
from edgekd.export.tensorrt import BUILDERS
from edgekd.models.cifar import CifarResNet
from edgekd.profile.devices import load_device
from edgekd.quantize import lint


@dataclass(frozen=True)
class Net:
    """`build` makes it as published (1) or wider (`WIDER`)."""

    build: Callable[[int], nn.Module]
    pixels: int = 224
    compared: int = 64  # pixels, where bytes a parameter are compared


def named(name: str, wider: dict[str, Any]) -> Callable[[int], nn.Module]:
    """A timm net, and the wider one that these arguments make of it."""
    return lambda width: timm.create_model(name, **({} if width == 1 else wider))


# No name in timm has another width than its own, so the mobile nets come from the functions behind the names.
NETS = {
    "cifar_resnet20": Net(lambda width: CifarResNet(100, widths=(16 * width, 32 * width, 64 * width)), 32, 32),
    "resnet18": Net(named("resnet18", {"channels": (128, 256, 512, 1024)})),
    "resnet50": Net(named("resnet50", {"channels": (96, 192, 384, 768)})),
    "mobilenetv2": Net(lambda width: efficientnet._gen_mobilenet_v2("mobilenetv2_100", width)),
    "mobilenetv3": Net(lambda width: mobilenetv3._gen_mobilenet_v3("mobilenetv3_large_100", width)),
    "efficientnet_lite0": Net(lambda width: efficientnet._gen_efficientnet_lite("efficientnet_lite0", width)),
    "densenet121": Net(named("densenet121", {"growth_rate": 64})),
    "vit_tiny": Net(named("vit_tiny_patch16_224", {"embed_dim": 384, "num_heads": 6}), compared=224),
}
WIDER = 3
JUDGED = 86  # the plans that are compared are for this compute capability
IMAGES = 4


def network(net: Net, width: int, pixels: int) -> tuple[nn.Module, Tensor]:
    """Random weights, and the images [B, 3, H, W] that they are calibrated on."""
    torch.manual_seed(0)
    images = torch.randn(IMAGES, 3, pixels, pixels)
    return settled(net.build(width), images), images


def bytes_a_parameter(net: Net, scheme: str, file: Path) -> float:
    sizes = []
    for width in (1, WIDER):
        model, images = network(net, width, net.compared)
        export_ptq(model, [images], scheme, file)
        sizes.append((sum(p.numel() for p in model.parameters()), engine(file, JUDGED).header.bytes))
    (params, plan), (more, larger) = sizes
    return (larger - plan) / (more - params)


def placed(net: Net, home: Path, capabilities: list[int]) -> dict[str, Any]:
    model, images = network(net, 1, net.pixels)
    file = home / "graph.onnx"
    graphs: dict[str, dict[str, Any]] = {}
    for scheme in ("ort", "tensorrt", "int8+fp16"):  # the last one is built
        row = SCHEMES[scheme]
        export_ptq(model, [images], scheme, file, row.load().options(load_device("x86-cpu")))
        found = lint(file, row.runtime, waived=row.waived)
        graphs[scheme] = {"clean": found.clean, **found.to_json()}
    plans = {str(sm): engine(file, sm).header.bytes for sm in capabilities}
    slopes = {scheme: bytes_a_parameter(net, scheme, file) for scheme in ("int8+fp16", "fp16")}
    file.unlink()
    return {
        "params": sum(p.numel() for p in model.parameters()),
        "pixels": net.pixels,
        "graphs": graphs,
        "plan_bytes": plans,
        "bytes_a_parameter": slopes,
        "compared_pixels": net.compared,
        "weights": "random",
    }


def show(figures: dict[str, Any]) -> None:
    plans = "  ".join(f"sm_{sm} {size / 1e6:.1f} MB" for sm, size in figures["plan_bytes"].items())
    slopes = "  ".join(f"{scheme} {slope:.2f}" for scheme, slope in figures["bytes_a_parameter"].items())
    print(
        f"{figures['net']}: {figures['params'] / 1e6:.1f} M parameters\n  plans: {plans}\n  bytes a parameter: {slopes}"
    )
    for scheme, found in figures["graphs"].items():
        print(f"  {scheme:<10} {'clean' if found['clean'] else 'NOT CLEAN'}: {found['line']}")
        for what in [*found["problems"], *dict.fromkeys(found["float_islands"])]:
            print(f"             {what}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--store", type=Path, required=True, help="for graphs, each as long as it is needed")
    parser.add_argument("--nets", default=",".join(NETS))
    parser.add_argument("--sm", default="75,86,89,120", help=f"compute capabilities, of {', '.join(map(str, TARGETS))}")
    options = parser.parse_args()
    if BUILDERS["tensorrt-rtx"].version() is None:
        raise SystemExit("TensorRT-RTX is not installed: pip install 'edgekd[tensorrt-rtx]'")
    options.store.mkdir(parents=True, exist_ok=True)
    capabilities = [int(word) for word in options.sm.split(",")]
    finished = {line["figures"]["net"]: line["figures"] for line in lines("tensorrt_placement")}
    for net in options.nets.split(","):
        figures = finished.get(net)
        if figures is None or not {str(sm) for sm in capabilities} <= figures["plan_bytes"].keys():
            figures = {"net": net, **placed(NETS[net], options.store, capabilities)}
            record("tensorrt_placement", figures)
        show(figures)


if __name__ == "__main__":
    main()

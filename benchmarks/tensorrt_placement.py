"""Where Q/DQ goes for ONNX Runtime and for TensorRT, on real architectures, judged by NVIDIA's own parser and builder.

    python benchmarks/tensorrt_placement.py --store DIR [--nets resnet18,vit_tiny] [--sm 75,86,89,120]

Each net is exported in the schemes `ort`, `tensorrt` and `int8+fp16`, linted, and `int8+fp16` is built by TensorRT-RTX
for every compute capability. Weights are random, which neither placement nor a build depends on; nothing runs, so there
is no latency and no accuracy.

A plan that builds need not compute in INT8. Beside the weights it holds kernels, megabytes that differ from net to net,
so bytes a parameter are those that a wider net of the same kind adds over the parameters that it adds, for `int8+fp16`
and for `fp16`: about 1 and about 2. Every net appends its line, and one that is there is not built again.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
import torch
from _graphs import export_ptq, settled
from _record import lines, record
from timm.models import efficientnet, mobilenetv3
from torch import nn

from edgekd.catalog import SCHEMES
from edgekd.export import tensorrt_rtx
from edgekd.models.cifar import CifarResNet
from edgekd.profile.devices import load_device
from edgekd.quantize import lint

IMAGENET = 224


def named(name: str, wide: dict[str, Any]) -> Callable[[int], nn.Module]:
    """A timm net, and the wider one that these arguments make of it."""
    return lambda width: timm.create_model(name, **({} if width == 1 else wide))


# Of each net: pixels, and a function that makes it as published (1) or wider (3). Names have no other width than
# theirs in timm, so the three mobile nets come from the functions behind the names.
NETS: dict[str, tuple[int, Callable[[int], nn.Module]]] = {
    "cifar_resnet20": (32, lambda width: CifarResNet(100, widths=(16 * width, 32 * width, 64 * width))),
    "resnet18": (IMAGENET, named("resnet18", {"channels": (128, 256, 512, 1024)})),
    "resnet50": (IMAGENET, named("resnet50", {"channels": (96, 192, 384, 768)})),
    "mobilenetv2": (IMAGENET, lambda width: efficientnet._gen_mobilenet_v2("mobilenetv2_100", width)),
    "mobilenetv3": (IMAGENET, lambda width: mobilenetv3._gen_mobilenet_v3("mobilenetv3_large_100", width)),
    "efficientnet_lite0": (IMAGENET, lambda width: efficientnet._gen_efficientnet_lite("efficientnet_lite0", width)),
    "densenet121": (IMAGENET, named("densenet121", {"growth_rate": 64})),
    "vit_tiny": (IMAGENET, named("vit_tiny_patch16_224", {"embed_dim": 384, "num_heads": 6})),
}
WIDER = 3
JUDGED = 86  # the plans that are compared are for this compute capability
SMALL = 64  # pixels there, where a net takes them: the code of depthwise kernels grows with image and channels
IMAGES = 4


def placed(net: str, home: Path, capabilities: list[int]) -> dict[str, Any]:
    pixels, build = NETS[net]
    graphs: dict[str, dict[str, Any]] = {}
    plans: dict[str, int] = {}
    sizes: dict[tuple[str, int], tuple[int, int]] = {}  # of a scheme and width: parameters, bytes of the plan
    small = pixels if net.startswith("vit") else min(pixels, SMALL)

    def exported(width: int, side: int, scheme: str) -> tuple[Path, int]:
        """A graph of images of `side` pixels, and the net's parameters."""
        torch.manual_seed(0)
        images = torch.randn(IMAGES, 3, side, side)
        network = settled(build(width), images)
        row, file = SCHEMES[scheme], home / f"{net}.onnx"
        options = row.load().options(load_device("x86-cpu")) if scheme == "ort" else {}
        export_ptq(network, [images], scheme, file, options)
        return file, sum(parameter.numel() for parameter in network.parameters())

    for scheme in ("ort", "tensorrt", "int8+fp16"):
        file, _ = exported(1, pixels, scheme)
        found = lint(file, SCHEMES[scheme].runtime)
        graphs[scheme] = {"clean": found.clean, **found.to_json()}
    for capability in capabilities:
        plans[str(capability)] = tensorrt_rtx.build(file, capability).plan_bytes
    for width in (1, WIDER):
        for scheme in ("int8+fp16", "fp16"):
            file, params = exported(width, small, scheme)
            sizes[scheme, width] = params, tensorrt_rtx.build(file, JUDGED).plan_bytes
    file.unlink()
    slopes = {}
    for scheme in ("int8+fp16", "fp16"):
        (params, plan), (more, larger) = sizes[scheme, 1], sizes[scheme, WIDER]
        slopes[scheme] = (larger - plan) / (more - params)
    return {
        "net": net,
        "params": sizes["fp16", 1][0],
        "params_wider": sizes["fp16", WIDER][0],
        "graphs": graphs,
        "plan_bytes": plans,
        "pixels": {"plans": pixels, "bytes_a_parameter": small},
        "bytes_a_parameter": slopes,
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
    parser.add_argument("--sm", default="75,86,89,120", help="compute capabilities")
    options = parser.parse_args()
    if not tensorrt_rtx.available():
        raise SystemExit("TensorRT-RTX is not installed: pip install 'edgekd[tensorrt-rtx]'")
    options.store.mkdir(parents=True, exist_ok=True)
    capabilities = [int(word) for word in options.sm.split(",")]
    finished = {line["figures"]["net"]: line["figures"] for line in lines("tensorrt_placement")}
    for net in options.nets.split(","):
        figures = finished.get(net)
        if figures is None or not {str(sm) for sm in capabilities} <= figures["plan_bytes"].keys():
            figures = placed(net, options.store, capabilities)
            record("tensorrt_placement", figures)
        show(figures)


if __name__ == "__main__":
    main()

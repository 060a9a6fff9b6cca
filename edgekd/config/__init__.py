"""RunConfig: defaults <- YAML <- --set a.b=c <- flags. Unknown keys are errors; `None` means: chosen from the rest."""

from edgekd.config.loading import load_config, load_export_config
from edgekd.config.methods import MethodChoice, map_names, method_choices, positive
from edgekd.config.sections import (
    BlockwiseConfig,
    DistillConfig,
    ExportConfig,
    ProfileConfig,
    QadConfig,
    QuantizeConfig,
    RunConfig,
    SearchConfig,
    TapsConfig,
    TeacherConfig,
    TrainConfig,
    parse_latency,
)

__all__ = [
    "BlockwiseConfig",
    "DistillConfig",
    "ExportConfig",
    "MethodChoice",
    "ProfileConfig",
    "QadConfig",
    "QuantizeConfig",
    "RunConfig",
    "SearchConfig",
    "TapsConfig",
    "TeacherConfig",
    "TrainConfig",
    "load_config",
    "load_export_config",
    "map_names",
    "method_choices",
    "parse_latency",
    "positive",
]

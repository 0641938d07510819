"""From a recipe to a tested image. Start reading at `run.build`."""

from pipeline.build.report import report_value
from pipeline.build.results import Assembled, Built
from pipeline.build.run import assemble, build, build_parent, explain_package, launchable, lock, smoke_image
from pipeline.build.stages import facts

__all__ = [
    "Assembled",
    "Built",
    "assemble",
    "build",
    "build_parent",
    "explain_package",
    "facts",
    "launchable",
    "lock",
    "report_value",
    "smoke_image",
]

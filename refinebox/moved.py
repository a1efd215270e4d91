"""Modules with a short public name, and those of version 0.1.0, which say where they went."""

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

PUBLIC = {"batch": "report.batch", "testing": "detection.testing", "zoo": "detection.zoo"}
ROOMS = {
    "files": "checkpoint download",
    "data": "annotations categories images shapes",
    "detection": "detector published",
    "refinement": "refiner jitter losses matching",
    "evaluation": "results bootstrap overlaps precision lvis",
    "analysis": "oracle swaps tide gains",
    "report": "charts curves gallery page tables",
    "training": "train learner run settings cache record resume observation interruption rehearsal",
    "commands": "demo options inputs",
}
RENAMED = {
    "apply": "refinement.upgraded",
    "cli": "commands.app",
    "evaluate": "evaluation.evaluator",
    "predict": "report.predictions",
}
MOVED = {name: f"{room}.{name}" for room, names in ROOMS.items() for name in names.split()} | RENAMED


class Moved(MetaPathFinder, Loader):
    """Asked last, for names that are nowhere else."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """What has a short name.

        Raises:
            ModuleNotFoundError: the module has moved and has none; the message says where to.
        """
        package, _, name = fullname.rpartition(".")
        if package != "refinebox":
            return None
        if name in MOVED:
            raise ModuleNotFoundError(f"{fullname} is now refinebox.{MOVED[name]}; import it from there", name=fullname)
        return ModuleSpec(fullname, self) if name in PUBLIC else None

    def create_module(self, spec: ModuleSpec) -> None:
        """A new module, to be filled."""

    def exec_module(self, module: ModuleType) -> None:
        """Fills the module with what stands under the new name."""
        found = vars(import_module(f"refinebox.{PUBLIC[module.__name__.rpartition('.')[2]]}"))
        vars(module).update({name: value for name, value in found.items() if not name.startswith("__")})


def watch() -> None:
    """Answers for old names from now on."""
    sys.meta_path.append(Moved())

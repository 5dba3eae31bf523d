"""The cases of the client suite by area: programs on cuda-bindings that use the driver API as frameworks do."""

from importlib import import_module
from pathlib import Path

from registry import CASES

for area in sorted(Path(__file__).parent.glob("[a-z]*.py")):
    import_module(f"{__name__}.{area.stem}")

__all__ = ["CASES"]

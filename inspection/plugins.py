"""Finds a plug-in class by its name in a name table."""

import importlib
import importlib.metadata
from collections.abc import Mapping
from typing import Any

from inspection.errors import ConfigError, DriverMissing


def resolve(table: Mapping[str, str], name: str, what: str) -> Any:
    """The class that ``table`` ("name" -> "module:Class") names; imported only now.

    ConfigError for an unknown name (lists the known ones) or a table that points nowhere, DriverMissing when the
    module needs a package that is not installed.
    """
    if name not in table:
        raise ConfigError(f"unknown {what} {name!r}", fix=f"known: {', '.join(sorted(table))}")
    module_name, _, class_name = table[name].partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise DriverMissing(
            f"{what} {name!r} needs the package {error.name!r}, which is not installed",
            fix=f"install it with: pip install {_installed_by(name, str(error.name))}",
        ) from error
    if not hasattr(module, class_name):
        raise ConfigError(f"{what} {name!r}: {module_name} has no class {class_name}", fix="correct the name table")
    return getattr(module, class_name)


def _installed_by(name: str, package: str) -> str:
    """The extra of a plug-in's own name, or else the package itself."""
    extras = importlib.metadata.metadata("lineside").get_all("Provides-Extra") or []
    return f'"lineside[{name}]"' if name in extras else package

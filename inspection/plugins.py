"""Finds a plug-in class by its name in a name table."""

import importlib
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
            fix='install the extra that brings it, for example: pip install "lineside[modbus]"',
        ) from error
    if not hasattr(module, class_name):
        raise ConfigError(f"{what} {name!r}: {module_name} has no class {class_name}", fix="correct the name table")
    return getattr(module, class_name)

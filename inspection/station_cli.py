"""`lineside run`: a station.  `lineside check`: would it start?"""

import argparse
import signal
from pathlib import Path
from typing import Any

from inspection.config import load_station


def add_verbs(verbs: Any) -> None:
    """Add the verbs to those of `lineside`."""
    run = verbs.add_parser("run", help="run a station until it is told to stop")
    run.add_argument("config", type=Path, metavar="STATION.toml")
    run.set_defaults(func=_run)
    check = verbs.add_parser("check", help="check a station config, its recipe and its folders; opens no device")
    check.add_argument("config", type=Path, metavar="STATION.toml")
    check.set_defaults(func=_check)


def _run(args: argparse.Namespace) -> int:
    from inspection.station import Station

    stopped: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda signum, _: stopped.append(signum))
    station = Station(load_station(args.config))
    try:
        station.open()
        station.run(lambda: bool(stopped) or getattr(station.controller, "finished", False))
    finally:
        station.close()
    return 0


def _check(args: argparse.Namespace) -> int:
    from inspection.errors import ConfigError
    from inspection.folder_check import folder_faults, free_space
    from inspection.notary import station_key
    from inspection.recipe import run_selftest
    from inspection.shelf import prepare_recipe

    config = load_station(args.config)
    station_key(config)
    loaded = prepare_recipe(config, Path(config.recipe))
    tests = run_selftest(loaded)
    faults = folder_faults(config)
    if faults:
        raise ConfigError(
            f"station {config.station_id} could not work: " + "; ".join(faults), fix="put right what is named above"
        )
    print(f"station {config.station_id}: config ok, recipe {loaded.recipe_id} sealed {loaded.sha256[:12]}")
    models = ", ".join(dict.fromkeys(view.model.card.name for view in loaded.views.values()))
    print(f"model {models}, {len(loaded.classes)} classes; {tests} self-test frames as sealed")
    print(free_space(config))
    return 0

"""Reads points in time as people write them on the command line."""

import argparse
from datetime import datetime


def moment(text: str) -> datetime:
    """A date or a date with a time of day, ISO 8601; local time where no zone is given."""
    try:
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no date such as 2026-11-23 or 2026-11-23T06:00") from error

"""What a search for cameras found; every driver lists its cameras in this form."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FoundCamera:
    """One camera that answered.  ``kind`` and ``device`` are what a station config writes to use it.

    ``address`` is an IP address, or "" where the camera has none; ``note`` says what keeps it from being used, or "".
    """

    kind: str
    device: str
    model: str
    serial: str
    address: str
    note: str = ""

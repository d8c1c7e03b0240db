"""Errors of the inspection runtime.

    InspectionError
    ├── UsageError          the command line or an input file is wrong
    ├── ConfigError         a recipe or station config is wrong; lists every mistake
    ├── DriverMissing       an optional package is not installed
    ├── CameraError         the camera cannot be used
    │   ├── CameraTimeout   no frame in time
    │   └── FrameCorrupt    a frame came, but it is torn, truncated or unreadable
    ├── ModelError          the model file cannot be used or inference failed
    ├── RegistrationError   the frame could not be laid over its golden template
    ├── SerialError         the serial on a part cannot be read, or is not the one expected
    ├── ControllerError     the line controller cannot be reached or served
    ├── PublisherError      a receiver of records cannot be reached or did not confirm
    ├── StoreError          a record could not be written or read
    │   └── ReviewConflict  a review that can never be stored as it was sent
    └── GateNotMet          a new recipe version was not shown to be as good as the one in force

Every error says what happened (names, numbers) and what to do about it; it prints as two lines.
"""

import errno
import os


def system_words(error: OSError) -> str:
    """What the system says of an error.  Python puts the address beside it for a port, which the caller names anyway."""
    if error.errno is not None and error.errno in errno.errorcode:
        return os.strerror(error.errno)
    return (error.strerror or str(error)).partition(" (while attempting")[0]  # of a name that leads nowhere


class InspectionError(Exception):
    """A failure the operator can act on: ``what`` happened and how to ``fix`` it."""

    def __init__(self, what: str, *, fix: str) -> None:
        super().__init__(what)
        self.what = what
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.what}\n{self.fix}"


class UsageError(InspectionError):
    """A wrong argument or input file: a missing folder, a text file given as image, boxes outside the image."""


class ConfigError(InspectionError):
    """A recipe or station config with unknown keys, values out of range, or a broken lock."""


class DriverMissing(InspectionError):
    """An optional package that this choice needs is not installed."""


class CameraError(InspectionError):
    """The camera is unknown, gone, or its folder holds no frames."""


class CameraTimeout(CameraError):
    """No frame arrived within the time allowed after the trigger."""


class FrameCorrupt(CameraError):
    """A frame arrived torn, truncated, unreadable, or of another size than configured."""


class ModelError(InspectionError):
    """The file is no ONNX model, has no ModelCard, breaks the contract, or inference failed."""


class RegistrationError(InspectionError):
    """No trustworthy transform between the frame and its golden template was found."""


class SerialError(InspectionError):
    """No code on the part could be read, several differ, or none is of the form that the recipe asks for.

    ``rule_id`` is what the verdict's reason is called: serial.unreadable, serial.ambiguous or serial.pattern.
    """

    def __init__(self, what: str, *, fix: str, rule_id: str) -> None:
        super().__init__(what, fix=fix)
        self.rule_id = rule_id


class ControllerError(InspectionError):
    """The controller's port is taken, or the connection cannot be served."""


class PublisherError(InspectionError):
    """A broker, server or folder that is told of records cannot be reached, or did not confirm."""


class StoreError(InspectionError):
    """The record store cannot be opened, is full, or refused a record."""


class ReviewConflict(StoreError):
    """A review whose key stands for another one, or that is none: sending it again does not help."""


class GateNotMet(InspectionError):
    """A challenger has no comparison with the recipe in force, or did not hold every gate of it."""

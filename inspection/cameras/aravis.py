"""What is asked of Aravis 0.8, the library behind GigE Vision and USB3 Vision cameras: find, open, set up, stream.

Aravis is imported only when a camera is looked for or opened.  Every function here may block for as long as a camera
takes that does not answer (2.5 s a question).
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inspection.cameras.found import FoundCamera
from inspection.cameras.pixels import FORMATS
from inspection.errors import CameraError, ConfigError, DriverMissing

if TYPE_CHECKING:
    from inspection.cameras.genicam import GenicamCameraConfig

FAKE = "Fake_"  # device ids of the camera inside the library
INSTALL = 'pip install "lineside[genicam]", and on Debian or Ubuntu: apt install gir1.2-aravis-0.8'
EDGES = {"rising": "RisingEdge", "falling": "FallingEdge"}
LEAST_SOCKET_BUFFER = 1 << 20  # bytes; below, one late thread costs packets even of small frames


def load() -> Any:
    """The Aravis library; DriverMissing when Python's bindings or the library itself are not installed."""
    try:
        import gi

        gi.require_version("Aravis", "0.8")
        from gi.repository import Aravis
    except ModuleNotFoundError as error:
        raise DriverMissing("GenICam cameras need the package PyGObject", fix=INSTALL) from error
    except (ValueError, ImportError) as error:
        raise DriverMissing(f"GenICam cameras need the library Aravis 0.8 ({error})", fix=INSTALL) from error
    return Aravis


@contextmanager
def told(what: str, fix: str = "check that the camera has power and its cable is plugged in") -> Iterator[None]:
    """Turn Aravis' errors in the block into CameraError, which begins with ``what``."""
    from gi.repository import GLib

    try:
        yield
    except GLib.Error as error:
        raise CameraError(f"{what}: {error.message}", fix=fix) from error


def list_devices() -> tuple[FoundCamera, ...]:
    """Every camera that answers on any interface, without the one inside the library; takes about a second."""
    aravis = load()
    aravis.disable_interface("Fake")
    aravis.update_device_list()
    return tuple(
        FoundCamera(
            "genicam",
            aravis.get_device_id(number) or "",
            " ".join(filter(None, (aravis.get_device_vendor(number), aravis.get_device_model(number)))),
            aravis.get_device_serial_nbr(number) or "",
            address if "." in (address := aravis.get_device_address(number) or "") else "",
        )
        for number in range(aravis.get_n_devices())
    )


def open_camera(device: str) -> Any:
    """The ``Aravis.Camera`` of a serial number, IP address or id, "" for the only one that answers.

    CameraError when there is no such camera, or several; it lists those that answer.
    """
    aravis = load()
    if device.startswith(FAKE):
        aravis.enable_interface("Fake")
        name = device
    elif _is_address(device):
        name = device  # asked directly: no search, which takes a second
    else:
        name = _chosen(device)
    with told(f"the GenICam camera {name!r} cannot be opened", "check power and cable, and that no program uses it"):
        camera = aravis.Camera.new(name)
        if camera.is_gv_device() and not camera.get_device().is_controller():
            raise CameraError(
                f"the GenICam camera {name!r} is controlled by another program",
                fix="end the other program, such as the vendor's viewer",
            )
    return camera


def _is_address(device: str) -> bool:
    try:
        socket.inet_aton(device)
    except OSError:
        return False
    return device.count(".") == 3


def _chosen(device: str) -> str:
    found = list_devices()
    names = [one for one in found if not device or device in (one.device, one.serial, one.address)]
    if len(names) == 1:
        return names[0].device
    listed = "; ".join(f"{one.device} ({one.model}, serial {one.serial}, {one.address or 'USB'})" for one in found)
    wanted = f"the GenICam camera {device!r}" if device else "one GenICam camera"
    raise CameraError(
        f"{wanted} was looked for, {len(names) or 'none'} answered; there are: {listed or 'no cameras'}",
        fix="set `device` to one of those listed"
        if found
        else "check power, cable, and the address range of the camera",
    )


def set_up(camera: Any, config: "GenicamCameraConfig") -> None:
    """Write the settings of a station config into the camera, and read back what must be exact.

    ConfigError for a setting that this camera does not have; it names what is allowed.
    """
    with told("the camera refused its settings"):
        camera.stop_acquisition()
        camera.set_acquisition_mode(load().AcquisitionMode.CONTINUOUS)
        _set_pixel_format(camera, config.pixel_format)
        _set_region(camera, config.roi_px)
        if config.exposure_us is not None:
            _within("exposure_us", config.exposure_us, camera.get_exposure_time_bounds())
            if camera.is_exposure_auto_available():
                camera.set_exposure_time_auto(load().Auto.OFF)
            camera.set_exposure_time(config.exposure_us)
        if config.gain is not None:
            _within("gain", config.gain, camera.get_gain_bounds())
            if camera.is_gain_auto_available():
                camera.set_gain_auto(load().Auto.OFF)
            camera.set_gain(config.gain)
        _set_trigger(camera, config)


def _within(name: str, value: float, bounds: Any) -> None:
    """Aravis writes a value out of range without a word, and the camera takes something else."""
    if not bounds.min <= value <= bounds.max:
        raise ConfigError(
            f"{name} = {value:g} is out of this camera's range", fix=f"it takes {bounds.min:g} to {bounds.max:g}"
        )


def _set_pixel_format(camera: Any, name: str) -> None:
    there = camera.dup_available_pixel_formats_as_strings()
    if name not in there:
        usable = ", ".join(sorted(set(there) & set(FORMATS))) or "none that can be read"
        raise ConfigError(f"this camera has no pixel format {name!r}", fix=f"pixel_format can be: {usable}")
    camera.set_pixel_format_from_string(name)


def _set_region(camera: Any, roi_px: tuple[int, int, int, int] | None) -> None:
    """Without a region the whole sensor, so that what an earlier program left in the camera plays no part."""
    sensor = camera.get_sensor_size()
    x, y, x2, y2 = roi_px or (0, 0, sensor.width, sensor.height)
    width, height = x2 - x, y2 - y
    if x2 > sensor.width or y2 > sensor.height:
        raise ConfigError(
            f"roi_px = {[x, y, x2, y2]} leaves the sensor", fix=f"it has {sensor.width} x {sensor.height} pixels"
        )
    camera.set_region(x, y, width, height)
    got = camera.get_region()
    if (got.x, got.y, got.width, got.height) != (x, y, width, height):
        steps = camera.get_width_increment(), camera.get_height_increment()
        raise ConfigError(
            f"the camera made of roi_px = {[x, y, x2, y2]}: {[got.x, got.y, got.x + got.width, got.y + got.height]}",
            fix=f"use a width in steps of {steps[0]} and a height in steps of {steps[1]} pixels, offsets likewise",
        )


def _set_trigger(camera: Any, config: "GenicamCameraConfig") -> None:
    if config.trigger == "free":
        camera.clear_triggers()
        return
    source = "Software" if config.trigger == "software" else config.line
    there = camera.dup_available_trigger_sources()
    if source not in there:
        raise ConfigError(f"this camera has no trigger source {source!r}", fix=f"it has: {', '.join(there)}")
    camera.set_trigger(source)
    edge = EDGES[config.edge]
    if config.trigger == "software" or not camera.is_feature_available("TriggerActivation"):
        return
    edges = camera.dup_available_enumerations_as_strings("TriggerActivation")
    if edge not in edges:
        raise ConfigError(f"this camera cannot trigger on a {config.edge} edge", fix=f"it has: {', '.join(edges)}")
    camera.set_string("TriggerActivation", edge)


def make_stream(camera: Any, config: "GenicamCameraConfig") -> tuple[Any, int]:
    """A stream with its buffers queued, and the bytes its socket buffer was granted (0 where there is no socket).

    Always an ordinary socket: Aravis' packet socket needs root, so a station would behave otherwise under another user.
    """
    aravis = load()
    with told(
        "the camera gives no stream", "check packet_size and that the network between takes packets of that size"
    ):
        payload = camera.get_payload()
        if not camera.is_gv_device():
            stream, granted = camera.create_stream(None, None), 0
        else:
            stream, granted = _network_stream(aravis, camera, config, payload)
        for _ in range(config.buffers):
            stream.push_buffer(aravis.Buffer.new_allocate(payload))
    return stream, granted


def _network_stream(aravis: Any, camera: Any, config: "GenicamCameraConfig", payload: int) -> tuple[Any, int]:
    camera.gv_set_stream_options(aravis.GvStreamOption.PACKET_SOCKET_DISABLED)
    if config.packet_size:
        camera.gv_set_packet_size_adjustment(aravis.GvPacketSizeAdjustment.NEVER)
        camera.gv_set_packet_size(config.packet_size)
    else:
        camera.gv_auto_packet_size()
    stream = camera.create_stream(None, None)
    asked = config.socket_buffer_kb * 1024 or max(LEAST_SOCKET_BUFFER, 2 * payload)
    resend = aravis.GvStreamPacketResend
    stream.set_property("packet-resend", resend.ALWAYS if config.packet_resend else resend.NEVER)
    stream.set_property("socket-buffer", aravis.GvStreamSocketBuffer.FIXED)
    stream.set_property("socket-buffer-size", asked)
    return stream, _grow_socket(stream.get_port(), asked)


def _grow_socket(port: int, wanted: int) -> int:
    """Ask for a receive buffer of ``wanted`` bytes for the socket at ``port`` now; how many the system granted.

    Aravis itself asks only when the first packet has come: by then the rest of the first frame is lost.  It does not give
    its socket away, so it is looked for among those of this process.
    """
    for number in _open_sockets():
        with suppress(OSError), socket.socket(fileno=os.dup(number)) as found:
            if found.type == socket.SOCK_DGRAM and found.getsockname()[1] == port:
                found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, wanted)
                return found.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2  # Linux doubles what it grants
    return 0


def _open_sockets() -> Iterator[int]:
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the folder's own number is gone again
            if str(entry.readlink()).startswith("socket:"):
                yield int(entry.name)

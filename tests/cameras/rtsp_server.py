"""An RTSP camera as a process of its own: `python rtsp_server.py PORT`; each frame shows when it was made, and its number.

The picture is a grid of black and white squares that survives compression: 64 bits of the monotonic clock in
microseconds, then 32 bits of the frame's number.  Prints one line when it serves.
"""

import sys
import threading
import time
from typing import Any

import gi
import numpy as np

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

WIDTH, HEIGHT, SQUARE, FPS = 320, 240, 16, 25
PIPELINE = (
    "( appsrc name=source is-live=true do-timestamp=true format=time "
    f"caps=video/x-raw,format=GRAY8,width={WIDTH},height={HEIGHT},framerate={FPS}/1 ! videoconvert "
    "! video/x-raw,format=I420 ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=10 bitrate=4000 "
    "! rtph264pay name=pay0 pt=96 config-interval=1 )"
)


def bits(value: int, count: int) -> list[int]:
    return [value >> place & 1 for place in reversed(range(count))]


def picture(number: int) -> np.ndarray:
    squares = np.zeros((HEIGHT // SQUARE, WIDTH // SQUARE), np.uint8)
    code = bits(int(time.monotonic() * 1e6), 64) + bits(number, 32)
    squares.ravel()[: len(code)] = code
    return np.kron(squares * np.uint8(255), np.ones((SQUARE, SQUARE), np.uint8))


def feed(source: Any) -> None:
    number = 0
    while True:
        number += 1
        if source.emit("push-buffer", Gst.Buffer.new_wrapped(picture(number).tobytes())) != Gst.FlowReturn.OK:
            return
        time.sleep(1 / FPS)


def on_configure(factory: Any, media: Any) -> None:
    source = media.get_element().get_by_name_recurse_up("source")
    threading.Thread(target=feed, args=(source,), daemon=True).start()


def main() -> None:
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(sys.argv[1])
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(PIPELINE)
    factory.set_shared(True)
    factory.connect("media-configure", on_configure)
    server.get_mount_points().add_factory("/line", factory)
    if not server.attach(None):
        sys.exit("the port is taken")
    print("serving", flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    main()

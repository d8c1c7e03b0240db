"""A system clock that can be set while a program runs, for that program alone (`jumping_clock.c`; needs gcc)."""

import shutil
import struct
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".c")


class JumpingClock:
    """Makes the library and the file of the jump in ``folder``; FileNotFoundError when there is no gcc."""

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("gcc")
        if compiler is None:
            raise FileNotFoundError("gcc is not installed: apt install gcc libc6-dev")
        self._file = folder / "clock"
        self._library = folder / "jumping_clock.so"
        self.jump(0)
        subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(self._library), str(SOURCE), "-ldl"], check=True)

    @property
    def environment(self) -> dict[str, str]:
        """What the program must be started with."""
        return {"LD_PRELOAD": str(self._library), "JUMPING_CLOCK": str(self._file)}

    def jump(self, seconds: int) -> None:
        """From now on the clock is so many seconds ahead of the true one."""
        with self._file.open("r+b" if self._file.exists() else "w+b") as file:
            file.write(struct.pack("=q", seconds))

import shutil
from pathlib import Path

import pytest

from tools.soak import main


@pytest.mark.skipif(
    shutil.which("mosquitto") is None and not Path("/usr/sbin/mosquitto").exists(),
    reason="mosquitto is not installed: apt install mosquitto",
)
def test_faults_of_all_kinds_at_once_lose_nothing_and_pass_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With cameras, PLC, broker, store, disk and clock failing at random: triggers = records = answers, no wrong OK."""
    code = main(["--minutes", "0.6", "--seed", "11", "--out", str(tmp_path / "soak")])
    told = capsys.readouterr().out
    assert code == 0, told
    assert "violations                                        0" in told
    assert "seed 11" in told

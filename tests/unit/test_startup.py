"""What a process does before anything else: its standard streams and signals."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from harness.processes import SOURCE

ENVIRONMENT = {"PYTHONPATH": str(SOURCE)}


def run(code: str, *, redirections: str = "", before: str = "") -> subprocess.CompletedProcess[str]:
    script = f'{before} exec "$0" -c "$1" {redirections}'
    return subprocess.run(  # noqa: S603  (our own code)
        ["/bin/sh", "-c", script, sys.executable, code],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_closed_standard_streams_are_opened_so_that_no_file_takes_their_place(tmp_path: Path) -> None:
    result = tmp_path / "result"
    code = f"""
import os, sys
from image_service.startup import prepare_process
prepare_process()
print("to nothing"); print("to nothing", file=sys.stderr); sys.stdout.flush(); sys.stdin.read()
opened = os.open({str(result)!r}, os.O_WRONLY | os.O_CREAT)
os.write(opened, f"{{opened}} {{[os.readlink(f'/proc/self/fd/{{each}}') for each in range(3)]}}".encode())
"""
    assert run(code, redirections="<&- >&- 2>&-").returncode == 0
    assert result.read_text() == f"3 {['/dev/null'] * 3}"


def test_signals_end_the_process_and_an_ignored_sighup_stays_ignored() -> None:
    code = """
import os, signal
from image_service.startup import prepare_process, stop_signals
prepare_process()
print(*(sign.name for sign in stop_signals()), flush=True)
os.kill(os.getpid(), signal.SIGHUP)
os.kill(os.getpid(), signal.SIGTERM)
"""
    ended, under_nohup = run(code), run(code, before="trap '' HUP;")
    assert (ended.stdout, ended.returncode) == ("SIGINT SIGTERM SIGHUP\n", -signal.SIGHUP)
    assert (under_nohup.stdout, under_nohup.returncode) == ("SIGINT SIGTERM\n", -signal.SIGTERM)
    assert os.getpid() != 1

"""Ctrl-C in the middle of a save: the next one is not held up by a lock that was left taken."""

import os
import subprocess
import sys
from pathlib import Path

from tests.support import interrupted_save


def test_an_interrupted_save_does_not_hold_up_the_next(tmp_path):
    command = [sys.executable, interrupted_save.__file__, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["interrupted", "[1.0, 2.0]"]

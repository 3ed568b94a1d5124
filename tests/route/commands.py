"""Commands as a user runs them."""

import subprocess
import sys

from running import ROOT


def command(package: str, *arguments: str) -> str:
    """What it printed; it must succeed."""
    done = subprocess.run(
        [sys.executable, "-m", package, *arguments], capture_output=True, text=True, check=False, cwd=ROOT, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout

"""TensorFlow without its start-up chatter."""

import os
import sys
import tempfile


def import_tensorflow() -> None:
    """Import TensorFlow with standard error put aside.

    While it is loaded, and before its logging can be configured, its libraries write four lines to the file
    descriptor itself that no setting turns off (TensorFlow 2.21). They are shown if the import fails.
    """
    if "tensorflow" in sys.modules:
        return
    sys.stderr.flush()
    shown = os.dup(2)
    with tempfile.TemporaryFile() as aside:
        os.dup2(aside.fileno(), 2)
        try:
            import tensorflow  # noqa: F401
        except BaseException:
            aside.seek(0)
            os.write(shown, aside.read())
            raise
        finally:
            os.dup2(shown, 2)
            os.close(shown)

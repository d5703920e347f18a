"""The entry point of ``goldenctl`` and ``python -m goldenctl``."""

from __future__ import annotations

import os
import signal
from types import FrameType

EXIT_INTERRUPTED = 130  # goldenctl.errors has it too; here nothing is imported yet


def main() -> None:
    """Run the command line and exit. Ctrl-C while it is imported ends in one line too.

    An exception would not do: NumPy turns a KeyboardInterrupt of its import into another.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)
    from goldenctl.cli import main as run_and_exit

    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, before)
    run_and_exit()


def _leave(_number: int, _frame: FrameType | None) -> None:
    os.write(2, b"goldenctl: interrupted\n")
    os._exit(EXIT_INTERRUPTED)


if __name__ == "__main__":
    main()

"""``python -m goldenctl``."""

from goldenctl.cli import main

main()

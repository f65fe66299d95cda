"""``python -m novelsum``: the commands, where no script of theirs is installed."""

import sys

from novelsum.console import main

sys.exit(main())

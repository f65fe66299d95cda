"""Run the job that the first argument names, in rounds however small its pool is: as a larger pool would be."""

import runpy
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))

from novelsum.selection import rounds  # noqa: E402

rounds.WHOLE_BYTES = 0
sys.argv = sys.argv[1:]
runpy.run_path(str(ROOT / "jobs" / f"{sys.argv[0]}.py"), run_name="__main__")

"""Embed texts: JSON lines, JSON arrays or Parquet, plain or chats, become Parquet with embeddings.

For example:

    .venv-embed/bin/python jobs/embed_text.py --input tests/data/chats.jsonl \\
        --model .venv-embed/all-MiniLM-L6-v2 --output out/embedded
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

from novelsum.command import main

if __name__ == "__main__":
    sys.exit(main("embed_text", __doc__))

"""Embed texts: JSON lines, JSON arrays or Parquet, plain or chats, become Parquet with embeddings."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

from novelsum import console

if __name__ == "__main__":
    sys.exit(console.job("embed_text"))

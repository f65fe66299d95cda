"""The sample with texts and names that no page may take for anything else."""

import pyarrow as pa
import pyarrow.dataset as ds
from conftest import SAMPLE

HOSTILE = "</p></style><script>alert(1)</script><img src=x onerror='alert(2)'> \"&amp;\" $a_b$ \u202eevil\u2066 "
HOSTILE_SHOWN = HOSTILE.replace("\u202e", "[U+202E]").replace("\u2066", "[U+2066]").strip()
HOSTILE_GROUP = "<b onclick='x'>$w$</b>\u202e"
WIDE_GROUP = "多轮对话" * 6
RENAMED = {"wordnet": HOSTILE_GROUP, "live_multiple": WIDE_GROUP}
COLUMN = '"><script>group'


def hostile_sample() -> pa.Table:
    """The sample with hostile texts, hostile names of its greatest group and of the column of groups, a wide name."""
    table = ds.dataset(SAMPLE).to_table().combine_chunks()
    groups = [RENAMED.get(group, group) for group in table.column("group").to_pylist()]
    texts = [HOSTILE + text for text in table.column("text").to_pylist()]
    return table.select(["id", "embedding"]).append_column("text", [texts]).append_column(COLUMN, [groups])

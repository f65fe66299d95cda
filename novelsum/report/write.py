"""The report of a selection: ``report.html``, one page that needs nothing else, and ``report.json``, its figures."""

import importlib.util
import json
from threading import Thread
from typing import Any

from novelsum.errors import UsageError
from novelsum.files.location import Location
from novelsum.report.comparison import compared
from novelsum.settings import Settings

PAGE, DATA = "report.html", "report.json"

_UNTOLD: dict[str, Any] = {"began_with": [], "left_out": [], "unmet": {}}
"""What older manifests, and those of selections that began with nothing, leave out."""
_TOLD = (
    *("picks", "first", "seed", "crowded", "already_selected", "began_with", "left_out"),
    *("ended_by", "cost", "cost_budget", "unmet", "strategy"),
)
"""What the page tells of a selection."""


def check_report(settings: Settings) -> None:
    """Raise UsageError when a report is wanted and cannot be drawn; what draws it is imported while Spark starts."""
    if not settings.report:
        return
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError(
            "the report is drawn with matplotlib, which is not installed; install it (pip install matplotlib) or run "
            "with --no-report"
        )
    Thread(target=importlib.import_module, args=("matplotlib.figure",), daemon=True).start()


def write_report(folder: Location, manifest: dict[str, Any], survey: dict[str, Any]) -> None:
    """Write page and data of a run, from what its manifest says and what :mod:`~novelsum.report.survey` gathered."""
    from novelsum.report.page import page  # matplotlib is needed here and by no other run

    data = report_data(manifest, survey)
    content = json.dumps(data, ensure_ascii=False, allow_nan=False) + "\n"
    (folder / PAGE).write_bytes(page(data).encode())
    (folder / DATA).write_bytes(content.encode())


def report_data(manifest: dict[str, Any], survey: dict[str, Any]) -> dict[str, Any]:
    """All that the page shows, ready for JSON."""
    import matplotlib

    return {
        "job": manifest["job"],
        "finished": manifest["finished"],
        "settings": manifest["settings"],
        "input": {name: value for name, value in manifest["input"].items() if name != "path"},
        "selected": {**_UNTOLD, **{name: value for name, value in manifest["selected"].items() if name in _TOLD}},
        **survey,
        "comparison": compared(manifest.get("comparison", {}), manifest["settings"]["formula"]),
        "density_estimate": manifest["density"],
        "seconds": dict(manifest["seconds"]),
        "versions": {**manifest["versions"], "matplotlib": matplotlib.__version__},
    }

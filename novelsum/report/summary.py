"""The readable end of a run: the first picks, the groups, and where the files are."""

import sys
from collections import Counter
from typing import Any, TextIO

from novelsum.files.location import MANIFEST, MAP, REJECTED, REJECTED_NEAR, Location
from novelsum.files.store import Pool
from novelsum.groups import Group, group_of, in_order, in_words
from novelsum.report.features import quotas
from novelsum.report.output import SELECTED, output_name
from novelsum.report.text import amount, number, printed
from novelsum.report.turns import in_a_line, told
from novelsum.report.write import DATA, PAGE
from novelsum.settings import Job, Settings

_TEXT_WIDTH = 72
_ID_WIDTH = 32
_GROUPS_SHOWN = 20


def print_result(job: Job, settings: Settings, pool: Pool | None, output: Location, to: TextIO | None = None) -> None:
    """Print what a finished run did, to standard output or ``to``."""
    lines = [_pool_line(pool)] if pool else []
    if job == "estimate_density" or pool is None:
        lines += ["", f"density    {output}"]
    else:
        columns = [settings.id_column, "novelty", "density"]
        shown = [column for column in (settings.group_column, settings.text_column) if column is not None]
        columns += [output_name(column, settings.id_column) for column in shown]
        table = (output / SELECTED).read_parquet(["pick", *dict.fromkeys(columns)])
        picks = table.slice(0, settings.show).to_pylist()
        lines += _feature_lines(settings, output)
        if picks:
            lines += ["", f"first {len(picks)} of {len(table)} picks"]
            lines += aligned([_pick_cells(settings, pick) for pick in [None, *picks]])
        if settings.group_column:
            column = output_name(settings.group_column, settings.id_column)
            selected = Counter(map(group_of, table.column(column).to_pylist()))
            lines += ["", "groups by their share of the pool", *_group_lines(pool.groups, selected)]
            lines += _quota_lines(settings, pool, selected)
        lines += ["", f"selected   {output / 'selected'}"]
        if (output / PAGE).exists():
            lines.append(f"report     {output / PAGE}")
        lines += [f"near       {output / REJECTED_NEAR}"] if settings.explain_rejected else []
        lines += [f"map        {output / MAP}"] if settings.map else []
        lines += [f"exported   {Location.of(settings.export)}"] if settings.export else []
    if pool and (pool.bad_rows or (settings.model and (output / REJECTED).exists())):
        lines.append(f"rejected   {output / REJECTED}")
    lines.append(f"manifest   {output / MANIFEST}")
    print("\n".join(lines), file=to or sys.stdout)


def _pool_line(pool: Pool) -> str:
    parts = [f"{pool.input_rows} rows", f"{pool.duplicates_dropped} duplicates dropped"]
    if pool.near_duplicates_dropped:
        parts.append(f"{pool.near_duplicates_dropped} near-copies dropped")
    parts += [f"{rows} {reason}" for reason, rows in pool.bad_rows.items()]
    return f"{', '.join(parts)}: {pool.candidates} candidates of {pool.dimension} dimensions"


def _feature_lines(settings: Settings, output: Location) -> list[str]:
    """A line for each feature that was used: what it asked for and what came out, as manifest and report have it."""
    manifest = (output / MANIFEST).read_json()
    selected, density = manifest["selected"], manifest["density"]
    report = (output / DATA).read_json() if (output / DATA).exists() else {}
    told: list[tuple[str, str]] = []
    if before := selected["already_selected"]:
        outputs = selected.get("began_with", [])
        of = f"the picks of {len(outputs)} selection(s)" if outputs else str(settings.already_selected)
        told.append(("before", f"S began with {before} samples, {of}"))
    if quality := report.get("quality"):
        means = [number(quality[f"{of}_mean"], 4) for of in ("selected", "pool")]
        told.append(("quality", f"mean {means[0]} of the picks, {means[1]} of the pool"))
    if selected.get("cost") is not None:
        budget = f" of {amount(selected['cost_budget'])}" if "cost_budget" in selected else ""
        mean = number(selected["cost"] / selected["picks"], 4)
        pool = f", {number(report['cost']['pool_mean'], 4)} of the pool" if report.get("cost") else ""
        told.append(("cost", f"{amount(selected['cost'])}{budget}; mean {mean} of the picks{pool}"))
    if density.get("recall") is not None and density["method"] != "exact":
        error = (
            f", error of σ {density['sigma_error_median']:.2g} at the median" if "sigma_error_median" in density else ""
        )
        told.append(("density", f"approximate: recall {density['recall']:.4f}{error}"))
    ended = {
        "cost": "nothing left could be paid",
        "distance": "all that was left was too near",
        "cost or distance": "what was left was too dear or too near",
        "candidates": "no candidate was left",
    }.get(selected.get("ended_by", "budget"))
    if ended:
        told.append(("ended", f"after {selected['picks']} picks: {ended}"))
    return ["", *(f"{name:<10} {words}" for name, words in told)] if told else []


def _quota_lines(settings: Settings, pool: Pool, selected: Counter[Group]) -> list[str]:
    """What the quotas asked for, and the picks."""
    found = quotas(settings, pool, selected)
    if found is None:
        return []
    rows = [["quota", "asked", "picks"]]
    rows += [[printed(in_words(q["group"]), _ID_WIDTH), q["given"], str(q["picks"])] for q in found["groups"]]
    if others := found["others"]:
        fewest, most = others["fewest_picks"], others["most_picks"]
        each = f"{fewest}" if fewest == most else f"{fewest} to {most}"
        rows.append([f"* ({others['count']} others)", others["given"], f"{each} each"])
    return ["", *aligned(rows)]


def _pick_cells(settings: Settings, pick: dict[str, Any] | None) -> list[str]:
    """The cells of a pick's line, or the headings."""
    if pick is None:
        cells = ["pick", settings.id_column, "novelty", "density"]
        return cells + [c for c in (settings.group_column, settings.text_column) if c is not None]
    cells = [str(pick["pick"]), printed(pick[settings.id_column], _ID_WIDTH)]
    cells += [f"{pick['novelty']:.6g}", f"{pick['density']:.6g}"]
    if settings.group_column:
        group = group_of(pick[output_name(settings.group_column, settings.id_column)])
        cells.append(printed(in_words(group), _ID_WIDTH))
    if settings.text_column:
        cells.append(printed(in_a_line(told(pick[output_name(settings.text_column, settings.id_column)])), _TEXT_WIDTH))
    return cells


def _group_lines(pool: dict[Group, int], selected: Counter[Group]) -> list[str]:
    """A line for each of the largest groups: rows and share in pool and selection, and their ratio."""
    rows = [["group", "pool", "share", "selected", "share", "over pool"]]
    pool_total, selected_total = sum(pool.values()), selected.total()
    ordered = sorted(pool, key=lambda group: (-pool[group], in_order(group)))
    for group in ordered[:_GROUPS_SHOWN]:
        share, picked = pool[group] / pool_total, selected[group] / selected_total
        ratio = f"{picked / share:.2f} x"
        rows.append([printed(in_words(group), _ID_WIDTH), str(pool[group]), f"{share:.1%}"])
        rows[-1] += [str(selected[group]), f"{picked:.1%}", ratio]
    lines = aligned(rows)
    if len(ordered) > _GROUPS_SHOWN:
        lines.append(f"and {len(ordered) - _GROUPS_SHOWN} smaller groups")
    return lines


def aligned(rows: list[list[str]]) -> list[str]:
    """Rows as aligned lines, numbers to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    numeric = [all(row[i][:1].isdigit() for row in rows[1:]) for i in range(len(widths))]
    return [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in rows
    ]

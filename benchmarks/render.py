"""The tables of docs/performance.md, made from the results; the prose between them is written by hand.

A table stands between ``<!-- table: NAME -->`` and ``<!-- end -->``, and TABLES has a function of that name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import results
from benchmarks.budgets import BUDGETS
from benchmarks.prices import PRICES

__all__ = ["DOCUMENT", "TABLES", "rendered", "write"]

DOCUMENT = Path(__file__).parents[1] / "docs" / "performance.md"

Results = Mapping[str, Mapping[str, Any]]
"""What was measured, by part."""

_TABLE = re.compile(r"(<!-- table: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
_CLOUDS = {"dynamodb": "DynamoDB", "firestore": "Firestore"}
_WAYS = {"agent": "agno Agent", "sessions": "`db.sessions`"}
_MILLION = 1_000_000


def write() -> list[Path]:
    """Write the document and the plots anew from the results that there are.

    Returns:
        The files that are written.
    """
    from benchmarks.plots import draw

    found = results.read()
    DOCUMENT.write_text(rendered(DOCUMENT.read_text(encoding="utf-8"), found), encoding="utf-8")
    return [DOCUMENT, *draw(found)]


def rendered(document: str, found: Results) -> str:
    """The document with its tables made from the results."""
    return _TABLE.sub(lambda match: f"{match[1]}{_made(match[2], found)}\n{match[3]}", document)


def _made(name: str, found: Results) -> str:
    try:
        return TABLES[name](found)
    except KeyError as missing:
        if missing.args[0] not in results.PARTS:
            raise
        return f"*Not measured yet: `python -m benchmarks {missing.args[0]}`.*"


def table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table in Markdown. Heads that begin with ``:`` are of text, all others of figures."""
    lines = [
        "| " + " | ".join(head.removeprefix(":") for head in heads) + " |",
        "| " + " | ".join("---" if head.startswith(":") else "---:" for head in heads) + " |",
        *("| " + " | ".join("" if cell is None else str(cell) for cell in row) + " |" for row in rows),
    ]
    return "\n".join(lines)


def number(value: float | None, digits: int = 1) -> str:
    """A figure for a table: ``1,234`` or ``0.5``; nothing for None."""
    if value is None:
        return ""
    text = f"{value:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _subject(row: Mapping[str, Any]) -> str:
    name: str = row["subject"]
    return f"agno's {name}" if name.endswith("Db") else name


def _turn_costs(found: Results, cloud: str, figures: Mapping[str, str]) -> str:
    heads = [":adapter", ":through", "requests", "round trips", *figures.values(), "bytes sent", ":requests by API"]
    rows = [
        [
            _subject(row),
            _WAYS[row["way"]],
            number(row["total"]),
            number(row["round_trips"]),
            *(number(row[figure], 2) for figure in figures),
            number(row["bytes_sent"], 0),
            ", ".join(f"{number(count, 2)} {name}" for name, count in row["requests"].items()),
        ]
        for row in found["cost"]["turns"]
        if row["cloud"] == cloud
    ]
    return table(heads, rows)


def turns_dynamodb(found: Results) -> str:
    """What a turn costs on DynamoDB."""
    return _turn_costs(found, "dynamodb", {"read_units": "read units", "write_units": "write units"})


def turns_firestore(found: Results) -> str:
    """What a turn costs on Firestore."""
    figures = {"documents_read": "documents read", "documents_written": "documents written"}
    return _turn_costs(found, "firestore", figures)


def first_turns(found: Results) -> str:
    """What the first turn of a conversation adds to the mean on DynamoDB."""
    rows = [
        [_subject(row), _WAYS[row["way"]], number(row["write_units"], 2), number(row["later"]["write_units"], 2)]
        for row in found["cost"]["turns"]
        if row["cloud"] == "dynamodb"
    ]
    return table([":adapter", ":through", "write units, all turns", "write units, turns after the first"], rows)


def _dollars(row: Mapping[str, Any]) -> float:
    price = PRICES[row["cloud"]]
    read = row.get("read_units", 0) + row.get("documents_read", 0)
    written = row.get("write_units", 0) + row.get("documents_written", 0)
    return float(read * price.read + written * price.write)


def money(found: Results) -> str:
    """What a million turns cost."""
    by_adapter: dict[tuple[str, str], dict[str, float]] = {}
    for row in found["cost"]["turns"]:
        by_adapter.setdefault((_subject(row), row["way"]), {})[row["cloud"]] = _dollars(row)
    rows = [
        [
            name,
            _WAYS[way],
            *(f"{of[cloud]:.2f}" if cloud in of else None for cloud in _CLOUDS),
            f"{sum(of.values()):.2f}",
        ]
        for (name, way), of in sorted(by_adapter.items(), key=lambda item: (item[0][1], -sum(item[1].values())))
    ]
    return table([":adapter", ":through", "DynamoDB, $", "Firestore, $", "together, $"], rows)


def prices(found: Results) -> str:
    """The prices that ``money`` reckons with."""
    rows = [[each.cloud, f"{each.read:.3f}", f"{each.write:.3f}", each.of, each.source] for each in PRICES.values()]
    return table([":", "read, $ a million", "write, $ a million", ":prices of", ":source"], rows)


def _lists(found: Results, cloud: str, figures: Sequence[str]) -> str:
    sizes = sorted({row["size"] for row in found["cost"]["lists"]})
    cells: dict[tuple[str, str, str], dict[int, str]] = {}
    for row in found["cost"]["lists"]:
        if row["cloud"] == cloud:
            through = "agno's call" if row["way"] == "agno" else "own call"
            key = row["what"], _subject(row), through
            values = " / ".join(number(row.get(figure, 0)) for figure in figures)
            cells.setdefault(key, {})[row["size"]] = values
    order = list(dict.fromkeys(what for what, _, _ in cells))
    rows = [
        [*key, *(of.get(size) for size in sizes)]
        for key, of in sorted(cells.items(), key=lambda item: order.index(item[0][0]))
    ]
    return table([":call", ":adapter", ":through", *(f"N = {size:,}" for size in sizes)], rows)


def lists_dynamodb(found: Results) -> str:
    """Lists and deletions on DynamoDB: requests / read units / write units."""
    return _lists(found, "dynamodb", ("total", "read_units", "write_units"))


def lists_firestore(found: Results) -> str:
    """Lists and deletions on Firestore: requests / documents read / documents written."""
    return _lists(found, "firestore", ("total", "documents_read", "documents_written"))


def imports(found: Results) -> str:
    """What an import and the first opening take."""
    times = found["import"]["times"]
    rows = [
        [f"`{name}`" if "open" not in name else name, *(number(each[of]) for of in ("wall", "cpu"))]
        for name, each in times.items()
    ]
    for name, each in found["import"]["beyond"].items():
        own, base = name.split(" beyond ")
        rows.append([f"`{own}` beyond `{base}`", number(each["wall"]), number(each["cpu"])])
    return table([":", "ms on the clock", "ms of the processor"], rows)


def import_packages(found: Results) -> str:
    """Whose modules an import loads."""
    return table(
        [":package", "ms"], [[f"`{name}`", number(took)] for name, took in found["import"]["by_package"].items()]
    )


def _throughput(found: Results, cloud: str) -> str:
    heads = ["sessions", "round trip, ms", ":adapter", "turns a second", "p50, ms", "p99, ms", "longest stall, ms"]
    heads += ["processor, ms a turn", "agno_clouddb's turns a second over its", "agno_clouddb's p99 over its"]
    rows: list[list[object]] = []
    for cell in found["throughput"]["cells"]:
        if cell["cloud"] != cloud:
            continue
        for name, each in cell["adapters"].items():
            own = name == "agno_clouddb"
            figures = [number(each[of]) for of in ("rate", "p50", "p99", "stall", "cpu")]
            ratios = [None, None] if own else [f"{each['times_rate']:.1f}", f"{each['of_p99']:.2f}"]
            rows.append([cell["sessions"], cell["latency"], name, *figures, *ratios])
    return table(heads, rows)


def throughput_dynamodb(found: Results) -> str:
    """Many agents at once on DynamoDB."""
    return _throughput(found, "dynamodb")


def throughput_firestore(found: Results) -> str:
    """Many agents at once on Firestore."""
    return _throughput(found, "firestore")


def conditions(found: Results) -> str:
    """What is wanted of 64 agents at 5 ms, and what was reached."""
    rows: list[list[object]] = []
    for cell in found["throughput"]["cells"]:
        if (cell["sessions"], cell["latency"]) != (64, 5):
            continue
        blocking, threads = (cell["adapters"][f"agno's adapter{how}"] for how in ("", " in threads"))
        cloud = _CLOUDS[cell["cloud"]]
        for what, wanted, reached, held in (
            ("turns a second over agno's adapter", "≥ 5", blocking["times_rate"], blocking["times_rate"] >= 5),
            ("p99 over agno's adapter", "≤ 0.2", blocking["of_p99"], blocking["of_p99"] <= 0.2),
            ("turns a second over agno's adapter in threads", "≥ 2", threads["times_rate"], threads["times_rate"] >= 2),
        ):
            rows.append([cloud, what, wanted, f"{reached:.2f}", "yes" if held else "**no**"])
    return table([":cloud", ":64 agents, 5 ms", "wanted", "reached", ":held"], rows)


def overhead(found: Results) -> str:
    """The processor time of an operation beside the driver's bare call."""
    rows: list[list[object]] = []
    for each in found["overhead"]["operations"]:
        taken = each["microseconds"]
        bare, own = list(taken.values())[:2]
        ratio = own / bare
        others = ", ".join(f"{name} {time}" for name, time in list(taken.items())[2:])
        held = "yes" if ratio <= each["limit"] else "**no**"
        rows.append(
            [_CLOUDS[each["cloud"]], each["operation"], bare, own, f"{ratio:.2f}", f"≤ {each['limit']}", held, others]
        )
    heads = [":cloud", ":operation", "bare client, µs", "agno_clouddb, µs", "ratio", "wanted", ":held", ":others, µs"]
    return table(heads, rows)


def fan_out(found: Results) -> str:
    """What a fan-out takes beside the slower store alone."""
    of = found["overhead"]["fan_out"]
    rows = []
    for call in ("write", "read"):
        ratio = of[call]["both"] / max(of[call][cloud] for cloud in _CLOUDS)
        figures = [number(of[call][each], 2) for each in (*_CLOUDS, "at_once", "both")]
        rows.append([call, *figures, f"{ratio:.2f}", "≤ 1.05", "yes" if ratio <= 1.05 else "**no**"])
    heads = [*(f"{cloud} alone, ms" for cloud in _CLOUDS.values()), "both without a fan-out, ms", "a fan-out, ms"]
    return table([":call", *heads, "over the slower", "wanted", ":held"], rows)


def growth_turns(found: Results) -> str:
    """The cost of a turn by the length of its conversation."""
    units = {"dynamodb": ("read_units", "write_units"), "firestore": ("documents_read", "documents_written")}
    lengths = sorted({row["length"] for row in found["growth"]["turns"]})
    cells: dict[tuple[str, str], dict[int, str]] = {}
    for row in found["growth"]["turns"]:
        figures = [number(row["total"]), *(number(row.get(unit, 0)) for unit in units[row["cloud"]])]
        key = _CLOUDS[row["cloud"]], _subject(row)
        cells.setdefault(key, {})[row["length"]] = f"{' / '.join(figures)} / {number(row['bytes_sent'] / 1000)} KB"
    rows = [[*key, *(of.get(length) for length in lengths)] for key, of in cells.items()]
    return table([":cloud", ":adapter", *(f"turn {length:,}" for length in lengths)], rows)


def growth_lists(found: Results) -> str:
    """The cost of a list by the number of sessions."""
    sizes = sorted({row["size"] for row in found["growth"]["lists"]})
    cells: dict[str, dict[int, str]] = {}
    for row in found["growth"]["lists"]:
        read = number(row.get("read_units", 0) + row.get("documents_read", 0))
        cells.setdefault(_CLOUDS[row["cloud"]], {})[row["size"]] = f"{number(row['total'])} / {read}"
    rows = [[cloud, *(of.get(size) for size in sizes)] for cloud, of in cells.items()]
    return table([":cloud", *(f"N = {size:,}" for size in sizes)], rows)


def growth_memory(found: Results) -> str:
    """The memory of bulk calls by the number of records."""
    sizes = sorted({row["size"] for row in found["growth"]["memory"]})
    cells: dict[tuple[str, str], dict[int, str]] = {}
    for row in found["growth"]["memory"]:
        store = {"sqlite": "SQLite", **_CLOUDS}[row["store"]]
        cells.setdefault((f"`{row['call']}`", store), {})[row["size"]] = number(row["megabytes"], 2)
    rows = [[*key, *(of.get(size) for size in sizes)] for key, of in sorted(cells.items())]
    return table([":call", ":store", *(f"{size:,} records" for size in sizes)], rows)


def budgets(found: Results) -> str:
    """The counted budgets, and what the recorded conversations cost."""
    rows: list[list[object]] = []
    for budget in BUDGETS:
        reached = budget.reached(found["cost"])
        held = "yes" if reached <= budget.most else "**no**"
        rows.append([budget.what, f"≤ {number(budget.most)}", number(reached, 2), held])
    return table([":what", "budget", "reached", ":held"], rows)


def made(found: Results) -> str:
    """When and with what each part was measured."""
    rows = [
        [
            part,
            each["made"],
            each["python"],
            each["processors"],
            "whole grid" if each["full"] else "default",
            ", ".join(f"{name} {version}" for name, version in each["packages"].items()),
        ]
        for part, each in found.items()
    ]
    return table([":part", ":measured", ":Python", "processors", ":extent", ":packages"], rows)


TABLES: Mapping[str, Callable[[Results], str]] = {
    "made": made,
    "turns-dynamodb": turns_dynamodb,
    "turns-firestore": turns_firestore,
    "money": money,
    "prices": prices,
    "first-turns": first_turns,
    "budgets": budgets,
    "lists-dynamodb": lists_dynamodb,
    "lists-firestore": lists_firestore,
    "conditions": conditions,
    "throughput-dynamodb": throughput_dynamodb,
    "throughput-firestore": throughput_firestore,
    "overhead": overhead,
    "fan-out": fan_out,
    "growth-turns": growth_turns,
    "growth-lists": growth_lists,
    "growth-memory": growth_memory,
    "import": imports,
    "import-packages": import_packages,
}
"""The tables of the document, by name."""

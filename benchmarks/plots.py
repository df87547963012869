"""The plots of docs/performance.md, as SVG. matplotlib is imported when one is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["FOLDER", "draw"]

FOLDER = Path(__file__).parents[1] / "docs" / "performance"

_COLOURS = _OWN, _THIRD, _RIVAL, _BARE = "#1f6f8b", "#e0a458", "#c8553d", "#8a8d91"


def draw(found: Mapping[str, Mapping[str, Any]]) -> list[Path]:
    """Draw every plot for which there are results.

    Returns:
        The files.
    """
    import matplotlib

    matplotlib.use("svg")
    # The same results give the same bytes: no date, no random ids, and text as text.
    matplotlib.rcParams.update({"svg.hashsalt": "agno_clouddb", "svg.fonttype": "none", "font.size": 9})
    FOLDER.mkdir(exist_ok=True)
    plots = (("cost", _lists), ("throughput", _throughput), ("growth", _growth))
    return [plot(found[part]) for part, plot in plots if part in found]


def _save(figure: Any, name: str) -> Path:
    file = FOLDER / f"{name}.svg"
    figure.savefig(file, metadata={"Date": None}, bbox_inches="tight")
    # Without spaces at the ends of its lines.
    text = file.read_text(encoding="utf-8")
    file.write_text("\n".join(line.rstrip() for line in text.splitlines()) + "\n", encoding="utf-8")
    return file


def _axes(columns: int, height: float = 3.0) -> tuple[Any, list[Any]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * columns, height), layout="constrained")
    axes = figure.subplots(1, columns, squeeze=False)[0]
    for each in axes:
        each.grid(alpha=0.3)
        each.spines[["top", "right"]].set_visible(False)
    return figure, list(axes)


def _lists(cost: Mapping[str, Any]) -> Path:
    """What a list of 20 sessions reads, against how many there are."""
    figure, axes = _axes(2)
    for axis, (cloud, unit, title) in zip(
        axes,
        (
            ("dynamodb", "read_units", "read units on DynamoDB"),
            ("firestore", "documents_read", "documents on Firestore"),
        ),
        strict=True,
    ):
        lines: dict[str, list[tuple[int, float]]] = {}
        for row in cost["lists"]:
            if row["cloud"] == cloud and row["what"] == "20 newest sessions":
                rival = row["subject"].endswith("Db")
                name = (
                    f"agno's {row['subject']}"
                    if rival
                    else f"agno_clouddb, {row['way']}'s call".replace("own's", "own")
                )
                lines.setdefault(name, []).append((row["size"], row.get(unit, 0)))
        for (name, points), colour in zip(lines.items(), (_RIVAL, _THIRD, _OWN), strict=True):
            axis.loglog(*zip(*points, strict=True), marker="o", label=name, color=colour)
        axis.set_xlabel("sessions")
        axis.set_title(f"newest 20 sessions: {title}")
        axis.legend(frameon=False)
    return _save(figure, "lists")


def _throughput(throughput: Mapping[str, Any]) -> Path:
    """Turns a second and the longest stall, against how many agents there are, at one latency."""
    figure, axes = _axes(2)
    colours = dict(
        zip(("agno_clouddb", "agno's adapter in threads", "agno's adapter", "bare client"), _COLOURS, strict=True)
    )
    for axis, (cloud, title) in zip(axes, (("dynamodb", "DynamoDB"), ("firestore", "Firestore")), strict=True):
        cells = [each for each in throughput["cells"] if (each["cloud"], each["latency"]) == (cloud, 5)]
        for name, colour in colours.items():
            points = [(each["sessions"], each["adapters"][name]["rate"]) for each in cells]
            if points:
                axis.semilogx(*zip(*points, strict=True), marker="o", label=name, color=colour, base=2)
        axis.set_xlabel("agents at once")
        axis.set_title(f"turns a second on {title}, 5 ms away")
        axis.legend(frameon=False)
    return _save(figure, "throughput")


def _growth(growth: Mapping[str, Any]) -> Path:
    """What a turn reads, against the length of its conversation."""
    figure, axes = _axes(2)
    kinds = (
        ("dynamodb", "read_units", "read units of a turn on DynamoDB"),
        ("firestore", "documents_read", "documents a turn reads on Firestore"),
    )
    for axis, (cloud, unit, title) in zip(axes, kinds, strict=True):
        lines: dict[str, list[tuple[int, float]]] = {}
        for row in growth["turns"]:
            if row["cloud"] == cloud:
                lines.setdefault(row["subject"], []).append((row["length"], row.get(unit, 0)))
        for name, points in lines.items():
            rival, all_runs = name.endswith("Db"), name.endswith("all runs")
            label, colour = (f"agno's {name}", _RIVAL) if rival else (name, _THIRD if all_runs else _OWN)
            axis.loglog(*zip(*points, strict=True), marker="o", label=label, color=colour)
        axis.set_xlabel("turns so far")
        axis.set_title(title)
        axis.legend(frameon=False)
    return _save(figure, "growth")

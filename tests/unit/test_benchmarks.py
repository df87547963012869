"""The benchmarks: the document is what the results give, and what they count with counts."""

from __future__ import annotations

import re

from benchmarks import results
from benchmarks.counting import Cost
from benchmarks.prices import PRICES
from benchmarks.render import DOCUMENT, TABLES, number, rendered, table


def test_the_document_is_what_the_kept_results_give() -> None:
    document = DOCUMENT.read_text(encoding="utf-8")
    assert document == rendered(document, results.read()), "run `python -m benchmarks render`"


def test_every_table_stands_in_the_document_once() -> None:
    document = DOCUMENT.read_text(encoding="utf-8")
    assert sorted(re.findall(r"<!-- table: (\S+) -->", document)) == sorted(TABLES)
    assert document.count("<!-- end -->") == len(TABLES)


def test_a_changed_result_changes_the_document() -> None:
    found = results.read()
    document = DOCUMENT.read_text(encoding="utf-8")
    found["cost"]["turns"][0]["total"] = 12_345
    assert "12,345" in rendered(document, found)


def test_what_was_not_measured_is_said_to_be_missing() -> None:
    document = rendered(DOCUMENT.read_text(encoding="utf-8"), {})
    assert document.count("Not measured yet") == len(TABLES) - len({"made", "prices"})


def test_results_name_no_path_and_no_host() -> None:
    for part in results.read():
        text = (results.FOLDER / f"{part}.json").read_text(encoding="utf-8")
        assert not re.search(r"/(work|tmp|home|root|Users)/|127\.0\.0\.1|localhost", text), part


def test_figures_are_short() -> None:
    assert [number(each) for each in (None, 4.0, 9.66, 1234.5, 0.04)] == ["", "4", "9.7", "1,234.5", "0"]
    assert table([":name", "figure"], [["a", 1], ["b", None]]).splitlines() == [
        "| name | figure |",
        "| --- | ---: |",
        "| a | 1 |",
        "| b |  |",
    ]


def test_costs_are_averaged() -> None:
    one = Cost({"GetItem": 1, "Query": 2}, 2, read_units=1.5)
    other = Cost({"GetItem": 1}, 1, write_units=4)
    mean = Cost.mean([one, other])
    assert mean.requests == {"GetItem": 1, "Query": 1}
    assert (mean.total, mean.round_trips, mean.read_units, mean.write_units) == (2, 1.5, 0.75, 2)
    assert mean.as_json()["total"] == 2


def test_prices_say_when_and_by_whom() -> None:
    for price in PRICES.values():
        assert 0 < price.read < price.write
        assert re.search(r"\b20\d\d\b", price.of)
        assert price.source.startswith("https://")

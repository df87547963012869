"""docs/permissions.md lists the actions that the adapter of DynamoDB sends, and no others."""

from __future__ import annotations

import json
import re
from pathlib import Path

import agno_clouddb.stores.dynamodb as adapter
from agno_clouddb.stores.dynamodb import provision, writes

DOCUMENT = Path(__file__).parents[2] / "docs" / "permissions.md"


def sent(source: str) -> set[str]:
    """The requests that a source sends by their names, as the service calls them."""
    names = re.findall(r"\b(?:send|_send|_change)\(\s*\"(\w+)\"", source)
    return {"".join(part.title() for part in name.split("_")) for name in names}


def source(module: object) -> str:
    file = getattr(module, "__file__", None)
    assert file is not None
    return Path(file).read_text(encoding="utf-8")


def test_the_actions_are_those_of_the_requests() -> None:
    blocks = re.findall(r"```json\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    policies = [json.loads(block)["Statement"][0] for block in blocks]
    reading_and_writing, provisioning = ([each.removeprefix("dynamodb:") for each in p["Action"]] for p in policies)
    assert reading_and_writing == sorted(reading_and_writing)

    deploys = sent(source(provision))
    assert {*provisioning} == deploys
    folder = Path(str(adapter.__file__)).parent
    everything = set.union(*(sent(each.read_text(encoding="utf-8")) for each in folder.glob("*.py")))
    # A transaction is allowed by the actions in it, of the kinds that a write has; alone these are requests.
    kinds = re.search(r"kind: Literal\[(.*?)\]", source(writes))
    assert kinds is not None
    actions = {
        name.removesuffix("Item") + "Item" for name in re.findall(r"\w+", kinds[1].replace("Check", "CheckItem"))
    }
    assert {*reading_and_writing} == (everything - deploys - {"TransactWriteItems"}) | actions

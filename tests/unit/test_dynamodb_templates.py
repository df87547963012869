"""Tables as templates of CloudFormation and Terraform."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from agno_clouddb.cli.commands import app
from agno_clouddb.stores.dynamodb.tables import Table, chunk_table, layouts
from agno_clouddb.stores.dynamodb.templates import cloudformation, terraform
from agno_clouddb.stores.schema import COLLECTIONS, DECLARED

PREFIX = "mine_"
TABLES = [*(layouts(PREFIX)[name].table for name in COLLECTIONS), chunk_table(PREFIX)]
LARGEST_TEMPLATE = 51_200  # bytes of a template that is sent with the request, and not by way of S3


@pytest.fixture(params=TABLES, ids=lambda table: table.name)
def table(request: pytest.FixtureRequest) -> Table:
    found: Table = request.param
    return found


def resource(table: Table) -> dict[str, Any]:
    """The resource of a table in the CloudFormation template."""
    resources = cloudformation(PREFIX)["Resources"].values()
    (found,) = (each for each in resources if each["Properties"]["TableName"] == table.name)
    assert isinstance(found, dict)
    return found


def block(table: Table) -> dict[str, Any]:
    """The resource of a table in the Terraform configuration."""
    blocks = terraform(PREFIX)["resource"]["aws_dynamodb_table"].values()
    (found,) = (each for each in blocks if each["name"] == table.name)
    assert isinstance(found, dict)
    return found


def test_both_have_every_table_once() -> None:
    names = sorted(each.name for each in TABLES)
    assert sorted(each["Properties"]["TableName"] for each in cloudformation(PREFIX)["Resources"].values()) == names
    assert sorted(each["name"] for each in terraform(PREFIX)["resource"]["aws_dynamodb_table"].values()) == names


def test_a_fan_out_has_one_more_table_and_an_index_by_version_on_those_of_records() -> None:
    tables = [*(layouts(PREFIX)[name].replicated() for name in DECLARED), chunk_table(PREFIX)]
    made = [each["Properties"] for each in cloudformation(PREFIX, fan_out=True)["Resources"].values()]
    assert [each.create_request().items() <= found.items() for each, found in zip(tables, made, strict=True)] == [
        True for _ in tables
    ]
    blocks = terraform(PREFIX, fan_out=True)["resource"]["aws_dynamodb_table"]
    indexed = [
        name
        for name, each in blocks.items()
        if {"name": "shard-version-index", "projection_type": "KEYS_ONLY", "hash_key": "shard", "range_key": "version"}
        in each.get("global_secondary_index", [])
    ]
    assert indexed == [*COLLECTIONS]
    assert list(blocks) == [*DECLARED, "chunks"]


@pytest.mark.parametrize("format", ["cloudformation", "terraform"])
def test_the_command_prints_what_a_fan_out_needs_only_when_asked(format: str) -> None:
    make = {"cloudformation": cloudformation, "terraform": terraform}[format]
    for options, fan_out in (([], False), (["--fan-out"], True)):
        arguments = ["schema", "dynamodb", "--prefix", PREFIX, "--format", format, *options]
        result = CliRunner().invoke(app, arguments, catch_exceptions=False)
        assert result.exit_code == 0
        assert json.loads(result.stdout) == make(PREFIX, fan_out=fan_out)


@pytest.mark.parametrize("fan_out", [False, True])
def test_cloudformations_own_linter_finds_no_error(tmp_path: Path, fan_out: bool) -> None:
    path = tmp_path / "template.json"
    path.write_text(json.dumps(cloudformation(PREFIX, fan_out=fan_out)), encoding="utf-8")
    program = "from cfnlint.runner import main; main()"
    command = [sys.executable, "-c", program, "--non-zero-exit-code", "error", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_cloudformation_template_can_be_sent_with_the_request() -> None:
    assert len(json.dumps(cloudformation("p" * 200, fan_out=True), indent=2)) <= LARGEST_TEMPLATE


def test_the_properties_are_the_parameters_that_provision_sends(table: Table) -> None:
    properties = resource(table)["Properties"]
    assert table.create_request().items() <= properties.items()
    assert properties["TimeToLiveSpecification"] == {"AttributeName": "expires_at", "Enabled": True}


def test_neither_loses_items_when_a_table_leaves_the_template(table: Table) -> None:
    made = resource(table)
    assert (made["DeletionPolicy"], made["UpdateReplacePolicy"]) == ("Retain", "Retain")
    assert made["Properties"]["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
    assert block(table)["lifecycle"] == {"prevent_destroy": True}
    assert block(table)["point_in_time_recovery"] == {"enabled": True}


def test_terraform_describes_the_same_table(table: Table) -> None:
    request, made = table.create_request(), block(table)
    assert (made["hash_key"], made.get("range_key")) == (table.partition, table.sort)
    assert made["billing_mode"] == request["BillingMode"]
    assert made["ttl"] == {"attribute_name": "expires_at", "enabled": True}
    assert {each["name"]: each["type"] for each in made["attribute"]} == {
        each["AttributeName"]: each["AttributeType"] for each in request["AttributeDefinitions"]
    }
    for indexes, kind in ((table.global_, "global_secondary_index"), (table.local, "local_secondary_index")):
        described: list[Mapping[str, Any]] = made.get(kind, [])
        assert [
            (each["name"], each.get("hash_key", table.partition), each["range_key"], each.get("non_key_attributes", []))
            for each in described
        ] == [(index.name, index.partition, index.sort, list(index.include)) for index in indexes]
        assert all(
            each["projection_type"] == ("INCLUDE" if "non_key_attributes" in each else "KEYS_ONLY")
            for each in described
        )


def test_terraform_defines_exactly_the_attributes_that_keys_use(table: Table) -> None:
    made = block(table)
    indexes = [*made.get("global_secondary_index", []), *made.get("local_secondary_index", [])]
    used = {each[key] for each in (made, *indexes) for key in ("hash_key", "range_key") if key in each}
    assert {each["name"] for each in made["attribute"]} == used


def test_names_of_resources_are_such_as_both_allow() -> None:
    assert all(re.fullmatch("[A-Za-z0-9]+", name) for name in cloudformation(PREFIX)["Resources"])
    assert all(re.fullmatch("[a-z_][a-z0-9_-]*", name) for name in terraform(PREFIX)["resource"]["aws_dynamodb_table"])

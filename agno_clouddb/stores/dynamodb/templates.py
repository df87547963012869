"""The tables as templates of AWS CloudFormation and Terraform, for those who deploy tables by other means than code.

Both keep what they have made: CloudFormation retains a table that leaves the stack, Terraform refuses to destroy one,
and point-in-time recovery is on, so that a table can be restored to any second of the last 35 days (billed by the
service for each gigabyte). A store finds nothing to change in tables made from either.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agno_clouddb.stores.base import chosen
from agno_clouddb.stores.dynamodb.tables import TTL_ATTRIBUTE, Table, chunk_table, layouts

__all__ = ["cloudformation", "terraform"]


def cloudformation(prefix: str = "agno_", *, fan_out: bool = False) -> dict[str, Any]:
    """A CloudFormation template of all tables: the content of a file for ``aws cloudformation deploy``.

    Source: AWS::DynamoDB::Table in the template reference of CloudFormation.

    Args:
        prefix: the store's prefix of table names.
        fan_out: also what ``provision(replicated=True)`` makes, for a store of a fan-out.
    """
    resources = {f"{name.capitalize()}Table": _resource(table) for name, table in _tables(prefix, fan_out).items()}
    return {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": f"The tables of agno_clouddb under the prefix {prefix}",
        "Resources": resources,
    }


def terraform(prefix: str = "agno_", *, fan_out: bool = False) -> dict[str, Any]:
    """All tables in Terraform's JSON configuration syntax: the content of a file that ends in ``.tf.json``.

    Source: the resource aws_dynamodb_table of the provider hashicorp/aws. Which provider, region and credentials are
    used is left to the configuration that the file is put into.

    Args:
        prefix: the store's prefix of table names.
        fan_out: also what ``provision(replicated=True)`` makes, for a store of a fan-out.
    """
    blocks = {name: _block(table) for name, table in _tables(prefix, fan_out).items()}
    return {"resource": {"aws_dynamodb_table": blocks}}


def _tables(prefix: str, fan_out: bool) -> Mapping[str, Table]:
    """Every table by its name without prefix."""
    known = layouts(prefix)
    names = chosen(None, replicated=fan_out)
    tables = {name: known[name].replicated() if fan_out else known[name].table for name in names}
    return {**tables, "chunks": chunk_table(prefix)}


def _resource(table: Table) -> dict[str, Any]:
    # CloudFormation has the names and shapes of the service's own CreateTable.
    return {
        "Type": "AWS::DynamoDB::Table",
        "DeletionPolicy": "Retain",
        "UpdateReplacePolicy": "Retain",
        "Properties": {
            **table.create_request(),
            "TimeToLiveSpecification": {"AttributeName": TTL_ATTRIBUTE, "Enabled": True},
            "PointInTimeRecoverySpecification": {"PointInTimeRecoveryEnabled": True},
        },
    }


def _block(table: Table) -> dict[str, Any]:
    request = table.create_request()
    block: dict[str, Any] = {
        "name": request["TableName"],
        "billing_mode": request["BillingMode"],
        **_keys(request),
        "attribute": [
            {"name": each["AttributeName"], "type": each["AttributeType"]} for each in request["AttributeDefinitions"]
        ],
        "ttl": {"attribute_name": TTL_ATTRIBUTE, "enabled": True},
        "point_in_time_recovery": {"enabled": True},
        "lifecycle": {"prevent_destroy": True},
    }
    if globals_ := request.get("GlobalSecondaryIndexes"):
        block["global_secondary_index"] = [{**_index(each), **_keys(each)} for each in globals_]
    if locals_ := request.get("LocalSecondaryIndexes"):
        # A local index has the partition key of its table, which Terraform does not want repeated.
        block["local_secondary_index"] = [{**_index(each), "range_key": _keys(each)["range_key"]} for each in locals_]
    return block


def _keys(described: Mapping[str, Any]) -> dict[str, str]:
    kinds = {"HASH": "hash_key", "RANGE": "range_key"}
    return {kinds[each["KeyType"]]: each["AttributeName"] for each in described["KeySchema"]}


def _index(described: Mapping[str, Any]) -> dict[str, Any]:
    projection = described["Projection"]
    index: dict[str, Any] = {"name": described["IndexName"], "projection_type": projection["ProjectionType"]}
    if "NonKeyAttributes" in projection:
        index["non_key_attributes"] = projection["NonKeyAttributes"]
    return index

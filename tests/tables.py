"""Dropping the tables of a test, so that an engine holds few of them."""

from __future__ import annotations

import boto3

from agno_clouddb.stores.dynamodb.driver import LOCAL_CREDENTIAL

__all__ = ["drop_tables"]


def drop_tables(url: str, prefix: str) -> None:
    """Drop the tables whose names begin with a prefix.

    Args:
        url: of moto or DynamoDB Local, as its fixture gives it.
        prefix: that of the stores that made them.
    """
    assert prefix, "an empty prefix would drop every table"
    client = boto3.client(
        "dynamodb",
        region_name="us-east-1",
        endpoint_url=url.partition("endpoint_url=")[2],
        # DynamoDB Local keeps the tables of each access key apart.
        aws_access_key_id=LOCAL_CREDENTIAL,
        aws_secret_access_key=LOCAL_CREDENTIAL,
    )
    try:
        for page in client.get_paginator("list_tables").paginate():
            for name in page["TableNames"]:
                if name.startswith(prefix):
                    client.delete_table(TableName=name)
    finally:
        client.close()

"""What the driver's exceptions come to."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey
from botocore import exceptions as boto
from botocore.parsers import ResponseParserError

from agno_clouddb.errors import (
    CloudDBError,
    ConfigurationError,
    IndexNotReady,
    NotProvisioned,
    StoreUnavailable,
    Throttled,
)
from agno_clouddb.stores.base import Key
from agno_clouddb.stores.dynamodb.errors import DRIVER_ERRORS, error_of, fault_of

URL = "http://127.0.0.1:1"


def answer(code: str, status: int = 400, message: str = "said so", **more: Any) -> boto.ClientError:
    response: Any = {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": status},
        **more,
    }
    return boto.ClientError(response, "PutItem")


def canceled(*codes: str) -> boto.ClientError:
    return answer("TransactionCanceledException", CancellationReasons=[{"Code": code} for code in codes])


def refused_connection() -> boto.EndpointConnectionError:
    key = ConnectionKey("127.0.0.1", 1, False, True, None, None, None)
    inner = aiohttp.ClientConnectorError(key, ConnectionRefusedError(111, "refused"))
    return boto.EndpointConnectionError(endpoint_url=URL, error=inner)


THROTTLED = (Throttled, True, False)
UNREACHED = (StoreUnavailable, True, False)
UNANSWERED = (StoreUnavailable, True, True)
DENIED = (ConfigurationError, False, False)
MISSING = (NotProvisioned, False, False)
BUILDING = (IndexNotReady, False, False)
OTHER = (CloudDBError, False, False)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (answer("ProvisionedThroughputExceededException"), THROTTLED),
        (answer("ThrottlingException"), THROTTLED),
        (answer("RequestLimitExceeded"), THROTTLED),
        (answer("TransactionConflictException"), THROTTLED),
        (answer("TransactionInProgressException"), THROTTLED),
        (canceled("None", "TransactionConflict", "ThrottlingError"), THROTTLED),
        (canceled("None", "ConditionalCheckFailed"), OTHER),
        (canceled("TransactionConflict", "ValidationError"), OTHER),
        (canceled(), OTHER),
        (answer("InternalServerError", 500), UNANSWERED),
        (answer("ServiceUnavailable", 503), UNANSWERED),
        (answer("502", 502), UNANSWERED),
        (answer("AccessDeniedException"), DENIED),
        (answer("ExpiredTokenException"), DENIED),
        (answer("InvalidSignatureException"), DENIED),
        (answer("UnrecognizedClientException"), DENIED),
        (answer("ResourceNotFoundException"), MISSING),
        (answer("ValidationException", message="The table does not have the specified index: x"), MISSING),
        (answer("ValidationException", message="Cannot read from backfilling global secondary index"), BUILDING),
        (answer("ValidationException"), OTHER),
        (boto.NoCredentialsError(), DENIED),
        (boto.ProfileNotFound(profile="x"), DENIED),
        (boto.SSOTokenLoadError(error_msg="expired"), DENIED),
        (boto.ParamValidationError(report="x"), OTHER),
        (refused_connection(), UNREACHED),
        (boto.ConnectTimeoutError(endpoint_url=URL), UNREACHED),
        # The driver uses the same exception for a connection that broke after the request had gone out.
        (boto.EndpointConnectionError(endpoint_url=URL, error=aiohttp.ClientOSError(104, "reset")), UNANSWERED),
        (boto.ReadTimeoutError(endpoint_url=URL), UNANSWERED),
        (boto.ConnectionClosedError(endpoint_url=URL), UNANSWERED),
        (ResponseParserError("not JSON"), UNANSWERED),
        (aiohttp.ClientPayloadError("cut off"), UNANSWERED),
        (TimeoutError(), UNANSWERED),
    ],
    ids=lambda value: str(value)[:60] if isinstance(value, Exception) else "",
)
def test_each_exception_has_its_kind(error: Exception, expected: tuple[type[CloudDBError], bool, bool]) -> None:
    assert isinstance(error, DRIVER_ERRORS)
    fault = fault_of(error)
    assert (fault.kind, fault.retry, fault.applied) == expected


def test_an_error_names_store_key_and_what_the_service_said() -> None:
    key = Key("runs", "r", "s")
    error = error_of(answer("ValidationException"), "put_item", store="dynamodb://x", collection="runs", key=key)
    assert (error.store, error.collection, error.key) == ("dynamodb://x", "runs", key)
    assert "put_item failed: ValidationException: said so" in str(error)


def test_a_missing_table_is_said_to_need_provisioning() -> None:
    error = error_of(answer("ResourceNotFoundException"), "query", store="dynamodb://x", collection="runs")
    assert isinstance(error, NotProvisioned)
    assert error.collection == "runs"
    assert "provision" in str(error)


def test_a_missing_index_is_said_to_need_provisioning_again() -> None:
    missing = answer("ValidationException", message="The table does not have the specified index: x")
    error = error_of(missing, "query", store="dynamodb://x", collection="runs", index="shard-version-index")
    assert isinstance(error, NotProvisioned)
    assert error.collection == "runs"
    assert "provision()` again" in error.remedy
    assert "shard-version-index" in error.remedy

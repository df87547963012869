"""From the driver's exceptions to the library's errors. Imports the driver: load it only where a client is at hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import aiohttp
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

__all__ = ["DRIVER_ERRORS", "Fault", "code_of", "error_of", "fault_of"]

DRIVER_ERRORS = (boto.BotoCoreError, boto.ClientError, ResponseParserError, aiohttp.ClientError, OSError)
"""What a request may raise; ``TimeoutError`` is among them as an OSError."""

_THROTTLED = {
    "ProvisionedThroughputExceededException",
    "ProvisionedThroughputExceeded",
    "RequestLimitExceeded",
    "Throttling",
    "ThrottlingError",
    "ThrottlingException",
    # Another transaction holds the item, or this one is still being carried out; it passes as load does.
    "TransactionConflict",
    "TransactionConflictException",
    "TransactionInProgressException",
    "ReplicatedWriteConflictException",
}
_DENIED = {
    "AccessDeniedException",
    "ExpiredToken",
    "ExpiredTokenException",
    "IncompleteSignature",
    "IncompleteSignatureException",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "MissingAuthenticationToken",
    "MissingAuthenticationTokenException",
    "NotAuthorized",
    "OptInRequired",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
}
_MISCONFIGURED = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.CredentialRetrievalError,
    boto.TokenRetrievalError,
    boto.NoAuthTokenError,
    boto.SSOError,
    boto.NoRegionError,
    boto.InvalidRegionError,
    boto.EndpointProviderError,
    boto.ProfileNotFound,
    boto.ConfigParseError,
    boto.ConfigNotFound,
    boto.InvalidConfigError,
    boto.InvalidProxiesConfigError,
    boto.UnknownCredentialError,
)
_UNSENT = (
    boto.ConnectTimeoutError,
    boto.ProxyConnectionError,
    boto.SSLError,
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
)
_PROVISION_AGAIN = (
    "Call `await db.provision()` again, on a Database over all its stores: it adds the index {} where it is missing"
)
_CANCELED = "TransactionCanceledException"
_PASSING_REASONS = _THROTTLED | {"None"}


@dataclass(frozen=True, slots=True)
class Fault:
    """What an exception of the driver comes to.

    Args:
        kind: the library's error for it.
        retry: trying again may help.
        applied: a write may have been applied all the same.
        remedy: what the caller can do about it.
    """

    kind: type[CloudDBError]
    retry: bool = False
    applied: bool = False
    remedy: str = ""


_LOAD = Fault(Throttled, retry=True, remedy="Try again later, or raise the table's throughput")
_UNREACHED = Fault(StoreUnavailable, retry=True, remedy="Check the network, the region and the endpoint")
_UNANSWERED = Fault(StoreUnavailable, retry=True, applied=True, remedy="Try again; writing the same again is harmless")
_CREDENTIALS = Fault(ConfigurationError, remedy="Check credentials, their permissions, the region and the clock")
_MISSING = Fault(NotProvisioned)
_BUILDING = Fault(IndexNotReady)
_OTHER = Fault(CloudDBError)


def code_of(error: BaseException) -> str:
    """The service's error code; empty for an exception that is not an answer of the service."""
    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, boto.ClientError) else ""


def fault_of(error: BaseException) -> Fault:
    """What an exception of the driver comes to.

    Source: "Error handling with DynamoDB" in the service's developer guide, for which codes can be retried and that
    a write answered by a server's fault may have been applied.
    """
    if isinstance(error, boto.ClientError):
        return _answered(error)
    if isinstance(error, _MISCONFIGURED):
        return _CREDENTIALS
    if isinstance(error, boto.EndpointConnectionError):
        # The driver says this both when it could not connect and when an open connection broke after sending.
        inner = error.kwargs.get("error")
        unsent = not isinstance(inner, aiohttp.ClientConnectionError) or isinstance(inner, aiohttp.ClientConnectorError)
        return _UNREACHED if unsent else _UNANSWERED
    if isinstance(error, _UNSENT):
        return _UNREACHED
    if isinstance(error, boto.HTTPClientError | ResponseParserError | aiohttp.ClientError | OSError):
        return _UNANSWERED
    return _OTHER


def _answered(error: boto.ClientError) -> Fault:
    code, response = code_of(error), _response(error)
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code in _THROTTLED:
        return _LOAD
    if code == _CANCELED:
        reasons = {str(each.get("Code")) for each in response.get("CancellationReasons", ())}
        return _LOAD if reasons and reasons <= _PASSING_REASONS else _OTHER
    if code in _DENIED:
        return _CREDENTIALS
    if code == "ResourceNotFoundException" or (code == "ValidationException" and "specified index" in str(error)):
        return _MISSING
    if code == "ValidationException" and "backfilling" in str(error):
        return _BUILDING
    if status >= 500 or code in {"InternalServerError", "InternalFailure", "ServiceUnavailable"}:
        return _UNANSWERED
    return _OTHER


def _text(error: BaseException) -> str:
    if isinstance(error, boto.ClientError):
        # The driver's own text adds how often it has tried, which is once.
        return f"{code_of(error)}: {_response(error).get('Error', {}).get('Message', '')}"
    return str(error) or type(error).__name__


def _response(error: boto.ClientError) -> dict[str, Any]:
    return dict(error.response)


def error_of(
    error: BaseException,
    operation: str,
    *,
    store: str,
    collection: str | None = None,
    key: Key | None = None,
    index: str = "",
) -> CloudDBError:
    """The library's error for an exception that ``operation`` raised; raise it ``from`` that exception."""
    fault = fault_of(error)
    message = f"{operation} failed: {_text(error)}"
    if fault.kind is NotProvisioned:
        if index:
            return NotProvisioned(message, store=store, collection=collection, remedy=_PROVISION_AGAIN.format(index))
        return NotProvisioned(message, store=store, collection=collection)
    if fault.kind is IndexNotReady:
        return IndexNotReady(message, index=index, store=store, collection=collection)
    return fault.kind(message, store=store, collection=collection, key=key, remedy=fault.remedy)

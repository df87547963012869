"""Signatures of requests: AWS Signature Version 4 for the one shape of request that DynamoDB's data plane has.

Source: "Create a signed AWS API request" in the user guide of IAM.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from typing import Protocol

__all__ = ["CONTENT_TYPE", "Credentials", "Signer"]

CONTENT_TYPE = "application/x-amz-json-1.0"

_ALGORITHM = "AWS4-HMAC-SHA256"
_SIGNED = "content-type;host;x-amz-date;x-amz-target"
_SIGNED_WITH_TOKEN = "content-type;host;x-amz-date;x-amz-security-token;x-amz-target"


class Credentials(Protocol):
    """What signs, as it is at one moment."""

    @property
    def access_key(self) -> str: ...
    @property
    def secret_key(self) -> str: ...
    @property
    def token(self) -> str | None: ...


class Signer:
    """Signs requests to one endpoint, with whatever credentials.

    Args:
        host: the header Host of the requests, with its port unless that is the scheme's own.
        path: of the endpoint's URL, encoded.
        region: to sign for.
        service: to sign for.
    """

    def __init__(self, host: str, path: str, region: str, service: str) -> None:
        self._host = host
        self._path = path
        self._region = region
        self._service = service
        self._moment = (0, "")
        self._key: tuple[str, str, bytes] = ("", "", b"")

    def headers(self, target: str, body: bytes, credentials: Credentials, now: float) -> dict[str, str]:
        """The headers of a signed POST.

        Args:
            target: the header X-Amz-Target, which names the operation.
            body: what is sent.
            credentials: of the sender.
            now: seconds since the epoch by the service's clock.
        """
        stamp, token = self._stamp(int(now)), credentials.token
        signed = _SIGNED_WITH_TOKEN if token else _SIGNED
        canonical = (
            f"POST\n{self._path}\n\ncontent-type:{CONTENT_TYPE}\nhost:{self._host}\nx-amz-date:{stamp}\n"
            f"{f'x-amz-security-token:{token}{chr(10)}' if token else ''}x-amz-target:{target}\n\n"
            f"{signed}\n{hashlib.sha256(body).hexdigest()}"
        )
        scope = f"{stamp[:8]}/{self._region}/{self._service}/aws4_request"
        text = f"{_ALGORITHM}\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        signature = _mac(self._signing_key(credentials.secret_key, stamp[:8]), text).hex()
        headers = {
            "Host": self._host,
            "Content-Type": CONTENT_TYPE,
            "X-Amz-Date": stamp,
            "X-Amz-Target": target,
            "Authorization": f"{_ALGORITHM} Credential={credentials.access_key}/{scope}, SignedHeaders={signed}, "
            f"Signature={signature}",
        }
        if token:
            headers["X-Amz-Security-Token"] = token
        return headers

    def _stamp(self, second: int) -> str:
        if self._moment[0] != second:
            self._moment = (second, time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(second)))
        return self._moment[1]

    def _signing_key(self, secret: str, day: str) -> bytes:
        # The key holds for a day; deriving it costs as much as all else of a signature.
        if self._key[:2] != (secret, day):
            key = f"AWS4{secret}".encode()
            for part in (day, self._region, self._service, "aws4_request"):
                key = _mac(key, part)
            self._key = (secret, day, key)
        return self._key[2]


def _mac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), "sha256")

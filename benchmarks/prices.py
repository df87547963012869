"""What the clouds ask for a request unit and a document, at their list prices; check them before you rely on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["PRICES", "Price"]


@dataclass(frozen=True, slots=True)
class Price:
    """List prices of one cloud, in US dollars for a million.

    Args:
        cloud: and what is priced, as a reader knows it.
        read: of read request units, or of documents read.
        write: of write request units, or of documents written.
        of: when the prices were true, as far as the source says.
        source: who says so.
    """

    cloud: str
    read: float
    write: float
    of: str
    source: str


PRICES: Mapping[str, Price] = {
    "dynamodb": Price(
        "DynamoDB, on demand, us-east-1, standard table class",
        read=0.125,
        write=0.625,
        of="July 2025 (since November 2024)",
        source="https://airbyte.com/data-engineering-resources/dynamodb-pricing, which repeats "
        "https://aws.amazon.com/dynamodb/pricing/on-demand/",
    ),
    "firestore": Price(
        "Firestore, Standard edition, single US regions such as us-central1",
        read=0.30,
        write=0.90,
        of="2025",
        source="https://airbyte.com/data-engineering-resources/google-firestore-pricing, which repeats "
        "https://cloud.google.com/firestore/pricing",
    ),
}
"""By cloud. Storage, traffic between regions, and Firestore's index entries read are left out: they are the same or
nearly the same for every adapter. A multi-region of Firestore (nam5) costs twice as much."""

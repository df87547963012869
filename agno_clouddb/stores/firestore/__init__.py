"""FirestoreStore: items as documents of Google Cloud Firestore."""

from agno_clouddb.stores.firestore.indexes import firestore_indexes
from agno_clouddb.stores.firestore.store import FirestoreStore

__all__ = ["FirestoreStore", "firestore_indexes"]

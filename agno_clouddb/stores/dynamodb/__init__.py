"""DynamoDBStore: items in Amazon DynamoDB. Importing it does not import the AWS SDK; opening a store does."""

from agno_clouddb.stores.dynamodb.store import DynamoDBStore

__all__ = ["DynamoDBStore"]

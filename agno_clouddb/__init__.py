"""Asyncio-native persistence for AI agents on Amazon DynamoDB and Google Cloud Firestore."""

"""Recorded conversations through the fan-out over AWS's and Google's own engines, 32 sessions at once."""

from __future__ import annotations

import pytest

from agno_clouddb import Database, connect
from agno_clouddb.cli.conversations import Conversation, Copy, compare, replay_all, user_of

AT_ONCE = 32


async def follow(first: Database, then: Database, user_id: str, limit: int, turn_at: int) -> list[str]:
    """A user's sessions by cursor to the end, from ``first`` until ``turn_at`` are read and from ``then`` after it."""
    found: list[str] = []
    cursor = None
    while True:
        db = first if len(found) < turn_at else then
        page = await db.sessions.list(user_id=user_id, limit=limit, sort="-created_at", cursor=cursor)
        found += [session.session_id for session in page.items]
        assert not page.degraded
        cursor = page.cursor
        if cursor is None:
            return found
        assert len(page.items) == limit


@pytest.mark.dynamodb_local
@pytest.mark.firestore
async def test_conversations_read_back_equal_from_both_clouds_and_from_each_alone(
    cloud_urls: tuple[str, str], conversations: list[Conversation]
) -> None:
    async with connect(*cloud_urls) as both, connect(cloud_urls[0]) as dynamodb, connect(cloud_urls[1]) as firestore:
        await both.provision()
        await replay_all(both, conversations, at_once=AT_ONCE)
        for db in (both, dynamodb, firestore):
            assert await compare(db, conversations, at_once=AT_ONCE) == Copy.of(conversations)

        users = sorted({user_of(each) for each in conversations})
        assert len(users) > 1
        for user in users:
            own = {each.conversation_id for each in conversations if user_of(each) == user}
            listed = await follow(both, both, user, 1000, 0)
            assert len(listed) == len(own)
            assert set(listed) == own
            created = {session.session_id: session.created_at async for session in both.sessions.iterate(user_id=user)}
            assert listed == sorted(own, key=lambda name: (created[name], name), reverse=True)
            for limit in (1, 3, 7):
                for first, then in (
                    (dynamodb, dynamodb),
                    (firestore, firestore),
                    (dynamodb, firestore),
                    (firestore, dynamodb),
                    (both, firestore),
                    (dynamodb, both),
                ):
                    assert await follow(first, then, user, limit, len(own) // 2) == listed
            assert await both.sessions.count(user_id=user) == len(own)

"""Conformance: payloads of every kind and size, and that nobody ever sees half of one."""

from __future__ import annotations

import asyncio
import base64
import random

import pytest

from agno_clouddb.stores.base import Condition, Delete, Payload, Put, Refused, Store, Stored
from agno_clouddb.testing.conformance_base import (
    ConformanceBase,
    Samples,
    expect,
    fill,
    one,
    only,
    plain,
    plain_outcome,
    stamp,
    stored_version,
    walk,
)

__all__ = ["PayloadCases"]

KIB, MIB = 1024, 1024 * 1024
TOO_LARGE_FOR_A_TEST = 64 * MIB

# Around the item limits of DynamoDB (400 KB) and Firestore (1 MiB), which cut chunks.
SIZES = (0, 1, 300 * KIB, 399 * KIB, 400 * KIB - 1, 400 * KIB, 400_000, MIB - 1, MIB, 1_200_000, 3_000_000)


def noise(size: int, seed: int = 0) -> bytes:
    """Bytes that do not compress."""
    return random.Random(seed).randbytes(size)


def noise_text(size: int, seed: int = 0) -> str:
    """Text that does not compress, of one byte a character."""
    return base64.b85encode(noise(size, seed))[:size].decode()


def wide_text(size: int) -> str:
    """Text of characters of one to four bytes, so that any cut between chunks falls into one of them somewhere."""
    return ("aé日😀" * (size // 10 + 1)).encode()[: size // 10 * 10].decode()


class PayloadCases(ConformanceBase):
    """A payload comes back as it was given, byte for byte, or the write fails whole."""

    @pytest.mark.parametrize(
        "data", ["", "x", "{}", "\x00", "ünï😀\n\t\"'\\", b"", b"\x00", b"t", b"b", bytes(range(256))]
    )
    async def test_small_payloads_come_back_of_the_same_type(
        self, store: Store, samples: Samples, data: Payload
    ) -> None:
        await fill(store, [samples.item("s", data=data), samples.run("r", 1, data=data)])
        for key in (samples.key("s"), samples.child("r")):
            found = await one(store, key)
            assert found is not None
            assert (type(found.data), found.data) == (type(data), data)

    @pytest.mark.parametrize("kind", ["bytes", "text", "wide text"])
    @pytest.mark.parametrize("size", SIZES)
    async def test_payloads_around_the_services_limits_come_back(
        self, store: Store, samples: Samples, size: int, kind: str
    ) -> None:
        data: Payload = noise(size) if kind == "bytes" else noise_text(size) if kind == "text" else wide_text(size)
        item = samples.item(data=data)
        outcome = await only(store, Put(item))
        if item.size > store.limits.payload_bytes:
            assert plain_outcome(outcome) == ("failed", "RecordTooLarge", False)
            await expect(store, {item.key: None})
        else:
            assert plain_outcome(outcome) == ("stored", stamp(1))
            await expect(store, {item.key: item})

    @pytest.mark.parametrize("kind", ["bytes", "text"])
    async def test_the_largest_payload_is_stored_and_one_byte_more_is_not(
        self, store: Store, samples: Samples, kind: str
    ) -> None:
        limit = store.limits.payload_bytes
        if limit > TOO_LARGE_FOR_A_TEST:
            pytest.skip(f"the limit of {limit} bytes is too large for a test")
        data: Payload = noise(limit + 1) if kind == "bytes" else noise_text(limit + 1)
        item = samples.run("r", 1, data=data[:-1])
        await fill(store, [item])
        outcome = await only(store, Put(samples.run("r", 1, 2, data=data)))
        assert plain_outcome(outcome) == ("failed", "RecordTooLarge", False)
        await expect(store, {item.key: item})
        again = samples.run("r", 1, 3, data=data[1:])
        await fill(store, [again])
        await expect(store, {again.key: again})

    async def test_an_atomic_write_holds_as_many_bytes_as_the_limit_says(self, store: Store, samples: Samples) -> None:
        limit = min(store.limits.atomic_bytes, 2 * store.limits.payload_bytes)
        if limit > TOO_LARGE_FOR_A_TEST:
            pytest.skip(f"the limit of {limit} bytes is too large for a test")
        half = noise(limit // 2)
        puts = [Put(samples.item("a", data=half)), Put(samples.run("b", 1, data=half))]
        assert await store.write(puts, atomic=True) == (Stored(stamp(1)), Stored(stamp(1)))
        await expect(store, {put.key: put.item for put in puts})

    async def test_one_payload_over_the_limit_does_not_hold_up_the_rest(self, store: Store, samples: Samples) -> None:
        if store.limits.payload_bytes > TOO_LARGE_FOR_A_TEST:
            pytest.skip("the limit is too large for a test")
        large = samples.item("large", data="x" * (store.limits.payload_bytes + 1))
        small = samples.item("small")
        outcomes = await store.write([Put(large), Put(small)])
        assert [plain_outcome(each) for each in outcomes] == [
            ("failed", "RecordTooLarge", False),
            ("stored", small.version),
        ]
        await expect(store, {large.key: None, small.key: small})

    async def test_large_and_small_payloads_replace_each_other(self, store: Store, samples: Samples) -> None:
        sizes = (1_200_000, 10, 2_000_000, 450_000, 1_200_000, 0)
        for version, size in enumerate(sizes, start=1):
            item = samples.item(version=version, data=noise(size, version))
            await fill(store, [item])
            await expect(store, {item.key: item})

    async def test_a_large_item_is_deleted_whole_and_can_be_put_again(self, store: Store, samples: Samples) -> None:
        large = samples.item(version=1, data=noise(1_200_000))
        await fill(store, [large])
        assert await only(store, Delete(large.key, stamp(2))) == Stored(stamp(2))
        assert await stored_version(store, large.key) is None
        for again in (samples.item(version=3, data="small"), samples.item(version=4, data=noise_text(900_000))):
            await fill(store, [again])
            await expect(store, {again.key: again})

    async def test_a_large_item_becomes_a_tombstone_and_comes_back(self, store: Store, samples: Samples) -> None:
        await fill(store, [samples.item(version=1, data=noise(1_200_000))])
        tombstone = samples.item(version=2, data="", deleted=True)
        await fill(store, [tombstone])
        await expect(store, {tombstone.key: None})
        again = samples.item(version=3, data=noise(700_000))
        await fill(store, [again])
        await expect(store, {again.key: again})

    @pytest.mark.parametrize("size", [10, 1_200_000])
    async def test_a_refused_put_leaves_a_large_payload_whole(self, store: Store, samples: Samples, size: int) -> None:
        large = samples.item(version=5, data=noise(1_200_000, 1), owner="bob")
        await fill(store, [large])
        fields = dict(large.fields)
        for put, reason in (
            (Put(samples.item(version=4, data=noise(size, 2))), "older"),
            (Put(samples.item(version=6, data=noise(size, 2)), Condition(owner="ann")), "owner"),
            (Put(samples.item(version=6, data=noise(size, 2)), Condition(absent=True)), "exists"),
        ):
            outcome = await only(store, put)
            assert isinstance(outcome, Refused)
            assert (outcome.reason, outcome.version, dict(outcome.fields)) == (reason, large.version, fields)
        await expect(store, {large.key: large})
        await fill(store, [large])

    async def test_large_payloads_are_listed_and_fetched_whole_beside_small_ones(
        self, store: Store, samples: Samples
    ) -> None:
        sizes = (10, 1_200_000, 0, 450_000, 399 * KIB, 1_000_000)
        items = [
            samples.item(f"{place}", created=f"{place}", data=noise(size, place)) for place, size in enumerate(sizes)
        ]
        runs = [samples.run(f"{place}", place, data=noise(size, place)) for place, size in enumerate(sizes)]
        await fill(store, [*items, *runs])
        for query, wanted in ((samples.query(), items), (samples.runs(), runs)):
            assert [plain(item) for item in await walk(store, query, 4)] == [plain(item) for item in wanted]
            assert await store.count(query) == len(sizes)
        await expect(store, {item.key: item for item in reversed(items)})

    async def test_a_reader_never_sees_half_of_a_replacement(self, store: Store, samples: Samples) -> None:
        sizes = [1_200_000, 20, 900_000, 1_500_000, 450_000, 1_100_000]
        versions = {
            stamp(number): plain(samples.item(version=number, data=bytes([number]) * size))
            for number, size in enumerate(sizes, start=1)
        }
        await fill(store, [samples.item(version=1, data=b"\x01" * sizes[0])])
        finished = asyncio.Event()

        async def read(by_query: bool) -> list[str]:
            seen: list[str] = []
            while not finished.is_set():
                if by_query:
                    (found,) = (await store.query(samples.query(), limit=1)).items
                else:
                    (found,) = [item for item in (await store.get([samples.key()])).items if item is not None]
                assert plain(found) == versions[found.version]
                seen.append(found.version)
                await asyncio.sleep(0)
            return seen

        async def write() -> None:
            try:
                for number, size in list(enumerate(sizes, start=1))[1:]:
                    item = samples.item(version=number, data=bytes([number]) * size)
                    await fill(store, [item])
            finally:
                finished.set()

        async with asyncio.TaskGroup() as group:
            readers = [group.create_task(read(by_query)) for by_query in (False, True)]
            group.create_task(write())
        for reader in readers:
            seen = reader.result()
            assert seen
            assert seen == sorted(seen), "a reader has gone back in time"

"""Examples of a dataset one after the other, read ahead and in batches of one shape."""

import collections
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

_SHAPES = 8  # lists that wait to be full
_WORKERS = 4  # decoding threads; one decodes a 2048 x 1024 PNG in about 50 ms


def read_ahead(
    load: Callable[[int], Any], indices: Iterable[int]
) -> Iterator[tuple[int, Any]]:
    """(index, load(index)) in order, loaded by threads a little ahead of their use."""
    with ThreadPoolExecutor(_WORKERS) as pool:
        waiting = collections.deque()
        try:
            for index in indices:
                waiting.append((index, pool.submit(load, index)))
                if len(waiting) > 2 * _WORKERS:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            for _, future in waiting:
                future.cancel()


def in_groups(
    items: Iterable[tuple[int, Any]], size: int, shape: Callable[[Any], Hashable]
) -> Iterator[list[tuple[int, Any]]]:
    """Lists of up to `size` items of equal shapes, each item once.

    Of many shapes no more than a few lists wait: the oldest one goes as it is.
    """
    buckets = collections.defaultdict(list)
    for index, item in items:
        key = shape(item)
        buckets[key].append((index, item))
        if len(buckets[key]) == size:
            yield buckets.pop(key)
        elif len(buckets) > _SHAPES:
            yield buckets.pop(next(iter(buckets)))
    yield from buckets.values()

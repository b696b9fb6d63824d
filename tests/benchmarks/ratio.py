"""A benchmark beside its reference in the same process: on a shared machine only their ratio is a figure."""

import time
from collections.abc import Callable

ROUNDS = 20


def compare(benchmark, function: Callable[[], object], reference: Callable[[], object], rounds: int = ROUNDS) -> float:
    """Time both in turn and store reference / function, minimum over rounds, as the benchmark's `speedup`.

    Args:
        benchmark: pytest-benchmark's fixture; times `function`.
        function: what is offered.
        reference: what it is measured against.
        rounds: of each.
    """
    shortest = [float("inf"), float("inf")]

    def timed_reference() -> tuple[tuple, dict]:
        start = time.perf_counter()
        reference()
        shortest[1] = min(shortest[1], time.perf_counter() - start)
        return (), {}

    def timed_function() -> None:
        start = time.perf_counter()
        function()
        shortest[0] = min(shortest[0], time.perf_counter() - start)

    function()
    benchmark.pedantic(timed_function, setup=timed_reference, rounds=rounds)
    benchmark.extra_info["speedup"] = shortest[1] / shortest[0]
    print(f"\n{benchmark.name}: {shortest[1] / shortest[0]:.2f} times as fast ({1e3 * shortest[0]:.1f} ms)")
    return benchmark.extra_info["speedup"]

"""The loader against one that reads a jpg file a frame and makes its MFCC in `__getitem__`, in the same run.

Both are measured as `python -m experiments.verify loader` does, at 256 px with two threads or processes.
"""

from experiments.checks.loader import CLIPS_A_BATCH, fake_store, our_rate, plain_rate, write_plain


def test_windows_a_second(benchmark, tmp_path):
    store = fake_store(tmp_path / "store", num_clips=64)
    write_plain(store, tmp_path / "plain")
    plain = plain_rate(tmp_path / "plain")
    ours = benchmark.pedantic(lambda: our_rate(store), rounds=1)
    benchmark.extra_info.update(windows_a_second=ours.windows, speedup=ours.windows / plain)
    print(f"\n{benchmark.name}: {ours.windows:.0f} windows/s, {ours.windows / plain:.1f} times as fast")
    assert ours.clips >= CLIPS_A_BATCH
    assert ours.windows > 10 * plain

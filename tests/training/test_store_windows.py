import h5py
import numpy as np
import pytest

from m2distill_policy.errors import DataError
from m2distill_policy.spec import libero_spec
from m2distill_training.data.replay import choose_demos
from m2distill_training.data.store import open_store
from m2distill_training.data.windows import DemoSubset, Windows, batch_ids

SPEC = libero_spec(size_px=16, history=4, text_encoder="test", text_width=3)
TEXT = np.array([1, 2, 3], np.float32)


def test_store_is_built_once_and_keyed_by_content(libero_file, tmp_path):
    path = libero_file()
    first = open_store(path, SPEC, "before", tmp_path / "cache")
    folder = tmp_path / "cache" / first.key
    built = (folder / "action.npy").stat().st_mtime_ns
    assert open_store(path, SPEC, "before", tmp_path / "cache").key == first.key
    assert (folder / "action.npy").stat().st_mtime_ns == built
    assert list(first.bounds) == [0, 8, 17, 27]  # demos of 9, 10, 11 steps, one lost to the pairing each
    assert first.images["wrist"].shape == (27, 16, 16, 3)
    other = libero_file("b", seed=1)
    keys = {
        open_store(path, SPEC, "as_stored", tmp_path / "cache").key,
        open_store(other, SPEC, "before", tmp_path / "cache").key,
        first.key,
    }
    assert len(keys) == 3


def test_a_bad_demo_leaves_no_store_behind(libero_file, tmp_path):
    path = libero_file()
    with h5py.File(path, "a") as file:
        file["data/demo_2/actions"][0, 0] = np.nan
    with pytest.raises(DataError, match="demo_2/actions"):
        open_store(path, SPEC, "before", tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_images_smaller_than_the_model_s_are_rejected(libero_file, tmp_path):
    with pytest.raises(DataError, match="a_demo.hdf5: demo_0: camera agentview: got 8x8 px"):
        open_store(libero_file("a", size_px=8), SPEC, "before", tmp_path / "cache")


def test_a_cache_that_cannot_be_written_is_named(libero_file, tmp_path):
    (tmp_path / "cache").touch()
    with pytest.raises(DataError, match=r"cache \(.*\); choose another place with --cache"):
        open_store(libero_file(), SPEC, "before", tmp_path / "cache")


def test_windows_repeat_the_last_step_of_their_demo(libero_file):
    store = open_store(libero_file(demos=2, steps=3), SPEC, "before")  # 2 and 3 paired steps: frames 0 1 | 2 3 4
    windows = Windows([DemoSubset(store, TEXT)], length=4)
    _, frames = windows.frames(np.arange(len(windows)))
    assert frames.tolist() == [[0, 1, 1, 1], [1, 1, 1, 1], [2, 3, 4, 4], [3, 4, 4, 4], [4, 4, 4, 4]]
    batch = windows.gather(np.array([3, 0]))
    np.testing.assert_array_equal(batch["action"][0], store.action[[3, 4, 4, 4]])
    np.testing.assert_array_equal(batch["images"]["wrist"][1], store.images["wrist"][[0, 1, 1, 1]])
    np.testing.assert_array_equal(batch["text"], [TEXT, TEXT])


def test_parts_keep_their_own_frames_and_text(libero_file):
    a, b = (open_store(libero_file(name, seed=i, steps=4, demos=2), SPEC, "before") for i, name in enumerate("ab"))
    windows = Windows([DemoSubset(a, TEXT, demos=(1,)), DemoSubset(b, 2 * TEXT, demos=(0,))], length=2)
    assert len(windows) == 4 + 3  # demo 1 of a has 5 steps, demo 0 of b has 4
    batch = windows.gather(np.array([4, 0]))
    np.testing.assert_array_equal(batch["joint"][0], b.joint[[0, 1]])
    np.testing.assert_array_equal(batch["joint"][1], a.joint[[3, 4]])
    np.testing.assert_array_equal(batch["text"], [2 * TEXT, TEXT])


def test_every_shuffle_visits_every_window_once_and_batches_are_full():
    ids = np.concatenate([batch_ids(10, 4, step, (7, 0)) for step in range(5)])
    assert sorted(ids[:10]) == sorted(ids[10:]) == list(range(10))
    assert list(ids[:10]) != list(ids[10:])
    np.testing.assert_array_equal(batch_ids(10, 4, 2, (7, 0)), ids[8:12])


def test_replayed_demos_are_whole_distinct_seeded_and_uniform():
    assert choose_demos(50, 5, seed=1, task=2) == choose_demos(50, 5, seed=1, task=2)
    assert choose_demos(3, 5, seed=1, task=0) == (0, 1, 2)
    chosen = [choose_demos(10, 3, seed, task) for seed in range(100) for task in range(10)]
    assert all(len(set(demos)) == 3 for demos in chosen)
    counts = np.bincount(np.concatenate(chosen), minlength=10)  # 300 expected each, standard deviation 14.5
    assert np.abs(counts - 300).max() < 58

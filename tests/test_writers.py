import json
import time

import numpy as np
import pytest

from uda_jax import writers


def write(workdir, steps, start_step=0):
    writer = writers.make_writer(workdir, start_step=start_step)
    for step in steps:
        writer.write_scalars(step, {"loss/total": np.float32(1 / step)})
    writer.flush()
    writer.close()


def test_rows_are_kept_in_order_and_in_full(tmp_path):
    write(tmp_path, range(1, 5))
    rows = writers.read_history(tmp_path)
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert rows[2]["loss/total"] == pytest.approx(1 / 3)
    assert list((tmp_path / "tensorboard").iterdir())


def test_steps_that_are_done_again_are_dropped(tmp_path):
    write(tmp_path, range(1, 8))
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 8, "loss/to')  # killed while it wrote
    assert len(writers.read_history(tmp_path)) == 7
    write(tmp_path, range(5, 10), start_step=4)
    rows = writers.read_history(tmp_path)
    assert [row["step"] for row in rows] == list(range(1, 10))


def test_no_history(tmp_path):
    assert writers.read_history(tmp_path) == []


def test_not_a_number_is_readable_json_for_us(tmp_path):
    writer = writers.make_writer(tmp_path, start_step=0)
    writer.write_scalars(1, {"loss/total": np.float32("nan")})
    writer.close()
    assert np.isnan(writers.read_history(tmp_path)[0]["loss/total"])


def test_images_and_texts_pass(tmp_path):
    writer = writers.make_writer(tmp_path, start_step=0)
    writer.write_images(1, {"panel": np.zeros((1, 8, 12, 3), np.uint8)})
    writer.write_texts(1, {"config": "a: 1"})
    writer.write_hparams({"a": 1})
    writer.flush()
    writer.close()
    assert writers.read_history(tmp_path) == []


def test_live_line(capsys):
    live = writers.Live(10, 2, images_per_step=4)
    live.restart_clock(2)
    time.sleep(0.05)
    speed = live.update(4, {"loss/total": 1.5, "pseudo/kept": 0.25, "other/x": 9.0})
    live.say("step 4: [all] well")
    live.close()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("step 4/10  total 1.5  pseudo/kept 0.25  ")
    assert "images/s" in lines[0] and "left" in lines[0] and "GiB" in lines[0]
    assert "other" not in lines[0]
    assert lines[1] == "step 4: [all] well"
    assert 0 < speed < 4 * 2 / 0.05


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(7.4, "7 s"), (60, "1 min 00 s"), (3599.6, "1 h 00 min"), (7500, "2 h 05 min")],
)
def test_durations(seconds, text):
    assert writers._duration(seconds) == text


def test_jsonl_is_flushed_row_by_row(tmp_path):
    writer = writers.JsonlWriter(tmp_path / "metrics.jsonl")
    writer.write_scalars(3, {"a": 1})
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"step": 3, "a": 1.0}
    writer.close()

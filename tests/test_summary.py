"""The header of a run says what it is, whatever rows lie in its method's row."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from ml_collections import ConfigDict

from uda_jax import benchmarks, summary

MIX = {"name": "single", "weight": 0.5, "related": "none"}


@pytest.fixture
def rows():
    """rows(method, name=value of the config...): name -> text of the header."""

    def make(method, streams=(), **values):
        config = benchmarks.base_config("minicity")
        config.method = ConfigDict(method)
        config.data.streams = ConfigDict(dict(streams))
        for name, value in values.items():
            config[name] = value
        state = SimpleNamespace(params={"segmentor": {"cp": np.zeros(3)}})
        text = summary.header(config.lock(), Path("runs/x"), state, "random", "-")
        lines = text.splitlines()
        assert all(line[:12].strip() for line in lines), "one line for each row"
        return {line[:12].strip(): line[12:] for line in lines}

    return make


def test_a_mix_stands_in_its_methods_line(rows):
    shown = rows({"name": "tufl", "gamma": 2.0, "mix": MIX})
    mix = "single (related=none, weight=0.5)"
    assert shown["method"] == f"tufl (gamma=2.0, mix={mix})"
    shown = rows({"name": "tufl", "mix": {}})
    assert shown["method"] == "tufl (mix=none)" and "frozen" not in shown


def test_streams_are_named_with_their_rows(rows):
    paste = {"name": "long_tail", "min_pixels": 1, "classes": ()}
    streams = {"paste": paste, "template": {"name": "uniform"}}
    expected = "paste: long_tail (classes=(), min_pixels=1); template: uniform"
    shown = rows({"name": "tufl", "mix": MIX}, streams)
    assert shown["streams"] == expected
    assert "streams" not in rows({"name": "tufl"})


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"init_from": "runs/a"}, "runs/a, the network that the run starts from"),
        ({"init_from": "runs/a", "frozen_from": "runs/b"}, "runs/b"),
        ({"continue_from": "runs/c"}, "the frozen network of runs/c"),
    ],
)
def test_the_network_that_labels_the_target_is_named(rows, values, named):
    assert rows({"name": "tufl", "mix": MIX}, **values)["frozen"] == named


def test_the_two_stages_have_two_titles():
    name = lambda method: summary._method_name(ConfigDict({"method": method}))
    assert name({"name": "tufl"}) == name({"name": "tufl", "mix": {}}) == "tufl"
    assert name({"name": "tufl", "mix": MIX}) == "tufl with mix single"

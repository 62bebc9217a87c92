import re

import pytest

from uda_jax.config_files import load_config
from uda_jax.errors import UserError

_FILE = """\
from ml_collections import ConfigDict

from uda_jax.benchmarks import choose


def get_config(city="rio"):
    steps = choose({"rio": 3, "rome": 4}, city)
    return ConfigDict(dict(steps=steps, inner=dict(rate=0.1, name="sgd", on=True)))
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "config.py"
    path.write_text(_FILE)
    return path


def test_a_variant_and_fields_of_the_command_line(file):
    config = load_config(f"{file}:rome", ["--config.inner.rate=0.5"])
    assert (config.steps, config.inner.rate, config.inner.name) == (4, 0.5, "sgd")
    assert load_config(str(file), []).steps == 3  # nothing is left of the last call


@pytest.mark.parametrize(
    "variant, option, sentence",
    [
        (":roma", "", 'no variant "roma" (did you mean "rome"?): write one of rio, rome'
         " behind the colon."),
        ("", "--config.stepz=1", 'no field --config.stepz (did you mean "steps"?)'),
        ("", "--config.iner.rate=1", '--config.iner.rate (did you mean "inner"?): see'),
        ("", "--config.inner.rat=1", '--config.inner.rat (did you mean "rate"?): see'),
        ("", "--config.steps=many", "--config.steps=many must be a whole number."),
        ("", "--config.inner.rate=x", "--config.inner.rate=x must be a number."),
        ("", "--config.inner.on=x", "--config.inner.on=x must be true or false."),
        ("", "--config.steps", "--config.steps has no value: write --config.steps=val"),
        ("", "--confg=x", '--confg is no option (did you mean "config"?)'),
        ("", "rome", '"rome" is no option: write --name=value.'),
    ],
)  # fmt: skip
def test_mistakes_on_the_command_line(file, variant, option, sentence):
    with pytest.raises(UserError) as error:
        load_config(f"{file}{variant}", [option] if option else [])
    assert sentence in str(error.value) and "\n" not in str(error.value)
    assert "Traceback" not in str(error.value)


@pytest.mark.parametrize("options", [[], ["--config.steps=3"]])
def test_a_missing_file(tmp_path, options):
    for path in (tmp_path / "none.py", tmp_path):
        with pytest.raises(UserError, match=f"{re.escape(str(path))} cannot be opened"):
            load_config(f"{path}:rome", options)


@pytest.mark.parametrize(
    "body, reason",
    [
        ("def get_config(:\n", "SyntaxError: invalid syntax"),
        ("def get_config():\n    return reslution\n", "NameError: name 'reslution'"),
        ("def get_config():\n    open('nowhere')\n", "FileNotFoundError: "),
        ("def get_config():\n    {}['steps']\n", "KeyError: 'steps'"),
        ("def get_config():\n    return name\n", "NameError: name 'name' is not def"),
        ("import nowhere\n", "ModuleNotFoundError: No module named 'nowhere'"),
    ],
)
def test_a_mistake_in_the_file(file, body, reason):
    file.write_text(body)
    with pytest.raises(UserError) as error:
        load_config(str(file), ["--config.inner.name=adam"])
    assert f"{file} cannot be loaded ({reason}" in str(error.value)
    assert str(error.value).endswith("): correct it, --debug shows where.")

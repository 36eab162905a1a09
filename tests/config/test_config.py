"""The configuration: it survives JSON and TOML, refuses unknown keys and bad values by name, and settles "auto"."""

import json
import math
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pathscore.config.config import SIZES, SMALL_WIDTH, Config
from pathscore.config.options import KINDS, options_of
from pathscore.errors import PathscoreError, RunDirError, UsageError
from pathscore.runs.rundir import create, read_config, write_config

OPTIONS = options_of(type(Config()))
NUMBERS = st.floats(1e-6, 0.9)
BY_KIND = {
    bool: st.booleans(),
    int: st.integers(2, 999),
    float: NUMBERS,
    str: st.text(min_size=1),
    tuple[int, ...]: st.lists(st.integers(1, 999), min_size=1, max_size=3).map(tuple),
    tuple[float, ...]: st.tuples(NUMBERS, NUMBERS),
}


def values(item):
    """Legal values of one option."""
    if item.name == "device":
        legal = st.sampled_from(["auto", "cpu", "mps", "cuda", "cuda:1"])
    elif not item.words:
        legal = BY_KIND[next(kind for kind, known in KINDS.items() if known is item.kind)]
    else:
        legal = st.sampled_from(item.words)
    return st.none() | legal if item.optional else legal


CONFIGS = st.fixed_dictionaries({}, optional={n: values(o) for n, o in OPTIONS.items() if n not in ("epochs", "model")})


@settings(max_examples=200, deadline=None)
@given(CONFIGS)
def test_every_configuration_survives_json(chosen):
    config = Config(**chosen).validate()
    assert Config.from_json(config.to_json()) == config
    assert json.loads(config.to_json()).keys() == OPTIONS.keys()


@settings(max_examples=200, deadline=None)
@given(CONFIGS)
def test_every_value_survives_the_command_line(chosen):
    for name, value in chosen.items():
        if OPTIONS[name].kind is not KINDS[tuple[float, ...]] and value not in ("none", "auto"):
            shown = OPTIONS[name].read(OPTIONS[name].show(value))
            assert shown == value or (isinstance(value, str) and value.lower() == OPTIONS[name].none)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"latnt": "normal"}, "preset: unknown key 'latnt': did you mean 'latent'?"),
        ({"latent": "bernouli"}, "unknown latent 'bernouli': did you mean 'bernoulli'?"),
        ({"lr": "fast"}, "preset: lr must be a number, got 'fast'"),
        ({"eps": None}, "preset: eps must be a number, got null"),
        ({"lr": math.nan}, "--lr must be positive and finite, got nan"),
        ({"lr": True}, "preset: lr must be a number, got True"),
        ({"layers": []}, "preset: layers must be whole numbers, as in 200,200, got []"),
        ({"layers": [8, 0]}, "--layers must lie between 1 and 65536, got 8,0"),
        ({"betas": [0.9]}, "--betas takes two numbers, as in 0.9,0.999, got 0.9"),
        ({"device": "gpu"}, "--device must be auto, cpu, mps, cuda or cuda:N, got gpu"),
        ({"steps": 3, "epochs": 3}, "--steps and --epochs both say how long to train: give one of them"),
    ],
)
def test_bad_values_are_refused_by_name(values, message):
    with pytest.raises(UsageError) as caught:
        Config.from_dict(values, "preset")
    assert str(caught.value) == message


@pytest.mark.parametrize("text", ["", "[]", "{", '{"seed": 1'])
def test_a_file_that_is_no_configuration_is_refused(text):
    with pytest.raises(UsageError, match=r"c\.json"):
        Config.from_json(text, "c.json")


def test_a_preset_may_group_its_keys_and_use_dashes(tmp_path):
    path = tmp_path / "preset.toml"
    path.write_text('seed = 3\n[data]\ndataset = "mnist"\n[optimisation]\nbatch-size = 24\nbetas = [0.95, 0.999]\n')
    assert Config.from_toml(path) == Config(seed=3, dataset="mnist", batch_size=24, betas=(0.95, 0.999))


@pytest.mark.parametrize("content", [None, b"seed = ", b"\xff\xfe"])
def test_a_preset_that_cannot_be_read_is_refused(tmp_path, content):
    path = tmp_path / "preset.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=r"^--config .*preset\.toml"):
        Config.from_toml(path)


def test_auto_is_settled_by_the_data_and_what_was_given_stays():
    small = Config().settled(64, {"layers": (16,), "hidden": (8,), "binarize": "static", "dataset": "digits"})
    large = Config(hidden=(7,)).settled(784, {"layers": (50,), "hidden": (8,)})
    assert (small.layers, small.binarize) == ((16,), "static")
    assert (small.batch_size, large.batch_size) == (SIZES[True]["batch_size"], SIZES[False]["batch_size"])
    assert (large.layers, large.hidden, large.binarize) == ((50,), (7,), "none")
    assert SMALL_WIDTH < 784
    assert Config(steps=5).settled(64, {}).epochs is None
    assert Config().settled(64, {"steps": 9}).steps == 9 and Config().settled(64, {"steps": 9}).epochs is None
    assert Config(epochs=2).settled(64, {"steps": 9}).steps is None
    rates = [Config(lr=lr).settled(64, {"lr": 0.5}).lr for lr in (None, 0.2)]
    assert (small.lr, *rates) == (1e-3, 0.5, 0.2)
    automatic = {name for name, item in OPTIONS.items() if item.none == "auto"}
    unsettled = {name for name in automatic if getattr(small, name) is None}
    assert unsettled == {"threads", "particles"}  # these wait for the machine and the objective


def test_the_exit_code_belongs_to_the_error():
    codes = {cls.__name__: cls.exit_code for cls in PathscoreError.__subclasses__()}
    assert codes | {"UsageError": 2, "RunDirError": 3, "NumericsError": 4} == codes


def test_a_run_directory_keeps_its_configuration_and_no_second_run(tmp_path):
    path = create(str(tmp_path / "räume und mehr"), "name")
    write_config(path, Config(layers=(3, 2), estimator="auto"))
    assert read_config(path) == Config(layers=(3, 2), estimator="auto")
    assert create(str(path), "name") == path  # nothing was trained yet
    (path / "checkpoint.pt").write_bytes(b"weights")
    with pytest.raises(RunDirError, match="already holds a run"):
        create(str(path), "name")


def test_two_runs_in_one_second_get_two_directories(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len({create(None, "same") for _ in range(3)}) == 3
    with ThreadPoolExecutor(16) as pool:
        assert len(set(pool.map(lambda _: create(None, "at once"), range(64)))) == 64


def test_a_run_directory_that_cannot_be_is_refused(tmp_path):
    (tmp_path / "file").write_text("in the way")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(RunDirError):
            create(str(path), "name")
    with pytest.raises(RunDirError, match="is not a run directory"):
        read_config(tmp_path)

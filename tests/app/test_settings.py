"""Settings: sources and their precedence, errors, saving."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from platformdirs import PlatformDirs

from fireside.app import settings
from fireside.app.paths import Paths
from fireside.app.settings import Settings, SettingsError
from fireside.engine import Sampling


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path / "config.toml", tmp_path, tmp_path)


def write(paths: Paths, text: str) -> None:
    paths.config_file.write_text(text, encoding="utf-8")


def test_flags_then_environment_then_file_then_defaults(paths: Paths) -> None:
    write(paths, 'quant = "q8"\nthreads = 3\nmodel = "a"\n[sampling]\ntemperature = 0.1\ntop_k = 7')
    environ = {"FIRESIDE_THREADS": "4", "FIRESIDE_MODEL": "b", "FIRESIDE_TEMPERATURE": "0.2"}
    found = settings.load({"model": "c", "context": None, "stop": ()}, environ, paths)
    assert (found.model, found.threads, found.quant) == ("c", 4, "q8")
    assert (found.temperature, found.top_k, found.context) == (0.2, 7, 0)
    assert found.sampling.temperature == 0.2
    assert found.sampling.top_k == 7


def test_a_setting_knows_where_it_was_set(paths: Paths) -> None:
    write(paths, 'model = "a"\nquant = "q8"\nthreads = 3\n')
    environ = {"FIRESIDE_THREADS": "4", "FIRESIDE_MODEL": "b"}
    found = settings.load({"models_dir": "d", "model": None}, environ, paths)
    assert found.origins == {
        "model": "FIRESIDE_MODEL",
        "threads": "FIRESIDE_THREADS",
        "quant": str(paths.config_file),
        "models_dir": "--models-dir",
    }


def test_every_setting_can_come_from_the_environment(paths: Paths) -> None:
    samples = {"text": "x", "texts": "x", "integer": "2", "number": "0.5"}
    environ = {
        settings.environment_name(f.name): (f.metadata["choices"] or ("",))[-1]
        or samples[f.metadata["kind"]]
        for f in settings.schema()
    }
    found = settings.load({}, environ, paths)
    for field in settings.schema():
        assert getattr(found, field.name) != field.default, field.name


def test_an_empty_variable_counts_as_absent(paths: Paths) -> None:
    assert settings.load({}, {"FIRESIDE_THREADS": ""}, paths) == Settings()


def test_every_setting_has_help() -> None:
    assert all(f.metadata["help"].endswith(".") for f in settings.schema())


def test_the_samplers_that_the_storyteller_tells_best_with() -> None:
    chosen = Sampling(temperature=0.7, frequency_penalty=0.2)  # see the storyteller's card
    assert Settings().sampling == chosen


def test_greedy_is_greedy_unless_a_penalty_is_asked_for(paths: Paths) -> None:
    assert settings.load({"temperature": 0.0}, {}, paths).sampling == Sampling(temperature=0)
    environ = {"FIRESIDE_TEMPERATURE": "0", "FIRESIDE_FREQUENCY_PENALTY": "0.2"}
    assert settings.load({}, environ, paths).sampling.frequency_penalty == 0.2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("frob = 1", "unknown setting 'frob'"),
        ("[frob]\na = 1", "unknown setting 'frob'"),
        ("[sampling]\nfrob = 1", "unknown setting 'frob' in [sampling]"),
        ("temperature = 1", "it belongs under [sampling]"),
        ('[sampling]\ntheme = "x"', "it belongs above the first table"),
        ("sampling = 1", "sampling must be a table"),
        ('threads = "two"', "threads is 'two': expected a whole number"),
        ("threads = true", "expected a whole number"),
        ("threads = -1", "it must be at least 0"),
        ('quant = "q5"', "choose one of none, f16, q8, q4"),
        ("stop = [1]", "expected a list of texts"),
        ("[sampling]\ntemperature = nan", "expected a number"),
        ("threads =", "not valid TOML"),
    ],
)
def test_mistakes_in_the_file_say_where(paths: Paths, text: str, message: str) -> None:
    write(paths, text)
    with pytest.raises(SettingsError) as error:
        settings.load({}, {}, paths)
    assert str(paths.config_file) in str(error.value)
    assert message in str(error.value)


def test_mistakes_in_the_environment_say_where(paths: Paths) -> None:
    with pytest.raises(SettingsError, match="FIRESIDE_THREADS is 'x': expected a whole number"):
        settings.load({}, {"FIRESIDE_THREADS": "x"}, paths)


def test_a_file_that_is_no_text_says_where(paths: Paths) -> None:
    paths.config_file.write_bytes(b'theme = "\xff"')
    with pytest.raises(SettingsError, match="not UTF-8 at byte 9"):
        settings.load({}, {}, paths)
    paths.config_file.unlink()
    paths.config_file.mkdir()
    with pytest.raises(SettingsError, match="cannot be read"):
        settings.load({}, {}, paths)


def test_changed_checks_values() -> None:
    assert Settings().changed(quant="q4", temperature=1).temperature == 1.0
    with pytest.raises(SettingsError):
        Settings().changed(quant="q5")
    with pytest.raises(SettingsError, match="unknown setting"):
        Settings().changed(frob=1)


# -- saving -------------------------------------------------------------------------------------


def test_saving_keeps_other_lines_and_comments(paths: Paths) -> None:
    write(
        paths, "# mine\ntheme = 'a'\n\n# sampling of mine\n[sampling]\n# k\ntop_k = 4\nseed = 3\n"
    )
    settings.save(
        {"theme": "b", "temperature": 0.5, "seed": None, "quant": "q8"}, paths.config_file
    )
    assert paths.config_file.read_text(encoding="utf-8") == (
        '# mine\ntheme = "b"\nquant = "q8"\n\n# sampling of mine\n[sampling]\n# k\ntop_k = 4\n'
        "temperature = 0.5\n"
    )


def test_saving_makes_file_and_folders(tmp_path: Path) -> None:
    path = tmp_path / "new" / "config.toml"
    settings.save({"temperature": 1.5}, path)
    assert settings.read_file(path) == {"temperature": 1.5}
    assert list(path.parent.iterdir()) == [path]


def test_saving_over_a_list_of_several_lines(paths: Paths) -> None:
    write(paths, 'stop = [\n  "a",\n  "b",\n]\nthreads = 2\n')
    settings.save({"stop": ("c",)}, paths.config_file)
    assert settings.read_file(paths.config_file) == {"stop": ("c",), "threads": 2}


def test_a_file_with_a_mistake_is_left_alone(paths: Paths) -> None:
    write(paths, "frob = 1")
    with pytest.raises(SettingsError):
        settings.save({"threads": 2}, paths.config_file)
    assert paths.config_file.read_text(encoding="utf-8") == "frob = 1"


def test_what_is_no_text_is_not_written(paths: Paths) -> None:
    write(paths, "threads = 2\n")
    with pytest.raises(SettingsError, match="no text that a file can hold"):
        settings.save({"model": "/models/\udcff.gguf"}, paths.config_file)
    assert settings.read_file(paths.config_file) == {"threads": 2}


def test_a_linked_file_stays_a_link(paths: Paths, tmp_path: Path) -> None:
    target = tmp_path / "dotfiles.toml"
    target.write_text("threads = 2\n", encoding="utf-8")
    paths.config_file.symlink_to(target)
    settings.save({"threads": 3}, paths.config_file)
    assert paths.config_file.is_symlink()
    assert target.read_text(encoding="utf-8") == "threads = 3\n"


texts = st.text(st.characters(blacklist_categories=["Cs"]), max_size=20)


@given(
    theme=texts,
    stop=st.lists(texts, max_size=3).map(tuple),
    threads=st.integers(0, settings.MAX_THREADS),
    temperature=st.floats(0, 1e300),
    seed=st.none() | st.integers(0, 2**64 - 1),
)
def test_what_is_saved_is_read_again(
    tmp_path_factory: pytest.TempPathFactory,
    theme: str, stop: tuple[str, ...], threads: int, temperature: float, seed: int | None,
) -> None:  # fmt: skip
    path = tmp_path_factory.mktemp("config") / "config.toml"
    changes = {"theme": theme, "stop": stop, "threads": threads, "temperature": temperature}
    settings.save({"theme": "before", "seed": 1}, path)
    settings.save({**changes, "seed": seed}, path)
    expected = changes if seed is None else {**changes, "seed": seed}
    assert settings.read_file(path) == expected


# -- paths --------------------------------------------------------------------------------------


def test_paths_can_be_named() -> None:
    found = Paths.find({"FIRESIDE_CONFIG": "/a/b.toml", "FIRESIDE_DATA_DIR": "/c"})
    assert found.config_file == Path("/a/b.toml")
    assert found.library == Path("/c/stories.db")
    assert found.models_dir == Path("/c/models")
    assert found.log_dir == Path("/c/logs")


def test_xdg_folders_are_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/x/config")
    monkeypatch.setenv("XDG_DATA_HOME", "/x/data")
    found = Paths.find({})
    assert found.config_file == Path("/x/config/fireside/config.toml")
    assert found.data_dir == Path("/x/data/fireside")


@pytest.mark.parametrize("set_by_the_user", [False, True])
def test_places_are_the_platforms(
    set_by_the_user: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CONFIG", "DATA", "STATE"):
        if set_by_the_user:
            monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name))
        else:
            monkeypatch.delenv(f"XDG_{name}_HOME", raising=False)
    dirs = PlatformDirs("fireside", appauthor=False)
    found = Paths.find({})
    assert found.config_file == dirs.user_config_path / "config.toml"
    assert (found.data_dir, found.log_dir) == (dirs.user_data_path, dirs.user_log_path)

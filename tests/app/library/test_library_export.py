"""Stories as files, and files of all kinds as stories."""

from __future__ import annotations

import json
import random
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fireside.app.library import Library, LibraryError, Passage, Provenance, Story
from fireside.app.library.export import from_json, to_json, to_markdown, to_text, write_export

WRITTEN = Provenance(
    model="storyteller",
    quant="q4",
    kernels="numpy",
    isa="",
    sampling={"temperature": 0.8, "nested": {"stop": ["a", None, True]}},
    seed=2**80,
    finish_reason="length",
    tokens=7,
    tok_s=33.25,
)


def told(text: str, title: str = "", mode: str = "story") -> tuple[Story, list[Passage]]:
    story = Story(1, title, "chat" if mode == "chat" else "story", 1, 0.0, 0.0, None, text)
    return story, [Passage(1, 1, None, "writer", text, 0.0, None)]


def a_tree(library: Library) -> int:
    story = library.create("The dragon")
    root = library.append(story.id, None, "writer", "Once upon a time ")
    left = library.append(story.id, root.id, "model", "a dragon ", WRITTEN)
    library.append(story.id, left.id, "model", "slept", Provenance(model="m"))
    library.append(story.id, root.id, "model", "a mouse ran", WRITTEN)
    library.append(story.id, None, "writer", "Another beginning")
    library.set_head(story.id, left.id)
    return story.id


def shape(library: Library, story_id: int) -> dict[str, Any]:
    """A story without its ids."""
    story, passages = library.story(story_id), library.passages(story_id)
    ids = {passage.id: index for index, passage in enumerate(passages)}
    return {
        "story": (story.title, story.mode, story.created, story.opening, ids.get(story.head or 0)),
        "passages": [
            (ids.get(p.parent or 0), p.author, p.text, p.created, p.provenance) for p in passages
        ],
    }


def test_text() -> None:
    story, passages = told("Once upon a time\n\nthere was.\n", "龙 and mouse")
    assert to_text(story, passages) == (
        "龙 and mouse\n===========\n\nOnce upon a time\n\nthere was.\n"
    )


def test_a_chat_names_its_speakers() -> None:
    story, passages = told("Who are you?", "Talk", "chat")
    passages.append(Passage(2, 1, 1, "model", " A dragon. ", 0.0, WRITTEN))
    assert to_text(story, passages) == (
        "Talk\n====\n\nYou:\n\nWho are you?\n\nStoryteller:\n\nA dragon.\n"
    )
    assert "**Storyteller:**\n\nA dragon.\n" in to_markdown(story, passages)


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ("# not a heading", "\\# not a heading"),
        ("#hashtag", "#hashtag"),
        ("- not a list", "\\- not a list"),
        ("-5 degrees", "-5 degrees"),
        ("* not a list", "\\* not a list"),
        ("*emphasis* stays", "*emphasis* stays"),
        ("1. not a list", "1\\. not a list"),
        ("1984 was a year", "1984 was a year"),
        ("1984. A year", "1984\\. A year"),
        ("> not a quote", "\\> not a quote"),
        ("---", "\\---"),
        ("===", "\\==="),
        ("```", "\\```"),
        ("        not code", "not code"),
        ("\tnot code", "not code"),
        ("  two blanks", "  two blanks"),
    ],
)
def test_markdown_is_the_manuscript(line: str, kept: str) -> None:
    story, passages = told(f"First\n\n{line}\n\nlast", "T")
    assert to_markdown(story, passages) == f"# T\n\nFirst\n\n{kept}\n\nlast\n"


def test_markdown_keeps_line_breaks_and_titles() -> None:
    story, passages = told("Roses\nare red\n\nviolets", "*A* [b](c) `d` _e_ <f>")
    assert to_markdown(story, passages) == (
        "# \\*A\\* \\[b\\](c) \\`d\\` \\_e\\_ \\<f\\>\n\nRoses  \nare red\n\nviolets\n"
    )


def test_empty_stories_export(library: Library) -> None:
    story = library.create()
    assert to_text(story, []).startswith("Untitled\n")
    assert to_markdown(story, []).startswith("# Untitled\n")
    again = from_json(library, to_json(story, []))
    assert again.head is None
    assert again.id != story.id


def test_json_there_and_back(library: Library, tmp_path: Path) -> None:
    story_id = a_tree(library)
    data = to_json(library.story(story_id), library.passages(story_id))
    again = from_json(library, data)
    assert again.id != story_id
    assert shape(library, again.id) == shape(library, story_id)
    assert library.can_undo(again.id) is False
    assert {s.id for s in library.stories("mouse ran")} == {story_id, again.id}
    last = library.last()
    assert last is not None
    assert last.id == again.id
    with Library(tmp_path / "other.db") as other:
        there = from_json(other, data.encode())
        assert shape(other, there.id) == shape(library, story_id)


def test_json_from_an_editor_with_a_mark_or_another_encoding(library: Library) -> None:
    story_id = a_tree(library)
    data = to_json(library.story(story_id), library.passages(story_id))
    for encoded in (data.encode("utf-8-sig"), data.encode("utf-16"), "\ufeff" + data):
        again = from_json(library, encoded)
        assert shape(library, again.id) == shape(library, story_id)


@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    parts=st.lists(
        st.tuples(st.integers(0, 99), st.sampled_from(["writer", "model"]), st.text(max_size=20)),
        max_size=12,
    ),
    title=st.text(max_size=20),
    shuffle=st.randoms(use_true_random=False),
)
def test_any_tree_there_and_back(
    library: Library, parts: list[tuple[int, Any, str]], title: str, shuffle: random.Random
) -> None:
    story = library.create(title)
    ids: list[int | None] = [None]
    for parent, author, text in parts:
        passage = library.append(story.id, ids[parent % len(ids)], author, text)
        ids.append(passage.id)
    data = to_json(library.story(story.id), library.passages(story.id))
    assert shape(library, from_json(library, data).id) == shape(library, story.id)
    # Any order of passages is the same tree; siblings change their order.
    document = json.loads(data)
    shuffle.shuffle(document["passages"])
    again = from_json(library, json.dumps(document))
    assert library.text(again.id) == library.text(story.id)
    assert sorted(
        "".join(x.text for x in library.path(again.id, p.id)) for p in library.passages(again.id)
    ) == sorted(
        "".join(x.text for x in library.path(story.id, p.id)) for p in library.passages(story.id)
    )


def document(**changes: Any) -> dict[str, Any]:
    passage = {"id": 1, "parent": None, "author": "writer", "text": "x", "created": 1.0}
    return {
        "format": "fireside-story",
        "version": 1,
        "story": {"title": "t", "mode": "story", "created": 1.0, "head": 1},
        "passages": [passage],
        **changes,
    }


def in_story(**changes: Any) -> dict[str, Any]:
    return document(story={**document()["story"], **changes})


def in_passage(**changes: Any) -> dict[str, Any]:
    return document(passages=[{**document()["passages"][0], **changes}])


def in_provenance(**values: Any) -> dict[str, Any]:
    return in_passage(provenance=values)


def passages(*pairs: tuple[Any, Any]) -> dict[str, Any]:
    base = document()["passages"][0]
    return document(passages=[{**base, "id": own, "parent": parent} for own, parent in pairs])


@pytest.mark.parametrize(
    ("data", "place"),
    [
        ({}, "not a story"),
        ([], "an object"),
        ("text", "an object"),
        (None, "an object"),
        ({"a": 1}, "keys"),
        (document(format="other"), "not a story"),
        (document(version=2), "newer"),
        (document(version=0), "version"),
        (document(version=True), "version"),
        (document(version="1"), "version"),
        (document(extra=1), "extra"),
        (document(story=[]), "story"),
        (document(passages={}), "passages"),
        (document(passages=[1]), r"passages\[0\]"),
        (in_story(title=None), "story.title"),
        (in_story(title=5), "story.title"),
        (in_story(mode="poem"), "story.mode"),
        (in_story(mode=["story"]), "story.mode"),
        (in_story(created="today"), "story.created"),
        (in_story(created=-1), "story.created"),
        (in_story(created=1e300), "story.created"),
        (in_story(created=10**400), "story.created"),
        (in_story(created=True), "story.created"),
        (in_story(head=7), "story.head"),
        (in_story(head=1.0), "story.head"),
        (in_story(head="1"), "story.head"),
        (in_story(colour="red"), "colour"),
        (in_passage(id=None), r"passages\[0\].id"),
        (in_passage(id=True), r"passages\[0\].id"),
        (in_passage(author="ghost"), r"passages\[0\].author"),
        (in_passage(author={}), r"passages\[0\].author"),
        (in_passage(text=None), r"passages\[0\].text"),
        (in_passage(text=["x"]), r"passages\[0\].text"),
        (in_passage(created=None), r"passages\[0\].created"),
        (in_passage(parent=1), "passage 1"),
        (in_passage(parent=2), "passage 1"),
        (in_passage(parent="1"), r"passages\[0\].parent"),
        (in_passage(note="x"), "note"),
        (in_passage(provenance=[]), "provenance"),
        (in_provenance(model=1), "provenance.model"),
        (in_provenance(seed="x"), "provenance.seed"),
        (in_provenance(seed=1.5), "provenance.seed"),
        (in_provenance(tokens=-1), "provenance.tokens"),
        (in_provenance(tokens=2**63), "provenance.tokens"),
        (in_provenance(tok_s="fast"), "provenance.tok_s"),
        (in_provenance(sampling=[1]), "provenance.sampling"),
        (in_provenance(sampling={"x": "y" * 200_000}), "provenance.sampling"),
        (in_provenance(sampler={}), "sampler"),
        (passages((1, None), (1, None)), "id"),
        (passages((1, 2), (2, 1)), "parent"),
        (passages((1, None), (2, 4), (3, 2), (4, 3)), "parent"),
    ],
)
def test_what_is_wrong_is_named(library: Library, data: Any, place: str) -> None:
    with pytest.raises(LibraryError, match=place) as caught:
        from_json(library, json.dumps(data))
    assert len(str(caught.value)) < 500
    assert library.stories() == []


@pytest.mark.parametrize(
    "data",
    [
        "",
        b"",
        "{",
        b"\xff\xfe\xff",
        b"\x80abc",
        "[" * 200_000,
        '{"a":' * 200_000,
        "1" * 10_000,
        json.dumps(document()).replace("1.0", "NaN"),
        json.dumps(document()).replace("1.0", "Infinity"),
        json.dumps(document()).replace("1.0", "1" * 5000),
        json.dumps(document()).replace("1.0", "1e999"),
        json.dumps(document())[:-1],
        "\x00",
        "\ud800",
    ],
)
def test_what_is_no_json(library: Library, data: str | bytes) -> None:
    with pytest.raises(LibraryError):
        from_json(library, data)
    assert library.stories() == []


def test_deep_settings_and_odd_text_come_through_or_are_refused(library: Library) -> None:
    deep: Any = []
    for _ in range(400):
        deep = [deep]
    odd = in_provenance(sampling={"deep": deep, "\ud800": "\udfff\x00"}, seed=10**300)
    odd["passages"][0]["text"] = "lone \ud800 and nul \x00"
    odd["story"]["title"] = "a\x00b\ud800"
    story = from_json(library, json.dumps(odd))
    assert story.title == "a\ufffdb\ufffd"
    assert library.text(story.id) == "lone \ufffd and nul \ufffd"
    (passage,) = library.path(story.id)
    assert passage.provenance is not None
    assert passage.provenance.seed == 10**300
    to_json(story, [passage]).encode()


def test_a_very_long_story_in_the_worst_order(library: Library) -> None:
    count = 5000
    base = document()["passages"][0]
    chain = [
        {**base, "id": n, "parent": n - 1 if n else None, "text": f"{n} "} for n in range(count)
    ]
    data = in_story(head=count - 1) | {"passages": chain[::-1]}
    story = from_json(library, json.dumps(data))
    assert library.text(story.id) == "".join(f"{n} " for n in range(count))


def test_too_large_is_said_before_it_is_read(library: Library) -> None:
    with pytest.raises(LibraryError, match="too large"):
        from_json(library, b" " * (65 << 20))


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=8,
    ),
    st.sampled_from(
        ["id", "parent", "author", "text", "created", "provenance", "title", "mode", "head"]
    ),
)
def test_any_value_in_any_place(library: Library, value: Any, key: str) -> None:
    make: Callable[..., dict[str, Any]] = in_story if key in document()["story"] else in_passage
    before = len(library.stories())
    try:
        story = from_json(library, json.dumps(make(**{key: value})))
    except LibraryError:
        assert len(library.stories()) == before
    else:
        to_json(library.story(story.id), library.passages(story.id))


def test_an_export_is_whole_or_not_there(tmp_path: Path) -> None:
    target = tmp_path / "story.md"
    write_export(target, "Grüße\nund 龙\r\n\ud800")
    assert target.read_bytes() == "Grüße\nund 龙\r\n\ufffd".encode()
    assert stat.S_IMODE(target.stat().st_mode) & 0o400
    with pytest.raises(LibraryError, match="exists already"):
        write_export(target, "other")
    assert target.read_text(encoding="utf-8").startswith("Grüße")
    write_export(target, "other", overwrite=True)
    assert target.read_text() == "other"
    assert [file.name for file in tmp_path.iterdir()] == ["story.md"]


def test_an_export_through_a_link_replaces_what_it_points_to(tmp_path: Path) -> None:
    real, link = tmp_path / "real.md", tmp_path / "link.md"
    real.write_text("old")
    link.symlink_to(real)
    with pytest.raises(LibraryError, match="exists already"):
        write_export(link, "new")
    write_export(link, "new", overwrite=True)
    assert link.is_symlink()
    assert real.read_text() == "new"


def test_a_dangling_link_is_a_name_that_is_taken(tmp_path: Path) -> None:
    link = tmp_path / "link.md"
    link.symlink_to(tmp_path / "nowhere.md")
    with pytest.raises(LibraryError, match="exists already"):
        write_export(link, "new")


def test_a_file_system_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", refuse)
    write_export(tmp_path / "a.md", "a")
    assert [file.name for file in tmp_path.iterdir()] == ["a.md"]
    with pytest.raises(LibraryError, match="exists already"):
        write_export(tmp_path / "a.md", "b")


@pytest.mark.parametrize("name", ["missing/x.md", "nul\x00.md", "n" * 300 + ".md", "/proc/x.md"])
def test_an_export_that_cannot_be(tmp_path: Path, name: str) -> None:
    with pytest.raises(LibraryError, match="could not be written"):
        write_export(tmp_path / name, "x")
    with pytest.raises(LibraryError, match="could not be written"):
        write_export(tmp_path / name, "x", overwrite=True)
    assert list(tmp_path.iterdir()) == []


def test_an_export_onto_a_folder(tmp_path: Path) -> None:
    with pytest.raises(LibraryError, match="could not be written"):
        write_export(tmp_path, "x", overwrite=True)

"""Killed programs, full disks, locked folders, two programs at once: no committed word is lost."""

from __future__ import annotations

import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest

from fireside.app.library import Library, LibraryError, Provenance

START = "import os, sys, time; from pathlib import Path; from fireside.app.library import *\n"


def start(script: str, *arguments: object) -> subprocess.Popen[str]:
    """Run a script with the library imported, in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", START + textwrap.dedent(script), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def result(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out


@pytest.mark.parametrize("lines", [1, 57, 400])
def test_kill_9_loses_at_most_the_last_call(path: Path, lines: int) -> None:
    process = start(
        """
        library = Library(Path(sys.argv[1]))
        story = library.create("Killed")
        first = library.append(story.id, None, "writer", "Once ")
        passage = library.append(story.id, first.id, "model", "", Provenance(model="m"))
        number = 0
        while True:
            library.extend(passage.id, f"{number} ")
            print(number, flush=True)
            number += 1
        """,
        path,
    )
    assert process.stdout is not None
    said = -1
    for _ in range(lines):
        said = int(process.stdout.readline())
    process.send_signal(signal.SIGKILL)
    said = max([said, *map(int, process.stdout.read().split())])
    process.communicate()
    with Library(path) as library:
        story = library.last()
        assert story is not None
        _, passage = library.path(story.id)
        words = [int(word) for word in passage.text.split()]
        assert words == list(range(len(words)))
        assert len(words) in (said + 1, said + 2), "what was said to be saved, and one more at most"
        assert passage.unfinished
        assert passage.provenance == Provenance(model="m")
        assert story.head == passage.id
        assert library.stories(f"{said} ")[0].id == story.id
        library.extend(passage.id, "and on")
        assert library.text(story.id).endswith(" and on")


def test_kill_9_among_all_kinds_of_calls_leaves_a_sound_tree(path: Path) -> None:
    process = start(
        """
        library = Library(Path(sys.argv[1]))
        story = library.create()
        head = None
        print("ready", flush=True)
        while True:
            head = library.append(story.id, head, "model", "The dragon slept. " * 50).id
            library.extend(head, "And slept.")
            library.finish(head, Provenance(finish_reason="stop"))
            library.undo(story.id)
            library.redo(story.id)
            head = library.replace(head, "The dragon woke. ").id
            library.stories("woke")
        """,
        path,
    )
    assert process.stdout is not None
    process.stdout.readline()
    with Library(path) as library:  # beside it
        story = library.last()
        assert story is not None
        while len(library.path(story.id)) < 20:
            pass
        process.kill()
        process.communicate()
    with Library(path) as library:
        passages = library.passages(story.id)
        ids = {passage.id for passage in passages}
        assert all(passage.parent is None or passage.parent in ids for passage in passages)
        assert library.stories("dragon")[0].passages == len(passages)
        while library.undo(story.id):
            pass
        assert library.story(story.id).head is None


def test_two_programs_open_and_fill_a_new_library_at_once(path: Path) -> None:
    script = """
        path, name, gate = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
        print("ready", flush=True)
        while not gate.exists():
            pass
        with Library(path) as library:
            story = library.create(name)
            head = None
            for number in range(40):
                head = library.append(story.id, head, "model", f"{name} {number}. ").id
                library.extend(head, "More. ")
                library.finish(head, Provenance(finish_reason="stop"))
                library.stories(name)
            print(library.text(story.id))
        """
    gate = path.with_name("gate")
    names = ["anna", "bert", "cleo"]
    processes = [start(script, path, name, gate) for name in names]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    gate.touch()
    told = [result(process).strip() for process in processes]
    with Library(path) as library:
        stories = {story.title: story.id for story in library.stories()}
        assert sorted(stories) == names
        for name, text in zip(names, told, strict=True):
            assert library.text(stories[name]).strip() == text
            assert text == " ".join(f"{name} {n}. More." for n in range(40))
            assert [s.id for s in library.stories(name)] == [stories[name]]


def test_what_another_program_writes_is_seen(path: Path) -> None:
    with Library(path) as one, Library(path) as two:
        story = one.create("Shared")
        passage = two.append(story.id, None, "model", "a")
        one.extend(passage.id, "b")
        two.extend(passage.id, "c")
        assert one.text(story.id) == two.text(story.id) == "abc"
        assert one.undo(story.id)
        assert two.story(story.id).head is None


def test_a_full_disk_loses_nothing_and_can_be_tried_again(library: Library) -> None:
    story = library.create("Full")
    passage = library.append(story.id, None, "model", "Once upon a time. ")
    connection = library._store._connection
    assert connection is not None
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages + 5}")
    saved, unsaved = "Once upon a time. ", "He puffed and puffed. " * 100
    with pytest.raises(LibraryError, match="no room left"):  # noqa: PT012
        for _ in range(100):
            library.extend(passage.id, unsaved)
            saved += unsaved
    assert library.text(story.id) == saved
    with pytest.raises(LibraryError, match="no room left"):
        library.append(story.id, passage.id, "writer", unsaved * 100)
    assert library.story(story.id).head == passage.id
    assert len(library.passages(story.id)) == 1
    assert library.stories("puffed") or library.stories("upon")
    connection.execute("PRAGMA max_page_count = 100000")
    library.extend(passage.id, unsaved)
    library.finish(passage.id, Provenance(finish_reason="stop"))
    assert library.text(story.id) == saved + unsaved
    assert library.stories("puffed")


def test_a_limit_that_the_system_sets_is_met_the_same_way(path: Path) -> None:
    process = start(
        """
        import resource
        library = Library(Path(sys.argv[1]))
        story = library.create("Full")
        passage = library.append(story.id, None, "model", "")
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
        count = 0
        try:
            while count < 10_000:
                library.extend(passage.id, f"{count} " + "x" * 500 + " ")
                count += 1
        except LibraryError as error:
            print(error.message.replace(sys.argv[1], ""))
        print(count, len(library.text(story.id).split()) // 2)
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        library.extend(passage.id, "again")
        print(library.text(story.id).split()[-1])
        os._exit(0)  # without closing
        """,
        path,
    )
    message, counts, again = result(process).splitlines()
    assert message.startswith(("There is no room left", "The library  could not be"))
    count, kept = map(int, counts.split())
    assert 0 < count == kept
    assert again == "again"
    with Library(path) as library:
        story = library.last()
        assert story is not None
        words = library.text(story.id).split()
        assert words[:-1:2] == [str(n) for n in range(count)]
        assert words[-1] == "again"


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LibraryError, match="cannot be created"):
        Library(tmp_path / "file" / "stories.db")
    with pytest.raises(LibraryError, match="cannot be created"):
        Library(tmp_path / "nul\x00" / "stories.db")


def test_files_and_folders_that_may_not_be_written() -> None:
    # Not in pytest's own folder: a superuser steps down to nobody, who may not enter that one.
    folder = Path(tempfile.mkdtemp(prefix="fireside-"))
    try:
        path = folder / "stories.db"
        with Library(path) as library:
            library.create("Read only")
        path.chmod(0o444)
        folder.chmod(0o555)
        process = start(
            """
            if os.geteuid() == 0:
                os.setgroups([]); os.setgid(65534); os.setuid(65534)
            for name in (sys.argv[1], sys.argv[2], sys.argv[3]):
                try:
                    Library(Path(name))
                except LibraryError as error:
                    print(error.message)
            """,
            path,
            folder / "new.db",
            folder / "sub" / "new.db",
        )
        there, new, below = result(process).splitlines()
        assert "cannot be written to" in there or "cannot be opened" in there
        assert "cannot be created" in new
        assert "cannot be created" in below
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)


def test_a_lock_that_stays_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fireside.app.library.store.BUSY_MS", 100)
    with Library(path) as one, Library(path) as two:
        story = one.create("Locked")
        with one._store.write(), pytest.raises(LibraryError, match="locked"):
            two.rename(story.id, "x")
        assert two.stories()[0].title == "Locked"
        two.rename(story.id, "free")
        assert one.stories()[0].title == "free"


def test_reading_goes_on_while_another_program_writes(path: Path) -> None:
    with Library(path) as one, Library(path) as two:
        story = one.create("Read")
        passage = one.append(story.id, None, "model", "before")
        with one._store.write() as connection:
            connection.execute("UPDATE passage SET text = 'after'")
            assert two.text(story.id) == "before"
        assert two.passage(passage.id).text == "after"


def test_an_interrupted_call_changes_nothing(library: Library) -> None:
    story = library.create("Interrupted")
    with pytest.raises(KeyboardInterrupt), library._store.write() as connection:  # noqa: PT012
        connection.execute("DELETE FROM story")
        raise KeyboardInterrupt
    assert library.story(story.id).title == "Interrupted"
    library.rename(story.id, "and on")


def test_the_log_does_not_grow_for_ever(path: Path) -> None:
    with Library(path) as library:
        story = library.create()
        passage = library.append(story.id, None, "model", "")
        for _ in range(300):
            library.extend(passage.id, "He puffed and puffed. " * 20)
        log = path.with_name(path.name + "-wal")
        assert log.stat().st_size < 16 << 20
    assert not log.exists()
    assert stat.S_ISREG(path.stat().st_mode)


def test_nothing_is_left_open(path: Path) -> None:
    folder = Path("/proc/self/fd")
    if not folder.exists():
        pytest.skip("needs /proc")
    before = len(list(folder.iterdir()))
    for _ in range(20):
        Library(path).close()
        with pytest.raises(LibraryError):
            Library(path.parent)
    path.write_bytes(b"no database " * 1000)
    for _ in range(20):
        with pytest.raises(LibraryError):
            Library(path)
    assert len(list(folder.iterdir())) <= before + 1

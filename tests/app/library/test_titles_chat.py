"""The title of a chat."""

from __future__ import annotations

from pathlib import Path

from fireside.app.library import Library


def test_turns_of_a_chat_stand_apart_in_its_title(tmp_path: Path) -> None:
    with Library(tmp_path / "stories.db") as library:
        chat = library.create(mode="chat")
        first = library.append(chat.id, None, "writer", "Who are you?")
        library.append(chat.id, first.id, "model", "A dragon.")
        assert library.story(chat.id).display_title == "Who are you? A dragon."
        story = library.create()
        one = library.append(story.id, None, "writer", "A dra")
        library.append(story.id, one.id, "model", "gon came.")
        assert library.story(story.id).display_title == "A dragon came."

"""Every command of the desk, once: bindings, footer, palette and help come from here."""

from __future__ import annotations

from dataclasses import dataclass

from textual.binding import Binding


@dataclass(frozen=True)
class Command:
    """What can be done, with which keys, and how it is called where."""

    action: str  # of the desk, or with "app." of the application
    keys: str  # for Textual, parted by commas; "" = by the palette alone
    shown: str  # the key as people read it
    label: str  # in the footer; "" = not there
    title: str  # in the palette
    help: str  # one line
    group: str = "Writing"
    bound: bool = True  # False: the prompt line handles the key itself


COMMANDS = (
    Command(
        "go_on",
        "enter",
        "⏎",
        "go on",
        "Go on",
        "The words you type join the story and the model goes on; an empty line just goes on.",
        bound=False,
    ),
    Command("stop", "escape", "esc", "stop", "Stop", "Stop the model; what it wrote stays."),
    Command(
        "again",
        "ctrl+r",
        "^r",
        "again",
        "Write the last part again",
        "Another version of the last part; the old one stays beside it.",
    ),
    Command(
        "sibling(-1)",
        "alt+left,left",
        "alt+←",
        "",
        "Version before",
        "Go to the version before; left on an empty line does the same.",
    ),
    Command(
        "sibling(1)",
        "alt+right,right",
        "←→",
        "versions",
        "Next version",
        "Go to the next version of the last part; right on an empty line does the same.",
    ),
    Command("undo", "ctrl+z", "^z", "undo", "Undo", "Take back the last step, even tomorrow."),
    Command("redo", "ctrl+y", "^y", "redo", "Redo", "Take the step again."),
    Command(
        "edit_last",
        "up",
        "↑",
        "edit",
        "Edit the last part",
        "Change the last part (up on an empty line); the old words stay as another version.",
        bound=False,
    ),
    Command("models", "ctrl+o", "^o", "models", "Models…", "Choose another model.", "Desk"),
    Command(
        "stories",
        "ctrl+s",
        "^s",
        "stories",
        "Stories…",
        "Open, search, rename, delete and export stories.",
        "Desk",
    ),
    Command("new", "ctrl+n", "^n", "new", "New story", "An empty page.", "Desk"),
    Command(
        "mode",
        "f4",
        "f4",
        "",
        "Story or chat",
        "Change between telling a story and talking with the model.",
        "Desk",
    ),
    Command("rename", "", "", "", "Rename this story…", "Give the story a title.", "Desk"),
    Command(
        "export", "", "", "", "Export this story…", "Markdown, text or JSON, to a file.", "Desk"
    ),
    Command("panel", "f2", "f2", "panel", "Side panel", "Show or hide the side panel.", "Desk"),
    Command(
        "copy_text",
        "ctrl+c",
        "^c",
        "",
        "Copy the selection",
        "Copy what is selected; without a selection, stop the model.",
        "Desk",
        bound=False,
    ),
    Command("app.change_theme", "", "", "", "Theme…", "Choose colours, light or dark.", "Desk"),
    Command("page(-1)", "pageup", "pgup", "", "Page up", "Read what stands above.", "Desk"),
    Command("page(1)", "pagedown", "pgdn", "", "Page down", "Read on.", "Desk"),
    Command("end", "ctrl+end", "^end", "", "To the end", "Go to the end of the story.", "Desk"),
    Command(
        "app.command_palette",
        "ctrl+p",
        "^p",
        "palette",
        "Palette…",
        "Find any command by its name.",
        "Desk",
        bound=False,
    ),
    Command("app.help", "f1", "f1", "help", "Help", "All keys.", "Desk", bound=False),
    Command(
        "app.quit",
        "ctrl+q",
        "^q",
        "quit",
        "Quit",
        "Leave; the story is saved and waits.",
        "Desk",
        bound=False,
    ),
)

# Where there is not room for all, the first of these stay in the footer.
FOOTER_ORDER = (
    "go_on",
    "stop",
    "again",
    "sibling(1)",
    "undo",
    "app.help",
    "app.command_palette",
    "panel",
    "models",
    "stories",
    "new",
    "redo",
    "edit_last",
    "app.quit",
)


def bindings() -> list[Binding]:
    """For the desk. The prompt line has them first and leaves what an empty line cannot use."""
    listed = [
        Binding(c.keys, c.action, c.title, show=False) for c in COMMANDS if c.bound and c.keys
    ]
    return [*listed, Binding("down", "to_opening", show=False)]

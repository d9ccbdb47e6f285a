"""The command line. `main` is the entry point; a command's module is imported when it is called.

interrupts.py  what Ctrl-C and SIGTERM do, whatever the moment
failures.py    errors -> one line and an exit code
root.py        the `fireside` command and the table of its subcommands
start.py       what makes it start sooner
flags.py       flags as data, from the schema in app/settings.py; plain command lines are read
options.py     click's options of them
output.py      stdout (the text), stderr (progress, notes)
writing.py     what `write` does
write.py, chat.py, models.py, inspect.py, bench.py, perplexity.py, convert.py, pull.py, import_.py,
paths.py, completion.py: one command each
"""

# Nothing is imported here: until `main` runs, ctrl-c would be told with a traceback.


def main(argv: list[str] | None = None) -> int:
    """Run the command line; the exit code."""
    try:
        from fireside.app.cli.interrupts import WATCH

        _fill_streams()
        WATCH.start()  # before anything that takes time
        _spare_collections()
        from fireside.app.cli.failures import guarded

        return guarded(argv)
    except KeyboardInterrupt:  # where signals are still, or again, Python's
        return 130


def _spare_collections() -> None:
    """Nearly all that start-up makes stays: do not look through it time and again, nor at exit."""
    import atexit
    import gc

    gc.set_threshold(100_000, 10, 10)  # what it takes to tell a story's first word
    atexit.register(gc.freeze)


def _fill_streams() -> None:
    """Put nothing where stdin, stdout or stderr were closed, lest another file take their place."""
    import os

    while (opened := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(opened)

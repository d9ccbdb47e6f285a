"""`fireside paths`: where Fireside keeps things."""

from __future__ import annotations

import json

import click

from fireside.app.cli.options import Sectioned, option
from fireside.app.cli.output import table
from fireside.app.paths import Paths


@click.command("paths", cls=Sectioned)
@option("--json", "as_json", is_flag=True, section="Output", help="A JSON object instead.")
def paths(as_json: bool) -> int:
    """Show where Fireside keeps settings, stories, models and logs.

    FIRESIDE_CONFIG names another settings file, FIRESIDE_DATA_DIR another folder for all the rest.
    Nothing is created until something is kept there.

    Examples:
      fireside paths
      cp stories.gguf "$(fireside paths --json | jq -r .models)"
    """
    found = Paths.find()
    places = {
        "config": found.config_file,
        "stories": found.library,
        "models": found.models_dir,
        "logs": found.log_dir,
    }
    if as_json:
        click.echo(json.dumps({name: str(path) for name, path in places.items()}, indent=2))
    else:
        rows = [
            [name, str(path), "" if path.exists() else "(not there yet)"]
            for name, path in places.items()
        ]
        click.echo(table(["WHAT", "WHERE", ""], rows))
    return 0

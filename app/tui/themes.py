"""Fireside's own colours: embers at night, paper by day. Textual's themes are there beside them."""

from __future__ import annotations

from textual.theme import Theme

DARK = Theme(
    name="fireside",
    primary="#e0995e",
    secondary="#c58b6b",
    accent="#f0b878",
    warning="#e8c468",
    error="#e0705c",
    success="#a3b86c",
    foreground="#ebe0d2",
    background="#171210",
    surface="#1f1815",
    panel="#2b211c",
    dark=True,
    variables={
        "border": "#e0995e",
        "border-blurred": "#4a3a31",
        "block-cursor-background": "#e0995e",
        "block-cursor-foreground": "#171210",
        "block-cursor-blurred-background": "#3a2c25",
        "footer-background": "#171210",
        "footer-key-foreground": "#f0b878",
        "footer-description-foreground": "#a8988a",
        "input-cursor-background": "#f0b878",
        "input-cursor-foreground": "#171210",
        "input-selection-background": "#e0995e 35%",
        "scrollbar": "#4a3a31",
        "scrollbar-hover": "#6b5446",
        "scrollbar-active": "#e0995e",
        "scrollbar-background": "#171210",
        "scrollbar-background-hover": "#171210",
        "scrollbar-background-active": "#171210",
    },
)

LIGHT = Theme(
    name="fireside-paper",
    primary="#9a4f1c",
    secondary="#7d5a44",
    accent="#b3541e",
    warning="#8f6400",
    error="#a8321f",
    success="#4f6b1f",
    foreground="#2e241c",
    background="#f8f2e7",
    surface="#f2e9da",
    panel="#e9ddc9",
    dark=False,
    variables={
        "border": "#9a4f1c",
        "border-blurred": "#cdbba3",
        "block-cursor-background": "#9a4f1c",
        "block-cursor-foreground": "#fdf8ee",
        "block-cursor-blurred-background": "#e0cfb4",
        "footer-background": "#f8f2e7",
        "footer-key-foreground": "#9a4f1c",
        "footer-description-foreground": "#75665a",
        "input-cursor-background": "#9a4f1c",
        "input-cursor-foreground": "#fdf8ee",
        "input-selection-background": "#9a4f1c 25%",
        "scrollbar": "#cdbba3",
        "scrollbar-hover": "#b09a7e",
        "scrollbar-active": "#9a4f1c",
        "scrollbar-background": "#f8f2e7",
        "scrollbar-background-hover": "#f8f2e7",
        "scrollbar-background-active": "#f8f2e7",
    },
)

THEMES = (DARK, LIGHT)
DEFAULT = DARK.name

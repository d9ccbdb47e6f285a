"""Chat templates: what a conversation looks like to a model."""

from __future__ import annotations

import pytest

from fireside.engine import FiresideError, chat
from fireside.engine.chat import Message

TALK = [
    Message("system", "Be kind."),
    Message("user", "Hello"),
    Message("assistant", "Hi!"),
    Message("user", "A story?"),
]


def test_plain() -> None:
    assert chat.render(TALK, "plain") == "Be kind.\nYou: Hello\nTeller: Hi!\nYou: A story?\nTeller:"


def test_llama2() -> None:
    assert chat.render(TALK, "llama2") == (
        "[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\nHello [/INST] Hi! [INST] A story? [/INST]"
    )


def test_chatml() -> None:
    assert chat.render(TALK[1:], "chatml") == (
        "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\nHi!<|im_end|>\n"
        "<|im_start|>user\nA story?<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("{{ '<|im_start|>' + message['role'] }}", "chatml"),
        ("{{ bos_token + '[INST] ' + content }}", "llama2"),
        ("something else", "plain"),
        (None, "plain"),
        (7, "plain"),
    ],
)
def test_guess(template: object, name: str) -> None:
    assert chat.guess({"tokenizer.chat_template": template}).name == name
    assert chat.guess({}).name == "plain"


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(FiresideError, match="plain, llama2, chatml"):
        chat.get("frob")


def test_a_name_is_taken_once() -> None:
    with pytest.raises(RuntimeError, match="registered twice"):
        chat.register(chat.get("plain"))


@pytest.mark.parametrize("name", chat.names())
def test_every_template_ends_where_the_model_speaks(name: str) -> None:
    template = chat.get(name)
    assert template.stops
    assert chat.render([*TALK, Message("assistant", "Yes")], name) != chat.render(TALK, name)

"""Built-in templates: how families of models were taught to see a conversation, by name.

They stand in for a model's own template where its file has none. The BOS before the first turn is
the tokenizer's affair; special tokens are written as texts and parsed later.
"""

from __future__ import annotations

from collections.abc import Sequence

from fireside.engine.chat.types import Message, Template
from fireside.engine.errors import FiresideError

_REGISTRY: dict[str, Template] = {}


def register(template: Template) -> None:
    """Add an entry; a second one of the same name is a programming error."""
    if template.name in _REGISTRY:
        raise RuntimeError(f"chat template {template.name!r} is registered twice")
    _REGISTRY[template.name] = template


def names() -> tuple[str, ...]:
    """Names of all templates."""
    return tuple(_REGISTRY)


def get(name: str) -> Template:
    """The template called `name`; FiresideError lists the known ones."""
    if name not in _REGISTRY:
        raise FiresideError(
            f"unknown chat template {name!r}", f"choose one of {', '.join(names())}"
        )
    return _REGISTRY[name]


def guess(own: str) -> Template:
    """The built-in template that a model's own one looks like, else "plain"."""
    for template in _REGISTRY.values():
        if any(sign in own for sign in template.signs):
            return template
    return get("plain")


_SPEAKERS = {"user": "You", "assistant": "Teller"}


def _plain(messages: Sequence[Message]) -> str:
    """A transcript, which a model that only continues text can go on with."""
    lines = [
        m.content if m.role == "system" else f"{_SPEAKERS[m.role]}: {m.content}" for m in messages
    ]
    return "\n".join([*lines, f"{_SPEAKERS['assistant']}:"])


def _with_system(messages: Sequence[Message]) -> list[Message]:
    """The turns, the system's words before those of the first user's."""
    turns: list[Message] = []
    system = ""
    for message in messages:
        if message.role == "system":
            system += message.content + "\n\n"
        elif message.role == "user" and system:
            turns.append(Message("user", system + message.content))
            system = ""
        else:
            turns.append(message)
    return turns


def _llama2(messages: Sequence[Message]) -> str:
    """Llama 2 chat: every turn is a text of its own, with BOS and EOS."""
    parts = []
    system = ""
    for message in messages:
        if message.role == "system":
            system = f"<<SYS>>\n{message.content}\n<</SYS>>\n\n"
        elif message.role == "user":
            parts.append(f"<s>[INST] {system}{message.content} [/INST]")
            system = ""
        else:
            parts.append(f" {message.content} </s>")
    return "".join(parts)


def _llama3(messages: Sequence[Message]) -> str:
    """Llama 3: headers, and an end of every turn."""
    head = "<|start_header_id|>{}<|end_header_id|>\n\n"
    turns = [f"{head.format(m.role)}{m.content}<|eot_id|>" for m in messages]
    return "".join(turns) + head.format("assistant")


def _chatml(messages: Sequence[Message]) -> str:
    """ChatML, which Qwen and many fine-tunes use."""
    turns = [f"<|im_start|>{m.role}\n{m.content}<|im_end|>\n" for m in messages]
    return "".join(turns) + "<|im_start|>assistant\n"


def _mistral(messages: Sequence[Message]) -> str:
    """Mistral: instructions in brackets, answers end with the end of a text."""
    parts = []
    for m in _with_system(messages):
        parts.append(f"[INST] {m.content} [/INST]" if m.role == "user" else f" {m.content}</s>")
    return "".join(parts)


def _gemma(messages: Sequence[Message]) -> str:
    """Gemma: it knows no system; its own turns are the model's."""
    names = {"user": "user", "assistant": "model"}
    turns = [
        f"<start_of_turn>{names[m.role]}\n{m.content}<end_of_turn>\n"
        for m in _with_system(messages)
    ]
    return "".join(turns) + "<start_of_turn>model\n"


def _phi3(messages: Sequence[Message]) -> str:
    """Phi-3: a token for each role."""
    turns = [f"<|{m.role}|>\n{m.content}<|end|>\n" for m in messages]
    return "".join(turns) + "<|assistant|>\n"


def _zephyr(messages: Sequence[Message]) -> str:
    """Zephyr, and TinyLlama's chat models: each turn ends with the end of a text."""
    turns = [f"<|{m.role}|>\n{m.content}</s>\n" for m in messages]
    return "".join(turns) + "<|assistant|>\n"


def _vicuna(messages: Sequence[Message]) -> str:
    """Vicuna 1.1: names before the words."""
    parts = []
    for m in messages:
        if m.role == "system":
            parts.append(f"{m.content} ")
        elif m.role == "user":
            parts.append(f"USER: {m.content} ")
        else:
            parts.append(f"ASSISTANT: {m.content}</s>")
    return "".join(parts) + "ASSISTANT:"


def _alpaca(messages: Sequence[Message]) -> str:
    """Alpaca: headings."""
    heads = {"system": "", "user": "### Instruction:\n", "assistant": "### Response:\n"}
    turns = [f"{heads[m.role]}{m.content}\n\n" for m in messages]
    return "".join(turns) + "### Response:\n"


register(Template("plain", _plain, (f"\n{_SPEAKERS['user']}:", f"\n{_SPEAKERS['assistant']}:")))
register(Template("llama2", _llama2, ("[INST]", "</s>"), ("<<SYS>>",)))
register(Template("llama3", _llama3, ("<|eot_id|>",), ("<|start_header_id|>",)))
register(Template("chatml", _chatml, ("<|im_end|>", "<|im_start|>"), ("<|im_start|>",)))
register(Template("mistral", _mistral, ("[INST]", "</s>"), ("[INST]",)))
register(Template("gemma", _gemma, ("<end_of_turn>", "<start_of_turn>"), ("<start_of_turn>",)))
register(Template("phi3", _phi3, ("<|end|>", "<|user|>"), ("<|end|>",)))
register(Template("zephyr", _zephyr, ("</s>", "<|user|>"), ("<|user|>",)))
register(Template("vicuna", _vicuna, ("</s>", "USER:"), ("ASSISTANT:",)))
register(Template("alpaca", _alpaca, ("### Instruction:", "</s>"), ("### Instruction:",)))

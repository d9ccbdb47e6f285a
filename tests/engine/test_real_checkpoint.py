"""The real stories260K: what llama2.c's own test expects, byte for byte, from every file of it."""

from __future__ import annotations

import numpy as np
import pytest

from fireside.engine import executors, reference
from fireside.engine.events import Finished, Token
from fireside.engine.model import Model, load
from fireside.engine.samplers import Sampling
from tests.formats_table import LLAMA2C, Checked
from tests.shared import SHARED, needs_shared

HERE = "fixtures/stories260K"
pytestmark = needs_shared(HERE)
FOLDER = SHARED / HERE
GREEDY = Sampling(temperature=0)


def kinds() -> list[str]:
    return [name for name in executors.names() if not executors.get(name).why_not()]


def open_model(
    file: str,
    name: str,
    quant: executors.Quant = "none",
    threads: int = 1,
    kv: executors.KV = "f16",
) -> Model:
    return load(
        FOLDER / file,
        quant=quant,
        kernels=name,
        threads=threads,
        kv=kv,
        tokenizer=FOLDER / "tok512.bin",
    )


def tell(model: Model, sampling: Sampling = GREEDY, count: int = 200, prompt: str = "") -> str:
    out = []
    for event in model.session().generate(prompt, sampling, max_tokens=count):
        if isinstance(event, Token | Finished):
            out.append(event.text)
    return "".join(out)


@pytest.mark.parametrize("name", kinds())
@pytest.mark.parametrize("file", ["stories260K.bin", "stories260K_v1.bin"])
@pytest.mark.parametrize("kv", ["f16", "f32"])
def test_200_greedy_steps_are_those_of_llama2_c(
    name: str, file: str, kv: executors.KV, checked: Checked
) -> None:
    version = "version 1" if "_v1" in file else "version 0"
    checked(LLAMA2C, "llama", f"stories260K, {version}", "F32", "llama2.c: 200 greedy tokens")
    expected = (FOLDER / "expected_greedy_200.txt").read_bytes()
    assert len(expected) == 464
    assert tell(open_model(file, name, kv=kv)).encode() == expected


def logits(model: Model) -> np.ndarray:
    ids = model.encode("Once upon a time there was a little girl called Lily who had a red ball")
    session = model.session()
    return np.stack([session.sync(ids[: i + 1]) for i in range(len(ids))])


@pytest.mark.parametrize("name", kinds())
def test_logits_agree_with_the_reference(name: str) -> None:
    model = open_model("stories260K.bin", name, kv="f32")
    ids = model.encode("Once upon a time there was a little girl called Lily who had a red ball")
    expected = reference.forward(model.config, reference.weights(model.checkpoint), ids)
    assert np.abs(logits(model) - expected).max() / np.abs(expected).max() < 1e-5


@pytest.mark.parametrize("name", kinds())
@pytest.mark.parametrize(
    ("file", "quant", "distance"),
    [
        ("stories260K_q80_group64.bin", "none", 0.015),
        ("stories260K.bin", "q8", 0.015),
        ("stories260K.bin", "q4", 0.2),
    ],
)
def test_quantised_logits_stay_near(
    name: str, file: str, quant: executors.Quant, distance: float, checked: Checked
) -> None:
    """Distance = root mean square of the difference over that of the float32 logits."""
    if quant == "none":
        oracle = "llama2.c's file of the same model in F32: logits within 1.5%"
        checked(LLAMA2C, "llama", "stories260K, version 2", "int8 groups of 64", oracle)
    exact = logits(open_model("stories260K.bin", name))
    rough = logits(open_model(file, name, quant))
    assert np.linalg.norm(rough - exact) / np.linalg.norm(exact) < distance


@pytest.mark.parametrize("name", kinds())
def test_q4_tells_whole_sentences(name: str) -> None:
    model = open_model("stories260K.bin", name, "q4")
    story = tell(model, Sampling(temperature=0.7, seed=3), 200, "Once upon a time")
    sentences = [part for part in story.split(".") if part.strip()]
    assert len(sentences) >= 4
    assert all(3 <= len(sentence.split()) <= 40 for sentence in sentences[:4])


@pytest.mark.parametrize("quant", ["none", "q8", "q4"])
def test_one_seed_one_story_for_any_number_of_threads(quant: executors.Quant) -> None:
    if "native" not in kinds():
        pytest.skip("the C kernels are not there")
    sampling = Sampling(temperature=0.9, seed=11)
    stories = {
        tell(open_model("stories260K.bin", "native", quant, threads), sampling, 120)
        for threads in (1, 2, 4)
    }
    assert len(stories) == 1

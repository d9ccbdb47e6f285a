"""The sampler chain: each stage against its definition, and what holds for all of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fireside.engine.errors import SamplingError
from fireside.engine.executors.native_library import load as native_library
from fireside.engine.samplers import STAGES, Chain, Sampling, chain_for
from fireside.engine.samplers import chain as c

OFF = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "typical_p": 1.0}

logits_arrays = hnp.arrays(
    np.float32, st.integers(1, 60), elements=st.floats(-30, 30, width=32, allow_nan=False)
)
samplings = st.builds(
    Sampling,
    temperature=st.floats(0.05, 3),
    top_k=st.integers(0, 70),
    top_p=st.floats(0, 1),
    min_p=st.floats(0, 1),
    typical_p=st.floats(0, 1),
    repetition_penalty=st.floats(0.5, 2),
    repetition_window=st.integers(0, 20),
    penalty_form=st.sampled_from(["divide", "power"]),
    presence_penalty=st.floats(-2, 2),
    frequency_penalty=st.floats(-2, 2),
)


def survivors(logits: np.ndarray, **settings: object) -> tuple[list[int], np.ndarray]:
    chain = Chain(Sampling(**{**OFF, **settings}), 0)
    ids, p = chain.survivors(chain.penalised(np.asarray(logits, np.float32), []))
    order = np.lexsort((ids, -p))
    return ids[order].tolist(), p[order]


def softmax(x: np.ndarray) -> np.ndarray:
    weights = np.exp(np.asarray(x, np.float64) - np.max(x))
    return weights / weights.sum()


def test_the_order_is_that_of_llama_cpp() -> None:
    assert [name for name, _ in STAGES] == ["top-k", "typical-p", "top-p", "min-p"]


def test_everything_off_is_the_softmax() -> None:
    logits = np.array([0.5, 2.0, -1.0, 2.0])
    ids, p = survivors(logits)
    assert ids == [1, 3, 0, 2]  # ties go to the lower id
    np.testing.assert_allclose(p, softmax(logits)[ids])


def test_temperature_divides_the_logits() -> None:
    logits = np.array([0.0, 1.0, 2.0])
    ids, p = survivors(logits, temperature=0.5)
    np.testing.assert_allclose(p, softmax(logits / 0.5)[ids])


def test_top_k_keeps_the_k_best_and_settles_ties_by_id() -> None:
    ids, _ = survivors(np.array([1.0, 3.0, 3.0, 3.0, 0.0]), top_k=2)
    assert ids == [1, 2]


def test_top_p_keeps_the_fewest_that_reach_it() -> None:
    logits = np.log(np.array([0.5, 0.3, 0.15, 0.05]))
    assert survivors(logits, top_p=0.5)[0] == [0]
    assert survivors(logits, top_p=0.51)[0] == [0, 1]
    assert survivors(logits, top_p=0.8)[0] == [0, 1]
    assert survivors(logits, top_p=0.96)[0] == [0, 1, 2, 3]
    assert survivors(logits, top_p=0.0)[0] == [0]


def test_min_p_is_relative_to_the_best() -> None:
    logits = np.log(np.array([0.5, 0.3, 0.15, 0.05]))
    assert survivors(logits, min_p=0.29)[0] == [0, 1, 2]
    assert survivors(logits, min_p=1.0)[0] == [0]


def test_typical_p_prefers_the_expected_surprise() -> None:
    # entropy: 1.28 nats; nearest is 0.3 (1.20 nats), then 0.2 (1.61), then 0.4 (0.92)
    p = np.array([0.4, 0.3, 0.2, 0.1])
    assert survivors(np.log(p), typical_p=0.25)[0] == [1]
    assert survivors(np.log(p), typical_p=0.45)[0] == [1, 2]


def test_penalties_in_both_forms() -> None:
    logits = np.array([2.0, -2.0, 1.0], np.float32)
    divide = Chain(Sampling(repetition_penalty=2.0, repetition_window=0), 0)
    assert divide.penalised(logits, [0, 1, 0]).tolist() == [1.0, -4.0, 1.0]
    power = Chain(Sampling(repetition_penalty=0.5, repetition_window=0, penalty_form="power"), 0)
    assert power.penalised(logits, [0, 1, 0]).tolist() == [0.5, -1.0, 1.0]
    both = Chain(Sampling(presence_penalty=1.0, frequency_penalty=0.25, repetition_window=0), 0)
    assert both.penalised(logits, [0, 1, 0]).tolist() == [0.5, -3.25, 1.0]


def test_the_window_forgets() -> None:
    logits = np.array([2.0, 2.0], np.float32)
    chain = Chain(Sampling(repetition_penalty=2.0, repetition_window=1), 0)
    assert chain.penalised(logits, [0, 1]).tolist() == [2.0, 1.0]


def test_greedy_takes_the_best_after_the_penalties() -> None:
    logits = np.array([2.0, 1.5], np.float32)
    assert Chain(Sampling(temperature=0), 0).choose(logits, [], 0).id == 0
    penalised = Sampling(temperature=0, repetition_penalty=2.0)
    assert Chain(penalised, 0).choose(logits, [0], 0).id == 1


def test_probability_and_alternatives_are_the_models_own() -> None:
    logits = np.array([1.0, 3.0, 2.0, 2.0], np.float32)
    choice = Chain(Sampling(temperature=0.1, top_k=1), 5).choose(logits, [], 3, alternatives=3)
    p = softmax(logits)
    assert choice.id == 1
    assert choice.probability == pytest.approx(p[1])
    assert [i for i, _ in choice.alternatives] == [1, 2, 3]
    assert [q for _, q in choice.alternatives] == pytest.approx(p[[1, 2, 3]])


@given(logits_arrays, samplings, st.lists(st.integers(0, 0), max_size=5), st.integers(0, 2**64 - 1))
def test_a_choice_is_always_a_survivor(
    logits: np.ndarray, sampling: Sampling, history: list[int], seed: int
) -> None:
    chain = Chain(sampling, seed)
    ids, p = chain.survivors(chain.penalised(logits, history))
    assert len(ids) >= 1
    assert len(set(ids.tolist())) == len(ids)
    assert p.sum() == pytest.approx(1)
    choice = chain.choose(logits, history, 7)
    assert choice.id in ids
    assert choice == chain.choose(logits, history, 7)
    assert 0 <= choice.probability <= 1


@given(logits_arrays, st.floats(0.01, 0.99), st.floats(0, 1))
def test_setting_aside_before_sorting_changes_nothing(
    logits: np.ndarray, top_p: float, min_p: float
) -> None:
    chain = Chain(Sampling(**{**OFF, "top_p": top_p, "min_p": min_p}), 0)
    fast, _ = chain.survivors(logits.astype(np.float64))
    slow = c.Candidates(np.arange(len(logits)), logits.astype(np.float64))
    for _, stage in STAGES:
        slow = stage(slow, chain.sampling)
    # a sum within rounding of top_p may fall either way
    assert abs(len(fast) - len(slow.ids)) <= 1
    assert fast.tolist()[: len(slow.ids)] == slow.ids.tolist()[: len(fast)]


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**31))
def test_uniform_is_in_range(seed: int, position: int) -> None:
    assert 0.0 <= c.uniform(seed, position) < 1.0


def test_uniform_is_uniform_over_positions_and_over_seeds() -> None:
    for draws in (
        [c.uniform(1, i) for i in range(4000)],
        [c.uniform(i, 1) for i in range(4000)],
        [c.uniform(i, 4000 - i) for i in range(4000)],
    ):
        counts, _ = np.histogram(draws, 20, (0, 1))
        chi2 = ((counts - 200) ** 2 / 200).sum()
        assert chi2 < 50  # 19 degrees of freedom: p < 0.0002 beyond


def test_drawing_follows_the_probabilities() -> None:
    p = np.array([0.6, 0.3, 0.1])
    chain = Chain(Sampling(**OFF), 99)
    logits = np.log(p).astype(np.float32)
    drawn = [chain.choose(logits, [], i).id for i in range(3000)]
    np.testing.assert_allclose(np.bincount(drawn) / 3000, p, atol=0.03)


def test_numbers_that_are_not_finite_are_an_error() -> None:
    for bad in (math.nan, math.inf):
        with pytest.raises(SamplingError, match="finite"):
            Chain(Sampling(), 0).choose(np.array([0.0, bad], np.float32), [], 0)


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": -0.1},
        {"temperature": math.nan},
        {"top_k": -1},
        {"top_p": 1.5},
        {"min_p": -0.1},
        {"typical_p": 2},
        {"repetition_penalty": 0},
        {"repetition_window": -1},
        {"presence_penalty": math.inf},
        {"seed": -1},
        {"seed": 2**64},
        {"penalty_form": "subtract"},
    ],
)
def test_a_setting_out_of_range_is_named(settings: dict[str, object]) -> None:
    with pytest.raises(SamplingError, match=next(iter(settings))):
        Sampling(**settings)  # type: ignore[arg-type]


def test_settings_survive_a_dictionary_and_strangers_are_named() -> None:
    sampling = Sampling(temperature=0.3, top_k=7, seed=12)
    assert Sampling.from_dict(sampling.to_dict()) == sampling
    with pytest.raises(SamplingError, match="known: temperature"):
        Sampling.from_dict({"heat": 1})
    with pytest.raises(SamplingError):
        Sampling.from_dict({"temperature": "warm"})


# -- the chain in C ------------------------------------------------------------------------------

needs_native = pytest.mark.skipif(bool(native_library()[2]), reason=native_library()[2] or "there")


def same_choice(sampling: Sampling, logits: np.ndarray, history: list[int], seed: int) -> bool:
    """The same token; or the two lie side by side where the draw or a threshold was a near tie."""
    plain = chain_for(sampling, seed, "numpy").choose(logits, history, 3, 5)
    native = chain_for(sampling, seed, "native").choose(logits, history, 3, 5)
    assert [i for i, _ in native.alternatives] == [i for i, _ in plain.alternatives]
    for (_, a), (_, b) in zip(native.alternatives, plain.alternatives, strict=True):
        assert a == pytest.approx(b, rel=1e-5, abs=1e-30)
    if native.id == plain.id:
        assert native.probability == pytest.approx(plain.probability, rel=1e-5, abs=1e-30)
    return native.id == plain.id


@needs_native
@given(
    hnp.arrays(np.float32, st.integers(1, 200), elements=st.integers(-40, 40).map(lambda i: i / 4)),
    samplings,
    st.lists(st.integers(0, 250), max_size=40),
    st.integers(0, 2**64 - 1),
)
def test_the_chain_in_c_draws_from_the_same_tokens(
    logits: np.ndarray, sampling: Sampling, history: list[int], seed: int
) -> None:
    history = [i % len(logits) for i in history]
    if not same_choice(sampling, logits, history, seed):
        # logits on a grid tie often, and a share may then lie exactly on a threshold: what C drew
        # must be a token that slightly different settings keep
        chain = Chain(sampling, seed)
        values = chain.penalised(logits, history)
        drawn = chain_for(sampling, seed, "native").choose(logits, history, 3).id
        loose = Sampling(
            **{
                **sampling.to_dict(),
                "top_p": min(1.0, sampling.top_p + 1e-4),
                "typical_p": min(1.0, sampling.typical_p + 1e-4),
                "min_p": sampling.min_p * (1 - 1e-4),
            }
        )
        assert drawn in Chain(loose, seed).survivors(values)[0]


@needs_native
@pytest.mark.parametrize("vocab", [5, 64, 1000, 32000])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"temperature": 0},
        {"top_k": 40},
        {"top_k": 3, "typical_p": 0.7},
        {"min_p": 0.0},
        {"min_p": 0.0, "top_p": 0.5},
        {"min_p": 0.2, "top_p": 1.0},
        {"min_p": 0.0, "top_p": 1.0, "temperature": 1.5},
        {"typical_p": 0.5},
        {"repetition_penalty": 1.3, "repetition_window": 0},
        {"repetition_penalty": 0.8, "penalty_form": "power", "frequency_penalty": 0.3},
    ],
)
def test_the_chain_in_c_agrees_on_large_vocabularies(
    vocab: int, settings: dict[str, object]
) -> None:
    rng = np.random.default_rng(vocab)
    sampling = Sampling(**settings)  # type: ignore[arg-type]
    agreed = 0
    for seed in range(40):
        logits = (rng.standard_normal(vocab) * rng.uniform(0.5, 5)).astype(np.float32)
        history = rng.integers(0, vocab, 30).tolist()
        agreed += same_choice(sampling, logits, history, seed)
    assert agreed >= 39


@needs_native
def test_the_chain_in_c_refuses_what_is_not_finite() -> None:
    for bad in (math.nan, math.inf, -math.inf):
        for at in (0, 17, 99):
            logits = np.zeros(100, np.float32)
            logits[at] = bad
            with pytest.raises(SamplingError, match="finite"):
                chain_for(Sampling(), 0, "native").choose(logits, [], 0)

"""The shape of a model: plain numbers, the same for every file format."""

from __future__ import annotations

from fireside.engine.hints import Literal
from fireside.engine.records import changed, record

RopeStyle = Literal["interleaved", "half"]
Activation = Literal["silu", "gelu", "gelu_tanh"]  # gelu: by erf; gelu_tanh: its approximation


@record
class ModelConfig:
    """Hyper-parameters of a decoder-only transformer.

    Field names follow llama2.c and GGUF. `rope_style` says which elements of a head turn together:
    "interleaved" = (0,1), (2,3), ... (llama2.c, Meta, GGUF's llama); "half" = (0, d/2), (1, d/2+1),
    ... (GPT-NeoX, Hugging Face).
    """

    architecture: str  # a name in fireside.engine.architectures
    dim: int  # width of the residual stream
    hidden_dim: int  # width of the feed-forward layer
    n_layers: int
    n_heads: int  # query heads
    n_kv_heads: int  # key/value heads; divides n_heads
    vocab_size: int
    context_length: int  # tokens the model was trained to see
    head_dim: int
    norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    rope_dim: int = 0  # elements of a head that are rotated; 0 = all
    rope_style: RopeStyle = "interleaved"

    # What some architectures have beside Llama's. A reader sets what its file says and refuses
    # what none of these can express.
    norm: Literal["rms", "layer"] = "rms"
    pre_norms: bool = True  # of what goes into attention and feed-forward
    post_norms: bool = False  # of what comes out of them, before it is added
    norm_bias: bool = False
    # of queries and keys, before rope: of each head, of all heads together, or a LayerNorm of each
    # head with weights of its own
    qk_norm: Literal["none", "head", "full", "heads"] = "none"
    qkv_bias: bool = False
    output_bias: bool = False  # of the attention's last matrix
    ffn_bias: bool = False
    classifier_bias: bool = False
    fused_qkv: bool = False  # one tensor holds q, k and v
    fused_gate_up: bool = False  # one tensor holds gate and up
    gated: bool = True  # down(act(gate x) * up x), else down(act(up x))
    activation: Activation = "silu"
    parallel_residual: bool = False  # the feed-forward layer sees what attention saw
    shared_norm: bool = False  # then: through the same norm
    learned_positions: int = 0  # rows of a table of positions added to the embedding
    embedding_scale: float = 1.0
    attention_scale: float = 0.0  # of q . k; 0 = head_dim ** -0.5
    attention_softcap: float = 0.0  # cap * tanh(score / cap); 0 = none
    logit_softcap: float = 0.0
    logit_scale: float = 1.0
    window: int = 0  # positions that a windowed layer sees; 0 = all
    windowed_layers: tuple[bool, ...] = ()  # which layers have the window; () = all of them
    rope_layers: tuple[bool, ...] = ()  # which layers have rope; () = all of them
    rope_factors: tuple[float, ...] = ()  # [rotary_dim / 2] divisors of the frequencies
    rope_magnitude: float = 1.0  # multiplies cos and sin
    # Phi-3's: beyond `context_length` positions, up to these, rope has other factors
    long_context: int = 0
    long_factors: tuple[float, ...] = ()
    window_rope_theta: float = 0.0  # of windowed layers, without factors; 0 = the same rope
    n_experts: int = 0
    n_experts_used: int = 0
    normalise_experts: bool = True  # the weights of those used are scaled to sum to 1

    @property
    def q_dim(self) -> int:
        """Width of all query heads together."""
        return self.n_heads * self.head_dim

    @property
    def kv_dim(self) -> int:
        """Width of all key (or value) heads together."""
        return self.n_kv_heads * self.head_dim

    @property
    def rotary_dim(self) -> int:
        """Elements of a head that rope turns."""
        return self.rope_dim or self.head_dim

    @property
    def longest_context(self) -> int:
        """Tokens that the model was trained to see, with the factors for long texts."""
        return self.long_context if self.long_factors else self.context_length

    def for_context(self, context: int) -> ModelConfig:
        """The model for texts of up to `context` tokens: one set of rope's factors is chosen.

        The factors for long texts change every position, and are a little worse for short ones:
        they are taken only for a context that needs them, as llama.cpp does.
        """
        if not self.long_factors or context <= self.context_length:
            return self
        return changed(
            self,
            context_length=self.long_context,
            rope_factors=self.long_factors,
            long_context=0,
            long_factors=(),
        )

    def windowed(self, layer: int) -> bool:
        """Whether a layer sees `window` positions only."""
        return self.window > 0 and (not self.windowed_layers or self.windowed_layers[layer])

    def turned(self, layer: int) -> bool:
        """Whether a layer has rope."""
        return not self.rope_layers or self.rope_layers[layer]

    def frequencies(self, layer: int) -> tuple[float, ...]:
        """Radians a position by which each pair of a layer's elements turns: [rotary_dim / 2]."""
        n = self.rotary_dim
        own = self.window_rope_theta > 0 and self.windowed(layer)
        theta = self.window_rope_theta if own else self.rope_theta
        frequencies = tuple(theta ** (-i / n) for i in range(0, n, 2))
        if self.rope_factors and not own:
            return tuple(f / by for f, by in zip(frequencies, self.rope_factors, strict=True))
        return frequencies

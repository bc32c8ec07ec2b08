"""Random bases: Linear and GPT-2's Conv1D side by side, squares, convolutions, experts, embeddings."""

from dataclasses import dataclass, field

import numpy as np

import files


@dataclass
class Layer:
    """A layer, or one expert's matrix in a stack, and where its update lies in the stored tensor."""

    name: str
    outputs: int
    inputs: int
    kind: str = "linear"  # linear, conv, embedding
    turned: bool = False  # whether the stored matrix is inputs × outputs
    kernel: tuple = ()
    tensor: str = ""
    place: tuple = ()  # index of the stored tensor, for an expert

    def stored(self, update):
        """An update of outputs × inputs·kernel as the stored tensor, or its part, has it."""
        if self.kernel:
            return update.reshape(self.outputs, self.inputs, *self.kernel)
        return update.T if self.turned else update


@dataclass
class Base:
    layers: list = field(default_factory=list)
    tensors: dict = field(default_factory=dict)  # {name: (dtype, values)}, in order
    tied: bool = False

    def add(self, layer, rng, dtype, bias=False):
        shape = layer.stored(np.zeros((layer.outputs, layer.inputs * int(np.prod(layer.kernel or 1))))).shape
        layer.tensor = f"{layer.name}.weight"
        self.layers.append(layer)
        self.put(layer.tensor, shape, rng, dtype)
        if bias:
            self.put(f"{layer.name}.bias", (layer.outputs,), rng, dtype)

    def put(self, name, shape, rng, dtype):
        self.tensors[name] = (dtype, files.rounded(rng.normal(0, 1, shape), dtype))


def width(rng):
    return int(rng.choice([2, 4, 6, 8, 12, 16, 20, 66]))


def llama(base, rng, dtype):
    hidden = width(rng)
    inner = hidden if rng.random() < 0.3 else width(rng)
    for at in range(rng.integers(1, 3)):
        root = f"model.layers.{at}"
        for name, outputs, inputs in [
            ("self_attn.q_proj", hidden, hidden),
            ("self_attn.k_proj", max(hidden // 2, 1), hidden),
            ("self_attn.o_proj", hidden, hidden),
            ("mlp.up_proj", inner, hidden),
            ("mlp.down_proj", hidden, inner),
        ]:
            base.add(Layer(f"{root}.{name}", outputs, inputs), rng, dtype, bias=rng.random() < 0.2)
        base.put(f"{root}.input_layernorm.weight", (hidden,), rng, dtype)
        if rng.random() < 0.4:
            experts(base, rng, dtype, root, hidden)
    embeddings(base, rng, dtype, hidden)


def experts(base, rng, dtype, root, hidden):
    """Stacks as transformers 5 has them, or inputs × outputs as Llama 4 has."""
    count, inner, turned = int(rng.integers(2, 4)), int(rng.choice([3, 4, 6, hidden])), rng.random() < 0.5
    stack = f"{root}.mlp.experts"
    turn = lambda a, b: (count, b, a) if turned else (count, a, b)
    base.put(f"{stack}.gate_up_proj", turn(2 * inner, hidden), rng, dtype)
    base.put(f"{stack}.down_proj", turn(hidden, inner), rng, dtype)
    for expert in range(count):
        for half, name in enumerate(["gate_proj", "up_proj"]):
            rows = slice(half * inner, (half + 1) * inner)
            place = (expert, slice(None), rows) if turned else (expert, rows)
            base.layers.append(
                Layer(f"{stack}.{expert}.{name}", inner, hidden, turned=turned,
                      tensor=f"{stack}.gate_up_proj", place=place))
        base.layers.append(
            Layer(f"{stack}.{expert}.down_proj", hidden, inner, turned=turned,
                  tensor=f"{stack}.down_proj", place=(expert,)))


def embeddings(base, rng, dtype, hidden):
    vocabulary = int(rng.choice([10, 17, 33]))
    table = Layer("model.embed_tokens", hidden, vocabulary, kind="embedding", turned=True)
    base.add(table, rng, dtype)
    head = Layer("lm_head", vocabulary, hidden)
    if rng.random() < 0.4:
        base.tied, head.tensor = True, "lm_head.weight"
        base.layers.append(head)
    else:
        base.add(head, rng, dtype)


def gpt(base, rng, dtype):
    """GPT-2's Conv1D, or GPTBigCode's Linear layers of the same names."""
    hidden, turned, bias = width(rng), rng.random() < 0.7, rng.random() < 0.5
    for at in range(rng.integers(1, 3)):
        for name, outputs, inputs in [
            ("attn.c_attn", 3 * hidden, hidden),
            ("attn.c_proj", hidden, hidden),
            ("crossattention.q_attn", hidden, hidden),
            ("crossattention.c_attn", 2 * hidden, hidden),
            ("crossattention.c_proj", hidden, hidden),
            ("mlp.c_fc", 4 * hidden, hidden),
            ("mlp.c_proj", hidden, 4 * hidden),
        ]:
            layer = Layer(f"decoder.h.{at}.{name}", outputs, inputs, turned=turned)
            base.add(layer, rng, dtype, bias)


def convolutions(base, rng, dtype):
    for at in range(rng.integers(1, 3)):
        for dimensions in (1, 2, 3):
            kernel = tuple(int(size) for size in rng.choice([1, 2, 3], dimensions))
            outputs, inputs = int(rng.integers(2, 9)), int(rng.integers(2, 9))
            layer = Layer(f"blocks.{at}.conv{dimensions}", outputs, inputs, kind="conv", kernel=kernel)
            base.add(layer, rng, dtype, bias=rng.random() < 0.5)
        size = width(rng)
        base.add(Layer(f"blocks.{at}.proj_in", size, size), rng, dtype)


def base(rng):
    found = Base()
    dtype = str(rng.choice(["F32", "F16", "BF16", "F64"], p=[0.35, 0.2, 0.35, 0.1]))
    makers = [llama, gpt, convolutions]
    chosen = [maker for maker in makers if rng.random() < 0.6] or [gpt]
    for maker in chosen:
        maker(found, rng, dtype)
    return found

"""What a merge must give, in f64, and how far f32 sums and one rounding may be from it."""

import re

import numpy as np

import files

# Relative error of one f32 operation.
EPSILON = 2.0**-24


class Selection:
    """What --include, --exclude, --module-weight and -w make of a module."""

    def __init__(self, weights, rules, include, exclude):
        self.weights, self.rules, self.include, self.exclude = weights, rules, include, exclude

    @staticmethod
    def matches(pattern, update):
        return any(re.search(pattern, name) for name in (update.name, update.layer.tensor))

    def chooses(self, update):
        """Whether --include and --exclude leave a module in."""
        included = not self.include or self.matches(self.include, update)
        return included and not (self.exclude and self.matches(self.exclude, update))

    def rule(self, update):
        """The number of the --module-weight that decides a module's weight, the last that matches it."""
        matching = [at for at, (pattern, _) in enumerate(self.rules) if self.matches(pattern, update)]
        return matching[-1] if matching else None

    def weight(self, adapter, update):
        if not self.chooses(update):
            return 0.0
        rule = self.rule(update)
        return self.weights[adapter] * (1.0 if rule is None else self.rules[rule][1])


def merged(base, adapters, selection):
    """{tensor: (exact values, slack)} of all that changes."""
    results = {}
    for number, adapter in enumerate(adapters):
        for update in adapter.updates:
            weight = selection.weight(number, update)
            if weight == 0.0:
                continue
            layer = update.layer
            if layer.tensor not in results:
                stored = base.tensors[layer.tensor if layer.tensor in base.tensors
                                      else "model.embed_tokens.weight"]
                results[layer.tensor] = [stored[1].copy(), *np.zeros((3, *stored[1].shape))]
            exact, slack, size, depth = results[layer.tensor]
            place = layer.place or (slice(None),)
            if update.magnitude is not None:
                moved, spread = decomposed(layer, exact[place], update)
                exact[place] += weight * moved
                slack[place] += abs(weight) * spread
            else:
                exact[place] += weight * layer.stored(update.delta)
                size[place] += abs(weight) * layer.stored(update.size)
                depth[place] += update.rank
    for exact, slack, size, depth in results.values():
        # Every partial sum is at most the sum of all terms, and rounds once.
        slack += EPSILON * ((depth + 8) * size + 2 * np.abs(exact))
    table, head = "model.embed_tokens.weight", "lm_head.weight"
    if base.tied and table in results and head not in results:
        # Only one of two tied weights changes: both are stored.
        values = base.tensors[table][1]
        results[head] = [values, np.zeros_like(values)]
    return {name: result[:2] for name, result in results.items()}


def decomposed(layer, stored, update):
    """m · (W + Δ) / ‖W + Δ‖ − W, a length for each output (DoRA), as the tensor has it."""
    weight = stored.T if layer.turned else stored.reshape(layer.outputs, -1)
    direction = weight + update.delta
    lengths = np.zeros((layer.outputs, 1))
    for row in range(layer.outputs):
        lengths[row, 0] = sum(float(value) ** 2 for value in direction[row]) ** 0.5
    scaled = update.magnitude[:, None] / lengths * direction
    spread = 64 * EPSILON * (np.abs(scaled) + update.magnitude[:, None] / lengths * update.size)
    return layer.stored(scaled - weight), layer.stored(spread)


def compare(found, expected, dtype):
    """The largest excess over what rounding explains; at most 0 if all is well."""
    exact, slack = expected
    allowed = 0.5 * files.ulp(exact, dtype) * (1 + 1e-9) + slack
    excess = np.abs(found - exact) - allowed
    return float(np.max(np.where(np.isnan(excess), np.inf, excess)))

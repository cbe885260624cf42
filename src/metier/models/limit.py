"""The fastest that this machine multiplies matrices of a model's own shapes: the limit of training and scoring."""

import time
from functools import partial

import torch

from metier.models import onednn
from metier.models.flops import Products
from metier.models.loss import block_columns


class Limit:
    """The best rate of each shape, forward (x W') and backward (g W), over every time it was measured.

    Measured before, between and after what it is compared with: on a machine whose speed changes, its best moments
    count for the limit, so that the share of it is never flattered.
    """

    def __init__(self, products: Products, n_tokens: int, supervised_share: float) -> None:
        """n_tokens: rows of one product. supervised_share: of the tokens, those that the head reads."""
        self.weights: dict[tuple[int, int], float] = {}  # share of the products' FLOPs, by shape
        for layer, n in products.layers.items():
            shape = (layer.n_in, layer.n_out)
            self.weights[shape] = self.weights.get(shape, 0.0) + n * layer.n_in * layer.n_out
        self.rows = dict.fromkeys(self.weights, n_tokens)
        self.head = (products.head.n_in, products.head.n_out)
        self.weights[self.head] = self.weights.get(self.head, 0.0) + supervised_share * self.head[0] * self.head[1]
        self.rows[self.head] = max(1, round(supervised_share * n_tokens))
        self.best: dict[tuple[int, int, bool], float] = {}

    def measure(self, seconds: float) -> None:
        """Try every shape, in both directions, for its part of `seconds` and at least twice."""
        for n_in, n_out in self.weights:
            rows = self.rows[n_in, n_out]
            is_head = (n_in, n_out) == self.head
            columns = min(n_out, block_columns(rows)) if is_head else n_out  # the head is multiplied in blocks
            weight = torch.randn(columns, n_in)
            for backward in (False, True):
                x = torch.randn(rows, columns if backward else n_in)
                matrix = weight if backward else weight.T
                rate = _fastest(x, matrix, seconds / (2 * len(self.weights)))
                key = (n_in, n_out, backward)
                self.best[key] = max(self.best.get(key, 0.0), rate)

    @property
    def gflops(self) -> float:
        """Of all products together, each shape in the share that it has of the model's."""
        total = sum(self.weights.values())
        time_of_all = sum(
            weight / 2 / self.best[*shape, backward]
            for shape, weight in self.weights.items()
            for backward in (False, True)
        )
        return total / time_of_all / 1e9


def _fastest(x: torch.Tensor, matrix: torch.Tensor, seconds: float) -> float:
    """FLOP/s of the fastest product, written either way round and by either library; two each at least, since the first
    is slow."""
    flops = 2 * x.shape[0] * matrix.shape[0] * matrix.shape[1]
    best, n = 0.0, 0
    both_ways = ((x, matrix.T), (matrix.T, x))
    ways = [partial(_by_torch, *way) for way in both_ways]
    ways += [partial(onednn.linear, *way) for way in both_ways if onednn.is_there() and onednn.takes(*way)]
    began = time.perf_counter()
    while n < 2 * len(ways) or time.perf_counter() - began < seconds:
        multiply = ways[n % len(ways)]
        started = time.perf_counter()
        multiply()
        best = max(best, flops / (time.perf_counter() - started))
        n += 1
    return best


def _by_torch(rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return rows @ weight.T

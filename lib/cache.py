"""The key-value cache: what attention remembers of the tokens so far.

Both kinds hold, for each layer, a tuple of tensors [B, heads, slots, width], and in `valid`
[B, slots] which slots hold a real token. A token's slot is not its position: rows of a batch may
have prompts of different lengths, padded on the right, and every row writes its next token to the
same slot. Keys carry their rotary position already, so the order of slots does not matter.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from lib.products import rounded

Layers = dict[int, tuple[Tensor, ...]]


def _each(layers: Layers, change) -> Layers:
    """The layers with change(x) in the place of each tensor x."""
    return {layer: tuple(map(change, xs)) for layer, xs in layers.items()}


class GrowingCache:
    """Grows by concatenation, and gradients flow back through it: for training on responses that
    share a prompt, and for the plain sampling loop."""

    def __init__(self, length: int = 0, layers: Layers | None = None, valid: Tensor | None = None):
        self.length, self.layers, self.valid = length, layers or {}, valid  # valid: [B, length]

    def expect(self, valid: Tensor) -> None:
        """Announce T new tokens, of which valid [B, T] are real."""
        old = valid[:, :0] if self.valid is None else self.valid
        self.valid = torch.cat([old, valid], 1)

    def append(self, layer: int, *new: Tensor) -> tuple[Tensor, ...]:
        """Store new [B, heads, T, width] tensors; return each with all slots so far."""
        old = self.layers.get(layer, [x[:, :, :0] for x in new])
        self.layers[layer] = tuple(torch.cat([a, b.to(a.dtype)], 2) for a, b in zip(old, new))
        return self.layers[layer]

    def select(self, rows: Tensor) -> "GrowingCache":
        """A copy that holds the given rows [n] (repeats allowed)."""
        layers = _each(self.layers, lambda x: x.index_select(0, rows))
        return GrowingCache(self.length, layers, self.valid[rows])

    def detached(self) -> "GrowingCache":
        """The same contents as leaves of a new graph, which gather gradients of their own."""
        layers = _each(self.layers, lambda x: x.detach().requires_grad_())
        return GrowingCache(self.length, layers, self.valid)

    def backward(self, leaves: "GrowingCache") -> None:
        """Send on the gradients that `leaves`, from detached(), have gathered."""
        both = [p for n, xs in self.layers.items() for p in zip(xs, leaves.layers[n])]
        pairs = [(x, leaf.grad) for x, leaf in both if leaf.grad is not None]
        if pairs:
            torch.autograd.backward(*zip(*pairs))


class BlockCache:
    """Reserves `block` slots at a time, of which there may be `most` in the end, and writes in
    place: for generation. static: the slot of a single token is an index on the device, so that
    between two growths every such step is the same to the host, and a CUDA graph can repeat it."""

    def __init__(self, block: int, most: int, static: bool = False):
        self.block, self.most, self.static, self.length = block, most, static, 0
        self.slot: Tensor | None = None  # [1] of the newest token, while it is known on the device
        self.layers: Layers = {}
        self.valid: Tensor | None = None  # [B, slots]; the empty ones are not valid
        self.spare: Tensor | None = None  # memory that the last tensor to grow has left

    def expect(self, valid: Tensor) -> None:
        """Make room for T new tokens, of which valid [B, T] are real."""
        if self.valid is None:
            self.valid = valid[:, :0]
        end = self.length + valid.shape[1]
        room = rounded(end, self.block)
        if room > self.valid.shape[1]:
            self.valid = F.pad(self.valid, (0, room - self.valid.shape[1]))
            self.layers = _each(self.layers, lambda x: self._grow(x, room))
        if self.static and valid.shape[1] == 1:
            if self.slot is None:
                self.slot = torch.full((1,), self.length - 1, device=valid.device)
            self.slot += 1
            self.valid.index_copy_(1, self.slot, valid)
        else:
            self.slot = None
            self.valid[:, self.length : end] = valid

    def room(self) -> int:
        """How many more tokens there may be before it grows."""
        return self.valid.shape[1] - self.length

    def _grow(self, x: Tensor, room: int) -> Tensor:
        """x [B, heads, slots, width] with empty slots up to `room`: contiguous, since batched
        products of parts of something longer take up to twice the time, and in the memory that the
        tensor before it has left, since new memory is slow to get."""
        (B, heads, slots, width), out, self.spare = x.shape, self.spare, x
        needed = B * heads * room * width * x.element_size()
        if out is None or out.untyped_storage().nbytes() < needed:
            out = x.new_empty(B, heads, max(room, self.most), width)
        out.resize_(B, heads, room, width)  # keeps the memory that it does not need yet
        out[:, :, :slots], out[:, :, slots:] = x, 0
        return out

    def append(self, layer: int, *new: Tensor) -> tuple[Tensor, ...]:
        """Store new [B, heads, T, width] tensors; return each with all slots so far, for T = 1 with
        the empty ones too: the caller masks them by `valid`."""
        if layer not in self.layers:
            slots = self.valid.shape[1]
            self.layers[layer] = tuple(x.new_zeros(*x.shape[:2], slots, x.shape[3]) for x in new)
        T, stores = new[0].shape[2], self.layers[layer]
        for store, x in zip(stores, new):
            if self.slot is None:
                store[:, :, self.length : self.length + T] = x
            else:
                store.index_copy_(2, self.slot, x.to(store.dtype))
        return stores if T == 1 else tuple(x[:, :, : self.length + T] for x in stores)

    def select(self, rows: Tensor) -> "BlockCache":
        """A copy that holds the given rows [n] (repeats allowed)."""
        self.spare = None  # no more memory than a copy needs
        out = BlockCache(self.block, self.most, self.static)
        out.length, out.valid = self.length, self.valid[rows]
        out.layers = _each(self.layers, lambda x: x.index_select(0, rows))
        return out

    @staticmethod
    def join(caches: list["BlockCache"]) -> "BlockCache":
        """The rows of several caches together. A row's tokens move into its first slots, so that
        gaps between them take no more time."""
        held = max(int(c.valid.sum(1).max()) for c in caches)
        out = BlockCache(caches[0].block, max(c.most for c in caches), caches[0].static)
        out.length, room = held, rounded(held, out.block)

        def moved(x: Tensor, order: Tensor) -> Tensor:
            """x [B, heads, slots, width] with its slots in the order [B, <= held]."""
            index = order[:, None, :, None].expand(-1, x.shape[1], -1, x.shape[3])
            return F.pad(x.gather(2, index), (0, 0, 0, room - order.shape[1]))

        orders, valid = [], []
        for c in caches:
            c.spare = None
            order = c.valid.byte().argsort(dim=1, descending=True, stable=True)[:, :held]
            orders.append(order)
            valid.append(F.pad(c.valid.gather(1, order), (0, room - order.shape[1])))
        out.valid = torch.cat(valid)
        for layer in caches[0].layers:
            kinds = zip(*(c.layers[layer] for c in caches))  # keys of all caches, values of all
            out.layers[layer] = tuple(torch.cat(list(map(moved, xs, orders))) for xs in kinds)
        return out

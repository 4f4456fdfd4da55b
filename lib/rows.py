"""What is done to all tensors of a rollout at once."""

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


class Rows:
    """Of sample.Rollout: a dataclass of tensors [B], [B, T] or [B, T, ...], or None."""

    def _each(self, change) -> "Rows":
        return type(self)(*(None if x is None else change(x) for x in vars(self).values()))

    def select(self, rows: Tensor) -> "Rows":
        """The given rows [n]."""
        return self._each(lambda x: x[rows])

    def to(self, device) -> "Rows":
        return self._each(lambda x: x.to(device))

    def trimmed(self) -> "Rows":
        """Without the columns that no row has reached."""
        T = int(self.lengths.max()) if len(self.lengths) else 0
        return self._each(lambda x: x if x.dim() == 1 else x[:, :T])

    @classmethod
    def concat(cls, parts: list["Rows"], pad_id: int) -> "Rows":
        """The rows of several rollouts, one after the other, as wide as the widest."""

        def joined(name: str) -> Tensor | None:
            tensors = [getattr(part, name) for part in parts]
            if tensors[0] is None:
                return None
            if tensors[0].dim() == 1:
                return torch.cat(tensors)
            rows = [row for x in tensors for row in x]
            fill = pad_id if name == "tokens" else 0
            return pad_sequence(rows, batch_first=True, padding_value=fill)

        return cls(*map(joined, vars(parts[0])))

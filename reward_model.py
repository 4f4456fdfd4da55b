"""The network of a reward model: GPT with a number in place of the vocabulary (preference.py)."""

import os

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import sft
from lib import distributed, files
from lib.errors import UserError
from model import GPT


class RewardModel(nn.Module):
    """GPT with a scalar head, which is 0 at first."""

    def __init__(self, gpt: GPT):
        super().__init__()
        self.gpt, self.head = gpt, nn.Linear(gpt.cfg.dim, 1, device=gpt.device)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, tokens: Tensor, positions: Tensor | None = None, read=None) -> Tensor:
        """Scores [B, T] of tokens [B, T], or [n] of those that read = (row [n], slot [n]) names."""
        hidden = self.gpt(tokens, positions=positions, return_hidden=True)  # [B, T, D]
        return self.head(hidden if read is None else hidden[read])[..., 0]

    def read(self, rows: list[list[int]], ends: list[list[int]] | None = None) -> Tensor:
        """Scores [B] of rows of token ids at their last tokens; or after each of ends[i] tokens of
        row i: then the scores of all rows come in one line."""
        pad_id, device = self.gpt.cfg.pad_id, self.gpt.device
        tokens, positions, _ = sft.collate([(ids, 0) for ids in rows], pad_id, device)
        ends = ends or [[len(ids)] for ids in rows]
        read = [(row, end - 1) for row, of_row in enumerate(ends) for end in of_row]
        return self(tokens, positions, tuple(torch.tensor(read, device=device).T))

    @torch.no_grad()
    def score(self, rows: list[list[int]], ends=None, per_call: int = 256) -> Tensor:
        """read() without gradients, `per_call` rows at a time."""
        chunks = [slice(i, i + per_call) for i in range(0, len(rows), per_call)]
        return torch.cat([self.read(rows[c], ends and ends[c]) for c in chunks])

    def save_pretrained(self, folder: str) -> None:
        """The network's folder, with the head in another file."""
        os.makedirs(folder, exist_ok=True)
        head = distributed.full_state(self.head.state_dict())
        if distributed.is_main_process():
            with files.atomic_write(os.path.join(folder, "score.safetensors")) as temporary:
                save_file({k: v.contiguous().cpu() for k, v in head.items()}, temporary)
        self.gpt.save_pretrained(folder)

    @classmethod
    def from_pretrained(cls, folder: str, device, dtype=torch.float32) -> "RewardModel":
        """UserError if the head's file is missing or damaged."""
        model = cls(GPT.from_pretrained(folder, dtype, device)).to(dtype)
        path = os.path.join(folder, "score.safetensors")
        try:
            model.head.load_state_dict(load_file(path, device=str(device)))
        except (OSError, RuntimeError, SafetensorError) as e:
            problem = f"{path} is missing or damaged ({type(e).__name__})"
            raise UserError(f"{problem}: train the reward model again") from None
        return model

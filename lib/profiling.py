"""Names for the parts of a step, so that bench/profile_grpo.py can measure them.

The program marks them with `with phase("decode"):`, which does nothing unless a profile is taken.
"""

import contextlib

_NOTHING = contextlib.nullcontext()
active = None  # the profile being taken: a bench.profile_grpo.Profile


def phase(name: str):
    """A context whose time belongs to this phase; that of a phase inside it does not."""
    return active.measure(name) if active else _NOTHING


def counting() -> bool:
    """Whether operations are being counted: that works in this thread only."""
    return active is not None and active.flops is not None

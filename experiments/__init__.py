"""Experiments on the recipes; `python -m experiments list` names them."""

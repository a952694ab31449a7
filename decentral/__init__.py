"""Decentralized deep learning on PyTorch: each node trains its own model and talks only to its neighbors on a graph."""

__version__ = "0.1.0"

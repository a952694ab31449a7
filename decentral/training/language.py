"""Language models: from numbers of characters `(b, context)` to scores of the next one `(b, context, vocabulary)`.

GPT is the decoder of Radford et al. 2019 in small: learned positions, LayerNorm before attention and before the hidden
layer (pre-norm), GELU, and first weights of deviation 0.02, those that write to the residual stream divided by
sqrt(2 layers).
"""

from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

DEVIATION = 0.02


class RecurrentModel(nn.Module):
    """An embedding, a GRU from a zero state, and a linear layer."""

    def __init__(self, vocabulary: int, width: int, layers: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.gru = nn.GRU(width, width, layers, batch_first=True)
        self.head = nn.Linear(width, vocabulary)

    def forward(self, characters: Tensor) -> Tensor:
        states, _ = self.gru(self.embedding(characters))
        scores: Tensor = self.head(states)
        return scores


class CausalAttention(nn.Module):
    """Attention of each position to itself and those before it: `(b, context, width)` to the same."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.inward = nn.Linear(width, 3 * width)
        self.outward = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        apart = self.inward(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        queries, keys, values = apart.unbind()  # each (b, heads, context, width / heads)
        dropped = self.dropout if self.training else 0.0
        seen = scaled_dot_product_attention(queries, keys, values, dropout_p=dropped, is_causal=True)
        mixed: Tensor = self.outward(seen.transpose(1, 2).flatten(2))
        return mixed


class Block(nn.Module):
    """x + attention(norm(x)), then x + hidden(norm(x))."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.before_attention, self.before_hidden = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = CausalAttention(width, heads, dropout)
        self.hidden = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.dropout(self.attention(self.before_attention(x)))
        further: Tensor = x + self.dropout(self.hidden(self.before_hidden(x)))
        return further


class Transformer(nn.Module):
    """A small GPT; `context` is the longest window that it takes."""

    def __init__(self, vocabulary: int, context: int, width: int, heads: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.embedding, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.blocks = nn.Sequential(*(Block(width, heads, dropout) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                into_stream = name.endswith(("outward.weight", "hidden.2.weight"))
                nn.init.normal_(parameter, std=DEVIATION / sqrt(2 * layers) if into_stream else DEVIATION)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, characters: Tensor) -> Tensor:
        places = torch.arange(characters.shape[1], device=characters.device)
        scores: Tensor = self.head(self.norm(self.blocks(self.embedding(characters) + self.positions(places))))
        return scores

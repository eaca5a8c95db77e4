"""What a layer of somebody else's network gives, and one vector an image of that."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

Pool = Literal["class", "mean"]


class _Reached(Exception):
    """The layer has been called. Ends the pass: what comes after is not asked for."""

    def __init__(self, output: Any):
        super().__init__()
        self.output = output


class LayerOutput(nn.Module):
    """A network up to one of its modules: inputs -> what that gives when it is first called.

    network: the whole of it; what comes after the layer is never computed.
    layer: the name of the module; '' is the network itself.
    """

    def __init__(self, network: nn.Module, layer: str):
        super().__init__()
        self.network = network
        self.layer = layer

    def forward(self, images: Tensor) -> Any:
        if not self.layer:
            return self.network(images)
        # A hook of one pass: a copy of this module would else call that of the original.
        handle = self.network.get_submodule(self.layer).register_forward_hook(_stop)
        try:
            self.network(images)
        except _Reached as reached:
            return reached.output
        finally:
            handle.remove()
        raise LookupError("is not called in a pass")


def _stop(module: nn.Module, inputs: object, output: object) -> None:
    raise _Reached(output)


class Layout(NamedTuple):
    """What the axes of a layer's output are.

    shape: of an output, (n, d), (n, tokens, d), (n, d, h, w) or (n, h, w, d).
    prefix: tokens before those of patches, such as the class token.
    channels_last: whether it is (n, h, w, d).
    """

    shape: tuple[int, ...]
    prefix: int = 0
    channels_last: bool = False

    def problem(self, pool: Pool | None) -> str | None:
        """Why no vector can be made of it so, if it cannot: 'must be ...' for the field `pool`."""
        of = " x ".join(map(str, self.shape[1:])) or "one number"
        if len(self.shape) not in (2, 3, 4):
            return f"cannot make a vector of that layer's output, {of} for an image"
        if len(self.shape) == 2:
            if pool is None:
                return None
            return f"must be None: a vector of {of} is there already, got {pool!r}"
        if pool is None:
            return f"must be 'mean', or 'class' where there is a class token: it gives {of}"
        if pool == "class" and not self.prefix:
            return f"must be 'mean': {of} has no class token, got 'class'"
        return None

    def pooled(self, states: Tensor, pool: Pool | None) -> Tensor:
        """(n, ...) -> (n, d)

        'class' takes the first token. 'mean' is over patches or positions: the class token and
        other tokens before the patches are left out, as timm's pooling leaves them out.
        """
        if pool is None:
            return states
        if pool == "class":
            return states[:, 0]
        if states.ndim == 3:
            return states[:, self.prefix :].mean(1)
        return states.mean((1, 2) if self.channels_last else (2, 3))


def layout_of(states: Tensor, prefix: int, channels_last: bool) -> Layout:
    """The layout of an output whose positions are on a square, or else as the network says.

    channels_last: what the network says of its own, where the shape leaves it open.
    """
    shape = tuple(states.shape)
    if len(shape) != 4:
        return Layout(shape, prefix if len(shape) == 3 else 0)
    _, first, second, third = shape
    if first == second != third:
        return Layout(shape, channels_last=True)
    if first != second == third:
        return Layout(shape)
    return Layout(shape, channels_last=channels_last)


def last_linear(network: nn.Module) -> str | None:
    """The name of the last linear layer: the classifier of most networks of images."""
    names = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    return names[-1] if names else None


def replace(network: nn.Module, name: str, by: nn.Module) -> None:
    """Put another module in the place of one, by its name."""
    owner, _, attribute = name.rpartition(".")
    setattr(network.get_submodule(owner), attribute, by)


def names_of(network: nn.Module) -> list[str]:
    """The names of all modules inside a network."""
    return [name for name, _ in network.named_modules() if name]


def on_meta(network: nn.Module, size: tuple[int, int], layer: str) -> Any:
    """What a layer of a network on the meta device gives for two images: a shape, no numbers."""
    with torch.no_grad(), torch.device("meta"):
        return LayerOutput(network, layer)(torch.zeros(2, 3, *size, device="meta"))

"""Networks of timm (PyTorch image models): ViT, DINOv2, CLIP, ConvNeXt and a thousand others."""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import gin
from torch import nn

from monosem.checkpoints.matching import Tensors
from monosem.pretrained.image_inputs import InputRule, scaled
from monosem.pretrained.image_network import ImageNetwork
from monosem.pretrained.weight_sources import Published, at_address

FITS = {"center": "cover", "squash": "stretch", "border": "contain"}


@gin.register
@dataclass(frozen=True)
class Timm(ImageNetwork):
    """A network of timm (Wightman 2019): `pip install timm`, or monosem[timm].

    name: in timm, such as 'vit_small_patch14_dinov2.lvd142m'. The part after the dot names weights,
        and with them how images are normalised; without it the first ones are meant.
    weights: as timm has them, or in a file. RandomWeights downloads nothing.
    data: as in every network of images.
    layer: a module by timm's name, 'blocks.8' or 'norm' of a ViT. None is what forward gives
        without a classifier.
    pool: as in every network of images.
    size: as in every network of images. Position embeddings of files are resized by timm.
    """

    library: ClassVar[str] = "timm"

    def names(self) -> Sequence[str]:
        return _names()

    def tags(self) -> Sequence[str]:
        import timm

        names = timm.list_models(f"{self.architecture}.*", include_tags=True)
        return [name.partition(".")[2] for name in names]

    @property
    def _config(self) -> Any:
        """timm's description of the published weights and of their inputs."""
        import timm

        return timm.get_pretrained_cfg(self.name)

    def rule(self) -> InputRule:
        from timm.data.config import resolve_data_config

        config = resolve_data_config(pretrained_cfg=self._config.to_dict())
        crop = (self.size, self.size) if self.size else config["input_size"][1:]
        return InputRule(
            resize=scaled(crop, config["crop_pct"]),
            fit=FITS[config["crop_mode"]],  # type: ignore[arg-type]
            crop=crop,
            interpolation=config["interpolation"],
            mean=tuple(config["mean"]),
            std=tuple(config["std"]),
        )

    def build(self, whole: bool = False) -> nn.Module:
        import timm

        options: dict[str, Any] = {} if whole else {"num_classes": 0}
        if self.size and self._config.fixed_input_size:
            options["img_size"] = self.size
        return timm.create_model(self.name, pretrained=False, **options)

    @property
    def classifiers(self) -> tuple[str, ...]:
        names = self._config.classifier or ()
        return (names,) if isinstance(names, str) else tuple(names)

    def published(self) -> Published:
        config = self._config
        if config.hf_hub_id:
            return _on_hub(config.hf_hub_id, config.hf_hub_filename)
        if config.url and not config.custom_load:
            return at_address(config.url)
        have = ", ".join(f"{self.architecture}.{tag}" for tag in self.tags())
        hint = f"; there are {have}" if have else ""
        self.refuse("weights", f"must be others: timm has none for {self.name} as torch{hint}")

    def translated(self, tensors: Tensors, network: nn.Module) -> Tensors:
        """By the function that timm has beside the network for files of its publishers."""
        function = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
        if function is None:
            return tensors
        try:
            return dict(function(dict(tensors), network))
        except (AttributeError, KeyError, IndexError, RuntimeError, TypeError, ValueError):
            return tensors  # a file of something else: its names will tell

    def prefix_tokens(self, network: nn.Module, tokens: int) -> int:
        patches = getattr(getattr(network, "patch_embed", None), "num_patches", None)
        if isinstance(patches, int):
            return max(0, tokens - patches)
        return getattr(network, "num_prefix_tokens", 0)

    def channels_last(self, network: nn.Module) -> bool:
        return getattr(network, "output_fmt", "NCHW") == "NHWC"


@functools.cache
def _names() -> tuple[str, ...]:
    import timm

    return tuple(timm.list_models())


def _on_hub(repository: str, filename: str | None) -> Published:
    """A file that huggingface_hub keeps in its cache; safetensors where there are some."""
    from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    named = filename or "pytorch_model.bin"
    safe = "model.safetensors" if named == "pytorch_model.bin" else _safe(named)
    candidates = list(dict.fromkeys([safe, named]))

    def cached() -> Path | None:
        found = (try_to_load_from_cache(repository, name) for name in candidates)
        return next((Path(path) for path in found if isinstance(path, str)), None)

    def fetch() -> Path:
        for name in candidates[:-1]:
            try:
                return Path(hf_hub_download(repository, name))
            except LocalEntryNotFoundError:  # no network
                raise
            except EntryNotFoundError:
                continue
        return Path(hf_hub_download(repository, candidates[-1]))

    return Published(f"{constants.ENDPOINT}/{repository}", cached, fetch)


def _safe(filename: str) -> str:
    """The name that a file of safetensors has beside one of torch.save."""
    if filename == "open_clip_pytorch_model.bin":
        return "open_clip_model.safetensors"
    stem, dot, ending = filename.rpartition(".")
    return f"{stem}.safetensors" if dot and ending == "bin" else filename

"""Folders of SAELens, against latents that it computed itself (golden/saelens_folders)."""

from __future__ import annotations

import json
import shutil
import warnings

import pytest
import torch
from conftest import GOLDEN
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from monosem.autoencoders.base import Autoencoder, Sparsifier
from monosem.autoencoders.gated import L1, Gated
from monosem.autoencoders.jumprelu import JumpReLU
from monosem.autoencoders.matryoshka import Matryoshka
from monosem.autoencoders.topk import BatchTopK, TopK
from monosem.checkpoints.saelens import WEIGHTS, TheirAutoencoder, read_state, write
from monosem.checkpoints.saelens_config import CONFIG, read_config
from monosem.checkpoints.safe_load import WeightsError

FOLDERS = GOLDEN / "saelens_folders"
NAMES = sorted(path.parent.name for path in FOLDERS.glob(f"*/{CONFIG}"))
OURS = {
    "topk": TopK(3),
    "l1": L1(),
    "gated": Gated(),
    "jumprelu": JumpReLU(),
    "batchtopk": BatchTopK(3),
    "matryoshka": Matryoshka((4, 8), BatchTopK(3)),
    "matryoshka of topk": Matryoshka((4, 8), TopK(3)),
}


def theirs(folder):
    config = read_config(folder)
    autoencoder = TheirAutoencoder(config)
    autoencoder.load_state_dict(read_state(folder, config))
    return autoencoder.eval()


def ours(sparsity):
    """In evaluation mode, all of its weights random and some thresholds below 0."""
    autoencoder = Autoencoder(6, 12, sparsity).eval()
    draw = torch.Generator().manual_seed(1)
    for tensor in autoencoder.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.randn(tensor.shape, generator=draw) / 2)
            if not tensor.ndim:  # the one threshold of BatchTopK is never below 0
                tensor.abs_()
    return autoencoder.requires_grad_(False)


def rows():
    return torch.randn(30, 6, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(FOLDERS / "topk", tmp_path / "theirs")


# Reading


def test_there_is_a_folder_of_every_kind():
    kinds = {read_config(FOLDERS / name).architecture for name in NAMES}
    assert kinds == {
        "standard", "topk", "jumprelu", "gated", "batchtopk", "matryoshka_batchtopk"
    }  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_gives_the_latents_that_saelens_gives(name):
    expected = load_file(FOLDERS / "expected.safetensors")
    latents = theirs(FOLDERS / name).encode(expected["inputs"])
    wanted = expected[f"{name}/latents"]
    assert 0 < (wanted > 0).float().mean() < 1
    assert torch.equal(latents > 0, wanted > 0)
    assert_close(latents.detach(), wanted, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_reconstructs_as_saelens_does(name):
    expected = load_file(FOLDERS / "expected.safetensors")
    code = theirs(FOLDERS / name)(expected["inputs"])
    wanted = expected[f"{name}/reconstruction"]
    assert_close(code.reconstruction.detach(), wanted, rtol=1e-5, atol=5e-6)


def test_an_empty_row_is_nowhere_on_where_rows_are_normalised():
    latents = theirs(FOLDERS / "standard_layer_norm").encode(torch.zeros(1, 6))
    assert latents.isfinite().all()


# Refusing


def alter(folder, **settings):
    """Change settings of cfg.json; None takes one out."""
    path = folder / CONFIG
    config = {**json.loads(path.read_text()), **settings}
    path.write_text(
        json.dumps({name: value for name, value in config.items() if value is not None})
    )


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"architecture": "topkk"}, "architecture in .* got 'topkk'. Did you mean topk?"),
        ({"architecture": "transcoder"}, "architecture in .* must be one of 'standard', 'topk'"),
        ({"architecture": None}, "architecture in .* got None"),
        ({"k": 13}, "k in .* must be at most d_sae, 12, got 13"),
        ({"k": None}, "k in .* must be a whole number from 1, got None"),
        ({"d_in": "6"}, "d_in in .* must be a whole number from 1, got '6'"),
        ({"dtype": "int8"}, "dtype in .* must be one of 'float32'"),
        ({"apply_b_dec_to_input": None}, "apply_b_dec_to_input in .* must be true or false"),
        ({"rescale_acts_by_decoder_norm": 1}, "rescale_acts_by_decoder_norm in .* got 1"),
        (
            {"normalize_activations": "expected_average_only_in"},
            "normalize_activations in .* 'expected_average_only_in', whose numbers are not in the",
        ),
        ({"normalize_activations": "layer"}, "got 'layer'. Did you mean layer_norm?"),
        ({"reshape_activations": "heads"}, "reshape_activations in .* got 'heads'"),
        ({"finetuning_scaling_factor": True}, "finetuning_scaling_factor in .* must be false"),
        ({"metadata": None}, "is of a version before 6 of SAELens: load it with SAELens 6"),
        ({"metadata": {"sae_lens_version": "5.9.1"}}, "is of 5.9.1 of SAELens"),
    ],
)
def test_a_setting_that_is_not_honoured_is_refused_by_name_in_one_line(folder, settings, complaint):
    alter(folder, **settings)
    with pytest.raises(WeightsError, match=complaint) as error:
        read_config(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda folder: (folder / CONFIG).write_text("{"), "cfg.json is no JSON"),
        (lambda folder: (folder / CONFIG).write_text("[]"), "cfg.json holds no settings by name"),
        (lambda folder: (folder / CONFIG).rename(folder / "cfg.jso"), "Did you mean cfg.jso?"),
        (lambda folder: shutil.rmtree(folder), "there is no folder"),
    ],
)
def test_a_folder_without_its_settings_is_refused(folder, spoil, complaint):
    spoil(folder)
    with pytest.raises(WeightsError, match=complaint):
        read_config(folder)


def test_a_file_in_place_of_a_folder_is_refused(folder):
    with pytest.raises(WeightsError, match="is a file: name the folder that it is in"):
        read_config(folder / CONFIG)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"W_dec": None}, r"missing: W_dec \(12, 6\)"),
        ({"b_enc": torch.zeros(11)}, r"of another shape: b_enc \(11,\) instead of \(12,\)"),
        ({"scaling_factor": torch.ones(12)}, r"left over: scaling_factor \(12,\)"),
        ({"b_dec": torch.full((6,), torch.nan)}, "not finite in b_dec"),
    ],
)
def test_tensors_that_do_not_fit_are_refused_by_name(folder, change, complaint):
    tensors = {**load_file(folder / WEIGHTS), **change}
    save_file({name: each for name, each in tensors.items() if each is not None}, folder / WEIGHTS)
    with pytest.raises(WeightsError, match=complaint):
        read_state(folder, read_config(folder))


# Writing


@pytest.mark.parametrize("sparsity", OURS.values(), ids=OURS)
def test_what_is_written_is_read_with_the_same_latents(tmp_path, sparsity):
    autoencoder = ours(sparsity)
    write(tmp_path / "new" / "folder", autoencoder, {})
    latents = theirs(tmp_path / "new" / "folder").encode(rows())
    assert_close(latents.detach(), autoencoder.encode(rows()), rtol=0, atol=0)


def test_a_folder_of_another_autoencoder_is_not_overwritten(tmp_path):
    write(tmp_path, ours(TopK(3)), {"key": "a"})
    write(tmp_path, ours(TopK(3)), {"key": "a"})
    before = (tmp_path / WEIGHTS).read_bytes()
    with pytest.raises(FileExistsError, match="holds another autoencoder"):
        write(tmp_path, ours(TopK(3)), {"key": "b"})
    assert (tmp_path / WEIGHTS).read_bytes() == before


@pytest.mark.parametrize("sparsity", [Sparsifier(), type("OddTopK", (TopK,), {})(3)])
def test_a_kind_that_saelens_does_not_have_is_refused_by_name(tmp_path, sparsity):
    with pytest.raises(WeightsError, match=f"that is {type(sparsity).__name__}"):
        write(tmp_path / "new", ours(sparsity), {})
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_saelens_reads_what_is_written_with_the_same_latents_and_reconstructions(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sae_lens = pytest.importorskip("sae_lens", reason="the judge itself is optional")
        for name, sparsity in OURS.items():
            autoencoder = ours(sparsity)
            write(tmp_path / name, autoencoder, {"key": "a"})
            judge = sae_lens.SAE.load_from_disk(tmp_path / name)
            latents = autoencoder.encode(rows())
            with torch.no_grad():
                assert_close(judge.encode(rows()), latents, rtol=1e-5, atol=1e-6, msg=name)
                again = judge.decode(latents)
            assert_close(again, autoencoder.decode(latents), rtol=1e-5, atol=1e-6)
            assert judge.cfg.metadata.key == "a"

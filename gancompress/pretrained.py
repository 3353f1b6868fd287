"""Networks of timm with weights that others trained: from a file, fetched where that is asked for, or drawn."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gancompress.errors import did_you_mean
from gancompress.hub_client import nobody_answers, quiet

if TYPE_CHECKING:
    from torch import Tensor, nn

    from gancompress.errors import GancompressError

__all__ = ["DOWNLOAD", "RANDOM", "pretrained", "refusal", "settings_of", "weights_hash"]

#: in place of a file: timm's own weights, from where it publishes them, kept in its cache
DOWNLOAD = "download"
#: in place of a file: weights as initialised, the same ones always; to see a run work, not for its numbers
RANDOM = "random"


def settings_of(name: str) -> Any:
    """Return what timm knows of a network that has weights (size of its input, mean, …); None for any other."""
    import timm

    return timm.get_pretrained_cfg(name) if name and timm.is_model_pretrained(name) else None


def refusal(name: str, where: str, *, ways: str, drawn: bool = False) -> str | None:
    """Return in one line why these weights cannot be had, None where they can as far as is known before.

    Args:
        name: of the network, as timm calls it.
        where: :data:`DOWNLOAD`, a file of safetensors, or :data:`RANDOM` where that is allowed.
        drawn: whether it is.
        ways: how to say where they come from, for a message when nothing says it.
    """
    if settings_of(name) is None:
        return f"timm has no network {name!r} with weights{_like(name)}"
    if where == DOWNLOAD or (drawn and where == RANDOM):
        return None
    if not where:
        return f"say where its weights come from: {ways}"
    return None if Path(where).expanduser().is_file() else f"there is no file {where}"


def _like(name: str) -> str:
    """Return the end of a message that names the closest network; there are far too many to name all."""
    import timm

    tagged = timm.list_models(pretrained=True)
    hint = did_you_mean(name, {*tagged, *(one.partition(".")[0] for one in tagged)} if name else ())
    return hint if hint.startswith("; did") else f"; it has {len(tagged):,}, see timm.list_models(pretrained=True)"


def pretrained(name: str, where: str, error: type[GancompressError], **more: Any) -> nn.Module:
    """Build a network and load its weights; torch's generators stay as they are.

    On the meta device nothing is read.

    Args:
        name: as timm calls it.
        where: :data:`DOWNLOAD`, :data:`RANDOM` or a file of safetensors with the names that timm gives.
        error: what to raise.
        more: for ``timm.create_model``.

    Raises:
        GancompressError: weights cannot be fetched or read, or are those of something else.
    """
    import timm
    import torch
    from safetensors.torch import load_file

    path = None if where in (DOWNLOAD, RANDOM) else Path(where).expanduser()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if where == RANDOM or torch.empty(0).is_meta:
            drawn: nn.Module = timm.create_model(name, pretrained=False, **more)
            return drawn
        try:
            # read by us: timm would unpickle a file of another kind
            state = None if path is None else load_file(path)
            overlay = {} if state is None else {"state_dict": state}
            if path is None:
                _reach(name)
            with quiet("timm"):  # it names what it leaves
                net: nn.Module = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **more)
            if state is not None and more.get("features_only"):
                _require_all(name, net, state)
        except Exception as cause:
            said = " ".join(str(cause).split())
            raise error(
                f"the weights of {name} cannot be {'fetched' if path is None else 'read'}: {said}; "
                f"give them as a file of safetensors{'' if path is None else ' with the names that timm gives'}",
                where="" if path is None else str(path),
            ) from cause
    return net


def _reach(name: str) -> None:
    """Refuse at once what is not here and cannot be fetched: timm would have the client wait for each of its files.

    Raises:
        ConnectionError: nobody answers where timm publishes these weights.
    """
    from huggingface_hub import try_to_load_from_cache

    settings = settings_of(name)
    repository, _, revision = (settings.hf_hub_id or "").partition("@")
    if not repository:
        return  # published elsewhere
    files = (settings.hf_hub_filename or "pytorch_model.bin", "model.safetensors", "open_clip_model.safetensors")
    if any(isinstance(try_to_load_from_cache(repository, file, revision=revision or None), str) for file in files):
        return
    if (reason := nobody_answers(repository, files[1], revision or None)) is not None:
        raise ConnectionError(f"the hub cannot be reached ({reason})")


def _require_all(name: str, net: nn.Module, state: dict[str, Tensor]) -> None:
    """Refuse a file that lacks weights of a network of which maps are taken: timm lets some of them stay as drawn."""
    import timm
    import torch

    with torch.device("meta"):
        whole = timm.create_model(name, pretrained=False).state_dict()
    own = net.state_dict()
    wanted = own if own.keys() <= whole.keys() else whole
    odd = [key for key, tensor in wanted.items() if key not in state or state[key].shape != tensor.shape]
    if odd:
        raise ValueError(f"{len(odd)} of {len(wanted)} tensors are not there, or have another shape, as {odd[0]}")


def weights_hash(net: nn.Module) -> str:
    """Return the hash of every tensor of a network's state, 64 hexadecimal digits."""
    import torch

    digest = hashlib.sha256()
    for key, tensor in sorted(net.state_dict().items()):
        digest.update(key.encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()

"""Two domains of images from files that belong together only as wholes: horses and zebras."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from gancompress.components.registry import DATASETS
from gancompress.data.domains import Domains
from gancompress.data.files import FilesConfig
from gancompress.data.folder import Folder, FolderConfig

if TYPE_CHECKING:
    from gancompress.data.base import Dataset

__all__ = ["Unpaired", "UnpairedConfig"]


class UnpairedConfig(FilesConfig):
    """Settings of two domains."""

    path: str = Field(description="folder with trainA and trainB in it, and testA and testB where there are such")
    split: Literal["train", "test"] = Field("train", description="which of them to train on")
    direction: Literal["ab", "ba"] = Field(
        "ab", description="ab: what is measured and shipped makes B from A; ba: A from B"
    )


@DATASETS.register("unpaired")
class Unpaired(Domains[UnpairedConfig]):
    """Two folders of images, as the published sets of CycleGAN come: horse2zebra, apple2orange (Zhu et al., 2017).

    Images of ``testA`` and ``testB``, where both are there, are only measured and looked at.
    """

    Config = UnpairedConfig
    paired = False
    _called = "images of the one domain", "those of the other"

    def load(self) -> tuple[Dataset[Any], Dataset[Any]]:
        """Open both folders."""
        config = self.config
        shared = {key: getattr(config, key) for key in FilesConfig.model_fields} | {"labelled": False}
        one, other = (Folder(FolderConfig(**shared, path=self._folder(domain))) for domain in "AB")
        return (one, other) if config.direction == "ab" else (other, one)

    def other(self) -> Unpaired | None:
        """Open the folders of the split ``test``, if both are there."""
        held_out = self.config.model_copy(update={"split": "test"})
        if self.config.split == "test" or not all(
            os.path.isdir(os.path.join(os.path.expanduser(held_out.path), f"test{domain}")) for domain in "AB"
        ):
            return None
        return Unpaired(held_out)

    def _folder(self, domain: str) -> str:
        return os.path.join(self.config.path, f"{self.config.split}{domain}")

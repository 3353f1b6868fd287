"""Image datasets of the Hugging Face Hub, and local ones that its library reads: parquet, Arrow, image folders.

Everything goes through the optional package ``datasets`` (``pip install gancompress[hf]``), from version 4 on, which
reads data and runs no code of a dataset. It downloads, checks, resumes and caches by itself; ``HF_HUB_OFFLINE=1`` keeps
it to what is cached, ``HF_HOME`` says where that is.
"""

from __future__ import annotations

import functools
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from gancompress.components.registry import DATASETS
from gancompress.data.classes import check_class_number
from gancompress.data.files import LARGEST_FILE, FilesConfig, FilesDataset, Listing, probe
from gancompress.data.memory import digest
from gancompress.errors import DataError
from gancompress.hub_client import quiet
from gancompress.storage.reading import read_whole

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["HuggingFace", "HuggingFaceConfig"]

_OLDEST = 4


class HuggingFaceConfig(FilesConfig):
    """Settings of a Hugging Face dataset."""

    dataset: str = Field(
        min_length=1,
        description="id on the Hub, or a local folder; imagefolder, parquet, arrow or webdataset with data_files",
    )
    split: str = Field("train", min_length=1, description="split, or a part of one, e.g. train[:1000]")
    image: str | None = Field(None, description="column of the images; null = the only one")
    label: str | None = Field(None, description="column of the labels; null = the only one with class names, if any")
    subset: str | None = Field(None, description="configuration of a dataset that has several")
    revision: str | None = Field(None, description="branch, tag or commit on the Hub; a commit fixes the images")
    data_files: str | None = Field(None, description="pattern of the files to read, relative to the working directory")


@DATASETS.register("hf")
class HuggingFace(FilesDataset[HuggingFaceConfig]):
    """One split of a dataset that the package ``datasets`` can load.

    Labels are a column of class names, whole numbers from 0, or words, whose classes are in alphabetical order.

    The fingerprint reads the size and both ends of every image, not names and caches, which differ between machines.
    """

    Config = HuggingFaceConfig
    labels_hint = "name their column in data.label"

    def place(self) -> str:
        """Return the dataset and its split."""
        config = self.config
        return f"hf:{config.dataset}{f' ({config.subset})' if config.subset else ''} [{config.split}]"

    def open(self) -> Listing:
        """Load the split, which may download it, and read its labels.

        Raises:
            DataError: the package is missing, the dataset cannot be loaded, or a column is not what it should be.
        """
        loaded = self._load()
        image = self._image_column(loaded)
        labels, classes = self._labels_of(loaded, image)
        # as stored: decoding is ours, with the same rules for every source
        self._rows = loaded.select_columns([image]).cast_column(image, _library().Image(decode=False))
        self._column = image
        return Listing(tuple(f"{image} {row}" for row in range(len(loaded))), labels, classes, "")

    def read_bytes(self, index: int) -> bytes:
        """Return one image as it is stored."""
        stored = self._rows[index][self._column]
        if stored is None:
            raise DataError(f"{self._column} {index} is empty", where=self.where)
        if stored["bytes"] is not None:
            return bytes(stored["bytes"])
        try:
            return read_whole(Path(stored["path"]), LARGEST_FILE)
        except (OSError, TypeError) as error:
            raise DataError(f"cannot read {stored['path']!r} ({error})", where=self.where) from error

    def fingerprint(self) -> str:
        """Return a hash of the size and both ends of every image, labels and settings."""
        return digest(super().fingerprint(), self._content)

    @functools.cached_property
    def _content(self) -> str:
        return digest([probe(io.BytesIO(self.read_bytes(index))) for index in range(len(self))])

    # ------------------------------------------------------------------ loading

    def _load(self) -> Any:
        library, config = _library(), self.config
        path = os.path.expanduser(config.dataset)
        if path == "pandas":
            raise DataError("reads pickles, which are never read here: save the images as parquet", where=self.where)
        try:
            if os.path.isfile(os.path.join(path, "state.json")):
                saved = library.load_from_disk(path)
                if str(saved.split or "train") != config.split:
                    raise DataError(f"holds one split: use --set data.split={saved.split or 'train'}", where=self.where)
                return saved
            if os.path.isfile(os.path.join(path, "dataset_dict.json")):
                splits = library.load_from_disk(path)
                if config.split not in splits:
                    raise DataError(
                        f"has no split {config.split!r}; there are: {', '.join(splits)}: use --set data.split",
                        where=self.where,
                    )
                return splits[config.split]
            with quiet():
                return library.load_dataset(
                    path, config.subset, split=config.split, revision=config.revision, data_files=config.data_files
                )
        except DataError:
            raise
        except Exception as error:  # it raises anything: ValueError, ConnectionError, errors of its own
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise DataError(
                f"cannot be loaded ({reason}); without a network use what is cached with HF_HUB_OFFLINE=1, or "
                "--set data.dataset=FOLDER",
                where=self.where,
            ) from error

    def _image_column(self, loaded: Any) -> str:
        wanted, kind = self.config.image, _library().Image
        images: list[str] = [name for name, feature in loaded.features.items() if isinstance(feature, kind)]
        if wanted is None:
            if len(images) == 1:
                return images[0]
            found = f"columns of images: {', '.join(images)}" if images else f"columns: {', '.join(loaded.features)}"
            raise DataError(
                f"has {len(images) or 'no'} columns of images: name one with --set data.image; {found}",
                where=self.where,
            )
        if wanted not in images:
            what = "is no column of images" if wanted in loaded.features else "is no column"
            raise DataError(
                f"{wanted!r} {what}; columns of images: {', '.join(images) or 'none'}: use --set data.image",
                where=self.where,
            )
        return wanted

    def _labels_of(self, loaded: Any, image: str) -> tuple[tuple[int, ...] | None, tuple[str, ...]]:
        if self.config.labelled is False:
            return None, ()
        column, kind = self.config.label, _library().ClassLabel
        if column is None:
            named = [name for name, feature in loaded.features.items() if isinstance(feature, kind)]
            if len(named) > 1:
                raise DataError(
                    f"has several columns of labels, {', '.join(named)}: name one with --set data.label, or "
                    "--set data.labelled=false",
                    where=self.where,
                )
            if not named:
                return None, ()
            column = named[0]
        if column not in loaded.features or column == image:
            others = ", ".join(name for name in loaded.features if name != image)
            raise DataError(f"{column!r} is no column of labels; there are: {others or 'none'}", where=self.where)
        values = list(loaded[column])
        feature = loaded.features[column]
        if isinstance(feature, kind):
            return self._numbers(values, column, len(feature.names)), tuple(feature.names)
        if all(isinstance(value, str) for value in values):
            classes = tuple(sorted(set(values)))
            number = {name: index for index, name in enumerate(classes)}
            return tuple(number[value] for value in values), classes
        numbers = self._numbers(values, column, None)
        count = max(numbers, default=-1) + 1
        check_class_number(count, len(numbers), self.where)
        return numbers, tuple(str(number) for number in range(count))

    def _numbers(self, values: Sequence[Any], column: str, count: int | None) -> tuple[int, ...]:
        for row, value in enumerate(values):
            if isinstance(value, bool) or not isinstance(value, int) or value < 0 or (count and value >= count):
                raise DataError(
                    f"{column} of row {row} is {value!r}, not the number of a class; use another split or "
                    "--set data.labelled=false",
                    where=self.where,
                )
        return tuple(values)


def _library() -> Any:
    """Import ``datasets``.

    Raises:
        DataError: it is not installed, or so old that it would run code that comes with a dataset.
    """
    try:
        import datasets
    except ImportError as error:
        raise DataError("dataset 'hf' needs the package datasets: pip install 'gancompress[hf]'") from error
    if int(datasets.__version__.split(".")[0]) < _OLDEST:
        raise DataError(
            f"dataset 'hf' needs datasets {_OLDEST} or newer, which run no code of a dataset; "
            f"{datasets.__version__} is installed: pip install -U datasets"
        )
    return datasets

"""What every tracker must do: take numbers and images, go on with a run that it knows, and leave the run alone."""

from __future__ import annotations

import tempfile
from pathlib import Path

from gancompress.components.registry import TRACKERS
from gancompress.testing.conformance import Suite, promise, require, skip_check
from gancompress.testing.datasets import from_two_random_states
from gancompress.tracking.base import TrackedRun, Tracker

__all__ = ["TrackerSuite"]

_SCALARS = {"train/g_loss": 0.5, "masks/generator/churn": 0.25}


class TrackerSuite(Suite):
    """All checks of one tracker.

    Args:
        component: the class, or a registered name.
        option: what follows the colon in ``name:option``.
    """

    registry = TRACKERS

    def __init__(self, component: str | type, option: str = "") -> None:
        super().__init__(component)
        self.option = option

    def _made(self) -> Tracker:
        reason = self.target.available()
        if reason is not None:
            skip_check(f"it cannot be used here: {reason}")
        made: Tracker = self.target(self.option)
        return made

    def _follow(self, folder: Path, *steps: int) -> None:
        """Follow a run of which nothing is left but the tracker's folder, from opening to closing."""
        made = self._made()
        image = folder / "image.png"
        if not image.exists():
            _draw(image)
        own = folder / "own"
        own.mkdir(exist_ok=True)
        made.open(TrackedRun("kit", "kit-0000000000", own, {"name": "kit", "training": {"steps": 4}, "list": [1, 2]}))
        try:
            for step in steps:
                made.scalars(step, dict(_SCALARS))
                made.scalars(step, {"evaluation/fd": 3.0})
                made.image(step, "samples", image)
        finally:
            made.close()

    @promise
    def says_what_is_missing(self) -> None:
        """It says in words why it cannot be used here, and refuses an option that it does not know."""
        reason = self.target.available()
        require(reason is None or bool(str(reason).strip()), "available() gives an empty reason")
        require(
            self.target.refuses(self.option) is None, f"it refuses {self.option!r}: {self.target.refuses(self.option)}"
        )
        unknown = self.target.refuses("no such option")
        require(unknown is None or bool(unknown.strip()), "refuses() gives an empty reason")

    @promise
    def follows(self) -> None:
        """Numbers and images of several steps are taken, from opening to closing."""
        with tempfile.TemporaryDirectory() as folder:
            self._follow(Path(folder), 0, 2, 4)

    @promise
    def goes_on(self) -> None:
        """A run that it knows is opened again, and goes on."""
        with tempfile.TemporaryDirectory() as folder:
            self._follow(Path(folder), 2)
            self._follow(Path(folder), 4)

    @promise
    def nothing_to_show(self) -> None:
        """A run that logged nothing is opened and closed."""
        with tempfile.TemporaryDirectory() as folder:
            self._follow(Path(folder))

    @promise
    def random_state(self) -> None:
        """No global random state is moved, so that a followed run trains as any other."""

        def followed() -> int:
            with tempfile.TemporaryDirectory() as folder:
                self._follow(Path(folder), 2)
            return 0

        from_two_random_states(followed, "a tracker draws nothing, or from a generator of its own")

    @promise
    def untouched(self) -> None:
        """The image stays as it is, and what it writes into the run lies in its own folder."""
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            _draw(folder / "image.png")
            before = (folder / "image.png").read_bytes()
            self._follow(folder, 2)
            require((folder / "image.png").read_bytes() == before, "it changes the image")
            beside = sorted(path.name for path in folder.iterdir() if path.name not in ("image.png", "own"))
            require(not beside, f"it writes beside its own folder: {', '.join(beside)}")


def _draw(path: Path) -> None:
    from PIL import Image

    Image.new("L", (8, 8), 128).save(path, format="PNG")

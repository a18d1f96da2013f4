"""Phantom patients as a torch dataset that renders each clip when it is asked for; nothing is written to disk."""

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from echopulse.axes import VIEWS
from echopulse.errors import InputError
from echopulse.phantom.series import ClipSeries
from echopulse.signals import PairedClip


class PhantomDataset(Dataset[dict[str, Tensor]]):
    """Clips of the phantom; clip `i` is the patient of seed `seed + i`, the same in every process.

    Items have one shape and join into batches; the tokenizer's training takes a phantom in place of prepared sets.

    Args:
        series: which patients, rendered how.
        num: number of clips. It costs nothing, so a number that is never reached makes the dataset endless.
        seed: of the first patient.

    Raises:
        InputError: `num` or `seed` out of range.
    """

    def __init__(self, series: ClipSeries, num: int, seed: int = 0) -> None:
        if num < 1:
            raise InputError(f"number of phantom clips is {num}; expected 1 or more")
        if seed < 0:
            raise InputError(f"seed is {seed}; expected 0 or more")
        self.series, self.seed, self._num = series, seed, num

    def __repr__(self) -> str:
        return f"PhantomDataset(num={self._num}, seed={self.seed})"

    def __len__(self) -> int:
        return self._num

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        """One clip.

        Args:
            i: index, 0 to `len(self) - 1`.

        Returns:
            `video`: float32 (frames, 1, height, width) in [0, 1]; `masks`: uint8 (frames, height, width), where the
            series makes them; `ecg_mv`: float32 (leads, samples), with `ecg_start_s`, the time of its first sample, and
            `ecg_rate_hz`, frame 0 being at 0 s; `lv_volume_ml`: float32 (frames,); `ef_percent`; `view`: index in
            `axes.VIEWS`; `seed`.

        Raises:
            IndexError: an index outside the dataset.
        """
        paired = self.clip(i)
        ecg = paired.clip.ecg
        assert ecg is not None  # PairedClip promises it
        item = {
            "video": torch.from_numpy(paired.clip.frames.astype(np.float32) / 255)[:, None],
            "ecg_mv": torch.from_numpy(np.array(ecg.samples_mv, np.float32)),
            "ecg_start_s": torch.tensor(ecg.start_s),
            "ecg_rate_hz": torch.tensor(ecg.sampling_rate_hz),
            "lv_volume_ml": torch.tensor(paired.truth["lv_volume_ml"]),
            "ef_percent": torch.tensor(paired.truth["ef_percent"]),
            "view": torch.tensor(VIEWS.index(paired.clip.view)),
            "seed": torch.tensor(self.seed + i),
        }
        return item if paired.masks is None else item | {"masks": torch.from_numpy(paired.masks)}

    def clip(self, i: int) -> PairedClip:
        """Clip `i` with its ECG, masks and whole truth.

        Raises:
            IndexError: an index outside the dataset.
        """
        if not 0 <= i < self._num:
            raise IndexError(f"clip {i} of {self._num}")
        return self.series.clip(self.seed + i)

    def frames(self, i: int) -> np.ndarray:
        """Pictures of clip `i`, uint8 of shape (frames, height, width)."""
        return self.clip(i).clip.frames

    def segmented(self, i: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Pictures of clip `i` and, where the series makes them, masks; uint8 of shape (frames, height, width) each."""
        paired = self.clip(i)
        return paired.clip.frames, paired.masks

    def name(self, i: int) -> str:
        """Name of clip `i`."""
        return f"phantom-{self.seed + i:07d}"

"""Pre-training of the ECG encoder: a masked autoencoder on ECGs of sets or of phantom patients (Na 2024)."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn

from echopulse.axes import STANDARD_LEADS
from echopulse.errors import InputError
from echopulse.models.checkpoints import save_network
from echopulse.models.ecg_autoencoder import EcgAutoencoder, EcgAutoencoderConfig
from echopulse.objectives.masked import masked_patch_loss
from echopulse.phantom import DEVICES, sample_patient, simulate_ecg
from echopulse.signals.track import EcgTrack
from echopulse.training.data import ClipPool, batch_rng
from echopulse.training.ecg_devices import add_gain_and_noise, add_wander, draw_leads, lower_rate

RECORD_S = 12.0
"""Seconds of ECG of a phantom patient."""

_TRACKS_KEPT = 4096


@runtime_checkable
class EcgSource(Protocol):
    """Where ECGs come from."""

    def __len__(self) -> int: ...

    def track(self, i: int) -> EcgTrack:
        """The ECG of a number, prepared for the encoder."""
        ...


class PhantomEcgs:
    """ECGs of phantom patients, each by one of the recorders in turn.

    Args:
        num: number of patients; they are simulated when asked for.
        seed: of the first patient.
        seconds: length of a record.

    Raises:
        InputError: no patient.
    """

    def __init__(self, num: int, seed: int = 0, seconds: float = RECORD_S) -> None:
        if num < 1 or seed < 0:
            raise InputError(f"{num} phantom patients from seed {seed}; expected 1 or more, and a seed of 0 or more")
        self._num, self._seed, self._seconds = num, seed, seconds

    def __len__(self) -> int:
        return self._num

    def track(self, i: int) -> EcgTrack:
        """ECG of patient `i`, prepared for the encoder."""
        device = list(DEVICES)[i % len(DEVICES)]
        patient = sample_patient(self._seed + i)
        return EcgTrack.from_signal(simulate_ecg(patient, duration_s=self._seconds, device=device))


class RecordedEcgs:
    """ECGs of prepared sets.

    Args:
        folders: prepared sets; clips without an ECG are an error when they are reached.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self._entries = ClipPool(folders, 1).entries

    def __len__(self) -> int:
        return len(self._entries)

    def track(self, i: int) -> EcgTrack:
        """ECG of clip `i`, prepared for the encoder."""
        part, clip = self._entries[i]
        return EcgTrack.from_signal(part.ecg(clip))


class EcgBatch(NamedTuple):
    """One step's windows; all 12 leads have a row, `present` says which are real."""

    ecg: Tensor
    lead_ids: Tensor
    present: Tensor
    kept: Tensor


class EcgTask:
    """Draw the hidden patches of an ECG from a quarter of them, in whatever leads a recorder has.

    Args:
        config: the network.
        source: where ECGs come from.
        batch: windows a step.
        seed: of the batches.
    """

    def __init__(self, config: EcgAutoencoderConfig, source: EcgSource, *, batch: int, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.model = EcgAutoencoder(config)
        self._num, self._batch, self._seed = len(source), batch, seed
        self._track = lru_cache(_TRACKS_KEPT)(source.track)

    def batch(self, step: int, rank: int) -> EcgBatch:
        """Windows of random records as random recorders would give them, and which patches are seen."""
        rng, c = batch_rng(self._seed, step, rank), self.model.config
        ecg = np.zeros((self._batch, len(STANDARD_LEADS), c.encoder.num_samples), np.float32)
        present = np.zeros(ecg.shape[:2], bool)
        for row, there in zip(ecg, present, strict=True):
            track = self._track(int(rng.integers(self._num)))
            leads = draw_leads(rng, track.lead_ids)
            row[track.lead_ids] = self._window(rng, track)
            there[leads] = True
            row[~there] = 0
        kept = rng.uniform(size=(*present.shape, c.num_patches)).argsort(-1)[..., : c.num_kept]
        lead_ids = torch.arange(len(STANDARD_LEADS)).expand(self._batch, -1)
        return EcgBatch(torch.from_numpy(ecg), lead_ids, torch.from_numpy(present), torch.from_numpy(kept))

    def _window(self, rng: np.random.Generator, track: EcgTrack) -> np.ndarray:
        """A window that begins anywhere in the record; a shorter record is repeated by its beats."""
        samples, half = self.model.config.encoder.num_samples, self.model.config.encoder.window_s / 2
        middle = rng.uniform(min(track.start_s + half, track.end_s - half), max(track.start_s, track.end_s - half))
        ecg, _ = track.extended(middle - half - 1, middle + half + 1).window(middle, samples)
        if rng.uniform() < 0.4:
            ecg = add_wander(rng, ecg)
        if rng.uniform() < 0.3:
            ecg = lower_rate(rng, ecg)
        return add_gain_and_noise(rng, ecg)

    def count(self, batch: EcgBatch) -> float:
        """Hidden patches, of which the loss is the mean."""
        return float(batch.present.sum()) * (self.model.config.num_patches - self.model.config.num_kept)

    def losses(self, model: nn.Module, batch: EcgBatch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Squared error of the hidden patches, normalised one by one."""
        ecg, lead_ids, present, kept = (x.to(next(model.parameters()).device) for x in batch)
        terms = masked_patch_loss(model(ecg, lead_ids, present, kept), ecg, self._hidden(present, kept))
        return terms["patch_error"], terms

    def _hidden(self, present: Tensor, kept: Tensor) -> Tensor:
        hidden = present.unsqueeze(-1).expand(*present.shape, self.model.config.num_patches)
        return hidden.scatter(-1, kept, False)

    def sample(self, model: nn.Module, folder: Path, step: int) -> None:
        """The first window of a fixed batch, lead by lead: the truth, and what was drawn where it was hidden."""
        batch = self.batch(0, 10_000)
        ecg, lead_ids, present, kept = (x[:1].to(next(model.parameters()).device) for x in batch)
        patches = ecg[0].view(len(STANDARD_LEADS), self.model.config.num_patches, -1)
        drawn = model(ecg, lead_ids, present, kept)[0].float()
        drawn = drawn * patches.std(-1, keepdim=True) + patches.mean(-1, keepdim=True)
        hidden = self._hidden(present, kept)[0]
        rows = [i for i in range(len(STANDARD_LEADS)) if present[0, i]]
        picture = Image.new("L", (ecg.shape[-1], 64 * len(rows)), 255)
        pen = ImageDraw.Draw(picture)
        for y, lead in enumerate(rows):
            shown = torch.where(hidden[lead, :, None], drawn[lead], torch.nan)
            for wave, shade in ((patches[lead], 190), (shown, 0)):
                height = 64 * y + 32 - 8 * wave.flatten().cpu().numpy()
                for x in np.flatnonzero(np.isfinite(height[1:] - height[:-1])):
                    pen.line([(float(x), height[x]), (float(x + 1), height[x + 1])], fill=shade)
        picture.save(folder / f"{step:07d}.png")

    def export(self, model: nn.Module, folder: Path) -> None:
        """Writes `ecg/` of a checkpoint folder: the encoder alone."""
        assert isinstance(model, EcgAutoencoder)
        save_network(model.encoder, model.config.encoder, folder / "ecg")

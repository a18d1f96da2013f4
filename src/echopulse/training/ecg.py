"""Pre-training of the ECG encoder: a masked autoencoder on ECGs of sets or of phantom patients (Na 2024)."""

import math
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
from echopulse.objectives.motion import motion_loss
from echopulse.phantom import DEVICES, sample_patient, simulate_ecg
from echopulse.phantom.patient import patient_beats, patient_volume
from echopulse.signals.track import TRACK_RATE_HZ, EcgTrack
from echopulse.training.data import ClipPool, batch_rng
from echopulse.training.ecg_devices import add_gain_and_noise, add_wander, draw_leads, draw_marks, lower_rate
from echopulse.training.token_cache import contraction_of, true_contraction

RECORD_S = 12.0
"""Seconds of ECG of a phantom patient."""

_RECORDS_KEPT = 8192


@runtime_checkable
class EcgSource(Protocol):
    """Where ECGs come from."""

    def __len__(self) -> int: ...

    def record(self, i: int) -> "EcgRecord":
        """The ECG of a number, prepared for the encoder, and what is known of the heart."""
        ...


class EcgRecord(NamedTuple):
    """An ECG, prepared for the encoder, and what is known of the heart while it was recorded.

    Attributes:
        track: the ECG.
        times_s: when contraction is known, rising; may be empty.
        contraction: how far the left ventricle has contracted then, 0 at end-diastole and 1 at end-systole.
        ef: ejection fraction between 0 and 1, NaN if unknown.
    """

    track: EcgTrack
    times_s: np.ndarray
    contraction: np.ndarray
    ef: float


class PhantomEcgs:
    """ECGs of phantom patients, each by one of the recorders in turn.

    Args:
        num: number of patients; they are simulated when asked for.
        seed: of the first patient.
        seconds: length of a record.
        more_of: rhythms that every third patient has, dozen by dozen in turn; the others have what they happen to have.

    Raises:
        InputError: no patient.
    """

    def __init__(self, num: int, seed: int = 0, seconds: float = RECORD_S, *, more_of: Sequence[str] = ()) -> None:
        if num < 1 or seed < 0:
            raise InputError(f"{num} phantom patients from seed {seed}; expected 1 or more, and a seed of 0 or more")
        self._num, self._seed, self._seconds, self._more_of = num, seed, seconds, more_of

    def __len__(self) -> int:
        return self._num

    def record(self, i: int) -> EcgRecord:
        """ECG and heart of patient `i`."""
        device = list(DEVICES)[i % len(DEVICES)]
        rhythm = self._more_of[i // 12 % len(self._more_of)] if self._more_of and i % 3 == 2 else None
        patient = sample_patient(self._seed + i, rhythm=rhythm)
        track = EcgTrack.from_signal(simulate_ecg(patient, duration_s=self._seconds, device=device))
        times = np.arange(0, self._seconds, 0.02)
        volume = patient_volume(patient, patient_beats(patient)).volume_ml(times)
        ef = patient.ef_percent / 100
        return EcgRecord(track, times, contraction_of(volume, patient.edv_ml, patient.edv_ml * (1 - ef)), ef)


class RecordedEcgs:
    """ECGs of prepared sets.

    Args:
        folders: prepared sets; clips without an ECG are an error when they are reached.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self._entries = ClipPool(folders, 1).entries

    def __len__(self) -> int:
        return len(self._entries)

    def record(self, i: int) -> EcgRecord:
        """ECG of clip `i`, and what its set tells of the heart."""
        part, clip = self._entries[i]
        line = part.line(clip)
        contraction = true_contraction(line["truth"], line["num_frames"])
        times = np.arange(line["num_frames"]) / line["fps"]
        known, ef = ~np.isnan(contraction), line["truth"].get("ef_percent")
        track = EcgTrack.from_signal(part.ecg(clip))
        return EcgRecord(track, times[known], contraction[known], math.nan if ef is None else ef / 100)


class EcgBatch(NamedTuple):
    """One step's windows; all 12 leads have a row, `present` says which are real.

    Beat marks, and the truth of the heart at the steps of the encoder's fine branch; NaN where it is not known.
    """

    ecg: Tensor
    lead_ids: Tensor
    present: Tensor
    kept: Tensor
    marks: Tensor
    contraction: Tensor
    ef: Tensor


class EcgTask:
    """Draw the hidden patches of an ECG from a quarter of them, in whatever leads a recorder has.

    An encoder that reads motion also learns that, from the whole ECG, wherever the source knows the truth.

    Args:
        config: the network.
        source: where ECGs come from.
        batch: windows a step.
        seed: of the batches.
    """

    def __init__(self, config: EcgAutoencoderConfig, source: EcgSource, *, batch: int, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.model = EcgAutoencoder(config)
        self._reads = config.encoder.reads_motion
        self._num, self._batch, self._seed = len(source), batch, seed
        self._record = lru_cache(_RECORDS_KEPT)(source.record)

    def batch(self, step: int, rank: int) -> EcgBatch:
        """Windows of random records as random recorders would give them, and which patches are seen."""
        rng, c = batch_rng(self._seed, step, rank), self.model.config
        ecg = np.zeros((self._batch, len(STANDARD_LEADS), c.encoder.num_samples), np.float32)
        present = np.zeros(ecg.shape[:2], bool)
        marks = np.zeros((self._batch, c.encoder.num_samples), np.float32)
        fine_times_s = c.encoder.fine_times_s
        contraction = np.full((self._batch, len(fine_times_s)), np.nan, np.float32)
        ef = np.full(self._batch, np.nan, np.float32)
        for i, (row, there) in enumerate(zip(ecg, present, strict=True)):
            record = self._record(int(rng.integers(self._num)))
            leads, half = draw_leads(rng, record.track.lead_ids), c.encoder.window_s / 2
            low, high = record.track.start_s + half, record.track.end_s - half
            middle = rng.uniform(min(low, high), max(low, high))
            row[record.track.lead_ids], marks[i] = self._window(rng, record.track, middle)
            there[leads] = True
            row[~there] = 0
            ef[i] = record.ef
            if len(record.times_s):
                contraction[i] = np.interp(middle + fine_times_s, record.times_s, record.contraction, np.nan, np.nan)
        kept = rng.uniform(size=(*present.shape, c.num_patches)).argsort(-1)[..., : c.num_kept]
        lead_ids = torch.arange(len(STANDARD_LEADS)).expand(self._batch, -1)
        arrays = (torch.from_numpy(x) for x in (present, kept, marks, contraction, ef))
        return EcgBatch(torch.from_numpy(ecg), lead_ids, *arrays)

    def _window(self, rng: np.random.Generator, track: EcgTrack, middle_s: float) -> tuple[np.ndarray, np.ndarray]:
        """A window and its beat marks, as a random recorder gives them; a short record is repeated by its beats."""
        samples, half = self.model.config.encoder.num_samples, self.model.config.encoder.window_s / 2
        around = track.extended(middle_s - half - 1, middle_s + half + 1)
        ecg, _ = around.window(middle_s, samples)
        marks = draw_marks(rng, around.r_times_s, middle_s + (np.arange(samples) - samples // 2) / TRACK_RATE_HZ)
        if rng.uniform() < 0.4:
            ecg = add_wander(rng, ecg)
        if rng.uniform() < 0.3:
            ecg = lower_rate(rng, ecg)
        return add_gain_and_noise(rng, ecg), marks

    def count(self, batch: EcgBatch) -> float:
        """Hidden patches, of which the loss is the mean."""
        return float(batch.present.sum()) * (self.model.config.num_patches - self.model.config.num_kept)

    def losses(self, model: nn.Module, batch: EcgBatch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Squared error of the hidden patches, normalised one by one, and of the motion that is read."""
        b = EcgBatch(*(x.to(next(model.parameters()).device) for x in batch))
        read = self.model.encoder(b.ecg, b.marks, b.lead_ids, b.present) if self._reads else None
        drawn = model(b.ecg, b.lead_ids, b.present, b.kept)
        terms = masked_patch_loss(drawn, b.ecg, self._hidden(b.present, b.kept))
        if read is not None:
            assert read.contraction is not None and read.ef is not None
            terms |= motion_loss(read.contraction, read.ef, b.contraction, b.ef)
        return torch.stack(list(terms.values())).sum(), terms

    def _hidden(self, present: Tensor, kept: Tensor) -> Tensor:
        hidden = present.unsqueeze(-1).expand(*present.shape, self.model.config.num_patches)
        return hidden.scatter(-1, kept, False)

    def sample(self, model: nn.Module, folder: Path, step: int) -> None:
        """The first window of a fixed batch, lead by lead: the truth, and what was drawn where it was hidden."""
        batch = self.batch(0, 10_000)
        ecg, lead_ids, present, kept = (x[:1].to(next(model.parameters()).device) for x in batch[:4])
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

"""Training of the reader of ejection fraction, on ECGs of sets with a known one or of phantom patients."""

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from echopulse.axes import STANDARD_LEADS
from echopulse.errors import InputError
from echopulse.models.checkpoints import save_network
from echopulse.models.ef_reader import EfReader, EfReaderConfig
from echopulse.objectives.motion import ef_error
from echopulse.signals.track import BEAT_SAMPLES, MedianBeat
from echopulse.training.data import batch_rng
from echopulse.training.ecg import EcgSource
from echopulse.training.ecg_devices import add_noise, draw_leads

_FITTED = 4096
"""Records of which the components of beats are taken, at most."""

_NOISE = 0.1  # of the beat's root mean square, at most: what is left on the median of about ten beats


class EfBatch(NamedTuple):
    """One step's median beats, NaN as the EF of those without."""

    beat: Tensor
    present: Tensor
    rr_s: Tensor
    ef: Tensor


class EfTask:
    """Read the ejection fraction from whatever leads a recorder has.

    Args:
        config: the network.
        source: where ECGs come from, see `training.ecg`.
        batch: records a step.
        seed: of the batches.
    """

    def __init__(self, config: EfReaderConfig, source: EcgSource, *, batch: int, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.model = EfReader(config)
        self._source, self._batch, self._seed = source, batch, seed
        self._beat = lru_cache(None)(self._read)
        known = (self._beat(i)[0] for i in range(min(len(source), _FITTED)))
        beats = [beat for beat in known if beat is not None]
        if beats:
            samples, present, _ = (torch.from_numpy(np.stack(part)) for part in zip(*beats, strict=True))
            self.model.fit(samples, present)

    def _read(self, i: int) -> tuple[MedianBeat | None, float]:
        """Median beat and EF of a record."""
        record = self._source.record(i)
        return record.track.median_beat(), record.ef

    def batch(self, step: int, rank: int) -> EfBatch:
        """Random records as random recorders would give them."""
        rng, leads = batch_rng(self._seed, step, rank), len(STANDARD_LEADS)
        beat = np.zeros((self._batch, leads, BEAT_SAMPLES), np.float32)
        present = np.zeros((self._batch, leads), bool)
        rr_s, ef = np.zeros((self._batch, 2), np.float32), np.full(self._batch, np.nan, np.float32)
        for i, chosen in enumerate(rng.integers(len(self._source), size=self._batch).tolist()):
            found, truth = self._beat(chosen)
            if found is not None:
                level = _NOISE * float(np.sqrt(np.square(found.samples_mv[found.present]).mean()))
                beat[i], rr_s[i], ef[i] = add_noise(rng, found.samples_mv, level), found.rr_s, truth
                present[i, draw_leads(rng, np.flatnonzero(found.present))] = True
        if np.isnan(ef).all():
            raise InputError("no ECG of this batch has beats and a known ejection fraction; expected both")
        return EfBatch(*(torch.from_numpy(x) for x in (beat, present, rr_s, ef)))

    def losses(self, model: nn.Module, batch: EfBatch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Smooth absolute error of tenths; for the log, the mean absolute error in points."""
        b = EfBatch(*(x.to(next(model.parameters()).device) for x in batch))
        read = model(b.beat, b.present, b.rr_s).float()
        loss = ef_error(read, b.ef)
        return loss, {"mae_points": 100 * (read.detach() - b.ef).abs().nanmean()}

    def sample(self, model: nn.Module, folder: Path, step: int) -> None:
        """Nothing to draw: the log says it all."""

    def export(self, model: nn.Module, folder: Path) -> None:
        """Writes `ef_reader/` of a checkpoint folder."""
        assert isinstance(model, EfReader)
        save_network(model, model.config, folder / "ef_reader")

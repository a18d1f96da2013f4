"""From moving scatterers to a B-mode picture.

Scatterers sit in the tissue and are carried by its motion; each contributes a complex echo whose phase is its
two-way path, so speckle moves with muscle and decorrelates slowly (Rayleigh statistics in developed speckle: Burckhardt
1978). A separable point spread function blurs the polar image, wider across than along and wider with depth;
then envelope, log compression and scan conversion.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d, map_coordinates

from echopulse.phantom.anatomy import BACKGROUND, LV_MYOCARDIUM, HeartPlane, HeartState

NUM_RANGES, NUM_BEAMS = 224, 120
_LEAFLET_POINTS = 90


@dataclass(frozen=True)
class Imaging:
    """Settings of the scanner and of the acoustic window.

    Attributes:
        depth_cm: deepest range shown.
        sector_rad: full opening angle.
        wavelength_cm: pulse wavelength.
        dynamic_range_db: span of the log compression.
        gain_db: level of muscle below white.
        axial_cm, lateral_rad: standard deviations of the point spread function near the focus.
        focus_cm: depth of the lateral focus.
        noise_db: electronic noise below muscle at full depth.
        haze_db: near-field clutter relative to muscle.
        dropout_center_rad, dropout_width_rad, dropout_db: loss around one beam direction.
        edge_loss_db: loss at both edges of the sector.
        attenuation_db: left-over loss from top to bottom after time-gain compensation.
        compounding: share of the power that comes from looks with independent speckle, whose mean is smooth.
        near_loss_db: loss at the transducer's face, fading over centimetres.
        gamma: exponent of the grey map.
        top: share of the picture's height above the sector's tip.
        tissue_db: level of the tissue around the heart relative to muscle.
        scatterers_per_cm2: density.
    """

    depth_cm: float
    sector_rad: float
    wavelength_cm: float = 0.06
    dynamic_range_db: float = 52.0
    gain_db: float = 16.0
    axial_cm: float = 0.07
    lateral_rad: float = 0.016
    focus_cm: float = 7.0
    noise_db: float = 26.0
    haze_db: float = -6.0
    dropout_center_rad: float = 0.3
    dropout_width_rad: float = 0.1
    dropout_db: float = 8.0
    edge_loss_db: float = 8.0
    attenuation_db: float = 6.0
    compounding: float = 0.4
    near_loss_db: float = 10.0
    gamma: float = 1.6
    top: float = 0.04
    tissue_db: float = -6.0
    scatterers_per_cm2: float = 150.0


class Scanner:
    """Renders frames of one patient with one setting."""

    def __init__(self, heart: HeartPlane, imaging: Imaging, rng: np.random.Generator, size: tuple[int, int]) -> None:
        self.heart, self.imaging = heart, imaging
        self._seed = int(rng.integers(2**63))
        i = imaging
        self.range_cm = (np.arange(NUM_RANGES, dtype=np.float32) + 0.5) * (i.depth_cm / NUM_RANGES)
        self.beam_rad = np.linspace(-i.sector_rad / 2, i.sector_rad / 2, NUM_BEAMS, dtype=np.float32)
        self._range_step = i.depth_cm / NUM_RANGES
        self._beam_step = float(self.beam_rad[1] - self.beam_rad[0])
        self._scatter(rng)
        self._polar_curves(rng)
        self._scales()
        self._scan_grid(size)

    def _scatter(self, rng: np.random.Generator) -> None:
        """Draws tissue scatterers at end-diastole; blood has none, its echo is noise."""
        i, heart = self.imaging, self.heart
        area = 0.5 * (i.sector_rad + 0.3) * (i.depth_cm + 1) ** 2
        count = int(area * i.scatterers_per_cm2)
        radius = (i.depth_cm + 1) * np.sqrt(rng.uniform(0, 1, count))
        angle = rng.uniform(-0.5, 0.5, count) * (i.sector_rad + 0.3)
        x, z = radius * np.sin(angle), radius * np.cos(angle)
        a = heart.anatomy
        rest = HeartState(a.edv_ml, a.edv_ml, 0.0, 0.0, (0.0, 0.0))
        labels = heart.label(x, z, rest)
        keep = (labels == BACKGROUND) | (labels == LV_MYOCARDIUM)
        x, z, labels = x[keep], z[keep], labels[keep]
        points = heart.from_picture(x, z)
        strength = np.where(labels == LV_MYOCARDIUM, 1.0, 10 ** (i.tissue_db / 20))
        near_blood = np.zeros(x.size, bool)
        for du, dz in ((0.3, 0), (-0.3, 0), (0, 0.3), (0, -0.3)):
            around = heart.label(x + du, z + dz, rest)
            near_blood |= (around != BACKGROUND) & (around != LV_MYOCARDIUM)
        strength = np.where(near_blood & (labels == BACKGROUND), 1.3, strength)
        strength = np.where(near_blood & (labels == LV_MYOCARDIUM), 1.1, strength)
        deep = np.clip((points[1] - a.length_cm - 0.9 * a.la_height_cm) / 1.0, 0, 1)
        strength *= 1 + 1.6 * deep * (labels == BACKGROUND)
        lateral_edge = (np.abs(points[0]) > heart.radius_ed + a.wall_cm + 0.05) & (points[1] > 0.2 * a.length_cm)
        shell = np.abs(points[0]) < heart.radius_ed + a.wall_cm + 0.35
        strength *= np.where(lateral_edge & shell & (points[0] > 0), 1.8, 1.0)
        strength *= _texture(rng, points) * _texture(rng, 0.6 * points)
        self._points = points.astype(np.float32)
        self._echo = (strength * rng.standard_normal(x.size)).astype(np.float32)
        self._leaflet_echo = (1.5 * rng.standard_normal(_LEAFLET_POINTS * (4 if a.view == "a4c" else 2))).astype(
            np.float32
        )

    def _polar_curves(self, rng: np.random.Generator) -> None:
        i = self.imaging
        r, b = self.range_cm[:, None], self.beam_rad[None, :]
        edge = (np.abs(b) / (i.sector_rad / 2)) ** 4
        dropout = np.exp(-0.5 * ((b - i.dropout_center_rad) / i.dropout_width_rad) ** 2) * np.clip(
            r / i.depth_cm * 2, 0, 1
        )
        streaks = gaussian_filter1d(rng.standard_normal(NUM_BEAMS), 3.0) * 4.0
        near = i.near_loss_db * np.exp(-r / 2.0)
        loss = i.edge_loss_db * edge + i.dropout_db * dropout + i.attenuation_db * r / i.depth_cm + near + streaks
        self._gain = (10 ** (-loss / 20)).astype(np.float32)
        self._noise = (10 ** (-(i.noise_db - 5 * r / i.depth_cm) / 20) * np.ones_like(b)).astype(np.float32)
        haze = 10 ** (i.haze_db / 20) * np.exp(-r / 2.5) * (1 + 0.25 * np.cos(2 * np.pi * r / 0.9))
        clutter = rng.standard_normal((2, NUM_RANGES, NUM_BEAMS))
        clutter = gaussian_filter1d(gaussian_filter1d(clutter, 0.5, axis=1), 0.8, axis=2)
        self._clutter = (haze * clutter / clutter.std()).astype(np.float32)
        far = np.abs(self.range_cm - i.focus_cm) / i.focus_cm
        self._far = np.clip(far, 0, 1)[None, :, None].astype(np.float32)

    def _scales(self) -> None:
        """Scales that give developed speckle of muscle unit variance at every depth, and its mean power."""
        i = self.imaging
        per_cell = np.maximum(i.scatterers_per_cm2 * self._range_step * self._beam_step * self.range_cm, 1e-3)
        kernel = 1 / (4 * np.pi * (i.axial_cm / self._range_step) * (i.lateral_rad / self._beam_step))
        self._field_scale = (1 / np.sqrt(0.5 * per_cell * kernel))[:, None].astype(np.float32)
        self._power_scale = (2 / per_cell)[:, None].astype(np.float32)

    def _scan_grid(self, size: tuple[int, int]) -> None:
        """Polar coordinates of every pixel: the sector's tip is near the top centre, its depth fills the rest."""
        height, width = size
        spacing = self.imaging.depth_cm / ((height - 1) * (1.0 - self.imaging.top))
        z = (np.arange(height) - self.imaging.top * height) * spacing
        x = (np.arange(width) - (width - 1) / 2) * spacing
        self.pixel_x, self.pixel_z = np.meshgrid(x, z)
        self.spacing_cm = spacing
        r, angle = np.hypot(self.pixel_x, self.pixel_z), np.arctan2(self.pixel_x, np.maximum(self.pixel_z, 1e-6))
        self.inside = (
            (r <= self.imaging.depth_cm)
            & (np.abs(angle) <= self.imaging.sector_rad / 2)
            & (r > 0.12)
            & (self.pixel_z > 0)
        )
        rows = r / self._range_step - 0.5
        columns = (angle - self.beam_rad[0]) / self._beam_step
        self._coordinates = np.stack([rows[self.inside], columns[self.inside]])

    def frame(self, state: HeartState, index: int) -> np.ndarray:
        """One picture, uint8 (height, width).

        Args:
            state: the heart at this instant.
            index: number of the instant; seeds the electronic noise, so that a re-render is identical.
        """
        i = self.imaging
        rng = np.random.default_rng((self._seed, index + 2**20))
        x, z = self.heart.move(self._points, state)
        lx, lz = self.heart.leaflets(state, _LEAFLET_POINTS)
        x, z = np.concatenate([x, lx]), np.concatenate([z, lz])
        echo = np.concatenate([self._echo, self._leaflet_echo])
        r = np.hypot(x, z)
        row = (r / self._range_step).astype(np.int32)
        column = np.rint((np.arctan2(x, z) - self.beam_rad[0]) / self._beam_step).astype(np.int32)
        seen = (row < NUM_RANGES) & (column >= 0) & (column < NUM_BEAMS)
        where = (row * NUM_BEAMS + column)[seen]
        phase = (4 * np.pi / i.wavelength_cm) * r[seen]
        cells = NUM_RANGES * NUM_BEAMS
        weights = (echo[seen] * np.cos(phase), echo[seen] * np.sin(phase), echo[seen] ** 2)
        polar = np.stack([np.bincount(where, weight, cells) for weight in weights])
        polar = polar.reshape(3, NUM_RANGES, NUM_BEAMS).astype(np.float32)
        field = self._blur(polar[:2], 1.0) * (self._field_scale * self._gain)
        mean_power = self._blur(polar[2:], np.sqrt(0.5))[0] * (self._power_scale * self._gain**2)
        noise = rng.standard_normal(field.shape, dtype=np.float32)
        noise = gaussian_filter1d(noise, 0.5, axis=2) * 1.3
        field += self._noise * noise + self._clutter
        power = (1 - i.compounding) * (field**2).sum(axis=0) + i.compounding * mean_power
        level = 10 * np.log10(power + 1e-9)
        picture = np.clip(1 + (level - i.gain_db) / i.dynamic_range_db, 0, 1)
        picture = gaussian_filter1d(gaussian_filter1d(picture, 0.5, axis=0), 0.5, axis=1)
        out = np.zeros(self.inside.shape, np.float32)
        out[self.inside] = map_coordinates(picture, self._coordinates, order=1, mode="nearest")
        return np.rint(255 * out**i.gamma).astype(np.uint8)

    def _blur(self, polar: np.ndarray, width: float) -> np.ndarray:
        """The point spread function on (channels, ranges, beams); its square, for power, is narrower by √2."""
        i = self.imaging
        sigma = width * i.lateral_rad / self._beam_step
        polar = gaussian_filter1d(polar, width * i.axial_cm / self._range_step, axis=1, truncate=3.0)
        near = gaussian_filter1d(polar, sigma, axis=2, truncate=3.0)
        wide = gaussian_filter1d(near, 1.5 * sigma, axis=2, truncate=3.0)
        return near + self._far * (wide - near)

    def masks(self, state: HeartState) -> np.ndarray:
        """Truth at one instant, uint8 (height, width) of `axes.MASK_CLASSES`; background outside the sector."""
        labels = self.heart.label(self.pixel_x, self.pixel_z, state)
        return np.where(self.inside, labels, BACKGROUND).astype(np.uint8)


def _texture(rng: np.random.Generator, points: np.ndarray) -> np.ndarray:
    """Slow spatial variation of echogenicity, fixed in the tissue: a sum of random plane waves, log-normal."""
    total = np.zeros(points.shape[1])
    for _ in range(10):
        k = rng.normal(0, 1.8, 2)
        total += np.sin(k @ points + rng.uniform(0, 2 * np.pi))
    return np.exp(0.24 * total)

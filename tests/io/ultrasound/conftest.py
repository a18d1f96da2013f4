"""A renderer of scanner screens: moving speckle in a sector, text, scales, and an ECG trace with its cursor."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

COLORS = {
    "green": (20, 220, 60),
    "cyan": (90, 230, 230),
    "yellow": (230, 220, 40),
    "grey": (170, 170, 170),
    "white": (245, 245, 245),
}


@dataclass
class Screen:
    """What to draw, and after `render` what was drawn."""

    seed: int = 0
    frames: int = 40
    height: int = 480
    width: int = 640
    fps: float = 40.0
    heart_rate: float = 70.0
    ecg: bool = True
    color: str = "green"
    mode: str = "cursor"
    pixels_per_s: float = 120.0
    trace_width: int = 320
    swing: int = 36
    thickness: int = 1
    text: str = ""
    noise: float = 0.01
    secrets: tuple[str, ...] = ()
    blur: bool = False
    cursor: tuple[int, int, int] = (255, 255, 255)
    wave: dict = field(default_factory=dict)

    @property
    def interval_s(self) -> float:
        return 60 / self.heart_rate

    def voltage(self, t: np.ndarray) -> np.ndarray:
        """P, QRS and T with a little noise that is a function of time."""
        phase = np.mod(t - 0.31, self.interval_s)
        phase = np.where(phase > 0.6 * self.interval_s, phase - self.interval_s, phase)
        waves = [(0.12, -0.16, 0.025), (-0.1, -0.028, 0.009), (1.0, 0.0, 0.012), (-0.18, 0.03, 0.011)]
        waves.append((self.wave.get("t", 0.25), 0.24, 0.045))
        clean = sum(a * np.exp(-(((phase - c) / w) ** 2) / 2) for a, c, w in waves)
        return clean + self.noise * (np.sin(31 * t + self.seed) + np.sin(77 * t + 2 * self.seed))

    def render(self) -> np.ndarray:
        """uint8 RGB of shape (frames, height, width, 3)."""
        rng = np.random.default_rng(self.seed)
        y, x = np.mgrid[: self.height, : self.width]
        apex, radius = (0.08 * self.height, 0.5 * self.width), 0.66 * self.height
        distance = np.hypot(y - apex[0], x - apex[1])
        angle = np.abs(np.arctan2(x - apex[1], y - apex[0]))
        sector = (distance < radius) & (distance > 12) & (angle < 0.7)
        tissue = 90 * (1 + 0.6 * np.sin(distance / 23 + self.seed) * np.cos(6 * angle))
        static = Image.new("RGB", (self.width, self.height))
        self._write(ImageDraw.Draw(static), rng)
        static = np.asarray(static)
        left = int(rng.integers(12, max(13, self.width - self.trace_width - 60)))
        base = int(self.height * 0.93 - 0.2 * self.swing)
        pictures = []
        for index in range(self.frames):
            speckle = ndimage.gaussian_filter(rng.normal(size=(self.height, self.width)), 1.2) * 2.6
            grey = np.where(sector, np.clip(tissue * np.exp(0.7 * speckle), 1, 235), 0)
            picture = np.maximum(static, np.repeat(grey[..., None], 3, axis=2)).astype(np.uint8)
            if self.ecg:
                picture = self._draw_trace(picture, index / self.fps, left, base)
            if self.blur:
                picture = ndimage.gaussian_filter(picture, (0.5, 0.5, 0))
            pictures.append(picture)
        return np.stack(pictures)

    def _write(self, draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
        font = ImageFont.load_default(max(10, self.height // 36))
        for row, line in enumerate(("S5-1", "49Hz", "16cm", "C 50", *self.secrets)):
            draw.text((6, 10 + row * self.height // 22), line, font=font, fill=(210, 210, 210))
        draw.text(
            (self.width - 110, self.height // 5), self.text, font=ImageFont.load_default(20), fill=(220, 220, 220)
        )
        draw.rectangle((0, self.height - 12, self.width, self.height), fill=(60, 60, 80))
        for row in range(10):
            draw.line((self.width - 8, 30 + 25 * row, self.width - 4, 30 + 25 * row), fill=(200, 200, 200))
        for shade in range(100):
            draw.line((self.width - 30, 40 + shade, self.width - 20, 40 + shade), fill=(255 - 2 * shade,) * 3)

    def _draw_trace(self, picture: np.ndarray, now: float, left: int, base: int) -> np.ndarray:
        columns = np.arange(self.trace_width)
        span = self.trace_width / self.pixels_per_s
        if self.mode == "sweep":
            place = (now * self.pixels_per_s + 60) % self.trace_width
            age = np.mod(place - columns, self.trace_width) / self.pixels_per_s
            times, shown = now - age, np.mod(columns - place, self.trace_width) > 9
        elif self.mode == "scroll":
            shift = np.floor(now * self.pixels_per_s)
            times, shown, place = (shift - (self.trace_width - 1) + columns) / self.pixels_per_s, columns >= 0, -1
        else:
            place = 8 + now * self.pixels_per_s
            times, shown = columns / self.pixels_per_s - 8 / self.pixels_per_s, columns >= 0
        assert span > 0
        image = Image.fromarray(picture)
        draw = ImageDraw.Draw(image)
        fine = np.linspace(0, 1, 8, endpoint=False) / self.pixels_per_s
        volts = self.voltage(times[:, None] + fine)
        points = base - self.swing * volts
        for column in columns[:-1]:
            if shown[column] and shown[column + 1]:
                low, high = points[column].min(), points[column].max()
                following = points[column + 1, 0]
                low, high = min(low, following), max(high, following)
                box = (left + column, round(low), left + column, round(high) + self.thickness - 1)
                draw.rectangle(box, fill=COLORS[self.color])
        if 0 <= place < self.trace_width and self.mode in ("cursor", "sweep"):
            x = left + int(place)
            bar = 1 if self.mode == "cursor" else 0
            draw.rectangle((x, base - self.swing // 2, x + bar, base + 10), fill=self.cursor)
        return np.asarray(image)


def random_screen(seed: int, **fixed) -> Screen:
    """A screen with everything drawn by lot, save what is fixed."""
    rng = np.random.default_rng(1000 + seed)
    height, width = [(456, 576), (480, 640), (600, 800), (768, 1024)][rng.integers(4)]
    rate = float(rng.uniform(45, 120))
    speed = float(rng.uniform(70, 200)) * width / 640
    frames = int(rng.integers(24, 50))
    choice = {
        "seed": seed,
        "height": height,
        "width": width,
        "fps": float(rng.uniform(20, 60)),
        "frames": frames,
        "heart_rate": rate,
        "color": str(rng.choice(list(COLORS))),
        "mode": str(rng.choice(["cursor", "cursor", "sweep", "scroll"])),
        "pixels_per_s": speed,
        "trace_width": int(min(0.7 * width, max(2.6 * 60 / rate, 1.3) * speed)),
        "swing": int(rng.integers(22, 50) * height / 480),
        "thickness": int(rng.integers(1, 3)),
        "noise": float(rng.uniform(0, 0.02)),
        "blur": bool(rng.integers(2)),
        "wave": {"t": float(rng.uniform(0.1, 0.4))},
        "cursor": [(255, 255, 255), (255, 60, 50)][rng.integers(2)],
    }
    return Screen(**{**choice, **fixed})


@pytest.fixture(name="Screen")
def _screen():
    return Screen


@pytest.fixture(name="random_screen")
def _random_screen():
    return random_screen

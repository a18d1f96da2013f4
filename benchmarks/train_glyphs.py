"""Trains the reader of the heart rate in words (`echopulse/io/ultrasound/glyphs.npz`) on rendered fonts.

Usage: python benchmarks/train_glyphs.py FONT_FOLDER [FONT_FOLDER ...] -o OUT.npz

The folders are searched for .ttf and .otf files; upright sans-serif faces resemble scanners most. Every
sample is a character, or a few that touch, drawn small, blurred, stretched and cut out as the reader does.
The shipped weights were trained on DejaVu Sans and Sans Mono (Bitstream Vera licence), Source Sans Pro,
Hanken Grotesk and Manrope (SIL OFL), Roboto (Apache-2.0), Pillow's Aileron (CC0) and the pixel fonts below.
"""

import argparse
import io
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from echopulse.io.ultrasound.text import find_glyphs

KNOWN = [*"0123456789BPMHRbpmhr=", "bpm", "pm", "bp", "BPM", "PM", "HR"]
OTHERS = [*"ACDEFGJKLNQSTUVWXYZacdefgknqstuvwxyz%/+-&#", "in", "cm", "Hz", "dB", "MI", "TI"]
PIXEL_FONT = {
    "0": ".###.#...##..###.#.###..##...#.###.",
    "1": "..#...##....#....#....#....#...###.",
    "2": ".###.#...#....#...#...#...#...#####",
    "3": ".###.#...#....#..##.....##...#.###.",
    "4": "...#...##..#.#.#..#.#####...#....#.",
    "5": "######....####.....#....##...#.###.",
    "6": ".###.#....#....####.#...##...#.###.",
    "7": "#####....#...#...#...#....#....#...",
    "8": ".###.#...##...#.###.#...##...#.###.",
    "9": ".###.#...##...#.####....#....#.###.",
    "B": "####.#...##...#####.#...##...#####.",
    "P": "####.#...##...#####.#....#....#....",
    "M": "#...###.###.#.##.#.##...##...##...#",
    "H": "#...##...##...#######...##...##...#",
    "R": "####.#...##...#####.#.#..#..#.#...#",
    "~": ".###.#...##....#....#....#...#.###.",
}
SQUARE_FONT = {
    "0": ".###.#..###.#.###..#.###.",
    "1": ".##....#....#....#...###.",
    "2": "####.....#.###.#....#####",
    "3": "####.....#.###.....#####.",
    "4": "#..#.#..#.#####...#....#.",
    "5": "######....####.....#####.",
    "6": ".###.#....####.#...#.###.",
    "7": "#####....#...#...#....#..",
    "8": ".###.#...#.###.#...#.###.",
    "9": ".###.#...#.####....#.###.",
    "B": "####.#...#####.#...#####.",
    "P": "####.#...#####.#....#....",
    "M": "#...###.###.#.##...##...#",
    "H": "#...##...#######...##...#",
    "R": "####.#...#####.#..#.#...#",
    "~": ".###.#...##....#...#.###.",
}


@cache
def _font(path: Path | None, size: int) -> ImageFont.FreeTypeFont:
    """The font of a file, or the one inside Pillow, which resembles Helvetica."""
    return ImageFont.load_default(size) if path is None else ImageFont.truetype(str(path), size)


def draw_font(rng: np.random.Generator, fonts: list[Path]) -> tuple[str, np.ndarray]:
    """A name and its picture, from a random font at a random small size."""
    name = str(rng.choice(KNOWN if rng.random() < 0.75 else OTHERS))
    size = int(rng.integers(9, 30))
    font = _font(fonts[int(rng.integers(len(fonts)))] if rng.random() < 0.8 else None, size)
    image = Image.new("L", (40 + 30 * len(name), 60))
    spacing = int(rng.integers(-2, 1)) if len(name) > 1 else 0
    x = 8 + rng.random()
    for letter in name:
        ImageDraw.Draw(image).text((x, 8 + rng.random()), letter, fill=255, font=font)
        x += font.getlength(letter) + spacing
    return name, np.asarray(image, dtype=np.float32)


def draw_pixels(rng: np.random.Generator) -> tuple[str, np.ndarray]:
    """A name and its picture in a pixel font, at a random scale."""
    font = PIXEL_FONT if rng.random() < 0.5 else SQUARE_FONT
    name = str(rng.choice(list(font)))
    dots = np.array([dot == "#" for dot in font[name]], dtype=np.float32).reshape(-1, 5)
    if name == "0" and rng.random() < 0.5:
        dots[1:-1, 1:4] = 0
    if name in "02356890BR" and rng.random() < 0.4:  # corners squared
        dots[[0, 0, -1, -1], [0, -1, 0, -1]] = np.where(rng.random(4) < 0.5, 1, dots[[0, 0, -1, -1], [0, -1, 0, -1]])
    size = (int(rng.integers(5, 20)), int(rng.integers(7, 28)))
    image = Image.fromarray(255 * dots).resize(size, Image.Resampling.NEAREST if rng.random() < 0.6 else 1)
    return name, np.pad(np.asarray(image), 10)


def sample(rng: np.random.Generator, fonts: list[Path]) -> tuple[str, np.ndarray] | None:
    """A name and the normal form the reader would see; None where it falls into pieces."""
    name, ink = draw_pixels(rng) if rng.random() < 0.25 else draw_font(rng, fonts)
    if rng.random() < 0.4:
        ink = ndimage.grey_dilation(ink, (1, int(rng.integers(2, 4))))
    if rng.random() < 0.5:
        ink = ndimage.gaussian_filter(ink, rng.uniform(0.2, 0.8))
    ink = ink * rng.uniform(0.55, 1.0) * 255 / max(1.0, float(ink.max())) + rng.uniform(0, 20)
    image = Image.fromarray(ink.clip(0, 255).astype(np.uint8))
    if rng.random() < 0.4:
        file = io.BytesIO()
        image.save(file, "jpeg", quality=int(rng.integers(60, 95)))
        image = Image.open(file)
    picture = np.repeat(np.asarray(image)[..., None], 3, axis=2)
    glyphs = find_glyphs(picture, np.zeros(picture.shape[:2], dtype=bool), tallest=40)
    if len(glyphs) != 1:
        return None
    return (name if name in KNOWN else "~"), glyphs[0][4]


def main() -> None:
    """Renders, trains, prints the accuracy on fresh renderings and writes the weights."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("-n", "--samples", type=int, default=40_000)
    arguments = parser.parse_args()
    fonts = sorted(f for folder in arguments.folders for f in folder.rglob("*.[to]tf") if "Oblique" not in f.name)
    rng = np.random.default_rng(0)
    names = [*KNOWN, "~"]
    pairs = [pair for _ in range(arguments.samples) if (pair := sample(rng, fonts))]
    forms = torch.from_numpy(np.stack([form for _, form in pairs]))
    labels = torch.tensor([names.index(name) for name, _ in pairs])
    held = len(pairs) // 20
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Linear(forms.shape[1], 128), torch.nn.ReLU(), torch.nn.Linear(128, len(names))
    )
    epochs = 40
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for _ in range(epochs):
        for batch in torch.randperm(len(pairs) - held).split(256):
            inputs = 1.0 * forms[held + batch] + 0.01 * torch.randn(len(batch), forms.shape[1])
            loss = torch.nn.functional.cross_entropy(network(inputs), labels[held + batch], label_smoothing=0.005)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    right = (network(forms[:held]).argmax(dim=1) == labels[:held]).float().mean()
    print(f"{len(pairs)} samples of {len(fonts)} fonts, {100 * float(right):.2f} % right on {held} kept aside")
    weights = [p.detach().numpy().astype(np.float16) for p in network.parameters()]
    np.savez_compressed(
        arguments.out,
        names=np.array(names),
        hidden=weights[0].T,
        hidden_bias=weights[1],
        output=weights[2].T,
        output_bias=weights[3],
    )


if __name__ == "__main__":
    main()

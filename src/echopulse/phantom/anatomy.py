"""The moving heart in the plane of an apical view: where tissue goes, and what every point is.

Coordinates: `x` to the right of the picture, `z` down from the transducer, centimetres. The heart is described in
the left ventricle's own frame: `y` along its axis from the endocardial apex to the base, `u` across, negative
towards the septum (A4C) or inferior wall (A2C). The cavity is a stack of disks, `half width = R(t) · p(y / L(t))`
with `V = π L R² ∫p²`, so Simpson's disks on the mask give back the volume curve. Muscle is incompressible: its disk
rings keep their volume while the base descends towards the apex.
"""

from dataclasses import dataclass

import numpy as np

BACKGROUND, LV_CAVITY, LV_MYOCARDIUM, LEFT_ATRIUM, RIGHT_VENTRICLE, RIGHT_ATRIUM = range(6)
RV_WALL_CM = 0.4
ATRIAL_SEPTUM_CM = 0.3
_PROFILE_GRID = np.linspace(0, 1, 257)


@dataclass(frozen=True)
class Anatomy:
    """One patient's geometry at end-diastole (lengths in centimetres, angles in radians).

    Ranges are those of adult hearts (Lang 2015): long axis 7–10 cm, walls 0.7–1.3 cm.

    Attributes:
        view: `a4c` or `a2c`.
        edv_ml: end-diastolic volume.
        length_cm: long axis at end-diastole.
        wall_cm: wall thickness at end-diastole.
        shortening: share of the long axis lost when the ejection fraction is 1.
        apex_x_cm, apex_z_cm: endocardial apex.
        tilt_rad: angle of the long axis from straight down, positive to the right.
        peak: relative depth of the widest disk.
        base_narrowing: loss of half width from there to the base.
        asymmetry: share of the diameter that lies on the positive side minus the negative side.
        rv_width_cm: right ventricle at its base.
        la_half_width_cm, la_height_cm, ra_half_width_cm: atria.
        lateral_delay_s: how much later the lateral wall moves (left bundle branch block).
    """

    view: str
    edv_ml: float
    length_cm: float
    wall_cm: float
    shortening: float
    apex_x_cm: float
    apex_z_cm: float
    tilt_rad: float
    peak: float
    base_narrowing: float
    asymmetry: float
    rv_width_cm: float
    la_half_width_cm: float
    la_height_cm: float
    ra_half_width_cm: float
    lateral_delay_s: float


@dataclass(frozen=True)
class HeartState:
    """The heart at one instant.

    Attributes:
        volume_ml: LV volume.
        delayed_volume_ml: LV volume that the lateral wall still follows.
        contraction: 0 at end-diastole, 1 at end-systole.
        mitral_opening: 0 closed, 1 wide open.
        shift_cm: (x, z) displacement of the whole heart by breathing and swing.
    """

    volume_ml: float
    delayed_volume_ml: float
    contraction: float
    mitral_opening: float
    shift_cm: tuple[float, float]


class HeartPlane:
    """Maps tissue from end-diastole to any instant, and labels points at any instant."""

    def __init__(self, anatomy: Anatomy) -> None:
        self.anatomy = anatomy
        a = anatomy
        profile = self._profile(_PROFILE_GRID)
        self._profile_square = float(np.trapezoid(profile**2, _PROFILE_GRID))
        self.radius_ed = self._radius(a.edv_ml, a.length_cm)
        self._sin, self._cos = np.sin(a.tilt_rad), np.cos(a.tilt_rad)

    # geometry at end-diastole -------------------------------------------------------------------

    def _profile(self, s: np.ndarray) -> np.ndarray:
        """Half width of the cavity relative to its largest, for relative depth `s` (0 apex, 1 base)."""
        a = self.anatomy
        rising = np.sqrt(np.clip(1 - (1 - np.clip(s, 0, a.peak) / a.peak) ** 2, 0, 1))
        falling = 1 - a.base_narrowing * (np.clip(s - a.peak, 0, None) / (1 - a.peak)) ** 2
        return np.where(s < a.peak, rising, falling)

    def _radius(self, volume_ml: float, length_cm: float) -> float:
        return float(np.sqrt(volume_ml / (np.pi * length_cm * self._profile_square)))

    def _side(self, u: np.ndarray, asymmetry: float) -> np.ndarray:
        return np.where(u > 0, 1 + asymmetry, 1 - asymmetry).astype(np.float32)

    def _outer_ed(self, y_ed: np.ndarray, side: np.ndarray) -> np.ndarray:
        """Outer half width of the muscle at end-diastole; the apical cap reaches above the cavity."""
        a = self.anatomy
        cap = 0.8 * a.wall_cm
        return (self.radius_ed * side + a.wall_cm) * self._profile((y_ed + cap) / (a.length_cm + cap))

    def _rv_width_ed(self, s: np.ndarray) -> np.ndarray:
        if self.anatomy.view != "a4c":
            return np.zeros_like(s)
        reach = np.clip((s - 0.3) / 0.7, 0, 1)
        return self.anatomy.rv_width_cm * np.sqrt(reach) * (1.1 - 0.1 * reach)

    # motion ---------------------------------------------------------------------------------------

    def length(self, state: HeartState) -> float:
        """Long axis at an instant, centimetres."""
        a = self.anatomy
        return a.length_cm * (1 - a.shortening * max(0.0, 1 - state.volume_ml / a.edv_ml))

    def _descend(self, y_ed: np.ndarray, length: float) -> np.ndarray:
        """Depth along the axis at an instant: stretched inside the ventricle, fading to zero at the atrial roof."""
        a = self.anatomy
        fade = np.clip((y_ed - a.length_cm) / (1.15 * a.la_height_cm), 0, 1)
        below = y_ed - (a.length_cm - length) * np.cos(0.5 * np.pi * fade) ** 2
        return np.where(y_ed <= 0, y_ed, np.where(y_ed < a.length_cm, y_ed * (length / a.length_cm), below))

    def _walls(self, y_ed: np.ndarray, u: np.ndarray, state: HeartState) -> tuple[np.ndarray, ...]:
        """Inner and outer half width at end-diastole and now, for the wall on each point's side."""
        a = self.anatomy
        length = self.length(state)
        radius = self._radius(state.volume_ml, length)
        late = self._radius(state.delayed_volume_ml, length) / radius - 1
        asymmetry = a.asymmetry + float(np.clip(0.5 * late, -0.12, 0.12))
        side_ed, side = self._side(u, a.asymmetry), self._side(u, asymmetry)
        profile = np.where(y_ed > 0, self._profile(np.clip(y_ed / a.length_cm, 0, 1)), 0)
        inner_ed, inner = self.radius_ed * side_ed * profile, radius * side * profile
        stretch = a.length_cm / length
        outer_ed = self._outer_ed(np.minimum(y_ed, a.length_cm), side_ed)
        outer = np.sqrt(np.maximum(inner**2 + stretch * (outer_ed**2 - inner_ed**2), 0))
        return inner_ed, inner, outer_ed, outer

    def move(self, points: np.ndarray, state: HeartState) -> np.ndarray:
        """Where tissue points are at an instant.

        Args:
            points: (2, n) array of (u, y) at end-diastole, heart frame.
            state: the instant.

        Returns:
            (2, n) array of (x, z) in the picture plane, centimetres.
        """
        a = self.anatomy
        u, y_ed = points
        inner_ed, inner, outer_ed, outer = self._walls(y_ed, u, state)
        r = np.abs(u)
        stretch = a.length_cm / self.length(state)
        ring = np.sqrt(np.maximum(inner**2 + stretch * (r**2 - inner_ed**2), 0))
        rv_ed = np.where(u < 0, self._rv_width_ed(y_ed / a.length_cm), 0)
        rv_loss = 0.28 * state.contraction * rv_ed
        rv_edge = outer_ed + rv_ed
        fading = (outer - outer_ed - rv_loss) * np.exp(-np.maximum(r - rv_edge, 0) / 1.5)
        moved = np.where(r < outer_ed, ring, r + fading)
        below = np.clip((y_ed - a.length_cm) / 1.2, 0, 1)
        moved = moved + (r - moved) * below
        y = self._descend(y_ed, self.length(state))
        return self.to_picture(np.stack([np.sign(u) * moved, y]), state)

    def to_picture(self, points: np.ndarray, state: HeartState) -> np.ndarray:
        """Heart frame (u, y) to picture (x, z), both (2, n) in centimetres."""
        u, y = points
        x = self.anatomy.apex_x_cm + state.shift_cm[0] + u * self._cos + y * self._sin
        z = self.anatomy.apex_z_cm + state.shift_cm[1] - u * self._sin + y * self._cos
        return np.stack([x, z])

    def from_picture(self, x: np.ndarray, z: np.ndarray, shift_cm: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
        """Picture (x, z) to heart frame (u, y), centimetres, stacked on a new first axis."""
        dx, dz = x - self.anatomy.apex_x_cm - shift_cm[0], z - self.anatomy.apex_z_cm - shift_cm[1]
        return np.stack([dx * self._cos - dz * self._sin, dx * self._sin + dz * self._cos])

    # labels ---------------------------------------------------------------------------------------

    def label(self, x: np.ndarray, z: np.ndarray, state: HeartState) -> np.ndarray:
        """Class of every picture point at an instant (`axes.MASK_CLASSES`), uint8 of the shape of `x`."""
        a = self.anatomy
        u, y = self.from_picture(x, z, state.shift_cm)
        length = self.length(state)
        table = np.linspace(-4, a.length_cm + 3 * a.la_height_cm, 600)
        y_ed = np.interp(y, self._descend(table, length), table)
        _, inner, _, outer = self._walls(y_ed, u, state)
        r = np.abs(u)
        labels = np.zeros(x.shape, np.uint8)
        ventricle = y_ed <= a.length_cm
        labels[ventricle & (r < outer)] = LV_MYOCARDIUM
        labels[ventricle & (y_ed > 0) & (r < inner)] = LV_CAVITY
        la_half, la_depth = self._la_half_width(y_ed)
        labels[(la_depth > 0) & (la_depth < 1) & (r < la_half)] = LEFT_ATRIUM
        if a.view == "a4c":
            rv = self._rv_width_ed(y_ed / a.length_cm) * (1 - 0.28 * state.contraction)
            labels[ventricle & (u < 0) & (r >= outer) & (r < outer + rv)] = RIGHT_VENTRICLE
            ra_depth = (y_ed - a.length_cm) / (0.92 * a.la_height_cm)
            ra_center = self._la_half_width(np.array([a.length_cm + 0.5 * a.la_height_cm]))[0]
            half = a.ra_half_width_cm * _bulge(ra_depth)
            offset = r - (ra_center + ATRIAL_SEPTUM_CM + a.ra_half_width_cm)
            labels[(u < 0) & (ra_depth > 0) & (ra_depth < 1) & (np.abs(offset) < half)] = RIGHT_ATRIUM
        return labels

    def _la_half_width(self, y_ed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        a = self.anatomy
        depth = (y_ed - a.length_cm) / a.la_height_cm
        return a.la_half_width_cm * _bulge(depth), depth

    # valves ---------------------------------------------------------------------------------------

    def leaflets(self, state: HeartState, count: int) -> np.ndarray:
        """Points on the atrioventricular leaflets at an instant, (2, n) in the picture plane.

        Each leaflet turns about its hinge on the annulus: closed it lies in the plane of the base with a slight
        tent, open it points to the apex.
        """
        a = self.anatomy
        length = self.length(state)
        hinge_y = np.array([a.length_cm])
        along = np.linspace(0, 1, count)
        angle = (0.12 + 0.88 * state.mitral_opening) * 1.25
        curves = []
        for sign in (-1.0, 1.0):
            _, inner, _, outer = self._walls(hinge_y, np.array([sign]), state)
            half = float(inner[0])
            reach = (1.05 if sign < 0 else 0.85) * half
            curves.append(_leaflet(sign * half, -sign, length, reach, angle, along))
            if a.view == "a4c" and sign < 0:
                width = float(self._rv_width_ed(np.array([1.0]))[0]) * (1 - 0.28 * state.contraction)
                near, far = -float(outer[0]), -float(outer[0]) - width
                curves.append(_leaflet(near, -1.0, length, 0.5 * width, angle, along))
                curves.append(_leaflet(far, 1.0, length, 0.55 * width, angle, along))
        return self.to_picture(np.concatenate(curves, axis=1), state)


def _bulge(depth: np.ndarray) -> np.ndarray:
    """Half width of an atrium over its relative depth: open at the valve, closed at the roof."""
    d = np.clip(depth, 0, 1)
    return np.clip(1 - np.abs(2 * d - 0.85) ** 2.6 / np.where(d < 0.425, 1.6, 1.55), 0, 1) ** 0.5


def _leaflet(hinge: float, inward: float, base: float, reach: float, angle: float, along: np.ndarray) -> np.ndarray:
    bend = angle * (0.6 + 0.4 * along)
    return np.stack([hinge + inward * reach * along * np.cos(bend), base - reach * along * np.sin(bend)])

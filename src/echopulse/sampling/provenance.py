"""What a generated clip says of itself: what it was made from, and how."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from echopulse.axes import NOT_FOR_DIAGNOSIS
from echopulse.sampling.decode import DecodeSettings
from echopulse.sampling.request import Take
from echopulse.signals.track import EcgTrack


def about_take(take: Take, track: EcgTrack | None, settings: DecodeSettings) -> dict[str, Any]:
    """Provenance of a clip but for the networks: condition, ECG with the R peaks found in it, request and decoding.

    Args:
        take: what was asked for.
        track: its prepared ECG.
        settings: how codes were drawn.
    """
    from echopulse import __version__

    request, ecg, start = take.request, take.ecg, take.start_s
    end = start + request.num_frames / request.fps
    about_ecg = {}
    if ecg is not None and track is not None:
        about_ecg = {
            "ecg_source": Path(ecg.source).name,
            "ecg_sha256": ecg.sha256(),
            "ecg_repeated": start < ecg.start_s or end > ecg.end_s,
            "r_times_s": [round(float(r), 4) for r in track.extended(start, end).r_times_s if start <= r < end],
        }
    return {
        "statement": NOT_FOR_DIAGNOSIS,
        "echopulse": __version__,
        "condition": take.condition,
        **about_ecg,
        **asdict(request),
        "start_s": start,
        **asdict(settings),
    }

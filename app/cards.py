"""What the comparison shows of an image: its numbers in words, or where it stands in the queue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ecad import Schedule

from .services.images import Rendered

LETTERS = "ABCDEF"
_FIDELITY = {
    "psnr": (
        "PSNR",
        lambda v: "identical" if v >= 100 else f"{v:.1f} dB",
        "to the uncached image; higher is closer",
    ),
    "ssim": ("SSIM", lambda v: f"{v:.3f}", "to the uncached image; 1 is identical"),
    "flip": ("FLIP", lambda v: f"{v:.3f}", "perceived difference to the uncached image; 0 is identical"),
}


@dataclass(frozen=True)
class Wanted:
    """An image somebody wants to see: `letter` is that of its point on the front, empty for the others."""

    schedule: Schedule
    title: str
    letter: str = ""


def card(
    wanted: Wanted,
    rendered: Rendered | None,
    *,
    prompt: str,
    macs: int,
    uncached_macs: int,
    state: str = "waiting",
    place: int = 0,
    progress: float = 0.0,
    message: str = "",
) -> dict[str, Any]:
    """One image for `Compare`.

    Args:
        rendered: the image, or None while it is on its way; `state`, `place` (jobs before it) and `progress`
            say where.
        macs, uncached_macs: of the schedule and of the uncached one.
    """
    found: dict[str, Any] = {
        "key": wanted.schedule.key,
        "letter": wanted.letter,
        "title": wanted.title,
        "state": state,
        "place": place,
        "progress": round(progress, 3),
        "message": message,
    }
    if rendered is None:
        return found
    whole = macs == uncached_macs
    times = uncached_macs / macs
    if whole:
        speed, measured = f"{rendered.seconds:.2f} s", "to denoise, measured here"
    else:
        speed = f"{rendered.uncached_seconds / rendered.seconds:.2f}×"
        measured = f"faster, measured: {rendered.seconds:.2f} s for {rendered.uncached_seconds:.2f} s"
    fidelity = [
        [name, say(rendered.fidelity[key]), help_]
        for key, (name, say, help_) in _FIDELITY.items()
        if key in rendered.fidelity
    ]
    found |= {
        "state": "done",
        "path": str(rendered.path),
        "alt": f"{prompt}, " + ("uncached" if whole else f"{wanted.title}, {times:.2f} times fewer MACs"),
        "speed": speed,
        "measured": measured,
        "macs": f"{macs / 1e9:.2f} GMACs" + ("" if whole else f", {times:.2f}× fewer"),
        "fidelity": fidelity,
        "facts": [{"text": text, "right": right} for text, right in rendered.facts],
    }
    return found

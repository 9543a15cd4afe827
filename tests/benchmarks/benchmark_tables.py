"""The tables that the benchmark prints, from the figures that it also writes as JSON."""

from __future__ import annotations

from typing import Any

from benchmark_cases import ALL_TRUE, STOCK

LEVELS = (2, 3, 4, 5)
SAME = 1.005  # an error up to this times another is equal to it

NOTES = """\
MACs: of the components really computed, in the convention `full`, over those of all; what the stock model's calls
repeat besides (text keys and values, the caption's projection) is not counted. Speed and reached: against the faster
of the stock model and ours with everything computed."""
FLUX_NOTES = """\
Random weights: a threshold or a calibrated curve says nothing of images here, so diffusers' caches are set to skip
about what FORA 2, 3 and 5 skip. MagCache: by its limit of skipped rows alone. FirstBlockCache: by the threshold that
comes closest. PAB broadcasts attention only and cannot skip so much."""


def timing_table(results: dict[str, dict[str, Any]]) -> str:
    """One line a case."""
    width = max(len(name) for name in results)
    lines = [f"{'':{width}}    ms/image   spread    MACs   speed  reached    error"]
    for name, one in results.items():
        error = "       -" if one["error"] is None else f"{one['error']:8.4f}"
        lines.append(
            f"{name:{width}} {one['ms_per_image']:11.1f} {one['spread']:8.0%} {one['macs_ratio']:6.2f}x"
            f" {one['speed_up']:6.2f}x {one['reached']:8.3f} {error}"
        )
    pair = results[ALL_TRUE]
    low, high = pair["stock_over_this_range"]
    lines.append(
        f"stock / ours, everything computed, pair by pair: median {pair['stock_over_this']:.3f}"
        f" ({low:.3f} ... {high:.3f})"
    )
    return "\n".join(lines)


def verdicts(results: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Per cost level and peer: the fastest of ours with an equal or a smaller error, and whether it is faster.

    A peer belongs to the level next to its MACs ratio. "any": any schedule of ours; "caching": those that keep all
    of the sampler's times. Fewer steps run by ours are a peer of "caching" alone.
    """
    found = []
    for name, peer in results.items():
        fewer = peer["kind"] == "ours" and not peer["own_grid"] and _is_uncached(name)
        level = min(LEVELS, key=lambda level: abs(level - peer["macs_ratio"]))
        if not (peer["kind"] == "peer" or fewer) or not 1.5 <= peer["macs_ratio"] < 6:
            continue
        entry: dict[str, Any] = {"level": level, "peer": name}
        for which in ("any", "caching"):
            if which == "any" and fewer:
                continue
            entry[which] = _verdict(results, peer, caching=which == "caching")
        found.append(entry)
    return sorted(found, key=lambda entry: entry["level"])


def _is_uncached(name: str) -> bool:
    """Whether a schedule of fewer steps is nothing but that, by its name: "ours, steps-7-late"."""
    parts = name.removeprefix("ours, ").split("-")
    return parts[0] == "steps" and parts[2:] in ([], ["late"])


def _verdict(results: dict[str, dict[str, Any]], peer: dict[str, Any], caching: bool) -> dict[str, Any]:
    good = {
        name: one
        for name, one in results.items()
        if (one["kind"] == "ours" or name == ALL_TRUE)
        and one["error"] <= SAME * peer["error"]
        and (one["own_grid"] or not caching)
    }
    if not good:
        return {"by": None, "time": None, "error": None, "faster": False}
    best = min(good, key=lambda name: good[name]["ms_per_image"])
    ratio = good[best]["ms_per_image"] / peer["ms_per_image"]
    return {"by": best, "time": ratio, "error": good[best]["error"], "faster": ratio < 1}


def level_table(results: dict[str, dict[str, Any]]) -> str:
    """The verdicts as text."""
    entries = verdicts(results)
    width = max((len(entry["peer"]) for entry in entries), default=4)
    lines = [
        "Ours against every peer: the fastest of ours with an equal or a smaller error, its time over the peer's.",
        f"level  {'peer':{width}} ms/image   error   faster by any schedule of ours; by caching alone",
    ]
    for entry in entries:
        peer = results[entry["peer"]]
        said = [f"{which}: {_said(entry[which])}" for which in ("any", "caching") if which in entry]
        lines.append(
            f"{entry['level']:4d}x  {entry['peer']:{width}} {peer['ms_per_image']:8.1f} {peer['error']:7.4f}"
            f"   {'; '.join(said)}"
        )
    slower = [entry["peer"] for entry in entries if not entry.get("any", {"faster": True})["faster"]]
    lines.append("Ours is faster at equal or less error than every peer" + (" but " if slower else "."))
    lines[-1] += ", ".join(slower)
    return "\n".join(lines)


def _said(verdict: dict[str, Any]) -> str:
    if verdict["by"] is None:
        return "no (none so good)"
    answer = "yes" if verdict["faster"] else "NO"
    return f"{answer}, {verdict['time']:.2f} ({verdict['by'].removeprefix('ours, ')}, {verdict['error']:.4f})"


__all__ = ["ALL_TRUE", "FLUX_NOTES", "NOTES", "STOCK", "level_table", "timing_table", "verdicts"]

"""What decides a search, in one value that a run file carries."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ecad.search.errors import SearchError

PRESETS = ("default", "paper")
COSTS = ("macs", "latency")

STOPS = ("generations", "evaluations", "time_limit", "plateau")
"""When to stop: the settings that a resumed run may change, since they alter no evaluation and no child."""


@dataclass(frozen=True)
class SearchSettings:
    """Settings of one search; `SearchSettings.of(preset, ...)` fills in what a preset decides.

    Attributes:
        prompts: the texts every candidate is judged on, in this order.
        model: name or path of the image generator, as `load_image_generator` takes it.
        preset: "default" (rows and components, structured edits) or "paper" (raw bits, the original's
            operators).
        population: survivors of a generation, and children per generation.
        generations: cycles after the seeds (generation 0); None: not limited by them.
        evaluations: stop when the run holds this many evaluated schedules; None: no limit.
        time_limit: stop after this many seconds of search, all its sessions together; None: no limit.
        plateau: stop when the hypervolume grew by less than 0.1 % in this many generations; None: never.
        seed: of the search's own rng (who mates, what mutates).
        seeds_per_prompt: images per prompt.
        noise_seed: image i of the evaluation set starts from the noise of seed `noise_seed + i`.
        batch: images computed together; fixed, because an image's last bits depend on it.
        reward: name of the metric that is the quality.
        cost: what is minimised beside it: "macs", or "latency", the time that a calibration kept in the run
            predicts.
        seed_count: how many heuristic schedules generation 0 evaluates; None: as many as the preset says.
        max_cost: children above this share of the uncached cost are not tried: cost is known at once, and
            up there the seeds are as good as uncached. None: no limit.
        min_cost: children below this share are not tried: down there pictures fall apart, and a front's
            even spread would spend most of the search on ruins. None: no limit.
        crossover_rate: share of matings that exchange anything.
        child_rate: share of children that are mutated.
        bit_rate: chance of each bit of a mutated child to flip; None: one bit in expectation.
        row_rate: chance that a mutated child gains or loses a row. This and the next three: preset "default"
            only.
        shift_rate: chance that a row moves in time by one place of the sampler's grid.
        block_rate: chance that a rectangle of rows and neighbouring blocks is switched, for one component or
            all.
        copy_rate: chance that a row takes the bits of another one.
    """

    prompts: tuple[str, ...]
    model: str = "storybook"
    preset: str = "default"
    population: int = 24
    generations: int | None = 30
    evaluations: int | None = None
    time_limit: float | None = None
    plateau: int | None = None
    seed: int = 0
    seeds_per_prompt: int = 1
    noise_seed: int = 0
    batch: int = 6
    reward: str = "storybook-reward"
    cost: str = "macs"
    seed_count: int | None = None
    max_cost: float | None = 0.7
    min_cost: float | None = 0.15
    crossover_rate: float = 0.9
    child_rate: float = 0.9
    bit_rate: float | None = 0.0005
    row_rate: float = 0.35
    shift_rate: float = 0.25
    block_rate: float = 0.5
    copy_rate: float = 0.15

    def __post_init__(self) -> None:
        object.__setattr__(self, "prompts", tuple(self.prompts) if not isinstance(self.prompts, str) else ())
        if not self.prompts or not all(isinstance(prompt, str) and prompt.strip() for prompt in self.prompts):
            raise SearchError("`prompts` must be a list of at least one prompt, none of them empty")
        if self.preset not in PRESETS:
            raise SearchError(f"`preset` must be one of {', '.join(PRESETS)}, not {self.preset!r}")
        if self.cost not in COSTS:
            raise SearchError(f"`cost` must be one of {', '.join(COSTS)}, not {self.cost!r}")
        _whole(self, "population", 2, 10_000)
        _whole(self, "generations", 0, 1_000_000, optional=True)
        _whole(self, "evaluations", 1, 100_000_000, optional=True)
        _whole(self, "plateau", 1, 1_000_000, optional=True)
        _whole(self, "seed", 0, 2**63 - 1)
        _whole(self, "seeds_per_prompt", 1, 10_000)
        _whole(self, "noise_seed", 0, 2**62)
        _whole(self, "batch", 1, 4096)
        _whole(self, "seed_count", 1, 10_000, optional=True)
        _number(self, "time_limit", 0.0, 1e9, optional=True)
        _number(self, "bit_rate", 0.0, 0.5, optional=True)
        _number(self, "max_cost", 0.01, 10.0, optional=True)
        _number(self, "min_cost", 0.0, 10.0, optional=True)
        if None not in (self.min_cost, self.max_cost) and self.min_cost >= self.max_cost:
            raise SearchError(
                f"`min_cost` must be below `max_cost`, {self.max_cost:g}, not {self.min_cost:g}"
            )
        for rate in ("crossover_rate", "child_rate", "row_rate", "shift_rate", "block_rate", "copy_rate"):
            _number(self, rate, 0.0, 1.0)
        for text in ("model", "reward"):
            if not isinstance(getattr(self, text), str) or not getattr(self, text):
                raise SearchError(f"`{text}` must be a name, not {getattr(self, text)!r}")
        if all(getattr(self, stop) is None for stop in STOPS):
            raise SearchError(
                "a search needs an end: give `generations`, `evaluations`, `time_limit` or `plateau`"
            )

    @classmethod
    def of(cls, preset: str = "default", **overrides: Any) -> SearchSettings:
        """The settings of a preset, with `overrides` on top; `prompts` are always the caller's."""
        if preset not in PRESETS:
            raise SearchError(f"`preset` must be one of {', '.join(PRESETS)}, not {preset!r}")
        values: dict[str, Any] = {"preset": preset}
        if preset == "paper":
            # Population 72, 4-point crossover in 90 % of matings, BitflipMutation(prob=0.05): 5 % of
            # the children are mutated, each bit with 1/n.
            values |= {"population": 72, "generations": 550, "seeds_per_prompt": 10, "batch": 10}
            values |= {"crossover_rate": 0.9, "child_rate": 0.05, "bit_rate": None}
            values |= {"max_cost": None, "min_cost": None}
        values |= overrides
        try:
            return cls(**values)
        except TypeError:
            known = {field.name for field in dataclasses.fields(cls)}
            unknown = sorted(set(values) - known)
            if unknown:
                raise SearchError(f"a search has no setting `{unknown[0]}`") from None
            raise SearchError("`prompts` must be given") from None

    @property
    def seeds_wanted(self) -> int:
        """How many heuristic schedules generation 0 holds at most."""
        if self.seed_count is not None:
            return self.seed_count
        return self.population if self.preset == "paper" else max(self.population, 40)

    def images(self) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """(prompt, noise seed) of every image of the evaluation set, prompt by prompt."""
        prompts = tuple(prompt for prompt in self.prompts for _ in range(self.seeds_per_prompt))
        return prompts, tuple(range(self.noise_seed, self.noise_seed + len(prompts)))

    def replace(self, **changes: Any) -> SearchSettings:
        """A copy with `changes`, validated."""
        return dataclasses.replace(self, **changes)

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> SearchSettings:
        """The settings that `to_json` wrote; unknown names are refused, so that none is silently ignored."""
        values = json.loads(text)
        if not isinstance(values, Mapping):
            raise SearchError("a search's settings must be a JSON object")
        return cls.of(**values)

    def differences(self, other: SearchSettings, *, but: tuple[str, ...] = ()) -> dict[str, tuple[Any, Any]]:
        """Name -> (mine, other's) of every setting that differs, those in `but` left out."""
        names = (field.name for field in dataclasses.fields(self) if field.name not in but)
        pairs = {name: (getattr(self, name), getattr(other, name)) for name in names}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _whole(settings: SearchSettings, name: str, low: int, high: int, *, optional: bool = False) -> None:
    value = getattr(settings, name)
    if value is None and optional:
        return
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise SearchError(f"`{name}` must be a whole number from {low} to {high}, not {value!r}")


def _number(settings: SearchSettings, name: str, low: float, high: float, *, optional: bool = False) -> None:
    value = getattr(settings, name)
    if value is None and optional:
        return
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not good or not low <= value <= high:
        raise SearchError(f"`{name}` must be a number from {low:g} to {high:g}, not {value!r}")

"""What happens when a visitor does something. No layout here; `page.py` says which event calls what."""

from __future__ import annotations

import functools
import inspect
import itertools
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from html import escape
from typing import Any

import gradio as gr

from ecad import Cancelled, Schedule

from .cards import LETTERS, Wanted, card
from .services.build import Services
from .services.points import title_of
from .services.prompts import read_prompt, read_seed
from .services.schedules import PageError
from .services.worker import Priority

_TICK = 0.2  # seconds between two looks at a job, and so between a reload and its render's end


def _toast(error: Exception) -> gr.Error:
    return gr.Error(str(error), duration=10, title="That does not work", print_exception=False)


def shown(function: Callable) -> Callable:
    """Errors a visitor can cause become a toast with their one sentence; anything else is a fault of ours."""
    if inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Iterator[Any]:
            try:
                yield from function(*args, **kwargs)
            except Exception as error:
                if not getattr(error, "user_facing", False):
                    raise
                raise _toast(error) from None

        return wrapped

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            if not getattr(error, "user_facing", False):
                raise
            raise _toast(error) from None

    return wrapped


class Turns:
    """Which request of a visitor is the latest: an older one that still renders gives up."""

    def __init__(self, most: int = 2000):
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._latest: OrderedDict[str, int] = OrderedDict()
        self._most = most

    def take(self, session: str) -> int:
        with self._lock:
            number = next(self._numbers)
            self._latest[session] = number
            self._latest.move_to_end(session)
            while len(self._latest) > self._most:
                self._latest.popitem(last=False)
            return number

    def is_latest(self, session: str, number: int) -> bool:
        return self._latest.get(session, number) == number


class Handlers:
    """The page's actions over the services."""

    def __init__(self, services: Services):
        self.services = services
        self.turns = Turns()

    # choosing

    def first(self) -> tuple[dict, dict]:
        """Selection and grid of a page that was just opened."""
        run = self.services.runs.first
        choice = run.points.first_choice()
        if choice is None:
            presets = self.services.schedules.presets
            start = presets.get("fora-3") or next(iter(presets.values()))
            return {"run": run.key, "ids": []}, self.services.schedules.to_wire(start)
        selection = {"run": run.key, "ids": [choice]}
        return selection, {**self._grid_of(run, choice), "others": self._others(selection)}

    def prepare(self, prompt: str, seed: int, selection: dict, grid: dict) -> None:
        """Render what a page that was just opened shows, before anybody opens one."""
        for one in self._wanted(selection, grid):
            self.services.renderer.submit(prompt, seed, one.schedule, Priority.PREPARE)

    def _grid_of(self, run: Any, number: int) -> dict:
        evaluation = run.points.evaluation(number)
        return self.services.schedules.to_wire(
            evaluation.schedule, name=title_of(evaluation, number), point=number
        )

    def pick(self, selection: dict, grid: dict, event: gr.EventData, request: gr.Request) -> dict:
        """A point was clicked: its schedule goes to the grid, the others of the selection can be outlined
        there."""
        self.turns.take(request.session_hash or "")
        run = self.services.runs[selection["run"]]
        others = self._others(selection)
        number = (event._data or {}).get("id")
        if number in selection["ids"] and run.points.evaluation(number) is not None:
            return {**self._grid_of(run, number), "others": others}
        return {**grid, "others": others}

    def _others(self, selection: dict) -> list[dict]:
        run = self.services.runs[selection["run"]]
        found = []
        for letter, number in zip(LETTERS, selection["ids"], strict=False):
            if run.points.evaluation(number) is not None:
                wire = self._grid_of(run, number)
                found.append(
                    {"title": f"{letter}: {wire['name']}", "rows": wire["rows"], "times": wire["times"]}
                )
        return found

    def _wanted(self, selection: dict, grid: dict) -> list[Wanted]:
        """The uncached image, those of the selection, and that of the grid where it is another one."""
        services = self.services
        run = services.runs[selection["run"]]
        wanted = [Wanted(services.schedules.uncached, "Uncached")]
        for letter, number in zip(LETTERS, selection["ids"], strict=False):
            evaluation = run.points.evaluation(number)
            if evaluation is not None:
                wanted.append(Wanted(evaluation.schedule, title_of(evaluation, number), letter))
        schedule = services.schedules.from_wire(grid)
        wanted.append(Wanted(schedule, schedule.name))
        seen: dict[str, Wanted] = {}
        for one in wanted:
            seen.setdefault(one.schedule.key, one)
        return list(seen.values())

    # images

    @shown
    def show(
        self, prompt: str, seed: str, selection: dict, grid: dict, request: gr.Request
    ) -> Iterator[dict]:
        """Render what is chosen, a card at a time; ends early when the same visitor asks for something
        else."""
        session = request.session_hash or ""
        turn = self.turns.take(session)
        text, number = read_prompt(prompt), read_seed(seed)
        wanted = self._wanted(selection, grid)
        services = self.services
        jobs = [services.renderer.submit(text, number, one.schedule) for one in wanted]
        try:
            while True:
                finished = all(
                    job.done for job in jobs
                )  # before the cards are made, or the last ones are never sent
                yield {"images": self._cards(wanted, jobs, text)}  # each time: a reload is noticed only here
                if finished:
                    return
                if not self.turns.is_latest(session, turn):
                    yield gr.skip()  # what is shown belongs to the newer request
                    return
                jobs[-1].wait(_TICK)
        finally:  # the end, a reload, a closed tab: the device is free at the next row
            for job in jobs:
                job.cancel()

    def _cards(self, wanted: list[Wanted], jobs: list, prompt: str) -> list[dict]:
        schedules = self.services.schedules
        cards = []
        for one, job in zip(wanted, jobs, strict=True):
            state, message, rendered = "waiting", "", None
            if job.done and job.error is None:
                rendered = job.result()
            elif job.done:
                state, message = "failed", _reason(job.error)
            elif job.started:
                state = "running"
            cards.append(
                card(
                    one,
                    rendered,
                    prompt=prompt,
                    macs=schedules.macs(one.schedule),
                    uncached_macs=schedules.uncached_macs,
                    state=state,
                    place=self.services.worker.ahead(job),
                    progress=job.progress,
                    message=message,
                )
            )
        return cards

    def random(self) -> tuple[str, str]:
        """A prompt and a seed; both are written back, so that what is shown can be asked for again."""
        prompt, seed = self.services.prompts.random()
        return prompt, str(seed)

    # schedules by hand

    @shown
    def upload(self, grid: dict, event: gr.EventData) -> dict:
        """A schedule file, read strictly, into the grid."""
        data = event._data or {}
        name, size, text = str(data.get("name", "the file")), data.get("size"), data.get("text")
        if not isinstance(size, (int, float)) or not isinstance(text, (str, type(None))):
            raise PageError("The upload holds no file.")
        schedule = self.services.schedules.from_file(name, text, int(size))
        gr.Info(f"{name} is in the grid: press Render to see it.", duration=4)
        return {**self.services.schedules.to_wire(schedule), "others": grid.get("others", [])}

    def preset(self, query: dict) -> dict:
        """A preset for the grid; called by the browser."""
        try:
            return self.services.schedules.to_wire(
                self.services.schedules.preset(dict(query or {}).get("name"))
            )
        except PageError as error:
            return {"error": str(error)}

    @shown
    def evaluate(self, selection: dict, grid: dict) -> Iterator[tuple]:
        """Score the grid's schedule like every other point of the run; it appears on the front, selected."""
        services = self.services
        schedule = services.schedules.from_wire(grid)
        known = services.runs[selection["run"]]
        number = known.points.id_of(schedule.key)
        if number is not None:
            title = title_of(known.points.evaluation(number), number)
            yield (*self._select(known, number, selection), escape(f"Already on the front: {title}."))
            return
        task = services.runs.evaluate(selection["run"], schedule, schedule.name)
        images = task.run.search.evaluator.images
        try:
            while not task.done:
                yield gr.skip(), gr.skip(), f"Evaluating on {images} images: {100 * task.share:.0f} %"
                task.wait(_TICK)
        finally:
            task.cancel()
        if task.error is not None:
            raise task.error
        number = task.run.points.id_of(schedule.key)
        evaluation = task.run.points.evaluation(number)
        reward = task.run.points.reward
        text = (
            f"{schedule.name} is on the front: {evaluation.speed:.2f}× fewer MACs,"
            f" {reward} {evaluation.means[reward]:.4g}."
        )
        yield (*self._select(task.run, number, selection), escape(text))  # names are the visitors' own words

    def _select(self, run: Any, number: int, selection: dict) -> tuple:
        ids = [i for i in selection["ids"] if run.key == selection["run"] and i != number]
        value = {"run": run.key, "ids": [*ids, number][-3:]}
        return value, {**self._grid_of(run, number), "others": self._others(value)}

    # the search

    @shown
    def start(
        self, selection: dict, way: str, generations: float, population: float, images: float, preset: str
    ) -> Any:
        """Search on in the run that is shown, or begin a new one; every visitor sees it."""
        runs = self.services.runs
        if way == "new":
            settings = runs.settings(
                population=int(population), generations=int(generations), images=int(images), preset=preset
            )
            run = runs.begin(settings)
        else:
            run = runs.go_on(selection["run"], int(generations))
        if run.key != selection["run"]:
            return {"run": run.key, "ids": []}
        return gr.skip()

    @shown
    def pause(self) -> None:
        """Let the batch in flight end, then wait."""
        self.services.runs.pause()

    @shown
    def resume(self) -> None:
        """Go on after a pause."""
        self.services.runs.resume()

    @shown
    def stop(self) -> None:
        """End at the next denoising step; the run can go on later."""
        self.services.runs.stop()

    # for programs

    def _schedule_of(self, text: str) -> Schedule:
        schedules = self.services.schedules
        if not text.strip():
            return schedules.uncached
        if text in schedules.presets:
            return schedules.presets[text]
        return schedules.from_file("The schedule", text, len(text))

    def api_predict(self, schedule: str = "") -> dict:
        """What a schedule costs, without running it.

        Args:
            schedule: the text of a schedule file, the name of a preset such as "fora-3", or nothing for
                uncached.

        Returns:
            `macs` per image (attention products counted, neutral recomputes not), those of the uncached
            schedule, how many times fewer they are, and how many times `faster` it should be, predicted `by`
            this device's calibration or by MACs.
        """
        return self._predict(schedule)

    @shown
    def _predict(self, schedule: str) -> dict:
        found = self._schedule_of(schedule)
        schedules = self.services.schedules
        return {
            "name": found.name,
            "uncached_macs": schedules.uncached_macs,
            **schedules.predicted(found),
        }

    @shown
    def api_render(self, prompt: str, seed: int = 0, schedule: str = "") -> Iterator[dict]:
        """Render one image, in turn with all other visitors.

        Args:
            prompt: what the image should show.
            seed: a whole number; the same seed gives the same image.
            schedule: the text of a schedule file, the name of a preset such as "fora-3", or nothing for
                uncached.

        Returns:
            `image`, where the PNG can be fetched from this server, and what was measured: seconds of the
            denoising loop, MACs, fidelity to the uncached image, the facts the judge reads.
        """
        text, number = read_prompt(prompt), read_seed(seed)
        found = self._schedule_of(schedule)
        job = self.services.renderer.submit(text, number, found)
        try:
            while not job.wait(_TICK):
                yield {"waiting": self.services.worker.ahead(job), "progress": job.progress}
            rendered = job.result()
        finally:
            job.cancel()
        yield {
            "image": f"/gradio_api/file={rendered.path}",
            "seconds": rendered.seconds,
            "macs": rendered.macs,
            "fidelity": dict(rendered.fidelity),
            "facts": [list(fact) for fact in rendered.facts],
        }


def _reason(error: BaseException) -> str:
    if isinstance(error, (Cancelled, CancelledError)):
        return "cancelled"
    if getattr(error, "user_facing", False):
        return str(error)
    return f"not rendered ({type(error).__name__})"


def code(model: str) -> str:
    """The lines that apply a downloaded schedule to an ordinary diffusers pipeline."""
    source = "assets/storybook/pipeline" if model == "storybook" else model
    prompt = json.dumps("a red house left of a blue tree in snow at night")
    return (
        "from diffusers import DiffusionPipeline\n"
        "from ecad import Schedule, apply_schedule\n\n"
        f"pipe = DiffusionPipeline.from_pretrained({source!r})\n"
        'schedule = Schedule.load("schedule.json")\n'
        "with apply_schedule(pipe, schedule):\n"
        f"    image = pipe({prompt}, **schedule.call()).images[0]\n"
    )

"""The real page over a small random pipeline, and a real browser to drive it.

Playwright's own Chromium is taken if it is installed, else the system's. With neither the tests skip and say
what to install; where CI=true is set they fail instead, so that a broken installation cannot pass for a good
one.
"""

from __future__ import annotations

import os
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

pytestmark = pytest.mark.browser

INSTALL = "no Chromium: `playwright install chromium`, or install the system's (`apt-get install chromium`)"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE = int(
    os.environ.get("ECAD_BROWSER_PATIENCE", "180000")
)  # milliseconds; tests assert order and state, never speed


def _missing(reason: str) -> None:
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def browser():
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError:
        _missing("no playwright: `pip install -r tests/requirements.txt`")
    with sync_playwright() as playwright:
        system = next(
            filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
        )
        try:
            made = playwright.chromium.launch(args=FLAGS)
        except Error:
            if system is None:
                _missing(INSTALL)
            made = playwright.chromium.launch(executable_path=system, args=FLAGS)
        yield made
        made.close()


def _write_run(path, services) -> None:
    """A finished run over the loaded pipeline: the heuristics with scores that fall with what is left out."""
    import ecad

    settings = ecad.SearchSettings.of(
        "default", prompts=["a red house", "a blue tree"], model=services.generator.name, reward="ssim", batch=1,
        population=4, generations=1, seed_count=4,
    )  # fmt: skip
    metrics = [ecad.metric(name) for name in ("ssim", "psnr", "flip")]
    evaluator = ecad.make_evaluator(services.generator, metrics, settings)
    library = ecad.heuristics.library(services.generator.layout, 20, grid=services.generator.timesteps)
    with ecad.open_run(path, evaluator, settings) as store:
        for schedule in library[:40] + library[-30::3]:
            add_evaluation(store, schedule, evaluator.macs(schedule), evaluator.uncached_macs, "seed")


def add_evaluation(store, schedule, macs: int, uncached: int, origin: str = "search") -> None:
    """Score a schedule as if it had been rendered: the better the dearer, with a little scatter from its
    key."""
    scatter = int(schedule.key[:4], 16) / 65535
    quality = 1 - 0.3 * (1 - macs / uncached) ** 2 * (0.5 + scatter)
    store.add_schedule(schedule, macs=macs, origin=origin, generation=0, name=schedule.name)
    for batch in range(2):
        scores = {"ssim": quality, "psnr": 20 + 30 * quality, "flip": 1 - quality}
        store.add_scores(schedule.key, batch, {name: np.array([v]) for name, v in scores.items()}, 0.1)


@pytest.fixture(scope="session")
def explorer(tiny_pixart_28_path, tmp_path_factory):
    """The served page: `.url`, `.services`."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    from app.page import create_app, launch_options
    from app.services.build import build

    data = tmp_path_factory.mktemp("data")
    first = build(str(tiny_pixart_28_path), None, str(data / "first"))
    run = tmp_path_factory.mktemp("shipped") / "shipped.sqlite"
    _write_run(run, first)
    first.close()
    services = build(str(tiny_pixart_28_path), str(run), str(data / "page"))
    page = create_app(services).queue(default_concurrency_limit=8)
    _, url, _ = page.launch(
        server_name="127.0.0.1", server_port=0 or None, share=False, prevent_thread_lock=True, quiet=True,
        **launch_options(),
    )  # fmt: skip
    yield SimpleNamespace(url=url, services=services, run=run)
    page.close()
    services.close()


@pytest.fixture
def visit(browser, explorer):
    """Open the page as a visitor of one's own: `visit(width=..., height=...)` gives a Playwright page,
    ready."""
    contexts = []

    def visit(width: int = 1280, height: int = 1000, wait: bool = True, **options):
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        context.set_default_timeout(PATIENCE)
        contexts.append(context)
        page = context.new_page()
        page.requests, page.errors = [], []
        page.on("request", lambda request: page.requests.append(request.url))
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        page.goto(explorer.url, wait_until="domcontentloaded")
        if wait:
            ready(page)
        return page

    yield visit
    for context in contexts:
        context.close()


def ready(page) -> None:
    """Wait until the front is drawn, the grid is there and every picture asked for is shown."""
    page.wait_for_selector("#grid [data-ready]", state="attached")
    page.wait_for_selector("#front .frame[data-points]")
    pictures(page)


def pictures(page) -> None:
    page.wait_for_function(
        "() => { const cards = [...document.querySelectorAll('#compare .card')];"
        " return cards.length > 0 && cards.every(c => c.dataset.state === 'done'); }"
    )

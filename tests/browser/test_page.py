"""What a visitor does, done by a visitor: the real page in a real browser."""

from __future__ import annotations

import json
import threading
from io import BytesIO
from urllib.parse import urlparse

import numpy as np
import pytest
from PIL import Image

import ecad
from ecad.execution.latency import terms
from ecad.execution.lowering import Lowering

pytestmark = pytest.mark.browser

POINT = """([trace, place]) => {
  const gd = document.querySelector('#front .gd'), t = gd.data[trace], k = place < 0 ? t.x.length + place : place;
  const b = gd.getBoundingClientRect(), {xaxis, yaxis} = gd._fullLayout;
  return [b.left + xaxis._offset + xaxis.d2p(t.x[k]), b.top + yaxis._offset + yaxis.d2p(t.y[k]), t.customdata[k]];
}"""
FRONT, EDITED = 3, 4  # traces of the plot


def click_point(page, place: int, trace: int = FRONT, **options) -> int:
    """Click a point of the front as a person does: go there, wait for its card, press. Returns its id."""
    page.locator("#front").scroll_into_view_if_needed()
    x, y, number = page.evaluate(POINT, [trace, place])
    page.mouse.move(x - 30, y + 30)
    page.mouse.move(x, y, steps=4)
    page.wait_for_selector("#front .hoverlayer .hovertext")
    page.locator("#front .gd").click(position=offset(page, x, y), **options)
    return number


def offset(page, x: float, y: float) -> dict:
    box = page.locator("#front .gd").bounding_box()
    return {"x": x - box["x"], "y": y - box["y"]}


def titles(page) -> list[str]:
    return page.locator("#compare .card .title").all_inner_texts()


def macs(page) -> int:
    """MACs the grid says, once the server has confirmed them."""
    page.wait_for_selector("#grid .figures[data-confirmed=true]")
    return int(page.locator("#grid .figures").get_attribute("data-macs"))


def cell(page, row: int, column: int) -> tuple[float, float]:
    """Middle of a grid cell, in page pixels (wide screens: components across, steps down)."""
    canvas = page.locator("#grid canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    rows = page.evaluate("document.querySelector('#grid [data-rows]').dataset.rows")
    left, top = 78, 34
    width, height = (box["width"] - left - 1) / 84, (box["height"] - top - 1) / int(rows)
    return box["x"] + left + (column + 0.5) * width, box["y"] + top + (row + 0.5) * height


def from_preset(page, name: str) -> int:
    page.locator("#grid .presets").select_option(name)
    page.wait_for_function("n => document.querySelector('#grid .name').textContent === n", arg=name)
    return macs(page)


def toast(page) -> str:
    page.wait_for_selector(".toast-body")
    text = page.locator(".toast-body").last.inner_text()
    page.locator(".toast-close").last.click()
    page.wait_for_selector(".toast-body", state="detached")
    return text


def upload(page, name: str, content: bytes) -> None:
    page.locator("#grid input[type=file]").set_input_files(
        {"name": name, "mimeType": "application/json", "buffer": content}
    )


def test_the_page_shows_a_full_front_and_two_pictures_before_any_click(visit, explorer):
    page = visit()
    frame = page.locator("#front .frame")
    assert int(frame.get_attribute("data-points")) == len(explorer.services.runs.first.points)
    assert int(frame.get_attribute("data-front")) > 3
    assert titles(page)[0] == "Uncached" and len(titles(page)) == 2
    assert page.errors == []


def test_a_click_on_a_point_shows_its_schedule_and_its_pictures(visit, explorer):
    page = visit()
    number = click_point(page, -2)
    evaluation = explorer.services.runs.first.points.evaluation(number)
    page.wait_for_function(
        "n => document.querySelector('#grid .name').textContent === n", arg=evaluation.name
    )
    page.wait_for_function(
        "n => [...document.querySelectorAll('#compare .card .title')].some(t => t.textContent === n)",
        arg=evaluation.name,
    )
    assert macs(page) == evaluation.macs
    page.wait_for_function("document.querySelectorAll('#compare .card[data-state=done]').length === 2")
    assert titles(page) == ["Uncached", evaluation.name]
    loaded = page.evaluate("[...document.querySelectorAll('#compare img.base')].map(i => i.naturalWidth)")
    assert loaded == [256, 256]


def test_the_grid_says_what_a_speed_up_is_predicted_from(visit, explorer, monkeypatch):
    explorer.services.calibration.close()  # what it would find is put in by hand
    monkeypatch.setattr(explorer.services.calibration, "found", None)
    page = visit()
    label = page.locator("#grid .figures .faster")
    from_preset(page, "steps-8")
    assert label.inner_text().endswith("× faster, predicted from MACs")
    rows_alone = {name: float(name == "row") for name in terms(explorer.services.schedules.layout)}
    found = ecad.Calibration(explorer.services.schedules.layout, {"batch": 1}, 20, Lowering(), rows_alone)
    monkeypatch.setattr(explorer.services.calibration, "found", found)
    from_preset(page, "steps-10")
    assert label.inner_text() == "2.00× faster, predicted from this device's calibration"


def test_a_painted_schedule_is_predicted_rendered_evaluated_and_appears_on_the_front(visit, explorer):
    page = visit()
    before = from_preset(page, "fora-2")
    page.mouse.move(*cell(page, 4, 10))
    page.mouse.down()
    for column in (20, 35, 50):
        page.mouse.move(*cell(page, 4, column), steps=3)
    dragging = page.locator("#grid .figures").get_attribute("data-macs")
    assert int(dragging) < before, "the prediction must follow the brush, before the button is up"
    page.mouse.up()
    assert macs(page) == int(dragging), "the browser's figure must be the library's"
    rows = page.evaluate("document.querySelector('#grid [data-rows]').dataset.bits").split(" ")
    assert rows[4][10:51] == "0" * 41 and rows[4][:10] == "1" * 10, "a drag leaves no gap and no excess"

    page.locator("#grid-render").click()
    page.wait_for_function(
        "[...document.querySelectorAll('#compare .card[data-state=done] .title')]"
        ".some(t => t.textContent.startsWith('edited from fora-2'))"
    )
    known = int(page.locator("#front .frame").get_attribute("data-edited"))
    page.locator("#evaluate").click()
    page.wait_for_function(
        "n => +document.querySelector('#front .frame').dataset.edited === n + 1", arg=known
    )
    page.wait_for_function("document.querySelector('#status').innerText.includes('on the front')")
    points = explorer.services.runs.first.points
    newest = points.evaluation(len(points) - 1)
    assert newest.origin == "hand" and newest.macs == macs(page)
    letters = page.evaluate("document.querySelector('#front .gd').data[6].text")
    assert letters[-1] in ("<b>A</b>", "<b>B</b>"), "the new point must be among the chosen"


def test_what_is_shipped_stays_as_it_is(visit, explorer, tmp_path):
    before = explorer.run.read_bytes()
    run = explorer.services.runs.writable(explorer.services.runs.first)
    assert explorer.run.read_bytes() == before
    assert run.path != explorer.run and run.path.exists()


def test_undo_takes_back_a_stroke_and_a_preset_and_redo_brings_them_again(visit):
    page = visit()
    first = from_preset(page, "fora-2")
    second = from_preset(page, "fora-3")
    x, y = cell(page, 1, 3)
    page.mouse.click(x, y)
    third = macs(page)
    assert third > second
    page.keyboard.press("Control+z")
    page.wait_for_function("n => +document.querySelector('#grid .figures').dataset.macs === n", arg=second)
    page.locator("#grid .undo").click()
    page.wait_for_function("n => +document.querySelector('#grid .figures').dataset.macs === n", arg=first)
    page.locator("#grid .redo").click()
    page.locator("#grid .redo").click()
    page.wait_for_function("n => +document.querySelector('#grid .figures').dataset.macs === n", arg=third)


def test_the_grid_can_be_painted_by_keyboard_and_says_what_it_does(visit):
    page = visit()
    before = from_preset(page, "fora-2")
    page.locator("#grid canvas").focus()
    status = page.locator("#grid .status")
    page.keyboard.press("ArrowRight")
    assert "step" in status.inner_text()
    page.keyboard.press("s")  # the whole step
    assert macs(page) != before
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Space")
    assert "computed" in status.inner_text() or "reused from step" in status.inner_text()


def test_the_first_step_cannot_be_switched_off(visit):
    page = visit()
    before = from_preset(page, "fora-2")
    page.mouse.click(*cell(page, 0, 5))
    assert "first step" in page.locator("#grid .status").inner_text()
    assert macs(page) == before


def test_zoom_and_the_drawing_itself_survive_live_updates(visit, explorer):
    page = visit()
    page.evaluate(
        "() => { const gd = document.querySelector('#front .gd'); gd.dataset.mark = 'same';"
        " return Plotly.relayout(gd, {'xaxis.range': [0.1, 0.5], 'yaxis.range': [0.8, 1.0]}); }"
    )
    services = explorer.services
    run = services.runs.writable(services.runs.first)
    layout, grid = services.generator.layout, services.generator.timesteps
    for rows in (11, 13, 14):
        count = int(page.locator("#front .frame").get_attribute("data-points"))
        schedule = ecad.heuristics.fewer_steps(layout, rows, spacing="late", grid=grid, every=4)
        macs = services.schedules.macs(schedule)
        run.store.add_schedule(schedule, macs=macs, origin="search", generation=1, name="child")
        for batch in range(2):
            scores = {name: np.array([0.97]) for name in ("ssim", "psnr", "flip")}
            run.store.add_scores(schedule.key, batch, scores, 0.1)
        page.evaluate("document.dispatchEvent(new CustomEvent('ecad-look'))")
        page.wait_for_function("n => +document.querySelector('#front .frame').dataset.points > n", arg=count)
    kept = page.evaluate(
        "(() => { const gd = document.querySelector('#front .gd');"
        " return [gd.dataset.mark, gd.layout.xaxis.range, gd.layout.yaxis.range]; })()"
    )
    assert kept == ["same", [0.1, 0.5], [0.8, 1.0]]


def test_two_visitors_are_served_and_see_the_same_search(visit, explorer):
    one, two = visit(), visit()
    click_point(one, 1)
    click_point(two, -2)
    for page in (one, two):
        page.wait_for_function("document.querySelectorAll('#compare .card[data-state=done]').length === 2")
    assert titles(one)[1] != titles(two)[1]
    one.locator("#search .start").click()
    for page in (one, two):
        page.wait_for_function(
            "['running', 'paused'].includes(document.querySelector('#search [data-status]').dataset.status)"
        )
    two.locator("#search .pause").click()
    for page in (one, two):
        page.wait_for_function("document.querySelector('#search [data-status]').dataset.status === 'paused'")
    one.locator("#search .stop").click()
    for page in (one, two):
        page.wait_for_function("document.querySelector('#search [data-status]').dataset.status === 'idle'")


@pytest.fixture
def gate(explorer, monkeypatch):
    """Holds every pass at its fourth row until opened: `reached` tells that one is there."""
    generator = explorer.services.renderer.generator
    real, reached, opened, jobs = generator.generate_timed, threading.Event(), threading.Event(), []

    def held(prompts, seeds, schedule=None, *, on_row=None):
        def row(number, rows):
            if number == 3:
                reached.set()
                opened.wait(120)
            on_row(number, rows)

        return real(prompts, seeds, schedule, on_row=row)

    submit = explorer.services.renderer.submit

    def recorded(*args, **kwargs):
        jobs.append(submit(*args, **kwargs))
        return jobs[-1]

    monkeypatch.setattr(generator, "generate_timed", held)
    monkeypatch.setattr(explorer.services.renderer, "submit", recorded)
    yield reached, opened, jobs
    opened.set()


def test_a_reload_in_the_middle_of_a_render_frees_the_worker(visit, explorer, gate):
    page = visit()
    reached, opened, jobs = gate
    jobs.clear()
    page.locator("#prompt textarea").fill("a picture nobody waits for")
    page.locator("#render").click()
    assert reached.wait(120)
    mine = list(jobs)
    page.reload(wait_until="domcontentloaded")
    for job in mine:
        for _ in range(600):
            if job.cancelled:
                break
            page.wait_for_timeout(100)
        assert job.cancelled, "the handler's end must cancel what it asked for"
    opened.set()
    for job in mine:
        assert job.wait(120)
    assert isinstance(mine[0].error, ecad.Cancelled), "it stopped between two rows"
    page.wait_for_selector("#grid [data-ready]", state="attached")
    page.locator("#prompt textarea").fill("the next picture")
    page.locator("#render").click()
    page.wait_for_function(
        "[...document.querySelectorAll('#compare .card[data-state=done] img.base')]"
        ".some(i => i.alt.startsWith('the next picture'))"
    )


def document(schedules, change=lambda d: None, name="fora-3") -> bytes:
    parsed = json.loads(schedules.presets[name].to_json())
    change(parsed)
    return json.dumps(parsed).encode()


def test_every_bad_upload_is_one_sentence_and_the_page_lives_on(visit, explorer, tmp_path):
    schedules = explorer.services.schedules
    page = visit()
    shown = page.locator("#grid .name").inner_text()
    twelve = ecad.heuristics.fora(ecad.layout("pixart-12"), 20, 3).to_json().encode()
    flux = ecad.heuristics.fora(ecad.layout("flux-dev"), 20, 3).to_json().encode()

    def lacks_7(parsed):
        del parsed["cache_schedule"]["schedule"]["007"]

    def rising(parsed):
        parsed["config"] = {**parsed.get("config", {}), "timesteps": list(range(10, 210, 10))}

    cases = {
        "junk.json": b"this is no JSON",
        "list.json": b"[1, 2]",
        "twelve.json": twelve,
        "flux.json": flux,
        "lacks-step-7.json": document(schedules, lacks_7),
        "rising.json": document(schedules, rising),
    }
    for name, content in cases.items():
        upload(page, name, content)
        text = toast(page)
        assert name in text, (name, text)
        assert "Traceback" not in text and len(text) < 400
    huge = tmp_path / "huge.json"
    huge.write_bytes(b" " * 50_000_000)
    page.locator("#grid input[type=file]").set_input_files(huge)
    assert "huge.json has 50 MB" in toast(page)
    assert page.locator("#grid .name").inner_text() == shown
    upload(page, "good.json", document(schedules, name="fora-4"))
    page.wait_for_function("document.querySelector('#grid .name').textContent === 'fora-4'")


@pytest.mark.parametrize(
    ("field", "text", "says"),
    [
        ("prompt", "", "empty"),
        ("prompt", "x" * 10_000, "10,000 characters"),
        ("seed", "seven", "whole number"),
    ],
)
def test_a_bad_prompt_or_seed_is_one_sentence(visit, field, text, says):
    page = visit()
    page.locator(f"#{field} textarea, #{field} input").first.fill(text)
    page.locator("#render").click()
    assert says in toast(page)
    page.locator("#random").click()  # and everything goes on
    page.wait_for_function("document.querySelector('#prompt textarea').value.length > 3")
    page.wait_for_function(
        "[...document.querySelectorAll('#compare .card[data-state=done] img.base')].some("
        "i => i.alt.startsWith(document.querySelector('#prompt textarea').value))"
    )


def test_identical_pictures_have_a_black_difference(visit):
    page = visit()
    page.locator("#compare .mode[data-mode=difference]").click()
    page.wait_for_selector("#compare .differs")
    page.evaluate(
        "() => { const pane = document.querySelector('#compare .differs'), [a, b] = pane.querySelectorAll('img');"
        " b.src = a.src; return b.decode(); }"
    )
    shot = page.locator("#compare .differs").screenshot()
    pixels = np.asarray(Image.open(BytesIO(shot)).convert("RGB"))
    assert pixels[20:-20, 20:-20].max() == 0


def test_the_wipe_shows_the_uncached_picture_left_of_its_line_also_when_zoomed(visit):
    page = visit()
    page.locator("#front .more").hover()  # away from the pictures
    page.locator("#compare .mode[data-mode=wipe]").click()
    page.locator("#compare .in").click()
    pane = page.locator("#compare .wipes")

    def at(percent: int) -> np.ndarray:
        page.locator("#compare .wipe-at").fill(str(percent))
        return np.asarray(Image.open(BytesIO(pane.screenshot())).convert("RGB")).astype(int)

    other, uncached, half = at(0), at(100), at(50)
    middle, inner = half.shape[1] // 2, slice(40, -20)  # below the label, clear of round corners
    assert (other != uncached).any()
    assert (half[inner, 20 : middle - 8] == uncached[inner, 20 : middle - 8]).all()
    assert (half[inner, middle + 8 : -20] == other[inner, middle + 8 : -20]).all()


def test_all_pictures_zoom_together(visit):
    page = visit()
    page.locator("#compare .in").click()
    page.locator("#compare .in").click()
    one, other = page.evaluate(
        "[...document.querySelectorAll('#compare img.base')].map(i => {"
        " const m = new DOMMatrix(getComputedStyle(i).transform), w = i.offsetWidth;"
        " return [m.a, m.e / w, m.f / w]; })"
    )
    assert one == pytest.approx(other, abs=1e-3) and one[0] > 2


def test_nothing_leaves_the_machine(visit):
    page = visit()
    click_point(page, 1)
    page.wait_for_timeout(1500)
    hosts = {urlparse(url).hostname for url in page.requests if not url.startswith(("data:", "blob:"))}
    assert hosts <= {"127.0.0.1", "localhost"}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_needs_no_sideways_scrolling(visit, scheme):
    page = visit(width=390, height=844, has_touch=True, is_mobile=True, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.errors == []


def test_a_tap_paints_a_cell_on_a_phone(visit):
    page = visit(width=390, height=844, has_touch=True, is_mobile=True)
    before = from_preset(page, "fora-2")
    canvas = page.locator("#grid canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    page.touchscreen.tap(box["x"] + 52 + 3.5 * (box["width"] - 53) / 20, box["y"] + 22 + 16 * 2.5)
    assert macs(page) != before


def test_programs_find_two_named_endpoints_and_no_plumbing(explorer):
    from gradio_client import Client

    client = Client(explorer.url, verbose=False)
    named = client.view_api(return_format="dict")["named_endpoints"]
    assert set(named) == {"/render", "/predict"}
    predicted = client.predict("fora-3", api_name="/predict")
    assert predicted["macs"] == explorer.services.schedules.macs(
        explorer.services.schedules.presets["fora-3"]
    )
    rendered = client.predict("a red house", 3, "fora-3", api_name="/render")
    assert rendered["seconds"] > 0 and rendered["image"].endswith(".png")


def test_a_step_can_be_left_out_and_brought_back(visit, explorer):
    page = visit()
    before = from_preset(page, "fora-2")
    page.locator("#grid canvas").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("x")
    assert macs(page) < before
    rows = page.locator("#grid [data-rows]")
    assert rows.get_attribute("data-rows") == "19"
    page.locator("#grid-render").click()
    page.wait_for_function(
        "[...document.querySelectorAll('#compare .card[data-state=done] .title')]"
        ".some(t => t.textContent.startsWith('edited from fora-2'))"
    )
    page.locator("#grid .undo").click()
    page.wait_for_selector("#grid [data-rows='20']", state="attached")
    assert macs(page) == before

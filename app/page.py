"""The layout of the page, and which event calls what."""

from __future__ import annotations

from html import escape

import gradio as gr

from .components.compare import Compare
from .components.pareto_plot import PLOTLY_JS, ParetoPlot
from .components.schedule_grid import ScheduleGrid
from .components.search_panel import SearchPanel
from .handlers import Handlers, code
from .services.build import Services
from .theme import CSS, theme

TITLE = "ECAD Explorer"
FIRST_SEED = 7
_PLUMBING = {"api_visibility": "private"}
_AT_ONCE = {"queue": False, "show_progress": "hidden", **_PLUMBING}
# Events that may fail go through the queue: of one that does not, Gradio shows no error to the visitor.
_SOON = {"show_progress": "hidden", "concurrency_limit": None, **_PLUMBING}
_RENDER = {
    "show_progress": "hidden",
    "trigger_mode": "multiple",
    "concurrency_id": "render",
    "concurrency_limit": 16,
    **_PLUMBING,
}


def create_app(services: Services) -> gr.Blocks:
    """The page over `services`; launch it with `launch_options()`."""
    handlers = Handlers(services)
    selection, grid_value = handlers.first()
    handlers.prepare(services.prompts.examples[0], FIRST_SEED, selection, grid_value)
    gr.set_static_paths(
        [PLOTLY_JS, services.renderer.cache.folder]
    )  # one file and the pictures, nothing else
    with gr.Blocks(title=TITLE, analytics_enabled=False) as page:
        gr.HTML(_header(services), elem_id="header")
        with gr.Row(equal_height=False):
            with gr.Column(scale=6, min_width=240):
                with gr.Column(min_width=0):
                    _head(
                        "The front", "Every point is a schedule. Click one; Shift adds it to the comparison."
                    )
                    plot = ParetoPlot(selection, poll=services.runs.poll, elem_id="front")
                with gr.Column(min_width=0):
                    _head("Search", "One search for all visitors; your renders go before it.")
                    panel = SearchPanel(elem_id="search")
                    with gr.Accordion("Search settings", open=False):
                        way = gr.Radio(
                            [("Go on with the run shown", "on"), ("Begin a new run", "new")],
                            value="on",
                            label="Start",
                        )
                        generations = gr.Slider(1, 200, value=10, step=1, label="Generations")
                        with gr.Row():
                            population = gr.Slider(
                                4, 96, value=24, step=1, label="Population (new run)", min_width=160
                            )
                            images = gr.Slider(
                                2, 64, value=12, step=1, label="Images per candidate (new run)", min_width=160
                            )
                        preset = gr.Radio(
                            ["default", "paper"],
                            value="default",
                            label="Operators (new run)",
                            info="paper: the original's crossover and mutation",
                        )
            with gr.Column(scale=5, min_width=240), gr.Column(min_width=0):
                _head("The pictures", "The same prompt and seed, uncached and under each chosen schedule.")
                prompt = gr.Textbox(
                    services.prompts.examples[0], label="Prompt", lines=1, max_lines=3, elem_id="prompt"
                )
                with gr.Row(elem_id="ask"):
                    seed = gr.Textbox(str(FIRST_SEED), label="Seed", min_width=80, scale=1, elem_id="seed")
                    random = gr.Button("Random", min_width=80, scale=1, elem_id="random")
                    render = gr.Button("Render", variant="primary", min_width=80, scale=1, elem_id="render")
                compare = Compare(elem_id="compare")
                examples = gr.Examples(
                    [[text] for text in services.prompts.examples], [prompt], label="Prompts to try"
                )
                if services.prompts.words():
                    with gr.Accordion("Words the model knows", open=False):
                        gr.Markdown(services.prompts.words())
        with gr.Column(min_width=0):
            _head(
                "The schedule", "What is computed at each step, what is reused from an earlier one. Paint it."
            )
            grid = ScheduleGrid(
                grid_value,
                model=services.schedules.describe(),
                predict=services.schedules.predict,
                preset=handlers.preset,
                export_schedule=services.schedules.export,
                elem_id="grid",
            )
            with gr.Row(elem_id="act"):
                grid_render = gr.Button(
                    "Render this schedule", variant="primary", min_width=160, scale=0, elem_id="grid-render"
                )
                evaluate = gr.Button(
                    "Evaluate and put it on the front", min_width=160, scale=0, elem_id="evaluate"
                )
                status = gr.HTML("", elem_classes="status-line", elem_id="status", min_width=160)
        with gr.Accordion("Use a schedule in your own code", open=False):
            gr.Code(
                code(services.generator.name),
                language="python",
                label="Download the schedule, then",
                interactive=False,
            )

        shown = {"inputs": [prompt, seed, plot, grid], "outputs": compare, **_RENDER}
        page.load(handlers.show, **shown)
        plot.pick(handlers.pick, [plot, grid], grid, trigger_mode="always_last", **_AT_ONCE).then(
            handlers.show, **shown
        )
        for event in (render.click, grid_render.click, prompt.submit, seed.submit):
            event(handlers.show, **shown)
        random.click(handlers.random, None, [prompt, seed], **_AT_ONCE).then(handlers.show, **shown)
        examples.load_input_event.then(handlers.show, **shown)
        grid.upload(handlers.upload, grid, grid, **_SOON)
        evaluate.click(
            handlers.evaluate,
            [plot, grid],
            [plot, grid, status],
            show_progress="hidden",
            concurrency_id="evaluate",
            concurrency_limit=8,
            **_PLUMBING,
        ).success(handlers.show, **shown)
        panel.start(handlers.start, [plot, way, generations, population, images, preset], plot, **_SOON)
        panel.pause(handlers.pause, None, None, **_SOON)
        panel.resume(handlers.resume, None, None, **_SOON)
        panel.stop(handlers.stop, None, None, **_SOON)
        gr.api(handlers.api_predict, api_name="predict", queue=False)
        gr.api(handlers.api_render, api_name="render", concurrency_id="render", concurrency_limit=16)
    return page


def launch_options() -> dict:
    """What Gradio 6 takes at launch instead of at construction."""
    return {
        "theme": theme(),
        "css": CSS,
        "footer_links": ["api", "gradio", "settings"],
        "max_file_size": "2mb",
        "show_error": True,
        "run_history": False,
        "ssr_mode": False,
    }


def _head(text: str, under: str) -> None:
    """The heading of a panel; the style sheet makes a panel of the column that begins with one."""
    gr.HTML(f"<h2>{escape(text)}</h2><p>{escape(under)}</p>", elem_classes="panel-title")


def _header(services: Services) -> str:
    generator = services.generator
    about = (
        f"{generator.name} · {len(generator.layout.blocks)} blocks × {generator.rows} steps · "
        f"{generator.height} px · {str(generator.device).upper()}, {generator.threads} thread"
        + ("" if generator.threads == 1 else "s")
    )
    return (
        f"<h1>{TITLE}</h1><p>A diffusion transformer computes every block at every step, though most of it"
        " hardly changes. A caching schedule says what to compute and what to reuse. See how much cheaper"
        " each schedule is, what its pictures look like, and paint your own.</p>"
        f'<p class="about">{escape(about)}</p>'
    )

"""Settings, folders and the front: small things that everything leans on."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from ecad.search import SearchError, SearchSettings, data_folder, find_run, run_names, run_path
from ecad.search.front import hypervolume, non_dominated


def test_settings_survive_json():
    for settings in (
        SearchSettings.of("default", prompts=["a", "b"], time_limit=3.5, plateau=4),
        SearchSettings.of("paper", prompts=["a"]),
    ):
        assert SearchSettings.from_json(settings.to_json()) == settings


def test_the_papers_preset_is_the_papers():
    paper = SearchSettings.of("paper", prompts=["a"])
    assert (paper.population, paper.crossover_rate, paper.child_rate, paper.bit_rate) == (72, 0.9, 0.05, None)
    assert len(paper.images()[0]) == 10 and len(set(paper.images()[1])) == 10


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"population": 1}, "`population` must be a whole number from 2"),
        ({"population": 8.0}, "`population`"),
        ({"generations": -1}, "`generations`"),
        ({"seed": -1}, "`seed`"),
        ({"seed": True}, "`seed`"),
        ({"child_rate": 1.5}, "`child_rate` must be a number from 0 to 1"),
        ({"bit_rate": float("nan")}, "`bit_rate`"),
        ({"time_limit": float("inf")}, "`time_limit`"),
        ({"preset": "best"}, "`preset` must be one of default, paper"),
        ({"prompts": []}, "`prompts`"),
        ({"prompts": ["a", " "]}, "`prompts`"),
        ({"prompts": "a red house"}, "`prompts`"),
        ({"reward": ""}, "`reward`"),
        ({"generations": None}, "a search needs an end"),
        ({"mutation": 3}, "no setting `mutation`"),
    ],
)
def test_a_wrong_setting_is_named_in_one_sentence(change, words):
    with pytest.raises(SearchError, match=words) as caught:
        SearchSettings.of(**{"prompts": ["a"], **change})
    assert "\n" not in str(caught.value)


def test_differences_name_what_differs():
    a = SearchSettings.of(prompts=["a"], seed=1)
    b = SearchSettings.of(prompts=["a"], seed=2, generations=5)
    assert a.differences(b, but=("generations",)) == {"seed": (1, 2)}


def test_every_image_has_its_own_noise():
    settings = SearchSettings.of(prompts=["a", "b"], seeds_per_prompt=2, noise_seed=10)
    assert settings.images() == (("a", "a", "b", "b"), (10, 11, 12, 13))


def test_the_front_is_what_a_slow_search_finds():
    rng = np.random.default_rng(0)
    for _ in range(30):
        points = [tuple(point) for point in rng.integers(0, 8, size=(20, 2)).astype(float)]
        front = {points[i] for i in non_dominated(points)}
        slow = {p for p in points if not any(q != p and q[0] <= p[0] and q[1] <= p[1] for q in points)}
        assert front == slow
        assert len(non_dominated(points)) == len(slow), "equal points are one"


def test_the_hypervolume_is_the_area_under_the_front():
    rng = np.random.default_rng(1)
    points = [tuple(point) for point in rng.integers(0, 12, size=(8, 2)).astype(float)]
    cells = itertools.product(range(10), range(10))  # unit squares below (10, 10)
    area = sum(any(p[0] <= x and p[1] <= y for p in points) for x, y in cells)
    assert hypervolume(points, (10, 10)) == area
    assert hypervolume([(11.0, 0.0)], (10, 10)) == 0


def test_a_point_without_quality_is_on_no_front():
    assert non_dominated([(1.0, float("nan")), (2.0, 0.5)]) == [1]


def test_the_data_folder_is_the_first_of_option_variable_and_platform(tmp_path, monkeypatch):
    monkeypatch.setenv("ECAD_DATA_DIR", str(tmp_path / "variable"))
    assert data_folder(tmp_path / "option") == tmp_path / "option"
    assert data_folder() == tmp_path / "variable" and (tmp_path / "variable").is_dir()
    monkeypatch.delenv("ECAD_DATA_DIR")
    monkeypatch.delenv("SPACE_ID", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert tmp_path in data_folder().parents


def test_a_data_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SearchError, match="cannot be made"):
        data_folder(tmp_path / "file" / "inside")


def test_a_run_is_found_by_name_or_path(tmp_path):
    path = run_path("try", tmp_path)
    path.write_bytes(b"")
    assert find_run("try", tmp_path) == path == find_run(str(path), tmp_path)
    assert run_names(tmp_path) == ["try"]
    with pytest.raises(SearchError, match="the runs here are try"):
        find_run("other", tmp_path)
    for name in ("../evil", "", "a/b", ".hidden", "x" * 200):
        with pytest.raises(SearchError):
            run_path(name, tmp_path)

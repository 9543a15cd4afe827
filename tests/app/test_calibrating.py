"""The page's calibration: made once when nobody wants the device, out of visitors' way, and found again."""

from __future__ import annotations

import threading

import pytest

import ecad
from app.services.calibrating import DeviceCalibration
from app.services.worker import DeviceWorker, Priority


@pytest.fixture
def worker():
    made = DeviceWorker()
    yield made
    made.close()


@pytest.fixture(scope="module")
def generator(tiny_pixart_path):
    return ecad.load_image_generator(str(tiny_pixart_path), threads=1)


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr("ecad.models.calibrating.SECONDS", 0.0)


def wait_for(service: DeviceCalibration) -> None:
    service._thread.join(300)
    assert not service._thread.is_alive()


def test_it_is_made_when_idle_and_found_after_a_restart(generator, worker, tmp_path):
    first = DeviceCalibration(generator, worker, tmp_path, idle=0)
    wait_for(first)
    assert first.found.batch == 1 and first.found.uncached_seconds > 0
    again = DeviceCalibration(generator, worker, tmp_path, idle=3600)
    assert again.found == first.found and not again._thread.is_alive()
    (kept,) = (tmp_path / "calibrations").iterdir()
    kept.write_text("{}")
    anew = DeviceCalibration(generator, worker, tmp_path, idle=0)
    wait_for(anew)
    assert anew.found is not None and anew.found == ecad.Calibration.load(kept), "a damaged file is replaced"


def test_visitors_go_before_it_between_any_two_passes(generator, worker, tmp_path):
    order, begun, asked = [], threading.Event(), threading.Event()
    real = generator.denoise_timed

    def denoise_timed(*args, **options):
        order.append("pass")
        if len(order) == 2:
            begun.set()
            asked.wait(60)
        return real(*args, **options)

    generator.denoise_timed = denoise_timed
    try:
        service = DeviceCalibration(generator, worker, tmp_path, idle=0)
        assert begun.wait(60)
        visitor = worker.submit(lambda job: order.append("visitor"), Priority.RENDER)
        asked.set()
        visitor.result()
        wait_for(service)
    finally:
        del generator.denoise_timed
    assert order[:3] == ["pass", "pass", "visitor"] and set(order[3:]) == {"pass"}
    assert service.found is not None


def test_before_the_device_was_idle_for_long_enough_it_is_not_made(generator, worker, tmp_path):
    service = DeviceCalibration(generator, worker, tmp_path, idle=3600)
    assert not service._thread.join(0.2) and service._thread.is_alive() and not worker.busy
    service.close()
    wait_for(service)
    assert service.found is None and not (tmp_path / "calibrations").exists()


def test_a_page_that_closes_does_not_wait_for_it(generator, worker, tmp_path):
    begun, release = threading.Event(), threading.Event()
    real, passes = generator.denoise_timed, []

    def denoise_timed(*args, **options):
        passes.append(1)
        begun.set()
        release.wait(60)
        return real(*args, **options)

    generator.denoise_timed = denoise_timed
    try:
        service = DeviceCalibration(generator, worker, tmp_path, idle=0)
        assert begun.wait(60)
        service.close()
        release.set()
        wait_for(service)
    finally:
        del generator.denoise_timed
    assert len(passes) == 1 and service.found is None and not (tmp_path / "calibrations").exists()

"""Connecting to Ray, with a Ray that is made up: nothing is started here."""

from __future__ import annotations

import os
import tempfile
from typing import Any

import pytest
import ray

from monosem.core.provenance import HANDED_OVER
from monosem.running.tune import cluster
from monosem.specs.errors import ClusterError


class MadeUpRay:
    """Fails to start so many times."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.started: list[dict[str, Any]] = []

    def init(self, **options: Any) -> None:
        self.started.append(options)
        if len(self.started) <= self.failures:
            raise ConnectionError("Could not find any running Ray instance.\nAnd much more.")


@pytest.fixture
def made_up_ray(monkeypatch):
    def make(failures: int) -> MadeUpRay:
        made_up = MadeUpRay(failures)
        monkeypatch.setattr(ray, "init", made_up.init)
        monkeypatch.setattr(ray, "shutdown", lambda: None)
        monkeypatch.setattr("signal.signal", lambda *handler: None)
        return made_up

    return make


def test_a_cluster_that_is_not_there_is_said_in_one_line(made_up_ray):
    made_up = made_up_ray(failures=9)
    with pytest.raises(ClusterError) as refused, cluster("auto", []):
        pass
    message = "no Ray cluster at auto: Could not find any running Ray instance."
    assert str(refused.value) == message and len(made_up.started) == 1


def test_a_ray_of_its_own_gets_a_second_chance_to_start(made_up_ray):
    made_up = made_up_ray(failures=1)
    with cluster(None, []):
        pass
    assert [options["address"] for options in made_up.started] == ["local", "local"]
    with pytest.raises(ClusterError, match="^no Ray cluster at this machine: "):
        made_up_ray(failures=2)
        with cluster(None, []):
            pass


def test_workers_get_the_code_of_monosem_and_of_the_user_but_not_what_is_installed(made_up_ray):
    import made_up as own

    made_up = made_up_ray(failures=0)
    with cluster(None, ["made_up", "json.tool", "numpy"]):
        pass
    import monosem

    (options,) = made_up.started
    assert options["runtime_env"]["py_modules"] == [monosem.__path__[0], own.__file__]


@pytest.mark.parametrize(("length", "is_moved"), [(10, False), (70, True)])
def test_sockets_lie_in_tmp_where_the_temporary_folder_is_too_long_for_them(
    made_up_ray, monkeypatch, length, is_moved
):
    monkeypatch.setenv("RAY_TMPDIR", "")
    monkeypatch.delenv("RAY_TMPDIR")
    monkeypatch.setattr(tempfile, "tempdir", "/" + length * "x")
    made_up_ray(failures=0)
    with cluster(None, []):
        assert os.environ.get("RAY_TMPDIR") == ("/tmp" if is_moved else None)


def test_workers_know_how_networks_are_compiled(made_up_ray, monkeypatch):
    monkeypatch.setenv("MONOSEM_COMPILE", "1")
    made_up = made_up_ray(failures=0)
    with cluster(None, []):
        pass
    told = made_up.started[0]["runtime_env"]["env_vars"]
    assert told["MONOSEM_COMPILE"] == "1" and set(told) == {"MONOSEM_COMPILE", HANDED_OVER}

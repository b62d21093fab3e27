"""No JSON whatever makes the API fail."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from anyio.from_thread import start_blocking_portal
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.api.workspaces.cloud import World

from bastide.domain.config import Config, NetworkConfig
from bastide.domain.creation import CreateWorkspace, UpdateWorkspace
from bastide.settings import Settings

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.sampled_from(["\ud800", "\x00", "1" * 400, "ws_00000000", "always"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
CONFIG = st.dictionaries(st.sampled_from(sorted(Config.model_fields)), JSON, max_size=4)


def bodies(fields: set[str]) -> st.SearchStrategy[Any]:
    """Objects of these fields, with or without a config; or anything at all."""
    plain = st.dictionaries(st.sampled_from(sorted(fields - {"wait_ready"})), JSON, max_size=4)
    mixed = st.builds(lambda body, config: {**body, "config": config}, plain, CONFIG)
    return plain | mixed | JSON


def test_hostile_bodies_are_answered(tmp_path: Path) -> None:
    """Every body gives 2xx, or a 4xx envelope that names a field; never a 500."""
    world = World(Settings(state_dir=tmp_path / "state", run_dir=tmp_path / "run"))
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(world.cloud()) as cloud,
    ):
        found = portal.call(cloud.create)

        def send(method: str, path: str, body: Any) -> None:
            answer = portal.call(
                partial(cloud.http.request, method, path, content=json.dumps(body))
            )
            assert answer.status_code < 500, answer.text
            assert answer.json()["success"] is (answer.status_code < 400)
            if answer.status_code == 422:
                assert answer.json()["details"]["field"]

        create = bodies({*CreateWorkspace.model_fields, "vcpus", "ram_mb", "disk_mb"})
        update = bodies(set(UpdateWorkspace.model_fields))
        network = bodies(set(NetworkConfig.model_fields))
        path = f"/workspace/{found['id']}"
        requests = (
            st.tuples(st.just("POST"), st.just("/workspace"), create)
            | st.tuples(st.just("PUT"), st.just(path), update)
            | st.tuples(st.just("PATCH"), st.just(f"{path}/network"), network)
            | st.tuples(st.just("POST"), st.just(f"{path}/start"), JSON)
            | st.tuples(st.just("GET"), st.text(min_size=1, max_size=60).map(_path), st.none())
        )

        @settings(max_examples=400)
        @given(request=requests)
        def send_each(request: tuple[str, str, Any]) -> None:
            send(*request)

        send_each()


def _path(reference: str) -> str:
    """A path with a hostile id."""
    return f"/workspace/{quote(reference.encode('utf-8', 'replace'), safe='')}"

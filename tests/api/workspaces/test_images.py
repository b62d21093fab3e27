"""Images of registries and of the catalogue, as a creation asks for them (spec 4.16)."""

from __future__ import annotations

import asyncio

from tests.api.workspaces.cloud import Cloud

from bastide.domain.machine import RegistryAuth

REFERENCE = "registry.example/team/app:1"


async def test_an_image_of_a_registry_is_pulled_first(cloud: Cloud) -> None:
    """The engine is asked with the credentials of the body, which nothing shows again."""
    cloud.engine.hold["create"] = asyncio.Event()
    body = {"image": REFERENCE, "image_auth": {"username": "me", "password": "very secret"}}
    answer = await cloud.http.post("/workspace", json=body)
    assert answer.status_code == 201
    assert "secret" not in answer.text
    found = answer.json()["workspace"]
    assert found["image"] == REFERENCE
    cloud.engine.hold["create"].set()
    ready = await cloud.until(found["id"], lambda each: each["ready"])
    assert "secret" not in str(ready)
    auth = RegistryAuth(username="me", password="very secret")
    assert cloud.engine.pulled == [(REFERENCE, auth)]
    assert cloud.engine.machines[found["id"]].spec.image == REFERENCE


async def test_progress_is_shown_while_it_is_pulled(cloud: Cloud) -> None:
    """`provisioning.message` tells how far it is."""
    cloud.engine.hold["create"] = asyncio.Event()
    cloud.engine.hold["pull"] = asyncio.Event()
    answer = await cloud.call("POST", "/workspace", {"image": REFERENCE}, status=201)
    number = answer["workspace"]["id"]
    shown = await cloud.until(
        number, lambda each: "looking it up" in each["provisioning"]["message"]
    )
    assert shown["provisioning"]["message"] == f"Image {REFERENCE}: looking it up"
    assert shown["provisioning"]["phase"] == "preparing"
    cloud.engine.hold["pull"].set()
    cloud.engine.hold["create"].set()
    await cloud.until(number, lambda each: each["ready"])


async def test_an_image_that_cannot_be_had_is_told(cloud: Cloud) -> None:
    """The code says why; a retry asks again, with the same credentials."""
    cloud.engine.pull_failures[REFERENCE] = "image_denied"
    body = {"image": REFERENCE, "image_auth": {"password": "token"}}
    answer = await cloud.http.post("/workspace", json={**body, "wait_ready": True})
    assert answer.status_code == 422
    assert answer.json()["code"] == "CREATE_FAILED"
    assert answer.json()["details"]["reason"] == "image_denied"
    number = answer.json()["details"]["workspace_id"]
    failed = await cloud.get(number)
    assert failed["provisioning"]["error"] == {
        "code": "image_denied", "message": f"{REFERENCE} cannot be had",
    }  # fmt: skip
    assert number not in cloud.engine.machines
    cloud.engine.pull_failures.clear()
    await cloud.call("POST", f"/workspace/{number}/provisioning/retry")
    await cloud.until(number, lambda each: each["ready"])
    assert cloud.engine.pulled[-1][1] == RegistryAuth(password="token")


async def test_what_can_be_no_image_is_refused_at_once(cloud: Cloud) -> None:
    """A slip in an id, a broken reference, credentials without a registry."""
    for body, field in (
        ({"image": "debian"}, "image"),
        ({"image": "UPPER/case"}, "image"),
        ({"image": "a/b@sha256:12"}, "image"),
        ({"image": "debian-12", "image_auth": {"password": "x"}}, "image_auth"),
        ({"image": REFERENCE, "image_auth": {"password": ""}}, "image_auth.password"),
    ):
        answer = await cloud.http.post("/workspace", json=body)
        assert answer.status_code == 422, body
        assert answer.json()["details"]["field"] == field
    assert not cloud.engine.pulled


async def test_an_image_of_the_catalogue_is_built_when_it_is_missing(cloud: Cloud) -> None:
    """The engine says that it has none yet; it is asked to have it, and the machine is made."""
    cloud.engine.missing.add("debian-12")
    await cloud.create(image="debian-12")
    assert cloud.engine.pulled == [("debian-12", None)]

"""The OpenAPI document: sound, complete, in step with router and docs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
from script.runtime_docs import METHODS, PAGE, render, resolve
from tests.agent.conftest import Agent

from bastide_agent.boot import Port
from bastide_agent.openapi.document import read_document
from bastide_agent.process import Places
from bastide_agent.runtime import Runtime


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Path, method and operation of every endpoint in the document."""
    for path, item in document["paths"].items():
        for method in METHODS:
            if method in item:
                yield path, method, item[method]


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    """Every object in the document."""
    if isinstance(value, dict):
        yield value
        for inner in value.values():
            yield from nodes(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from nodes(inner)


def test_every_route_is_documented_and_the_other_way_round() -> None:
    """What the router serves and what the document tells are the same."""
    router = Runtime(Port("runtime", {"port": 0}, 9990), Places({}, "/")).server.router
    served = {(method, path) for path, methods in router._literal.items() for method in methods}
    for pattern in router._patterns:
        path = "/" + "/".join(re.sub(r"^:(.*)", r"{\1}", part) for part in pattern.segments)
        served |= {(method, path) for method in pattern.methods}
    prefixes = {prefix + "/{path}" for prefix, _ in router._prefixes}
    document = read_document()
    told = {(method.upper(), path) for path, method, _ in operations(document)}
    assert {(method, path) for method, path in told if path not in prefixes} == served
    assert prefixes == {"/proxy/{path}"}
    assert {method for method, path in told if path in prefixes} == {
        "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS",
    }  # fmt: skip


def test_document_is_sound() -> None:
    """References lead somewhere, schemas are valid, names unique, errors have the envelope."""
    document = read_document()
    assert document["openapi"] == "3.1.0"
    for node in nodes(document):
        if isinstance(node.get("$ref"), str):
            resolve(document, node)
        if "schema" in node:
            schema = {**node["schema"], "components": document["components"]}
            jsonschema_rs.Draft202012Validator(schema)
    names = [call["operationId"] for _, _, call in operations(document)]
    assert len(names) == len(set(names))
    tags = {tag["name"] for tag in document["tags"]}
    used = {tag for _, _, call in operations(document) for tag in call["tags"]}
    assert used == tags
    for path, _, call in operations(document):
        assert "401" in call["responses"], path
        for status, answer in call["responses"].items():
            if status[0] in "45":
                schema = resolve(document, answer)["content"]["application/json"]["schema"]
                assert schema == {"$ref": "#/components/schemas/Error"}, path
        parameters = {value["name"] for value in call.get("parameters", [])}
        parameters |= {value["name"] for value in document["paths"][path].get("parameters", [])}
        assert set(re.findall(r"\{(\w+)\}", path)) <= parameters, path


def test_page_is_in_step() -> None:
    """`docs/runtime-api.md` is what `python -m script.runtime_docs` writes."""
    assert Path(PAGE).read_text(encoding="utf-8") == render(read_document())


def test_agent_serves_it(agent: Agent, http: httpx.Client) -> None:
    """With the token alone, whole."""
    assert http.get("/openapi.json").json() == read_document()
    assert httpx.get(f"http://127.0.0.1:{agent.runtime_port}/openapi.json").status_code == 401

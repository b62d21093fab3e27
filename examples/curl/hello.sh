#!/bin/sh
# The bare HTTP API. First: eval "$(bastide env)"
set -eu

api() { # api METHOD PATH [JSON]
    curl -sS --fail-with-body -X "$1" "$BASTIDE_API_URL$2" \
        -H "X-Client-ID: $BASTIDE_CLIENT_ID" -H "X-Client-Secret: $BASTIDE_CLIENT_SECRET" \
        -H 'Content-Type: application/json' ${3:+-d "$3"}
}
field() { python3 -c "import json, sys; print(json.load(sys.stdin)$1)"; }

id=$(api POST /workspace '{"image": "debian-12", "name": "curl example", "wait_ready": true,
                           "config": {"memory_mb": 256}}' | field "['workspace']['id']")
trap 'api DELETE "/workspace/$id" >/dev/null' EXIT
echo "$id is ready"

token=$(api POST "/workspace/$id/runtime-api-access/enable" | field "['token']")

curl -sS --fail-with-body "$BASTIDE_GATEWAY_URL/exec" -H "Authorization: Bearer $token" \
    -H 'Content-Type: application/json' -d '{"cmd": ["uname", "-sr"]}' | field "['stdout']"

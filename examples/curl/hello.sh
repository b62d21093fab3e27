#!/bin/sh
# The bare HTTP API. First: eval "$(bastide env)"
# Secrets go to curl on its standard input (-H @-): its arguments are seen by every local user.
set -eu

api() { # api METHOD PATH [JSON]
    curl -sS --fail-with-body -X "$1" "$BASTIDE_API_URL$2" -H @- ${3:+-d "$3"} <<END
X-Client-ID: $BASTIDE_CLIENT_ID
X-Client-Secret: $BASTIDE_CLIENT_SECRET
Content-Type: application/json
END
}
field() { python3 -c "import json, sys; print(json.load(sys.stdin)$1)"; }

id=$(api POST /workspace '{"image": "debian-12", "name": "curl example", "wait_ready": true,
                           "config": {"memory_mb": 256}}' | field "['workspace']['id']")
trap 'api DELETE "/workspace/$id" >/dev/null' EXIT
echo "$id is ready"

token=$(api POST "/workspace/$id/runtime-api-access/enable" | field "['token']")

curl -sS --fail-with-body "$BASTIDE_GATEWAY_URL/exec" -H 'Content-Type: application/json' \
    -H @- -d '{"cmd": ["uname", "-sr"]}' <<END | field "['stdout']"
Authorization: Bearer $token
END

// What every session needs of the running cloud: OBLIEN_BASE_URL, OBLIEN_GATEWAY_URL,
// OBLIEN_CLIENT_ID and OBLIEN_CLIENT_SECRET (`eval "$(bastide env)"`).

import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';

import Oblien, { NotFoundError } from 'oblien';

export const {
  OBLIEN_BASE_URL: baseUrl,
  OBLIEN_GATEWAY_URL: gatewayUrl,
  OBLIEN_CLIENT_ID: clientId,
  OBLIEN_CLIENT_SECRET: clientSecret,
} = process.env;
// What runs the workspaces (config.driver); absent: what the server chooses.
export const driver = process.env.OBLIEN_TEST_DRIVER || undefined;
const DEADLINE = 60_000;

/** The vendor's client, with the first admin key. */
export function connect() {
  for (const [name, value] of Object.entries({ baseUrl, gatewayUrl, clientId, clientSecret })) {
    assert.ok(value, `${name} is missing: eval "$(bastide env)" first`);
  }
  return new Oblien({ baseUrl, clientId, clientSecret });
}

/** Ask until the answer is true; fail after the deadline (milliseconds). */
export async function until(what, ask, deadline = DEADLINE) {
  const end = Date.now() + deadline;
  for (;;) {
    const answer = await ask();
    if (answer) return answer;
    assert.ok(Date.now() < end, `${what}: not within ${deadline / 1000} s`);
    await sleep(20);
  }
}

/** Whether a workspace is no longer there. */
export const gone = (client, id) =>
  client.workspaces.get(id).then(
    () => false,
    (error) => {
      if (error instanceof NotFoundError) return true;
      throw error;
    },
  );

/** Delete a workspace that may be deleted already. */
export async function remove(client, id) {
  await client.workspaces.delete(id).catch((error) => {
    if (!(error instanceof NotFoundError)) throw error;
  });
}

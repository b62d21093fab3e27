// A workspace with a kernel of its own, with the vendor's npm client as its users write it. Needs what
// session.mjs needs.

import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';

import { Runtime } from 'oblien';

import { connect, gatewayUrl, gone, remove, until } from './cloud.mjs';

const DEADLINE = 120_000;

describe('a microVM with the vendor client', { timeout: 600_000 }, () => {
  let client;
  let id;
  let token;

  before(async () => {
    client = connect();
    const made = await client.workspaces.create({
      image: 'debian-12', cpus: 1, memory_mb: 128, disk_size_mb: 256,
      config: { driver: 'microvm' },
    });
    id = made.id;
    await client.workspaces.network.update(id, { public_access: true });
    ({ token } = await client.workspaces.apiAccess.enable(id));
  });

  after(async () => {
    await remove(client, id);
  });

  /** What a shell prints in it; the gateway may need a moment after a start. */
  async function shell(line) {
    const runtime = new Runtime({ token, baseUrl: gatewayUrl });
    await until('the runtime answers', () => runtime.health(), DEADLINE);
    const done = await runtime.exec.run(['sh', '-c', line]);
    assert.equal(done.exit_code, 0, done.stderr);
    return done.stdout.trim();
  }

  const status = async () => (await client.workspaces.lifecycle.get(id)).status;

  it('has its own kernel and keeps files', async () => {
    assert.match(await shell('uname -r'), /-cloud-amd64$/);
    const runtime = new Runtime({ token, baseUrl: gatewayUrl });
    await runtime.files.write({ fullPath: '/root/note', content: 'kept' });
    assert.equal(await shell('cat /root/note'), 'kept');
  });

  it('pauses and resumes', async () => {
    await client.workspaces.pause(id);
    assert.equal(await status(), 'paused');
    await client.workspaces.resume(id);
    assert.equal(await status(), 'running');
  });

  it('goes back to a snapshot', async () => {
    await shell('sleep 1000 >/dev/null 2>&1 & echo $! > /root/pid');
    assert.equal((await client.workspaces.snapshots.create(id)).status, 'running');
    await shell('echo lost > /root/note; kill $(cat /root/pid)');
    assert.equal((await client.workspaces.snapshots.restore(id)).status, 'running');
    assert.equal(await shell('cat /root/note; kill -0 $(cat /root/pid)'), 'kept');
  });

  it('takes other sizes by a start', async () => {
    const done = await client.workspaces.resources.update(id, { memory_mb: 192, apply: true });
    assert.equal(done.relaunched, true);
    assert.equal(await status(), 'running');
    const kib = Number(await shell("awk '/MemTotal/ {print $2}' /proc/meminfo"));
    assert.ok(kib > 128 * 1024 && kib < 192 * 1024, `${kib}`);
  });

  it('stops, starts with its files, and is deleted', async () => {
    await client.workspaces.stop(id);
    assert.equal(await status(), 'stopped');
    await client.workspaces.start(id);
    assert.equal(await shell('cat /root/note'), 'kept');
    await client.workspaces.delete(id);
    await until('it is gone', () => gone(client, id), DEADLINE);
  });
});

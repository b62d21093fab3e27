// Snapshots with the vendor's npm client as its users write them. Needs what session.mjs needs.

import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';

import { ConflictError, NotFoundError } from 'oblien';

import { connect, driver, remove } from './cloud.mjs';

describe('snapshots with the vendor client', { timeout: 600_000 }, () => {
  let client;
  let id;

  before(async () => {
    client = connect();
    const made = await client.workspaces.create({
      image: 'debian-12', cpus: 1, memory_mb: 256, disk_size_mb: 256,
      config: { driver: driver },
    });
    id = made.id;
  });

  after(async () => {
    await remove(client, id);
  });

  it('has nothing to restore at first', async () => {
    await assert.rejects(client.workspaces.snapshots.restore(id), NotFoundError);
  });

  it('takes one and goes on, or is paused or stopped', async () => {
    const { snapshot_supported: able } = await client.workspaces.lifecycle.get(id);
    assert.equal(able, true);
    const taken = await client.workspaces.snapshots.create(id);
    assert.equal(taken.success, true);
    assert.equal(taken.status, 'running');
    assert.ok(taken.snapshot.size_bytes > 0);
    assert.ok(Date.parse(taken.snapshot.created_at));
    assert.equal((await client.workspaces.snapshots.create(id, { after: 'paused' })).status, 'paused');
    assert.equal((await client.workspaces.snapshots.create(id, { after: 'stop' })).status, 'stopped');
    await assert.rejects(client.workspaces.snapshots.create(id), ConflictError);
  });

  it('goes back to it', async () => {
    const back = await client.workspaces.snapshots.restore(id);
    assert.equal(back.status, 'running');
    assert.equal((await client.workspaces.get(id)).ready, true);
  });
});

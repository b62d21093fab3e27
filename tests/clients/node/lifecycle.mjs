// How workspaces live, with the vendor's npm client as its users write it: power, leases, sizes,
// quota. Needs what session.mjs needs.

import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';

import { OblienError, ValidationError } from 'oblien';

import { connect, driver, gone, remove, until } from './cloud.mjs';

describe('the lifecycle with the vendor client', { timeout: 600_000 }, () => {
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

  const status = async () => (await client.workspaces.lifecycle.get(id)).status;

  it('shows every field of the lifecycle', async () => {
    const found = await client.workspaces.lifecycle.get(id);
    assert.equal(found.mode, 'permanent');
    assert.equal(found.status, 'running');
    assert.equal(found.restart_policy, 'always');
    assert.equal(found.max_restarts, 0);
    assert.deepEqual(found.restart_info, {});
    for (const name of ['ttl', 'ttl_action', 'ttl_expires_at', 'expires_at', 'idle']) {
      assert.equal(found[name], null, name);
    }
    assert.equal(found.remove_on_exit, false);
    assert.equal(typeof found.uptime, 'number');
    assert.ok(Date.parse(found.created_at));
    assert.equal(found.pause_supported, true);
    assert.equal(typeof found.snapshot_supported, 'boolean');
    if (!found.snapshot_supported) assert.ok(found.snapshot_unavailable_reason);
  });

  it('pauses and resumes', async () => {
    await client.workspaces.pause(id);
    assert.equal(await status(), 'paused');
    await assert.rejects(client.workspaces.start(id), (error) => error.status === 409);
    await client.workspaces.resume(id);
    assert.equal(await status(), 'running');
  });

  it('stops, starts by force, restarts', async () => {
    await client.workspaces.stop(id);
    await client.workspaces.stop(id);
    assert.equal(await status(), 'stopped');
    await client.workspaces.start(id, { force: true });
    await client.workspaces.start(id, { force: true });
    await client.workspaces.restart(id);
    assert.equal(await status(), 'running');
  });

  it('makes it temporary, renews, and makes it permanent', async () => {
    const { lifecycle } = client.workspaces;
    await lifecycle.makeTemporary(id, { ttl: '1h', ttl_action: 'stop', remove_on_exit: false });
    let found = await lifecycle.get(id);
    assert.equal(found.mode, 'temporary');
    assert.equal(found.ttl, '1h');
    assert.equal(found.ttl_action, 'stop');
    assert.equal(found.restart_policy, 'no');
    const first = Date.parse(found.expires_at);
    await lifecycle.updateTtl(id, { ttl: '2h', ttl_action: 'remove' });
    await lifecycle.ping(id, { ttl_seconds: 7200 });
    await lifecycle.ping(id);
    found = await lifecycle.get(id);
    assert.equal(found.ttl_action, 'remove');
    assert.ok(Date.parse(found.expires_at) - first > 3_500_000);
    await assert.rejects(
      lifecycle.makeTemporary(id, { ttl: '1h', ttl_action: 'suspend' }),
      (error) => error instanceof ValidationError && error.details.field === 'ttl_action',
    );
    await lifecycle.makePermanent(id, { restart_policy: 'on-failure' });
    found = await lifecycle.get(id);
    assert.equal(found.mode, 'permanent');
    assert.equal(found.restart_policy, 'on-failure');
    assert.equal(found.ttl, null);
    await lifecycle.setIdle(id, null);
    await assert.rejects(lifecycle.setIdle(id, { suspend_after: 300 }), ValidationError);
  });

  it('expires', async () => {
    await client.workspaces.lifecycle.makeTemporary(id, { ttl: 1 });
    await until('it stops', async () => (await status()) === 'stopped');
    await assert.rejects(client.workspaces.lifecycle.ping(id), (error) => error.status === 409);
    await client.workspaces.lifecycle.makePermanent(id);
    await client.workspaces.start(id);
  });

  it('changes sizes', async () => {
    const { resources } = client.workspaces;
    const hot = await resources.update(id, { cpus: 0.5, memory_mb: 384, apply: true });
    assert.deepEqual(hot.updated, { cpus: 0.5, memory_mb: 384 });
    assert.equal(hot.relaunched, driver === 'microvm');
    const grown = await resources.patch(id, { writable_size_mb: 512, apply: true });
    assert.equal(grown.relaunched, true);
    const { resources: sizes } = await resources.get(id);
    assert.equal(sizes.memory_mb, 384);
    assert.equal(sizes.writable_size_mb, 512);
    await assert.rejects(resources.update(id, { disk_size_mb: 128 }), ValidationError);
  });

  it('tells details, quota and an estimate', async () => {
    const details = await client.workspaces.getDetails(id);
    assert.equal(details.workspace.id, id);
    assert.equal(details.lifecycle.status, 'running');
    const quota = await client.workspaces.getQuota();
    assert.equal(quota.canCreate, true);
    assert.ok(quota.pool_usage.count >= 1);
    const { estimate, period } = await client.workspaces.getEstimate({ cpu: 1, ram_mb: 1024 });
    assert.ok(estimate.min < estimate.avg && estimate.avg < estimate.max);
    assert.equal(period, 'month');
  });

  it('destroys the machine and keeps the record', async () => {
    await client.workspaces.lifecycle.destroy(id);
    assert.equal((await client.workspaces.get(id)).info.status, 'stopped');
    await client.workspaces.start(id);
    assert.equal(await status(), 'running');
  });

  it('removes what is removed on exit', async () => {
    await client.workspaces.lifecycle.makeTemporary(id, { ttl: '1h', remove_on_exit: true });
    await client.workspaces.stop(id).catch((error) => {
      if (!(error instanceof OblienError)) throw error;
    });
    await until('it is gone', () => gone(client, id));
  });
});

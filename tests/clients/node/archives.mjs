// Archives with the vendor's npm client as its users write them. Needs what session.mjs needs.

import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';

import { ConflictError, NotFoundError, ValidationError } from 'oblien';

import { connect, remove } from './cloud.mjs';

describe('archives with the vendor client', { timeout: 600_000 }, () => {
  let client;
  let archives;
  let id;

  before(async () => {
    client = connect();
    archives = client.workspaces.snapshots;
    const made = await client.workspaces.create({
      image: 'debian-12', cpus: 1, memory_mb: 256, disk_size_mb: 256,
    });
    id = made.id;
  });

  after(async () => {
    await archives.deleteAllArchives(id, { delete_files: true });
    await remove(client, id);
  });

  it('has none at first, and none to delete', async () => {
    assert.deepEqual(await archives.listArchives(id), []);
    assert.equal((await archives.deleteAllArchives(id)).success, true);
    await assert.rejects(archives.getArchive(id, '1'), NotFoundError);
  });

  it('makes one of chosen paths', async () => {
    const made = await archives.createArchive(id, {
      version: 'v1', format: 'tar', vm_paths: ['/etc'], exclude_vm_paths: ['/etc/ssl'],
    });
    assert.equal(made.success, true);
    assert.equal(made.version, 'v1');
    assert.ok(made.size_bytes > 0);
    await assert.rejects(archives.createArchive(id, { version: 'v1' }), ConflictError);
    await assert.rejects(archives.createArchive(id, { vm_paths: ['/none'] }), ValidationError);
  });

  it('numbers the next ones, lists and gets them', async () => {
    const made = await archives.createArchive(id, { vm_paths: ['/etc/hostname', '/root'] });
    const listed = (await archives.listArchives(id)).filter(({ status }) => status === 'ready');
    assert.deepEqual(listed.map(({ version }) => version), [made.version, 'v1']);
    const found = await archives.getArchive(id, 'v1');
    assert.equal(found.version, 'v1');
    assert.ok(Date.parse(found.created_at));
    assert.equal(found.size, found.size_bytes);
    assert.match(found.sha256, /^[0-9a-f]{64}$/);
  });

  it('deletes one with its file, and the rest', async () => {
    assert.equal((await archives.deleteArchive(id, 'v1', { delete_file: true })).success, true);
    await assert.rejects(archives.getArchive(id, 'v1'), NotFoundError);
    await archives.deleteAllArchives(id, { delete_files: true });
    assert.deepEqual(await archives.listArchives(id), []);
  });
});

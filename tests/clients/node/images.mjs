// Images with the vendor's npm client as its users write them. Needs what session.mjs needs, and
// OBLIEN_TEST_IMAGE: a reference in a registry the server may ask, of an image with /etc/motto.

import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';

import { Runtime } from 'oblien';

import { connect, gatewayUrl, remove } from './cloud.mjs';

const { OBLIEN_TEST_IMAGE: reference } = process.env;

describe('images with the vendor client', { timeout: 600_000 }, () => {
  let client;
  const made = [];

  before(() => {
    client = connect();
  });

  after(async () => {
    for (const id of made) {
      await remove(client, id);
    }
  });

  it('searches the catalogue', async () => {
    const { images, categories } = await client.workspaces.images.list({ search: 'javascript' });
    assert.deepEqual(images.map((one) => one.id), ['node-20']);
    assert.equal(images[0].base_os.distribution, 'debian');
    assert.equal(images[0].vm_defaults.memory_mb, 1024);
    assert.ok(categories.some((one) => one.id === 'runtime'));
    const runtimes = await client.workspaces.images.list({ category: 'runtime' });
    assert.deepEqual(runtimes.images.map((one) => one.id).sort(), ['node-20', 'python-3.11']);
  });

  it('makes a workspace of an image in a registry', async () => {
    const workspace = await client.workspaces.create({
      image: reference, cpus: 1, memory_mb: 128, disk_size_mb: 64,
    });
    made.push(workspace.id);
    assert.equal(workspace.image, reference);
    assert.equal(workspace.ready, true);
    const { token } = await client.workspaces.apiAccess.enable(workspace.id);
    const runtime = new Runtime({ token, baseUrl: gatewayUrl });
    const done = await runtime.exec.run(['cat', '/etc/motto']);
    assert.equal(done.stdout, 'from the registry\n');
  });

  it('is told why an image cannot be had', async () => {
    await assert.rejects(
      client.workspaces.create({ image: `${reference}-not-there`, memory_mb: 128, name: 'no image' }),
      (error) => {
        assert.equal(error.status, 422);
        assert.match(error.message, /no such image/);
        return true;
      },
    );
    const { workspaces } = await client.workspaces.list();
    const left = workspaces.find((one) => one.name === 'no image');
    made.push(left.id);
    assert.equal(left.provisioning.state, 'failed');
    assert.equal(left.provisioning.error.code, 'image_not_found');
  });
});

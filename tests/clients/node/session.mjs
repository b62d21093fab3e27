// A whole session of the vendor's npm client against a running cloud. Only its base URLs differ
// from what its users write. Needs OBLIEN_BASE_URL, OBLIEN_GATEWAY_URL, OBLIEN_CLIENT_ID and
// OBLIEN_CLIENT_SECRET (`eval "$(bastide env)"`); run with `npm ci && npm test`.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';

import Oblien, { AuthenticationError, NotFoundError, OblienError, Runtime, ValidationError } from 'oblien';

import { baseUrl, clientId, connect, driver, gatewayUrl, gone, remove, until } from './cloud.mjs';

const IMAGE = process.env.OBLIEN_TEST_IMAGE ?? 'debian-12';
const label = `vendor-${randomBytes(4).toString('hex')}`;

/** A runtime on this cloud's gateway, acquired as the client's own `runtime()` does. */
async function runtimeOf(client, id) {
  const access = client.workspaces.apiAccess;
  const { enabled } = await access.status(id);
  const { token } = enabled ? await access.getToken(id) : await access.enable(id);
  assert.match(token, /^[\w-]+\.[\w-]+\.[\w-]+$/);
  const runtime = new Runtime({ token, baseUrl: gatewayUrl });
  await until('the runtime answers through the gateway', () => runtime.health());
  return runtime;
}

const text = (data) => Buffer.from(data, 'base64').toString();

describe('the vendor client', { timeout: 600_000 }, () => {
  let client;
  let workspace;
  let runtime;

  before(() => {
    client = connect();
  });

  after(async () => {
    if (!workspace) return;
    await remove(client, workspace.id);
  });

  it('is refused with a wrong secret', async () => {
    const stranger = new Oblien({ baseUrl, clientId, clientSecret: 'sk_wrong' });
    await assert.rejects(stranger.workspaces.list(), (error) => {
      assert.ok(error instanceof AuthenticationError);
      assert.equal(error.status, 401);
      assert.ok(error.requestId, 'errors carry a request id');
      return true;
    });
  });

  it('lists the images', async () => {
    const { images } = await client.workspaces.images.list();
    const image = images.find((one) => one.id === IMAGE);
    assert.ok(image, `${IMAGE} is among ${images.map((one) => one.id).join(', ')}`);
    assert.equal(typeof image.label, 'string');
    assert.equal(image.category, 'os');
  });

  it('is told which field is wrong', async () => {
    await assert.rejects(
      client.workspaces.create({ name: label, image: IMAGE, cpus: 4000, wait_ready: false }),
      (error) => {
        assert.ok(error instanceof ValidationError, `${error}`);
        assert.match(error.details.field, /cpus/);
        return true;
      },
    );
    await assert.rejects(
      client.workspaces.create({ name: label, image: 'no-such-image', wait_ready: false }),
      (error) => error instanceof OblienError && error.status >= 400 && error.status < 500,
    );
  });

  it('creates a workspace and waits until it is ready', async () => {
    workspace = await client.workspaces.create({
      name: label,
      image: IMAGE,
      mode: 'permanent',
      cpus: 1,
      memory_mb: 256,
      disk_size_mb: 512,
      config: { driver, env: [{ key: 'GREETING', value: 'hello from env' }] },
      idempotency_key: label,
    });
    assert.match(workspace.id, /^ws_[0-9a-f]{8,}$/);
    assert.equal(workspace.ready, true);
    assert.equal(workspace.name, label);
    assert.equal(workspace.provisioning?.state ?? 'ready', 'ready');
    assert.equal(workspace.resources.memory_mb, 256);
  });

  it('creates no second one for the same idempotency key', async () => {
    const again = await client.workspaces.create({
      name: label,
      image: IMAGE,
      mode: 'permanent',
      cpus: 1,
      memory_mb: 256,
      disk_size_mb: 512,
      config: { driver, env: [{ key: 'GREETING', value: 'hello from env' }] },
      idempotency_key: label,
    });
    assert.equal(again.id, workspace.id);
  });

  it('gets, lists and updates it', async () => {
    const got = await client.workspaces.get(workspace.id);
    assert.equal(got.id, workspace.id);
    assert.equal(got.info.is_running, true);
    assert.equal(got.mode, 'permanent');

    const page = await client.workspaces.list({ page: 1, limit: 100 });
    assert.equal(page.page, 1);
    assert.equal(page.limit, 100);
    assert.ok(page.total >= 1);
    assert.ok(page.workspaces.some((one) => one.id === workspace.id));

    const renamed = await client.workspaces.update(workspace.id, { name: `${label} renamed`, slug: label });
    assert.equal(renamed.name, `${label} renamed`);
    assert.equal(renamed.slug, label);
    assert.equal((await client.workspaces.get(label)).id, workspace.id, 'a slug serves as an id');
  });

  it('reads the lifecycle', async () => {
    const lifecycle = await client.workspaces.lifecycle.get(workspace.id);
    assert.equal(lifecycle.mode, 'permanent');
    assert.equal(lifecycle.status, 'running');
    assert.equal(typeof lifecycle.uptime, 'number');
    assert.ok(lifecycle.restart_policy);
  });

  it('opens the runtime', async () => {
    await client.workspaces.network.update(workspace.id, { public_access: true });
    const enabled = await client.workspaces.apiAccess.enable(workspace.id);
    assert.equal(enabled.enabled, true);
    assert.ok((await client.workspaces.runtime(workspace.id)) instanceof Runtime);
    runtime = await runtimeOf(client, workspace.id);

    const raw = await client.workspaces.apiAccess.rawToken(workspace.id);
    assert.match(raw.token, /^[0-9a-f]{32,}$/);
    assert.match(raw.ip, /^10\./);
    assert.equal(raw.port, 9990);
    // each kind of credential is good for its own door only
    const wrong = new Runtime({ token: raw.token, baseUrl: gatewayUrl });
    await assert.rejects(wrong.exec.run(['true']), AuthenticationError);
  });

  it('says what it is', async () => {
    const info = await runtime.info();
    assert.equal(info.os, 'linux');
    assert.ok(info.cpus >= 1);
    assert.equal(info.home, '/root');
    const targets = await runtime.targets();
    assert.ok(targets.targets.some((target) => target.available));
    assert.ok(targets.default_target);
  });

  it('runs commands', async () => {
    const result = await runtime.exec.run(['sh', '-c', 'echo "$GREETING"; echo problem >&2; exit 3']);
    assert.equal(result.stdout, 'hello from env\n');
    assert.equal(result.stderr, 'problem\n');
    assert.equal(result.exit_code, 3);
    assert.equal(result.status, 'exited');
    const release = await runtime.exec.run(['cat', '/etc/os-release']);
    if (IMAGE.startsWith('debian')) assert.match(release.stdout, /ID=debian/);
  });

  it('streams the output of commands', async () => {
    const events = [];
    for await (const event of runtime.exec.stream(['sh', '-c', 'echo one; echo two >&2; exit 7'])) {
      events.push(event);
    }
    assert.equal(events[0].event, 'task_id');
    const joined = (name) => events.filter((one) => one.event === name).map((one) => text(one.data)).join('');
    assert.equal(joined('stdout'), 'one\n');
    assert.equal(joined('stderr'), 'two\n');
    assert.equal(events.at(-1).event, 'exit');
    assert.equal(events.at(-1).exit_code, 7);
  });

  it('talks to a running command', async () => {
    let task;
    let output = '';
    for await (const event of runtime.exec.stream(['cat'])) {
      if (event.event === 'task_id') {
        task = event.task_id;
        assert.ok((await runtime.exec.list()).some((one) => one.id === task));
        assert.equal((await runtime.exec.get(task)).status, 'running');
        assert.equal((await runtime.exec.input(task, 'ping\n')).bytes_written, 5);
      }
      if (event.event === 'stdout') {
        output += text(event.data);
        if (output.endsWith('\n')) await runtime.exec.kill(task);
      }
      if (event.event === 'exit') break;
    }
    assert.equal(output, 'ping\n');
  });

  it('keeps files', async () => {
    await runtime.files.mkdir({ path: '/root/session/deep' });
    const written = await runtime.files.write({ fullPath: '/root/session/note.txt', content: 'grüße\nzwei\n' });
    assert.equal(written.size, Buffer.byteLength('grüße\nzwei\n'));
    await runtime.files.write({ fullPath: '/root/session/note.txt', content: 'drei\n', append: true });
    await runtime.files.write({ fullPath: '/root/session/made/up.sh', content: '#!/bin/sh\n', createDirs: true, mode: '0755' });

    const whole = await runtime.files.read({ filePath: '/root/session/note.txt' });
    assert.equal(whole.content, 'grüße\nzwei\ndrei\n');
    const part = await runtime.files.read({ filePath: '/root/session/note.txt', startLine: 2, endLine: 2 });
    assert.match(part.content, /^zwei\n?$/);
    assert.equal(part.start_line, 2);

    const stat = await runtime.files.stat({ path: '/root/session/made/up.sh' });
    assert.equal(stat.type, 'file');
    assert.equal(stat.permissions, '0755');
    assert.equal(stat.size, 10);

    const { entries } = await runtime.files.list({ dirPath: '/root/session' });
    assert.deepEqual(entries.map((entry) => [entry.name, entry.type]).sort(), [
      ['deep', 'directory'],
      ['made', 'directory'],
      ['note.txt', 'file'],
    ]);

    await runtime.files.delete({ path: '/root/session/made' });
    await assert.rejects(runtime.files.stat({ path: '/root/session/made' }), NotFoundError);
    await assert.rejects(runtime.files.list({ dirPath: '/root/no-such-directory' }), NotFoundError);
    await assert.rejects(runtime.files.delete({ path: '/etc' }), (error) => error.status === 403);
  });

  it('loses its old tokens when they are rotated', async () => {
    const old = runtime;
    const { token } = await client.workspaces.apiAccess.rotateToken(workspace.id);
    runtime = new Runtime({ token, baseUrl: gatewayUrl });
    await until('the new token opens the runtime', () => runtime.health());
    await assert.rejects(old.exec.run(['true']), AuthenticationError);
  });

  it('is entered by SSH', async () => {
    const ssh = client.workspaces.ssh;
    const off = await ssh.status(workspace.id);
    assert.equal(off.ssh_enabled, false);
    assert.equal(off.connection, null);

    const enabled = await ssh.enable(workspace.id);
    assert.equal(enabled.ssh_enabled, true);
    assert.match(enabled.ssh_password, /^\w{12}$/);
    const { connection } = await ssh.status(workspace.id);
    assert.equal(connection.user, 'root');
    assert.equal(connection.host, enabled.ssh_id);
    // The vendor's command line runs nothing else, and splits it as is done here.
    const [program, ...words] = connection.command.split(/\s+/).filter(Boolean);
    assert.equal(program, 'ssh');

    await ssh.setPassword(workspace.id, { password: 'a password of my own', user: 'root' });
    assert.equal((await ssh.status(workspace.id)).ssh_password_changed, true);
    const home = mkdtempSync(join(tmpdir(), 'vendor-ssh-'));
    try {
      const key = join(home, 'key');
      execFileSync('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', key]);
      await ssh.setKey(workspace.id, { public_key: readFileSync(`${key}.pub`, 'utf8').trim() });
      assert.equal((await ssh.status(workspace.id)).ssh_key_set, true);
      const config = join(home, 'config');
      writeFileSync(config, `IdentityFile ${key}\nUserKnownHostsFile ${home}/known\nStrictHostKeyChecking accept-new\nBatchMode yes\n`);
      const said = execFileSync(program, ['-F', config, ...words, 'echo "$GREETING"'], { encoding: 'utf8' });
      assert.equal(said, 'hello from env\n');
    } finally {
      rmSync(home, { recursive: true });
    }
    await ssh.disable(workspace.id);
    assert.equal((await ssh.status(workspace.id)).ssh_enabled, false);
  });

  it('stops', async () => {
    await client.workspaces.stop(workspace.id);
    const got = await client.workspaces.get(workspace.id);
    assert.equal(got.info.status, 'stopped');
    assert.equal(got.info.is_running, false);
    assert.equal((await client.workspaces.lifecycle.get(workspace.id)).status, 'stopped');
    await assert.rejects(runtime.exec.run(['true']), (error) => {
      assert.equal(error.status, 503);
      assert.equal(error.code, 'VM_UNAVAILABLE');
      return true;
    });
    await client.workspaces.stop(workspace.id); // stopping again is no error
  });

  it('starts again with its files', async () => {
    await client.workspaces.start(workspace.id);
    assert.equal((await client.workspaces.get(workspace.id)).info.is_running, true);
    runtime = await runtimeOf(client, workspace.id);
    const note = await runtime.files.read({ filePath: '/root/session/note.txt' });
    assert.equal(note.content, 'grüße\nzwei\ndrei\n');
    assert.equal((await runtime.exec.run(['printenv', 'GREETING'])).stdout, 'hello from env\n');
  });

  it('closes the runtime', async () => {
    await client.workspaces.apiAccess.disable(workspace.id);
    await assert.rejects(runtime.exec.run(['true']), (error) => error.status === 403 || error.status === 401);
    assert.equal((await client.workspaces.apiAccess.status(workspace.id)).enabled, false);
  });

  it('is deleted', async () => {
    await client.workspaces.delete(workspace.id);
    await until('the workspace is gone', () => gone(client, workspace.id));
    await assert.rejects(runtime.exec.run(['true']), (error) => [401, 403, 404].includes(error.status));
    const { workspaces } = await client.workspaces.list({ limit: 100 });
    assert.ok(!workspaces.some((one) => one.id === workspace.id));
  });
});

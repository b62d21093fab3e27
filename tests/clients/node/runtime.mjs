// The whole runtime API by the vendor's npm client: files, search, exec, terminal, watcher, ws,
// transfer, proxy, info, targets, health, desktop. Same environment as session.mjs.

import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { after, before, describe, it } from 'node:test';
import { gunzipSync } from 'node:zlib';

import { NotFoundError, OblienError, RateLimitError, Runtime } from 'oblien';
import { WebSocket } from 'ws';

import { connect, gatewayUrl, until } from './cloud.mjs';

// Node 22 has one; with Node 20 this is what one does.
globalThis.WebSocket ??= WebSocket;

const APP = await readFile(new URL('../../cloud/app.py', import.meta.url), 'utf8');
const text = (data) => Buffer.from(data, 'base64').toString();

/** A ws() of a runtime that remembers what it got. */
async function listen(runtime, options) {
  const got = { output: {}, exits: {}, events: [], closed: [] };
  const socket = runtime
    .ws(options)
    .onTerminalOutput((id, data) => (got.output[id] = (got.output[id] ?? '') + Buffer.from(data).toString()))
    .onTerminalExit((id, code) => (got.exits[id] = code))
    .onWatcherEvent((event) => got.events.push(event))
    .onClose((code) => got.closed.push(code));
  const open = new Promise((resolve) => socket.onOpen(resolve));
  socket.connect();
  await open;
  return { socket, got };
}

async function collect(stream) {
  const all = [];
  for await (const one of stream) all.push(one);
  return all;
}

describe('the vendor client in a workspace', { timeout: 600_000 }, () => {
  let client;
  let workspace;
  let runtime;

  before(async () => {
    client = connect();
    workspace = await client.workspaces.create({
      name: `vendor-runtime-${randomBytes(4).toString('hex')}`,
      image: 'debian-12',
      cpus: 1,
      memory_mb: 256,
      disk_size_mb: 512,
    });
    const { token } = await client.workspaces.apiAccess.enable(workspace.id);
    runtime = new Runtime({ token, baseUrl: gatewayUrl });
    await until('the runtime answers', () => runtime.health());
  });

  after(async () => {
    if (workspace) await client.workspaces.delete(workspace.id);
  });

  it('is well and says what it is', async () => {
    assert.equal(await runtime.health(), true);
    const info = await runtime.info();
    assert.equal(info.os, 'linux');
    assert.equal(info.home, '/root');
    assert.equal(info.shell, '/bin/bash');
    assert.ok(info.cpus >= 1);
    for (const name of ['files', 'exec', 'search', 'terminals', 'watchers', 'transfer', 'proxy', 'ws']) {
      assert.ok(info.capabilities.includes(name), `${name} is among ${info.capabilities}`);
    }
  });

  it('finds its targets and works on one', async () => {
    const found = await runtime.targets();
    assert.equal(found.default_target, 'default');
    assert.deepEqual(found.targets.map((one) => [one.id, one.available]), [['default', true]]);
    const local = runtime.forTarget('local');
    assert.equal(await local.health(), true);
    assert.equal((await local.exec.run(['echo', 'local'])).stdout, 'local\n');
    await assert.rejects(runtime.forTarget('mac').info(), NotFoundError);
  });

  it('is told that there is no desktop', async () => {
    const status = await runtime.desktop.status();
    assert.equal(status.supported, false);
    assert.equal(status.enabled, false);
  });

  it('lists files by every option', async () => {
    const files = {
      'src/main.py': 'print("hello")\n', 'src/deep/util.js': 'let x = 1;\n', 'README.md': '# hello\n',
      'build.log': 'ignored\n', '.gitignore': '*.log\n', '.hidden': 'h\n', 'data.bin': '\0binary',
    };
    for (const [name, content] of Object.entries(files)) {
      await runtime.files.write({ fullPath: `/root/tree/${name}`, content, createDirs: true });
    }
    const names = async (options) => {
      const { entries, count } = await runtime.files.list({ dirPath: '/root/tree', nested: true, flatten: true, ...options });
      assert.equal(entries.length, count);
      return entries.map((entry) => entry.path.slice('/root/tree/'.length));
    };
    const kept = ['.gitignore', '.hidden', 'README.md', 'data.bin', 'src', 'src/deep', 'src/deep/util.js', 'src/main.py'];
    assert.deepEqual((await names()).sort(), kept);
    assert.ok((await names({ useGitignore: false })).includes('build.log'));
    assert.deepEqual(await names({ includeExt: 'js' }), ['src/deep/util.js']);
    assert.deepEqual(await names({ pathFilter: 'READ' }), ['README.md']);
    assert.deepEqual((await names({ maxDepth: 1 })).length, 5);
    assert.ok(!(await names({ ignorePatterns: 'src' })).some((name) => name.startsWith('src')));
    const code = await names({ codeFilesOnly: true });
    assert.ok(code.includes('src/main.py') && !code.includes('data.bin'));

    const { entries } = await runtime.files.list({
      dirPath: '/root/tree', includeHash: true, includeContent: true, includeExtensions: true,
    });
    const readme = entries.find((entry) => entry.name === 'README.md');
    assert.equal(readme.content, '# hello\n');
    assert.equal(readme.extension, '.md');
    assert.equal(readme.hash, createHash('sha256').update('# hello\n').digest('hex'));
    assert.ok(!('content' in entries.find((entry) => entry.name === 'data.bin')));
    const light = await runtime.files.list({ dirPath: '/root/tree', light: true });
    assert.ok(light.entries.every((entry) => !('size' in entry)));
    const tree = await runtime.files.list({ dirPath: '/root/tree', nested: true });
    const source = tree.entries.find((entry) => entry.name === 'src');
    assert.deepEqual(source.children.map((child) => child.name), ['deep', 'main.py']);

    const streamed = await collect(runtime.files.stream({ dirPath: '/root/tree' }));
    assert.deepEqual(streamed.map((entry) => entry.path.slice('/root/tree/'.length)).sort(), kept);
    await assert.rejects(collect(runtime.files.stream({ dirPath: '/root/nothing' })), (error) => error.status === 404);
  });

  it('reads and writes files', async () => {
    const fullPath = '/root/rw/note.txt';
    assert.equal((await runtime.files.write({ fullPath, content: 'eins\nzwei\ndrei\n', createDirs: true, mode: '0600' })).size, 15);
    await runtime.files.write({ fullPath, content: 'vier\n', append: true });
    const part = await runtime.files.read({ filePath: fullPath, startLine: 2, endLine: 4, withLineNumbers: true });
    assert.equal(part.content, '2\tzwei\n3\tdrei\n4\tvier\n');
    assert.equal(part.lines, 3);
    await runtime.files.mkdir({ path: '/root/rw/a/b', mode: '0700' });
    const stat = await runtime.files.stat({ path: fullPath });
    assert.deepEqual([stat.type, stat.permissions, stat.size, stat.extension], ['file', '0600', 20, '.txt']);
    await assert.rejects(runtime.files.read({ filePath: '/root/rw' }), (error) => error.status === 400);
    await assert.rejects(runtime.files.delete({ path: '//usr/./' }), (error) => error.status === 403);
    await runtime.files.delete({ path: '/root/rw' });
    await assert.rejects(runtime.files.stat({ path: fullPath }), NotFoundError);
  });

  it('searches contents and names', async () => {
    assert.match((await runtime.search.status()).version, /^ripgrep/);
    assert.equal((await runtime.search.init()).success, true);
    const found = await runtime.search.content({ query: 'HELLO', path: '/root/tree', contextLines: 1 });
    assert.equal(found.total_matches, 2);
    assert.deepEqual(Object.keys(found.results).sort(), ['README.md', 'src/main.py']);
    assert.deepEqual(found.results['README.md'], [{ line: 1, column: 3, text: '# hello' }]);
    const none = await runtime.search.content({ query: 'HELLO', path: '/root/tree', caseSensitive: true });
    assert.equal(none.total_matches, 0);
    const typed = await runtime.search.content({ query: 'h.llo', regex: true, path: '/root/tree', fileTypes: 'py' });
    assert.deepEqual(Object.keys(typed.results), ['src/main.py']);
    assert.equal((await runtime.search.content({ query: '--files', path: '/root/tree' })).total_matches, 0);
    assert.equal((await runtime.search.content({ query: 'ignored', path: '/root/tree', noGitignore: true })).total_matches, 1);
    assert.deepEqual((await runtime.search.files({ query: 'UTIL', path: '/root/tree' })).files, ['src/deep/util.js']);
    await assert.rejects(runtime.search.content({ query: '(', regex: true, path: '/root/tree' }), (error) => error.status === 400);
  });

  it('runs commands in every mode', async () => {
    const shell = await runtime.exec.run(['echo one | cat; exit 3']);
    assert.deepEqual([shell.stdout, shell.exit_code, shell.status], ['one\n', 3, 'exited']);
    const direct = await runtime.exec.run(['echo', '$HOME', ';'], { execMode: 'direct' });
    assert.equal(direct.stdout, '$HOME ;\n');
    const late = await runtime.exec.run(['sleep', '60'], { timeoutSeconds: 1 });
    assert.deepEqual([late.status, late.exit_code], ['failed', 124]);
    await assert.rejects(runtime.exec.run(['no-such-program']), OblienError);

    const events = await collect(runtime.exec.stream(['sh', '-c', 'echo out; echo err >&2; exit 7'], { keepLogs: true }));
    assert.equal(events[0].event, 'task_id');
    assert.equal(text(events.find((one) => one.event === 'stdout').data), 'out\n');
    assert.equal(text(events.find((one) => one.event === 'stderr').data), 'err\n');
    assert.equal(events.at(-1).exit_code, 7);
    const again = await collect(runtime.exec.subscribe(events[0].task_id));
    assert.deepEqual(again.map((one) => one.event), ['output', 'exit']);
    assert.equal(again[0].stdout, 'out\n');
    assert.equal((await runtime.exec.get(events[0].task_id)).exit_code, 7);
  });

  it('talks to a command, kills it and forgets all', async () => {
    const stream = runtime.exec.stream(['cat']);
    const { task_id: task } = (await stream.next()).value;
    assert.equal((await runtime.exec.input(task, 'ping\n')).bytes_written, 5);
    assert.equal(text((await stream.next()).value.data), 'ping\n');
    assert.ok((await runtime.exec.list()).some((one) => one.id === task && one.status === 'running'));
    await runtime.exec.kill(task);
    assert.equal((await stream.next()).value.event, 'exit');
    await assert.rejects(runtime.exec.get(task), NotFoundError);
    assert.ok((await runtime.exec.deleteAll()).deleted >= 1);
    assert.deepEqual(await runtime.exec.list(), []);
  });

  it('has terminals', async () => {
    const term = await runtime.terminal.create({ shell: '/bin/bash', cols: 100, rows: 30 });
    assert.deepEqual(term.command, ['/bin/bash']);
    const { socket, got } = await listen(runtime);
    const typed = async (line, wanted) => {
      socket.writeTerminalInput(term.id, `${line}\n`);
      await until(`${line} prints ${wanted}`, () => got.output[term.id]?.includes(wanted));
    };
    await typed('stty size', '30 100');
    socket.resizeTerminal(term.id, 121, 41);
    await typed('stty size', '41 121');
    await typed('echo $TERM:$HOME:$((6*7))', 'xterm-256color:/root:42');
    await typed('sleep 100', 'sleep 100');
    await typed('\x03echo interrupted-$?', 'interrupted-130'); // job control: ^C reaches the job
    const back = await runtime.terminal.scrollback(term.id, { bytes: 65536 });
    assert.ok(text(back.scrollback).includes('xterm-256color:/root:42'));
    assert.equal(back.alive, true);
    await typed('exit 5', 'exit');
    await until('the exit is told', () => got.exits[term.id] === 5);
    assert.deepEqual((await runtime.terminal.list()).map((one) => [one.id, one.alive]), [[term.id, false]]);
    assert.equal((await runtime.terminal.close(term.id)).terminal_id, term.id);
    assert.deepEqual(await runtime.terminal.list(), []);
    socket.close();
  });

  it('replays terminals to a newer connection, which takes over', async () => {
    const term = await runtime.terminal.create({ shell: '/bin/sh' });
    const first = await listen(runtime, { reconnect: false });
    first.socket.writeTerminalInput(term.id, 'echo kept-$((40+2))\n');
    await until('the output', () => first.got.output[term.id]?.includes('kept-42'));
    const second = await listen(runtime, { reconnect: false });
    await until('the replay', () => second.got.output[term.id]?.includes('kept-42'));
    await until('the first is closed', () => first.got.closed.length > 0);
    assert.deepEqual(first.got.closed, [4001]);
    await runtime.terminal.close(term.id);
    second.socket.close();
  });

  it('opens no more than ten terminals', async () => {
    const open = await Promise.all(Array.from({ length: 10 }, () => runtime.terminal.create({ shell: '/bin/sh' })));
    assert.equal(new Set(open.map((one) => one.id)).size, 10);
    await assert.rejects(runtime.terminal.create({}), RateLimitError);
    await Promise.all(open.map((one) => runtime.terminal.close(one.id)));
  });

  it('watches files', async () => {
    await runtime.files.mkdir({ path: '/root/watched' });
    const watcher = await runtime.watcher.create({ path: '/root/watched', excludes: ['*.tmp'] });
    assert.equal(watcher.root, '/root/watched');
    assert.equal((await runtime.watcher.get(watcher.id)).id, watcher.id);
    const { socket, got } = await listen(runtime);
    await until('ready', () => got.events.some((event) => event.type === 'ready' && event.watcher_id === watcher.id));
    const seen = (path, op) =>
      until(`${op} of ${path}`, () => got.events.some((event) => event.type === 'change' && event.path === path && event.op === op));
    await runtime.files.write({ fullPath: '/root/watched/x.tmp', content: '' });
    await runtime.files.write({ fullPath: '/root/watched/new/deep/file', content: '1', createDirs: true });
    await seen('/root/watched/new/deep/file', 'create');
    await runtime.files.write({ fullPath: '/root/watched/new/deep/file', content: '2', append: true });
    await seen('/root/watched/new/deep/file', 'write');
    await runtime.exec.run(['mv', '/root/watched/new', '/root/moved-out']);
    await seen('/root/watched/new', 'rename');
    assert.ok(!got.events.some((event) => event.path?.endsWith('.tmp')));
    assert.deepEqual((await runtime.watcher.list()).map((one) => one.id), [watcher.id]);
    await runtime.watcher.delete(watcher.id);
    await assert.rejects(runtime.watcher.get(watcher.id), NotFoundError);
    socket.close();
  });

  it('transfers trees both ways', async () => {
    const content = randomBytes(2_000_000).toString('hex');
    await runtime.files.write({ fullPath: '/root/pack/big.txt', content, createDirs: true });
    await runtime.files.write({ fullPath: '/root/pack/run', content: '#!/bin/sh\n', mode: '0755' });
    await runtime.files.write({ fullPath: '/root/pack/skipped.tmp', content: 'x' });
    const progress = [];
    const response = await runtime.transfer.download({
      paths: ['/root/pack'], excludePatterns: ['*.tmp'], onProgress: (step) => progress.push(step.loadedBytes),
    });
    const archive = Buffer.from(await response.arrayBuffer());
    assert.equal(response.headers.get('content-type'), 'application/gzip');
    assert.equal(progress.at(-1), archive.length);
    assert.ok(gunzipSync(archive).includes('pack/big.txt'));
    for (const body of [archive, new Blob([archive]).stream()]) {
      const dest = `/root/unpacked-${progress.length + (body === archive)}`;
      const result = await runtime.transfer.upload({ body, dest });
      assert.deepEqual([result.dest, result.files_extracted], [dest, 2]);
      const { stdout } = await runtime.exec.run(['sh', '-c', `sha256sum < ${dest}/pack/big.txt; stat -c %a ${dest}/pack/run`]);
      assert.equal(stdout, `${createHash('sha256').update(content).digest('hex')}  -\n755\n`);
    }
    await assert.rejects(runtime.transfer.upload({ body: Buffer.from('no archive'), dest: '/root/x' }), (error) => error.status === 400);
  });

  it('reaches an app on a loopback port', async () => {
    const stream = runtime.exec.stream(['python3', '-c', APP, '3000']);
    const { task_id: task } = (await stream.next()).value;
    assert.equal(text((await stream.next()).value.data), 'listening\n');
    const proxy = runtime.proxy(3000);
    const answer = await proxy.fetch('/api/users?limit=10', {
      method: 'POST', headers: { 'content-type': 'application/json', 'x-own': '1' }, body: '{"a":1}',
    });
    const seen = await answer.json();
    assert.deepEqual([seen.method, seen.path, seen.body], ['POST', '/api/users?limit=10', '{"a":1}']);
    assert.equal(seen.headers['x-own'], '1');
    assert.ok(!('authorization' in seen.headers));
    assert.equal((await proxy.fetch('/status/418')).status, 418);
    const events = await proxy.fetch('/events');
    assert.equal(events.headers.get('content-type'), 'text/event-stream');
    assert.equal(await events.text(), 'data: 0\n\ndata: 1\n\ndata: 2\n\n');

    const socket = runtime.proxy(3000, '127.0.0.1').ws('/socket');
    const opened = new Promise((resolve, reject) => Object.assign(socket, { onopen: resolve, onerror: reject }));
    await opened;
    const heard = new Promise((resolve) => (socket.onmessage = (event) => resolve(event.data)));
    socket.send('hello');
    assert.equal(await heard, 'echo hello');
    socket.close();

    const nobody = await runtime.proxy(9).fetch('/');
    assert.equal(nobody.status, 502);
    assert.equal((await nobody.json()).success, false);
    assert.equal((await runtime.proxy(80, '169.254.169.254').fetch('/')).status, 403);
    await runtime.exec.kill(task);
  });
});

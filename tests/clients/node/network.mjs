// The network of workspaces with the vendor's npm client as its users write it: the whole policy,
// and direct calls between two workspaces. Needs what session.mjs needs.

import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';

import { NotFoundError, OblienError, Runtime, ValidationError } from 'oblien';

import { connect, gatewayUrl, remove } from './cloud.mjs';

// What a program in the calling workspace does: a direct call with the raw token.
const CALL = `
import json, sys, urllib.error, urllib.request
request = urllib.request.Request(
    f"http://{sys.argv[1]}/exec", json.dumps({"cmd": ["hostname"]}).encode(),
    {"Authorization": "Bearer " + sys.argv[2], "Content-Type": "application/json"},
)
try:
    print(urllib.request.urlopen(request, timeout=30).status)
except urllib.error.HTTPError as error:
    print(error.code)
except OSError:
    print("closed")
`;

describe('the network with the vendor client', { timeout: 600_000 }, () => {
  let client;
  let target;
  let caller;
  const made = [];

  before(async () => {
    client = connect();
    for (let count = 0; count < 2; count += 1) {
      const one = await client.workspaces.create({
        image: 'debian-12', cpus: 1, memory_mb: 128, disk_size_mb: 64,
      });
      made.push(one.id);
    }
    [target, caller] = made;
  });

  after(async () => {
    for (const id of made) {
      await remove(client, id);
    }
  });

  it('shows a new workspace, which is dark', async () => {
    const found = await client.workspaces.network.get(target);
    assert.match(found.ip, /^10\./);
    assert.match(found.gateway, /^10\./);
    assert.equal(found.public_access, false);
    assert.equal(found.allow_internet, true);
    for (const name of ['ingress', 'ingress_ports', 'egress', 'egress_ports', 'private_links']) {
      assert.deepEqual(found[name], [], name);
    }
    assert.equal(found.outbound_ip, null);
    assert.equal(found.outbound_mode, 'managed');
    assert.equal(found.outbound_proxy, null);
  });

  it('changes what is given and nothing else', async () => {
    const { network } = client.workspaces;
    const policy = {
      public_access: true,
      ingress: ['203.0.113.7', '198.51.100.0/24'],
      ingress_ports: [8080, 80],
      egress: ['api.example.com', '*.example.org', '192.0.2.0/24'],
      egress_ports: [443],
    };
    const changed = await network.update(target, policy);
    assert.equal(changed.success, true);
    assert.deepEqual(changed.ingress, ['host', ...policy.ingress]);
    assert.deepEqual(changed.ingress_ports, [80, 8080]);
    assert.deepEqual(changed.egress, policy.egress);
    const closed = await network.update(target, { public_access: false, ingress: [] });
    assert.deepEqual(closed.ingress, []);
    assert.deepEqual(closed.egress_ports, [443]);
    const dark = await network.update(target, { allow_internet: false });
    assert.deepEqual(dark.egress, []);
    const open = await network.update(target, { allow_internet: true, egress: ['*'] });
    assert.equal(open.allow_internet, true);
    assert.deepEqual((await network.get(target)).ingress_ports, [80, 8080]);
  });

  it('is told what is wrong, and nothing is changed', async () => {
    const { network } = client.workspaces;
    const before = await network.get(target);
    for (const wrong of [
      { ingress_ports: [0] },
      { ingress_ports: Array.from({ length: 51 }, (_, port) => port + 1) },
      { egress: ['not a name'] },
      { ingress: ['2001:db8::/32'] },
    ]) {
      await assert.rejects(network.update(target, { public_access: true, ...wrong }), (error) => {
        assert.ok(error instanceof ValidationError, `${error}`);
        assert.match(error.details.field, new RegExp(`^${Object.keys(wrong)[0]}`));
        return true;
      });
    }
    await assert.rejects(network.update(target, { private_link_ids: ['ws_ffffffff'] }), NotFoundError);
    await assert.rejects(
      network.setCustomProxy(target, { host: '203.0.113.1', port: 3128, username: 'u', password: 'p' }),
      ValidationError,
    );
    await network.clearCustomProxy(target);
    await assert.rejects(network.applyOutboundIp(target, { ip: '192.0.2.1' }), (error) => (
      error instanceof OblienError && error.status === 422
    ));
    assert.deepEqual(await network.get(target), before);
  });

  it('calls directly from one workspace to another, in four steps', async () => {
    const { apiAccess, network } = client.workspaces;
    await apiAccess.enable(target);
    const linked = await network.update(target, { private_link_ids: [caller], public_access: false });
    assert.equal(linked.private_links[0].workspace_id, caller);
    assert.match(linked.private_links[0].ip, /^10\./);
    const raw = await apiAccess.rawToken(target);
    const { token } = await apiAccess.enable(caller);
    await network.update(caller, { public_access: true });
    const runtime = new Runtime({ token, baseUrl: gatewayUrl });
    const call = async (secret) => {
      const address = `${raw.ip}:${raw.port}`;
      return (await runtime.exec.run(['python3', '-c', CALL, address, secret])).stdout.trim();
    };
    assert.equal(await call(raw.token), '200');
    assert.equal(await call('00'.repeat(32)), '401');
    await network.update(target, { private_link_ids: [] });
    assert.equal(await call(raw.token), 'closed');
  });
});

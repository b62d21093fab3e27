// The vendor's own client; only its base URLs are ours. First: eval "$(bastide env)"
import Oblien, { Runtime } from 'oblien';

const { OBLIEN_BASE_URL, OBLIEN_GATEWAY_URL, OBLIEN_CLIENT_ID, OBLIEN_CLIENT_SECRET } = process.env;

const client = new Oblien({
  baseUrl: OBLIEN_BASE_URL!,
  clientId: OBLIEN_CLIENT_ID!,
  clientSecret: OBLIEN_CLIENT_SECRET!,
});

const workspace = await client.workspaces.create({
  name: 'typescript example',
  image: 'debian-12',
  config: { memory_mb: 256 },
});
console.log(workspace.id, 'is ready');
try {
  const { token } = await client.workspaces.apiAccess.enable(workspace.id);
  const runtime = new Runtime({ token, baseUrl: OBLIEN_GATEWAY_URL! });

  await runtime.files.write({ fullPath: '/root/hello.txt', content: 'hello from TypeScript\n' });
  const result = await runtime.exec.run(['cat', '/root/hello.txt', '/etc/debian_version']);
  process.stdout.write(result.stdout ?? '');
} finally {
  await client.workspaces.delete(workspace.id);
}

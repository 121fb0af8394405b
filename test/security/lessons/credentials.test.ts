import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import fs from 'node:fs';
import path from 'node:path';
import { everything, Workshop } from '../../support/oci-images.ts';
import { startRegistry } from '../../support/registries.ts';
import { missingTool, missingWorld, skipOrFail } from '../../support/skip.ts';
import { createWorld, type World } from '../../support/world.ts';

const tools = missingTool('docker-registry', 'buildah', 'skopeo', 'openssl', 'curl');

// Layers were fetched from wherever a manifest or a redirect said, with the login for the registry in the request.
// Layers that a manifest says are elsewhere: test/unit/image/registry/repository.test.ts.
describe.skipIf(skipOrFail(missingWorld() ?? tools))('CVE-2020-15157: credentials stay with their registry', () => {
  const user = 'me';
  const password = 'pass: wörd/+';
  const auth = Buffer.from(`${user}:${password}`).toString('base64');
  let world: World;
  let workshop: Workshop;

  beforeAll(async () => {
    world = await createWorld();
    workshop = await Workshop.open(world);
    await workshop.build('image', [everything[0] ?? '', 'echo 2 >2', 'echo 3 >3', 'echo 4 >4']);
  });
  afterAll(() => world.destroy());

  test('a redirect to another host takes no credentials along', async () => {
    const seen = path.join(world.directory, 'blob-requests');
    const store = path.join(world.directory, 'registry-5005/store');
    const server = `Bun.serve({ hostname: '127.0.0.1', port: 5006, fetch(request) {
      require('node:fs').appendFileSync(${JSON.stringify(seen)}, JSON.stringify(Object.fromEntries(request.headers)) + '\\n');
      return new Response(Bun.file(${JSON.stringify(store)} + new URL(request.url).pathname));
    } }); console.log('listening');`;
    const blobs = await world.host.spawn([process.execPath, '-e', server], { timeout: 2 ** 31 - 1 });
    await blobs.waitFor('listening');
    // Another name and another port of the same machine is another host.
    const registry = await startRegistry(world, {
      port: 5005,
      users: { [user]: password },
      redirect: 'http://127.0.0.1:5006',
    });
    await workshop.sh(
      `skopeo copy -q --dest-creds '${user}:${password}' containers-storage:localhost/image docker://${registry.host}/image:1`,
    );
    fs.rmSync(seen, { force: true });
    fs.writeFileSync(
      path.join(world.directory, 'config.json'),
      JSON.stringify({ auths: { [registry.host]: { auth } } }),
    );
    const pulled = await world.run(['pull', '-q', `${registry.host}/image:1`], {
      env: { DOCKER_CONFIG: world.directory },
    });
    expect(pulled).toMatchObject({ code: 0, stderr: '' });
    const requests = fs
      .readFileSync(seen, 'utf8')
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as Record<string, string>);
    // The config and the four layers.
    expect(requests).toHaveLength(5);
    for (const headers of requests) {
      expect(headers.authorization).toBeUndefined();
      expect(JSON.stringify(headers)).not.toContain(auth);
    }
  });
});

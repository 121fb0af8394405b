import { expect, test } from 'bun:test';
import { spawn } from 'node:child_process';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';

/** Uploads, and ends the upload only when the answer is there; then it has nothing more to do. */
const client = `
  import { sendRequest } from '${import.meta.dir}/../../../../src/image/registry/transport.ts';
  let end;
  const answered = new Promise((resolve) => { end = resolve; });
  async function* body() { yield new Uint8Array(10); await answered; }
  const answer = await sendRequest(new URL(process.argv[1]), { method: 'PUT', body: body(), insecure: true });
  end();
  await answer.discard();
  console.log(answer.status);
`;

test('a server that answers before the upload has ended leaves nothing that keeps this process alive', async () => {
  const server = createServer((request, response) => {
    request.resume();
    response.writeHead(201).end();
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  try {
    const { port } = server.address() as AddressInfo;
    const child = spawn(process.execPath, ['-e', client, `http://127.0.0.1:${port}/`], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const output: Buffer[] = [];
    child.stdout.on('data', (chunk: Buffer) => output.push(chunk));
    const code = await new Promise((resolve) => {
      const limit = setTimeout(() => child.kill('SIGKILL'), 20_000);
      child.on('close', (status) => {
        clearTimeout(limit);
        resolve(status);
      });
    });
    expect({ code, output: Buffer.concat(output).toString() }).toEqual({ code: 0, output: '201\n' });
  } finally {
    server.closeAllConnections();
    server.close();
  }
}, 30_000);

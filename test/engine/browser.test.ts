/** The browser's side of engine/host, where it can be told without a browser: same names, same types, clear refusals. */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import * as browserDrivers from '../../engine/host/browser/drivers.ts';
import { Draft } from '../../engine/host/browser/draft.ts';
import * as browserFiles from '../../engine/host/browser/files.ts';
import * as browserRuntime from '../../engine/host/browser/runtime.ts';
import * as drivers from '../../engine/host/drivers.ts';
import * as files from '../../engine/host/files.ts';
import * as runtime from '../../engine/host/runtime.ts';

test("the browser's files say what Node's say, in the same types", () => {
  const pairs: [object, object][] = [
    [browserDrivers satisfies typeof drivers, drivers],
    [browserFiles satisfies typeof files, files],
    [browserRuntime satisfies Partial<typeof runtime>, runtime],
  ];
  for (const [page, host] of pairs) for (const name of Object.keys(page)) assert.ok(name in host, name);
});

test('a page has its own WebGPU or one line that says what is missing', async () => {
  assert.equal(browserDrivers.candidates('auto'), ['native']);
  const refused = await browserDrivers.attempt('lavapipe', false, () => {}).catch((e: Error) => e.message);
  assert.is(refused, 'a browser has its own WebGPU only, not lavapipe');
  assert.throws(() => new Draft('a.safetensors'), /^\[host\] a page cannot write a\.safetensors$/);
});

test('a path in a page is an address: read by ranges, and missing as files are', async () => {
  const server = createServer((request, response) => {
    if (request.url === '/there/a.bin') response.end(Uint8Array.of(1, 2, 3, 4));
    else response.writeHead(404).end();
  });
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  const root = `http://127.0.0.1:${(server.address() as AddressInfo).port}/there`;
  try {
    const path = browserFiles.join(root, 'a.bin');
    assert.is(browserFiles.dirname(path), root);
    assert.is(browserFiles.basename(path), 'a.bin');
    const file = await browserFiles.openFile(path);
    assert.is(file.size, 4);
    const target = new Uint8Array(4);
    assert.is(await file.read(target, 1, 2, 2), 2);
    assert.equal([...target], [0, 3, 4, 0]);
    assert.equal([...(await browserFiles.readBytes(path))], [1, 2, 3, 4]);
    assert.is(await browserFiles.exists(path), true);
    assert.is(await browserFiles.exists(`${root}/b.bin`), false);
    const missing = await browserFiles.openFile(`${root}/b.bin`).catch((e: Error & { code?: string }) => e.code);
    assert.is(missing, 'ENOENT');
  } finally {
    server.close();
  }
});

test.run();

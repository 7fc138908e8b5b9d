/** Waiting for a device leaves the processor to it: Dawn's poll is asked at once at first, then ever less often. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { platform, waiting } from '../../engine/host/runtime.ts';

const real = globalThis.setImmediate;

/** As Dawn's: native, without arguments, and it queues itself again until the work is done. Gives when it was asked, in ms. */
async function pollFor(ms: number): Promise<number[]> {
  const [asked, start] = [[] as number[], performance.now()];
  await waiting(
    new Promise<void>((done) => {
      const poll = (): void => {
        asked.push(performance.now() - start);
        if (asked.at(-1)! > ms) done();
        else globalThis.setImmediate(native);
      };
      const native = poll.bind(undefined);
      globalThis.setImmediate(native);
    }),
  );
  return asked;
}

test('a short wait is polled without a pause, a long one some times a millisecond', async () => {
  await pollFor(1);
  const asked = await pollFor(40);
  assert.ok(asked[0]! < 40 && asked.at(-1)! > 40);
  // From 0.2 to 8 ms each is an eighth later than the last, which are 32; then one a millisecond, which are 32.
  if (platform !== 'win32') assert.ok(asked.filter((ms) => ms > 0.25).length <= 70, `${asked.length} polls`);
  assert.is(globalThis.setImmediate, real);
});

test("others' immediates are not put off", async () => {
  let ran = 0;
  await waiting(
    new Promise<void>((done) => {
      const again = (count: number): void => {
        if (++ran === count) done();
        else globalThis.setImmediate(again, count);
      };
      globalThis.setImmediate(again, 2000);
    }),
  );
  assert.is(ran, 2000);
});

test.run();

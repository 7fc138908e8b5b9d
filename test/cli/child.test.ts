/** Children that crash, hang, leave or throw are told in one line, and never take the parent with them. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { Child } from '../../cli/common/child.ts';

const start = () => new Child(new URL('./childish', import.meta.url));

async function failure(question: object, limit = 30_000): Promise<string> {
  const child = start();
  try {
    await child.ask(question, limit);
    return 'it answered';
  } catch (error) {
    return (error as Error).message;
  } finally {
    child.close();
  }
}

test('answers come back, typed arrays too, one after the other; what it throws is one line, and it goes on', async () => {
  const child = start();
  assert.equal(await child.ask({ do: 'double', numbers: Float32Array.of(1, 2) }, 30_000), Float32Array.of(2, 4));
  const error = await child.ask({ do: 'throw' }, 30_000).then(
    () => '',
    (e: Error) => e.message,
  );
  assert.is(error, 'no such thing');
  assert.equal(await child.ask({ do: 'double', numbers: Float32Array.of(3) }, 30_000), Float32Array.of(6));
  child.close();
});

test('the ways to fail', async () => {
  assert.is(await failure({ do: 'crash' }), 'it was ended by SIGABRT');
  assert.is(await failure({ do: 'leave' }), 'it left with exit code 7');
  assert.is(await failure({ do: 'hang' }, 2000), 'no answer within 2 s');
});

test('a child that has failed stays failed', async () => {
  const child = start();
  await child.ask({ do: 'leave' }, 30_000).catch(() => {});
  assert.is(
    await child.ask({ do: 'double' }, 30_000).then(
      () => '',
      (e: Error) => e.message,
    ),
    'it left with exit code 7',
  );
});

test.run();

/**
 * Reads damaged files of one format, one after the other: `mutantchild.ts FORMAT SEED FROM TO DIR`; a line of JSON for each that matters.
 */
import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { FORMATS } from './formats.ts';
import { mutate } from './mutate.ts';
import { generator } from './random.ts';

const SLOW_MS = 20_000; // on a busy machine
const BEAT = 20; // mutants between two signs of life

const [name, seed, from, to, root] = process.argv.slice(2) as [string, string, string, string, string];
const format = FORMATS[name]!;
const dir = join(root, `${name.replace(/\W/g, '-')}-${process.pid}`);
mkdirSync(dir, { recursive: true });

const told = (value: unknown): string =>
  createHash('sha256')
    .update(
      JSON.stringify(value, (_, v: unknown) =>
        ArrayBuffer.isView(v)
          ? Buffer.from(v.buffer, v.byteOffset, v.byteLength).toString('base64')
          : typeof v === 'bigint'
            ? String(v)
            : v,
      ) ?? 'nothing',
    )
    .digest('hex');
const say = (line: object): void => void process.stdout.write(`${JSON.stringify(line)}\n`);

const ACCIDENTS = [TypeError, RangeError, ReferenceError];

/** An accident on the way, which a check should have caught before. Text that is no UTF-8 is told by a TypeError of its own. */
function accident(error: unknown): string | undefined {
  for (let e = error; e instanceof Error; e = e.cause) {
    const isText = (e as NodeJS.ErrnoException).code?.startsWith('ERR_ENCODING');
    if (!isText && ACCIDENTS.some((Kind) => e instanceof Kind)) return e.stack?.split('\n').slice(0, 3).join(' ');
  }
  return undefined;
}

const path = await format.make(dir);
const good = readFileSync(path);
const write = (bytes: Buffer): void => writeFileSync(path, format.wrap ? format.wrap(bytes) : bytes);
write(good);
const expected = told(await format.read(path, dir));
for (let n = Number(from); n < Number(to); n++) {
  if (n % BEAT === 0) say({ at: n });
  write(mutate(good, generator(Number(seed) + 7919 * n)));
  const begun = performance.now();
  try {
    const found = told(await format.read(path, dir));
    if (format.sealed && found !== expected) say({ finding: `mutant ${n}: other data, in silence` });
  } catch (error) {
    const { message } = error as Error;
    const slip = format.foreign ? undefined : accident(error);
    if (slip) say({ finding: `mutant ${n}: an accident: ${slip}` });
    else if (!format.refusal.test(message)) say({ finding: `mutant ${n}: refused as "${message.slice(0, 300)}"` });
    else if (message.length > 2000) say({ finding: `mutant ${n}: a message of ${message.length} characters` });
  }
  const ms = performance.now() - begun;
  if (ms > SLOW_MS) say({ finding: `mutant ${n}: took ${Math.round(ms / 1000)} s` });
}
say({ at: Number(to) });
rmSync(dir, { recursive: true });
process.exit(0);

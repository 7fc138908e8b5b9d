/** Takes a lock at a given instant, holds it, gives it back or dies: for the test of races. `lockchild.ts LOCK START ROUNDS DIE`. */
import { appendFileSync } from 'node:fs';
import { releaseLock, takeLock } from '../../train/loop/lock.ts';

const [lock, start, rounds, die] = process.argv.slice(2) as [string, string, string, string];
const until = (ms: number): void => {
  while (Date.now() < ms);
};
const note = (what: string): void => appendFileSync(`${lock}.log`, `${what} ${process.pid}\n`); // one write: lines stay whole

for (let round = 0; round < Number(rounds); round++) {
  until(Number(start) + 3 * round);
  if (takeLock(lock)) continue;
  note('takes');
  until(Date.now() + 1);
  note('gives');
  if (die === 'die') process.kill(process.pid, 'SIGKILL'); // and leaves the lock behind
  releaseLock(lock);
}

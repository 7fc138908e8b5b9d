/** Tests of what a machine may lack. */
import { test } from 'uvu';

/** `then`, or where something is missing a test that is skipped, with the reason on stderr. */
export function needing(missing: string | undefined, then: (...named: Parameters<typeof test>) => void = test) {
  if (missing === undefined) return then;
  console.error(missing);
  return (...named: Parameters<typeof test>): void => test.skip(...named);
}

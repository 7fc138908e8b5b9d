/** VBench's dimensions as a table: a column each for what was judged. A proxy is named as one wherever its number stands. */
import type { Measured } from '../../train/vbench/measure.ts';
import { draw } from '../common/table.ts';

const percent = (x: number | undefined): string => (x === undefined ? '–' : (100 * x).toFixed(2));

const NOTE = "VBench's formulas, normalisation and weights, in %.";
const PROXIES =
  'A row that ends in "-proxy" was not measured with the suite\'s own network: compare it within this table only, never with published numbers.';

export function vbenchTable(columns: readonly { name: string; measured: Measured }[]): string {
  const { dimensions, scores } = columns[0]!.measured;
  const value = (name: string) =>
    columns.map(({ measured }) => percent(measured.dimensions.find((d) => d.name === name)?.value));
  const suffix = scores.proxy ? '-proxy' : '';
  const rows = [
    ...dimensions.map(({ name, by, proxy }) => [`${name}${proxy ? '-proxy' : ''}`, by, ...value(name)]),
    [`I2V Score${suffix}`, '', ...columns.map(({ measured }) => percent(measured.scores.i2v))],
    [`Quality Score${suffix}`, '', ...columns.map(({ measured }) => percent(measured.scores.quality))],
    [`Total${suffix}`, '', ...columns.map(({ measured }) => percent(measured.scores.total))],
  ];
  const missing = scores.without.length
    ? ` The scores lack ${scores.without.join(', ')}: they are no official ones.`
    : '';
  return `${draw(['', 'seen by', ...columns.map((c) => c.name)], rows)}\n${NOTE}${scores.proxy ? ` ${PROXIES}` : ''}${missing}`;
}

/** The order in which people count: frame_2 before frame_10. */

const parts = (name: string): string[] => name.split(/(\d+)/);
const isNumber = (i: number): boolean => i % 2 === 1; // by the split

function compareNumbers(a: string, b: string): number {
  const [x, y] = [a.replace(/^0+(?=\d)/, ''), b.replace(/^0+(?=\d)/, '')];
  return x.length - y.length || (x < y ? -1 : Number(x > y));
}

const compareText = (a: string, b: string): number => (a < b ? -1 : Number(a > b));

/** Runs of digits count as numbers, letters whatever their case; what is equal so far is told apart by its characters. */
export function naturally(a: string, b: string): number {
  const [x, y] = [parts(a.toLowerCase()), parts(b.toLowerCase())];
  for (let i = 0; i < Math.min(x.length, y.length); i++) {
    const order = (isNumber(i) ? compareNumbers : compareText)(x[i]!, y[i]!);
    if (order) return order;
  }
  return x.length - y.length || compareText(a, b);
}

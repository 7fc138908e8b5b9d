/**
 * How a workgroup brings panels of the operands to its memory: in blocks of 4 × 4, one or more a thread, loaded to registers while the
 * panel before is computed on. Places are worked out once. Beyond M and N stands another row or column, for what becomes of it is
 * never stored; beyond K there are zeros.
 */
import { range, XYZW } from '../print.ts';
import type { Plan } from './plan.ts';

type Side = 'a' | 'b';

/** Rows of a and columns of b in a workgroup's tile, and a panel's length along k. */
interface Panel {
  BM: number;
  BN: number;
  BK: number;
}

/** A thread's block number n: of which operand, its number in that one's panel, and the threads that have it. */
interface Block {
  side: Side;
  n: number;
  id: string;
  when: string;
}

/** Those of a come first; where a thread's n-th is of a for some and of b for others, both stand here. */
function blocksOf({ BM, BN, BK }: Panel, threads: number): Block[] {
  const a = (BM * BK) / 16,
    all = a + (BN * BK) / 16;
  return range(Math.ceil(all / threads)).flatMap((n) => {
    const first = n * threads,
      last = first + threads;
    return (['a', 'b'] as const).flatMap((side): Block[] => {
      const [from, to] = side === 'a' ? [first, Math.min(a, last)] : [Math.max(a, first), Math.min(all, last)];
      if (from >= to) return [];
      const shift = side === 'a' ? first : first - a;
      const bounds = [from > first && `li >= ${from - first}u`, to < last && `li < ${to - first}u`].filter(Boolean);
      const id = `li ${shift < 0 ? '-' : '+'} ${Math.abs(shift)}u`;
      const count = side === 'a' ? a : all - a;
      return [{ side, n, id: bounds.length ? `min(${id}, ${count - 1}u)` : id, when: bounds.join(' && ') }];
    });
  });
}

export interface Staging {
  /** Statements that work out where the thread's blocks lie. */
  places: string;
  /** Statements that load those of the panel at `k`. */
  loads: string;
  /** Statements that keep them by `put`: of block (`bi`, `bk`) four vec4, along k or along the other axis. */
  stores(along: 'k' | 'mn', put: (side: Side, lines: readonly string[]) => string): string;
}

/** @param half the workgroup's memory holds f16: what lies in it, or is rounded to it, is loaded as that */
export function staging({ shape, vec, ragged, read }: Plan, panel: Panel, threads: number, half = false): Staging {
  const [four, zero] = half ? ['vec4<f16>', '0.0h'] : ['vec4f', '0.0'];
  const blocks = blocksOf(panel, threads);
  const each = (text: (b: Block) => string): string =>
    blocks.map((b) => (b.when ? `if (${b.when}) {\n${text(b)} }` : text(b))).join('\n');
  const declare = (text: (n: number) => string): string => [...new Set(blocks.map((b) => b.n))].map(text).join('\n');
  const sides = {
    a: { first: 'row0', extent: 'p.M', ld: 'p.ldA', base: 'baseA', size: panel.BM, alongK: !shape.a.trans },
    b: { first: 'col0', extent: 'p.N', ld: 'p.ldB', base: 'baseB', size: panel.BN, alongK: shape.b.trans },
  };
  const quads = panel.BK / 4;

  /**
   * Which block of its panel, (bi, bk): neighbours in memory go to neighbouring threads. It is said again where it is used, for only
   * then is Tint sure that what is stored there is in bounds, and compilers that four numbers are one store.
   */
  const which = ({ side, id }: Block): string => {
    const { size, alongK } = sides[side];
    const [inner, outer, length] = alongK ? ['bk', 'bi', quads] : ['bi', 'bk', size / 4];
    return `let id = ${id}; let ${inner} = id % ${length}u; let ${outer} = id / ${length}u;`;
  };

  const place = (block: Block): string => {
    const { first, extent, ld, base, alongK } = sides[block.side];
    const at = `at${block.n}`;
    const lines = alongK
      ? range(4).map(
          (q) => `${at}_${q} = ${base} + min(${first} + 4u * bi + ${q}u, ${extent} - 1u) * ${ld}${vec ? ' + bk' : ''};`,
        )
      : [
          vec
            ? `${at}_0 = ${base} + min(${first} / 4u + bi, ${extent} / 4u - 1u) + 4u * bk * ${ld};`
            : `${at}_0 = ${first} + 4u * bi;`,
        ];
    return `{ ${which(block)}\n${lines.join('\n')} }`;
  };

  /** Four neighbours of line q. */
  const line = (side: Side, n: number, q: number): string => {
    const { extent, ld, base, alongK } = sides[side];
    const { fours, type } = read[side];
    const one = vec || fours ? four : half ? 'f16' : 'f32';
    const value = (name: Side, i: string): string => {
      const float = read[side].read(name, i);
      return !half ? float : type === one ? `${name}[${i}]` : `${one}(${float})`;
    };
    if (vec) return value(side, alongK ? `at${n}_${q} + k / 4u` : `at${n}_0 + (k + ${q}u) * ${ld}`);
    const row = `${base} + min(kk + ${q}u, p.K - 1u) * ${ld}`;
    if (fours)
      return alongK
        ? `select(${four}(), ${value(side, `(at${n}_${q} + min(kk, p.K - 4u)) / 4u`)}, kk < k1)`
        : `select(${four}(), ${value(side, `(min(at${n}_0, ${extent} - 4u) + ${row}) / 4u`)}, kk + ${q}u < k1)`;
    return `${four}(${range(4)
      .map((j) =>
        alongK
          ? `select(${zero}, ${value(side, `at${n}_${q} + min(kk + ${j}u, p.K - 1u)`)}, kk + ${j}u < k1)`
          : `select(${zero}, ${value(side, `${row} + min(at${n}_0 + ${j}u, ${extent} - 1u)`)}, kk + ${q}u < k1)`,
      )
      .join(', ')})`;
  };

  const load = (block: Block): string => {
    const { side, n } = block;
    const lines = range(4).map((q) => `r${n}_${q} = ${line(side, n, q)};`);
    // A panel ends at a multiple of four, or every line of k has an end of its own.
    const kk = `${which(block)} let kk = k + 4u * bk;`;
    if (vec && ragged && !sides[side].alongK)
      return `{ ${kk}\n${lines.map((l, q) => `if (kk + ${q}u < k1) { ${l} }`).join('\n')} }`;
    return vec ? `{ ${kk} if (kk < k1) {\n${lines.join('\n')} } }` : `{ ${kk}\n${lines.join('\n')} }`;
  };

  return {
    places: `${declare((n) =>
      range(4)
        .map((q) => `var at${n}_${q}: u32;`)
        .join(' '),
    )}
${each(place)}`,
    loads: `${declare((n) =>
      range(4)
        .map((q) => `var r${n}_${q} = ${four}();`)
        .join(' '),
    )}
${each(load)}`,
    stores: (along, put) =>
      each((block) => {
        const { side, n } = block;
        const lines = range(4).map((q) => `r${n}_${q}`);
        const turned = XYZW.map((part) => `${four}(${lines.map((l) => `${l}.${part}`).join(', ')})`);
        return `{ ${which(block)}\n${put(side, sides[side].alongK === (along === 'k') ? lines : turned)} }`;
      }),
  };
}

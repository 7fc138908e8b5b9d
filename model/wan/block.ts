/** One block of the Wan DiT: self attention, cross attention to text and image, and the feed-forward, modulated by time. */
import { attention, concat, gelu, where } from '../../engine/frontend/functional.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { readsImages, type DiTConfig } from '../config.ts';
import { linearSpecs, normal, normSpecs, ones, Scope, under, type Specs } from '../params.ts';
import { rotate, type DiTTables } from './tables.ts';

export interface BlockInput {
  /** Time's modulation [B, 6, dim]; [B, T, 6, dim] where tokens have times of their own (`atTokens`). */
  e0: Tensor;
  /** Which tokens have the first of two times: 1 or 0, [B, N, 1]. */
  held?: Tensor;
  /** [B, text_len, dim]. */
  text: Tensor;
  /** i2v: [B, I, dim]. */
  pictures?: Tensor;
  tables: DiTTables<Tensor>;
}

export function blockSpecs(c: DiTConfig): Specs {
  const gain = { shape: [c.dim], init: ones };
  const square = linearSpecs(c.dim, c.dim);
  const heads = (names: readonly string[]): Specs => Object.assign({}, ...names.map((n) => under(n, square))) as Specs;
  const picture: Specs = { ...heads(['k_img', 'v_img']), 'norm_k_img.weight': gain };
  const attentionSpecs: Specs = { ...heads(['q', 'k', 'v', 'o']), 'norm_q.weight': gain, 'norm_k.weight': gain };
  return {
    modulation: { shape: [1, 6, c.dim], init: normal(c.dim ** -0.5) },
    ...under('self_attn', attentionSpecs),
    ...under('norm3', normSpecs(c.dim)),
    ...under('cross_attn', { ...attentionSpecs, ...(readsImages(c) && picture) }),
    ...under('ffn.0', linearSpecs(c.dim, c.ffn_dim)),
    ...under('ffn.2', linearSpecs(c.ffn_dim, c.dim)),
  };
}

/** [B,N,dim] → [B,N,heads,head size]. */
const split = (x: Tensor, c: DiTConfig): Tensor => x.reshape([x.shape[0]!, x.shape[1]!, c.num_heads, -1]);
const join = (x: Tensor): Tensor => x.reshape([x.shape[0]!, x.shape[1]!, -1]);

/** q and k are normed over all heads together, before they are split. */
function selfAttention(s: Scope, c: DiTConfig, x: Tensor, tables: DiTTables<Tensor>): Tensor {
  const q = split(s.rmsNorm('norm_q', s.linear('q', x), c.eps), c);
  const k = split(s.rmsNorm('norm_k', s.linear('k', x), c.eps), c);
  const v = split(s.linear('v', x), c);
  return s.linear('o', join(attention(rotate(q, tables), rotate(k, tables), v, { lengths: tables.lengths })));
}

/** Text and image are attended apart, with one query, and summed. */
function crossAttention(s: Scope, c: DiTConfig, x: Tensor, text: Tensor, pictures: Tensor | undefined): Tensor {
  const q = split(s.rmsNorm('norm_q', s.linear('q', x), c.eps), c);
  const to = (context: Tensor, suffix: string) =>
    attention(
      q,
      split(s.rmsNorm(`norm_k${suffix}`, s.linear(`k${suffix}`, context), c.eps), c),
      split(s.linear(`v${suffix}`, context), c),
    );
  const read = to(text, '');
  return s.linear('o', join(pictures ? read.add(to(pictures, '_img')) : read));
}

/** Token by token, so that parts of them may go one after the other. */
function feedForward(s: Scope, c: DiTConfig, x: Tensor): Tensor {
  const part = Math.ceil(x.shape[1]! / c.ffn_parts);
  const parts = Array.from({ length: Math.ceil(x.shape[1]! / part) }, (_, i) =>
    x.slice(1, i * part, Math.min(x.shape[1]!, (i + 1) * part)),
  );
  return concat(
    parts.map((p) => s.linear('2', gelu(s.linear('0', p), 'tanh'))),
    1,
  );
}

/**
 * Time's modulation [B, k, dim], or [B, T, k, dim], as k tensors that go with the tokens [B, N, dim].
 * @param held which of the tokens have the first of T = 2 times, [B, N, 1]; without it T is 1 or N
 */
export function atTokens(modulation: Tensor, held?: Tensor): Tensor[] {
  const axis = modulation.shape.length - 2;
  const each = modulation.split(axis, modulation.shape[axis]!);
  if (axis === 1) return each;
  return each.map((e) => {
    const times = e.squeeze(2);
    return held ? where(held, times.slice(1, 0, 1), times.slice(1, 1, 2)) : times;
  });
}

/** x [B,N,dim] → [B,N,dim]. */
export function block(
  s: Scope,
  c: DiTConfig,
  x: Tensor,
  { e0, held, text, pictures, tables }: BlockInput,
  probe: (name: string, value: Tensor) => void,
): Tensor {
  const [shift1, scale1, gate1, shift2, scale2, gate2] = atTokens(s.get('modulation').add(e0), held) as [
    Tensor,
    Tensor,
    Tensor,
    Tensor,
    Tensor,
    Tensor,
  ];
  const modulated = (h: Tensor, scale: Tensor, shift: Tensor) => h.layerNorm(c.eps).mul(scale.add(1)).add(shift);

  const looked = selfAttention(s.scope('self_attn'), c, modulated(x, scale1, shift1), tables);
  probe('self_attn', looked);
  let h = x.add(looked.mul(gate1));

  const read = crossAttention(s.scope('cross_attn'), c, s.layerNorm('norm3', h, c.eps), text, pictures);
  probe('cross_attn', read);
  h = h.add(read);

  const thought = feedForward(s.scope('ffn'), c, modulated(h, scale2, shift2));
  probe('ffn', thought);
  return h.add(thought.mul(gate2));
}

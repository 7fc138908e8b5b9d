/**
 * Discriminator heads of V-PAE's second phase: tokens tapped from the generator's blocks → one logit a sample (METHOD §1.8).
 *
 * `cross`: a learned query for each tap (or one for all) reads its tokens; the answers side by side give the logit.
 * `semantic`: before that, the queries attend to each other and to the condition's image and text tokens.
 * `conv`: each tap's tokens go through a strided convolution over the video's grid (convhead.ts).
 */
import { attention, concat, gelu } from '../engine/frontend/functional.ts';
import { fail } from '../engine/host/errors.ts';
import { checkpoint } from '../engine/frontend/remat.ts';
import type { Tensor } from '../engine/frontend/tensor.ts';
import { host, type HostTensor } from '../engine/frontend/tree.ts';
import type { Triple } from '../engine/frontend/graph.ts';
import { convHead, convHeadSpecs } from './convhead.ts';
import {
  linearSpecs,
  materialise,
  normal,
  normSpecs,
  ones,
  Scope,
  shapesOf,
  under,
  type HostParams,
  type Params,
  type Specs,
} from './params.ts';

export interface HeadConfig {
  kind: 'conv' | 'cross' | 'semantic';
  /** How many blocks are tapped. */
  taps: number;
  /** Learned queries: one a tap, or 1 for all; not of `conv`. */
  queries: number;
  /** Width of the tapped tokens. */
  input_dim: number;
  /** Width of the head: a multiple of `head_dim`. */
  dim: number;
  /** Of one attention head. */
  head_dim: number;
  /** Width of the image tokens, 0 where there are none (text-to-video), and of the text tokens; `semantic` only. */
  clip_dim: number;
  text_dim: number;
  /** How many tokens along (time, height, width); `conv` only. */
  grid: Triple;
  /** Recompute what is read of each tap in the backward pass instead of keeping it. */
  checkpoint: boolean;
}

/** What a `semantic` head sees of the condition. */
export interface Semantics<T = Tensor> {
  /** [B, I, clip_dim]; text-to-video has none. */
  imageTokens?: T;
  /** [B, L, text_dim], zero past each caption's length. */
  context: T;
  /** `semanticLengths` u32 [B]. */
  lengths: T;
}

const EPS = 1e-6;
const FFN = 4;
/** Small but not zero: a zero layer would give the generator no gradient at first. */
const LOGIT_STD = 0.02;

/** Keys of the self attention that count: queries, image tokens, and the caption without its padding, which stands last. */
export const semanticLengths = (
  config: HeadConfig,
  imageTokens: number,
  captionLengths: readonly number[],
): HostTensor =>
  host(
    captionLengths.map((n) => config.queries + imageTokens + n),
    [captionLengths.length],
    'u32',
  );

const attentionSpecs = (dim: number): Specs => ({
  ...(Object.assign({}, ...['q', 'k', 'v', 'o'].map((n) => under(n, linearSpecs(dim, dim)))) as Specs),
  'norm_q.weight': { shape: [dim], init: ones },
  'norm_k.weight': { shape: [dim], init: ones },
});

const ffnSpecs = (dim: number): Specs => ({
  ...under('norm', normSpecs(dim)),
  ...under('0', linearSpecs(dim, FFN * dim)),
  ...under('2', linearSpecs(FFN * dim, dim)),
});

export function headSpecs(c: HeadConfig): Specs {
  if (c.kind === 'conv') return convHeadSpecs(c);
  if (c.queries !== 1 && c.queries !== c.taps)
    fail('head', `queries must be one for each of ${c.taps} taps, or 1 for all, got ${c.queries}`);
  if (c.dim % c.head_dim) fail('head', `dim ${c.dim} must be a multiple of head_dim ${c.head_dim}`);
  const tap: Specs = {
    ...under('norm', normSpecs(c.input_dim)),
    ...under('proj', linearSpecs(c.input_dim, c.dim)),
    ...under('query_norm', normSpecs(c.dim)),
    ...under('cross_attn', attentionSpecs(c.dim)),
    ...under('ffn', ffnSpecs(c.dim)),
  };
  const semantic: Specs = {
    ...(c.clip_dim > 0 && under('image', linearSpecs(c.clip_dim, c.dim))),
    ...under('text', linearSpecs(c.text_dim, c.dim)),
    ...under('norm', normSpecs(c.dim)),
    ...under('self_attn', attentionSpecs(c.dim)),
    ...under('ffn', ffnSpecs(c.dim)),
  };
  return {
    queries: { shape: [c.queries, c.dim], init: normal(LOGIT_STD) },
    ...(c.kind === 'semantic' && under('semantic', semantic)),
    ...(Object.assign({}, ...Array.from({ length: c.taps }, (_, l) => under(`taps.${l}`, tap))) as Specs),
    ...under('norm', normSpecs(c.taps * c.dim)),
    ...under('logit', linearSpecs(c.taps * c.dim, 1, normal(LOGIT_STD))),
  };
}

export const headShapes = (config: HeadConfig): Record<string, readonly number[]> => shapesOf(headSpecs(config));
export const initHead = (config: HeadConfig, seed: number): HostParams => materialise(headSpecs(config), seed);

/** Multi-head attention of x [B,N,dim] to y [B,L,dim], q and k RMS-normed over all heads. */
function attend(s: Scope, c: HeadConfig, x: Tensor, y: Tensor, lengths?: Tensor): Tensor {
  const split = (h: Tensor) => h.reshape([h.shape[0]!, h.shape[1]!, -1, c.head_dim]);
  const q = split(s.rmsNorm('norm_q', s.linear('q', x), EPS));
  const k = split(s.rmsNorm('norm_k', s.linear('k', y), EPS));
  return s.linear(
    'o',
    attention(q, k, split(s.linear('v', y)), { lengths }).reshape([x.shape[0]!, x.shape[1]!, c.dim]),
  );
}

const feedForward = (s: Scope, x: Tensor): Tensor =>
  x.add(s.linear('2', gelu(s.linear('0', s.layerNorm('norm', x, EPS)), 'tanh')));

/** The queries [B, queries, dim] after they have seen each other and the condition. */
function understand(s: Scope, c: HeadConfig, queries: Tensor, { imageTokens, context, lengths }: Semantics): Tensor {
  const pictures = imageTokens ? [s.linear('image', imageTokens)] : [];
  const all = concat([queries, ...pictures, s.linear('text', context)], 1);
  const normed = s.layerNorm('norm', all, EPS);
  // Only the queries are kept, so only they ask.
  const seen = queries.add(attend(s.scope('self_attn'), c, normed.slice(1, 0, c.queries), normed, lengths));
  return feedForward(s.scope('ffn'), seen);
}

/**
 * Logits [B].
 * @param taps [B, N, input_dim] from each tapped block, as `dit` returns them
 * @param semantics the condition; `semantic` heads need it, the others ignore it
 * @param lengths u32 [B]: tokens of each sample, when some have fewer than N (`ditTables().lengths`)
 */
export function head(
  params: Params | Scope,
  config: HeadConfig,
  taps: readonly Tensor[],
  semantics?: Semantics,
  lengths?: Tensor,
): Tensor {
  const s = Scope.of(params);
  if (taps.length !== config.taps) fail('head', `expected tokens of ${config.taps} blocks, got ${taps.length}`);
  if (config.kind === 'conv') return convHead(s, config, taps);
  const batch = taps[0]!.shape[0]!;
  let queries = s.get('queries').unsqueeze(0).expand([batch, config.queries, config.dim]);
  if (config.kind === 'semantic') {
    if (!semantics) fail('head', 'a semantic head needs the image and text tokens');
    queries = understand(s.scope('semantic'), config, queries, semantics);
  }
  const read = (tokens: Tensor, l: number): Tensor => {
    const tap = s.scope('taps').scope(l);
    const own = Math.min(l, config.queries - 1);
    const q = queries.slice(1, own, own + 1);
    const h = tap.linear('proj', tap.layerNorm('norm', tokens, EPS));
    return feedForward(
      tap.scope('ffn'),
      q.add(attend(tap.scope('cross_attn'), config, tap.layerNorm('query_norm', q, EPS), h, lengths)),
    );
  };
  const answers = taps.map(config.checkpoint ? checkpoint(read, 'nothing') : read);
  return s.linear('logit', s.layerNorm('norm', concat(answers, 2), EPS)).reshape([batch]);
}

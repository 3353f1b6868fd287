// A generator in a page: reads a .gcw file, and runs it on WebAssembly. No dependency, no request but the file itself.
//
//     import { load } from "./generator.js";
//     const generator = await load("generator.gcw");
//     const images = await generator.generate({ seed: 0, n: 16 });
//     context.putImageData(images.at(0), 0, 0);

const MAGIC = [71, 67, 87, 69, 66, 0, 0, 1]; // "GCWEB", format 1
const STREAMS = ["kernels", "header", "high", "low", "gaps", "whole"];
const HASH_BYTES = 20, BEGIN = MAGIC.length + HASH_BYTES, TABLE = BEGIN + 8 * STREAMS.length;
const TOGETHER = 16; // images of one call: as many as lie side by side in the kernels
const SINGLE_UP_TO = 2; // so few go one by one, which is sooner
const BLOCK = 1000; // latents are drawn in blocks of so many images
// A module of one function that counts the bits of a vector.
const WITH_SIMD = [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11];

export class GeneratorError extends Error {}

/** Reads a generator, or a network of images or sound, from an address or from bytes. */
export async function load(source) {
  if (typeof WebAssembly !== "object") throw new GeneratorError("This browser has no WebAssembly, which the generator needs.");
  if (typeof DecompressionStream !== "function") throw new GeneratorError("This browser is too old to unpack the generator (it has no DecompressionStream).");
  if (!WebAssembly.validate(Uint8Array.from(WITH_SIMD))) throw new GeneratorError("This browser's WebAssembly has no SIMD, which the generator needs.");
  const file = await bytesOf(source);
  if (file.length < TABLE || MAGIC.slice(0, 7).some((byte, i) => file[i] !== byte)) throw new GeneratorError("This is no generator that gancompress exported for the web.");
  if (file[7] !== MAGIC[7]) throw new GeneratorError(`The generator has format ${file[7]}, and this page reads ${MAGIC[7]}: use the generator.js that was written with it.`);
  const streams = await unpacked(file);
  const kernels = await checked(file, streams.kernels);
  const header = JSON.parse(new TextDecoder().decode(streams.header));
  return new (header.kind === "network" ? Network : Generator)(kernels, header, decoded(header.tensors, streams), file.length);
}

const damaged = () => new GeneratorError("The generator's weights are damaged: they are not the ones that were written.");

// The kernels, once they have found the hash of the file; themselves damaged, they do not.
async function checked(file, module) {
  const wanted = file.subarray(MAGIC.length, BEGIN);
  let kernels, found;
  try {
    kernels = new Kernels((await WebAssembly.instantiate(module)).instance.exports);
    found = kernels.hash(file.subarray(BEGIN), HASH_BYTES);
  } catch {
    throw damaged();
  }
  if (found.some((byte, i) => byte !== wanted[i])) throw damaged();
  return kernels;
}

async function bytesOf(source) {
  if (source instanceof ArrayBuffer) return new Uint8Array(source);
  if (ArrayBuffer.isView(source)) return new Uint8Array(source.buffer, source.byteOffset, source.byteLength);
  const answer = await fetch(source);
  if (!answer.ok) throw new GeneratorError(`The generator could not be fetched: ${answer.status} ${answer.statusText}`);
  return new Uint8Array(await answer.arrayBuffer());
}

async function unpacked(file) {
  const table = new DataView(file.buffer, file.byteOffset), parts = [];
  let at = TABLE;
  for (let i = 0; i < STREAMS.length; i++) {
    const packed = table.getUint32(BEGIN + 8 * i, true), whole = table.getUint32(BEGIN + 8 * i + 4, true);
    const part = file.subarray(at, at += packed);
    if (part.length !== packed) throw damaged();
    parts.push({ part, whole });
  }
  if (at !== file.length) throw damaged();
  const found = await Promise.all(parts.map(({ part, whole }) => (part.length === whole ? part : inflated(part))));
  if (found.some((one, i) => one.length !== parts[i].whole)) throw damaged();
  return Object.fromEntries(STREAMS.map((name, i) => [name, found[i]]));
}

async function inflated(part) {
  try {
    const stream = new Blob([part]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  } catch {
    throw damaged();
  }
}

// ---- tensors: kept values, and where they stand

function decoded(entries, streams) {
  const at = { high: 0, low: 0, gaps: 0, whole: 0 }, { high, low, gaps } = streams, tensors = [];
  for (const entry of entries) {
    const count = entry.kept ?? entry.n, places = entry.kept === undefined ? null : new Uint32Array(count);
    for (let i = 0, place = -1, from = at.gaps; places !== null && i < count; i++, at.gaps = from) {
      let gap = gaps[from++];
      while (gap === 255) place += 255, gap = gaps[from++];
      places[i] = place += gap + 1;
    }
    if (entry.as === "i8") {
      tensors.push({ values: new Int8Array(streams.whole.slice(at.whole, at.whole += count).buffer), places, n: entry.n });
      continue;
    }
    const bits = new Uint32Array(count), values = new Float32Array(bits.buffer), short = entry.as === "bf16";
    for (let i = 0, h = at.high, l = at.low; i < count; i++) {
      if (short) {
        const turned = (high[h++] << 8) | low[l++];
        bits[i] = ((turned >>> 1) | (turned << 15)) << 16;
      } else {
        const turned = (high[h++] << 24) | (low[l + 2] << 16) | (low[l + 1] << 8) | low[l];
        l += 3, bits[i] = (turned >>> 1) | (turned << 31);
      }
    }
    at.high += count, at.low += (short ? 1 : 3) * count;
    if (short) {
      const scale = tensors[entry.scale].values, rows = scale.length, { inner } = entry;
      for (let i = 0; i < count; i++) values[i] *= scale[(((places === null ? i : places[i]) / inner) | 0) % rows];
    }
    tensors.push({ values, places, n: entry.n });
  }
  return tensors;
}

// ---- the module and its memory

class Kernels {
  constructor(exports) {
    this.exports = exports;
    exports._initialize();
  }
  alloc(bytes) {
    const at = this.exports.web_alloc(bytes);
    if (at === 0) throw new GeneratorError("There is not enough memory for the generator.");
    return at;
  }
  free(at) {
    this.exports.web_free(at);
  }
  // Views end when memory grows: take them anew after every alloc.
  floats(at, count) {
    return new Float32Array(this.exports.memory.buffer, at, count);
  }
  bytes(at, count) {
    return new Uint8Array(this.exports.memory.buffer, at, count);
  }
  words(numbers) {
    const at = this.alloc(4 * numbers.length);
    new Int32Array(this.exports.memory.buffer, at, numbers.length).set(numbers);
    return at;
  }
  hash(content, size, person = null) {
    const from = this.alloc(content.length), to = this.alloc(64), name = this.alloc(16);
    this.bytes(from, content.length).set(content);
    if (person !== null) this.bytes(name, 16).fill(0).set(person);
    this.exports.web_hash(from, content.length, size, person === null ? 0 : name, to);
    const found = this.bytes(to, size).slice();
    for (const at of [from, to, name]) this.free(at);
    return found;
  }
}

// A program, laid out for single images or for batches, whichever is asked for first; of a network, for one size.
class Program {
  constructor(kernels, entry, tensors) {
    Object.assign(this, { kernels, entry, tensors, built: {} });
  }
  handle(layout) {
    if (this.built[layout] === undefined) this.built[layout] = this.build(this.entry[layout]);
    return this.built[layout];
  }
  ready(batch) {
    return this.handle(batch <= SINGLE_UP_TO ? "single" : "batch");
  }
  build(values) {
    const { kernels } = this, numbers = kernels.words(values), held = kernels.exports.web_new(numbers);
    kernels.free(numbers);
    if (held === 0) throw new GeneratorError("The generator's program was refused.");
    for (const step of this.entry.steps) {
      const used = [], pointers = step.t.map((index) => (index < 0 ? 0 : this.dense(index, used)));
      const weight = step.t[0];
      pointers.splice(1, 0, weight < 0 ? 0 : this.mask(weight, used));
      const n = kernels.words(step.n), t = kernels.words(pointers);
      const status = kernels.exports.web_add(held, n, t);
      for (const at of [n, t, ...used]) kernels.free(at);
      if (status !== 0) throw new GeneratorError(`The generator's program was refused (status ${status}).`);
    }
    return held;
  }
  // Forgets what was built, for other sizes.
  drop() {
    for (const held of Object.values(this.built)) this.kernels.exports.web_drop(held);
    this.built = {};
  }
  dense(index, used) {
    const { values, places, n } = this.tensors[index], { kernels } = this;
    const at = kernels.alloc(n * values.BYTES_PER_ELEMENT);
    used.push(at);
    const to = new values.constructor(kernels.exports.memory.buffer, at, n);
    if (places === null) to.set(values);
    else {
      to.fill(0);
      for (let i = 0; i < places.length; i++) to[places[i]] = values[i];
    }
    return at;
  }
  mask(index, used) {
    const { places, n } = this.tensors[index], at = this.kernels.alloc(n), to = this.kernels.bytes(at, n);
    used.push(at);
    to.fill(places === null ? 1 : 0);
    for (let i = 0; places !== null && i < places.length; i++) to[places[i]] = 1;
    return at;
  }
  run(batch, inputs, affines, outputs) {
    const { kernels } = this, held = this.ready(batch);
    const lists = [inputs, affines, outputs, this.entry.outputs].map((one) => kernels.words(one));
    const status = kernels.exports.web_run(held, batch, inputs.length, lists[0], affines.length, lists[1], outputs.length, lists[2], lists[3]);
    for (const at of lists) kernels.free(at);
    if (status !== 0) throw new GeneratorError(`The generator could not be run (status ${status}).`);
  }
}

// ---- operations between programs; a slot is where numbers lie, and how many there are of an image

const product = (shape) => shape.reduce((a, b) => a * b, 1);
const UNARY = {
  relu: (x) => (x < 0 ? 0 : x), sigmoid: (x) => 1 / (1 + Math.exp(-x)), silu: (x) => x / (1 + Math.exp(-x)),
};
const BINARY = { add: (a, b) => a + b, sub: (a, b) => a - b, mul: (a, b) => a * b, div: (a, b) => a / b };

class Run {
  constructor(generator, batch, labels) {
    Object.assign(this, { generator, kernels: generator.kernels, batch, labels, slots: [], taken: [] });
  }
  take(shape, batch = this.batch) {
    const count = batch * product(shape), at = this.kernels.alloc(4 * count);
    this.taken.push(at);
    return { at, shape, count };
  }
  floats(slot) {
    return this.kernels.floats(slot.at, slot.count);
  }
  end() {
    for (const at of this.taken) this.kernels.free(at);
  }
  // An operand of a binary operation: numbers, and how far one lies from the next along every axis of `shape`, images first.
  operand(given, shape) {
    if (given.number !== undefined) return { values: [Math.fround(given.number)], steps: [0, ...shape.map(() => 0)] };
    const own = given.slot !== undefined ? this.slots[given.slot] : null;
    const values = own !== null ? this.floats(own) : this.generator.tensors[given.tensor].values;
    let sizes = own !== null ? [this.batch, ...own.shape] : given.shape;
    sizes = [...Array(shape.length + 1 - sizes.length).fill(1), ...sizes];
    const steps = [];
    for (let axis = sizes.length - 1, step = 1; axis >= 0; step *= sizes[axis--]) steps[axis] = sizes[axis] === 1 ? 0 : step;
    return { values, steps };
  }
  do(op) {
    const out = op.op === "view" || op.op === "programs" ? null : this.take(op.shape);
    this.slots[op.out] = this[op.op](op, out) ?? out;
  }

  program(op, out) {
    this.into(op, [out]);
  }
  programs(op) {
    const outs = op.shapes.map((shape) => this.take(shape));
    op.outs.forEach((slot, i) => { this.slots[slot] = outs[i]; });
    this.into(op, outs);
    return outs[0];
  }
  into(op, outs) {
    const at = (slots) => slots.map((slot) => this.slots[slot].at);
    this.generator.programs[op.program].run(this.batch, at(op.of), at(op.affines), outs.map((out) => out.at));
  }
  view(op) {
    return { ...this.slots[op.of], shape: op.shape };
  }
  embed(op, out) {
    const table = this.generator.tensors[op.table].values, width = op.shape[0], to = this.floats(out);
    this.labels.forEach((label, i) => to.set(table.subarray(label * width, (label + 1) * width), i * width));
  }
  // Products and sums rounded to float32 one after the other, as kernels/exact.py says: the same numbers everywhere
  // (but for the sign of a zero, which no byte knows).
  linear(op, out) {
    const from = this.floats(this.slots[op.of]), to = this.floats(out), rows = op.shape[0], columns = from.length / this.batch;
    const { values, places } = this.generator.tensors[op.weight], bias = op.bias < 0 ? null : this.generator.tensors[op.bias].values;
    const sums = new Float32Array(rows), { fround } = Math;
    for (let n = 0; n < this.batch; n++) {
      if (bias === null) sums.fill(0);
      else sums.set(bias);
      for (let i = 0; i < values.length; i++) {
        const place = places === null ? i : places[i], column = place % columns;
        sums[(place - column) / columns] += fround(values[i] * from[n * columns + column]);
      }
      to.set(sums, n * rows);
    }
  }
  unary(op, out) {
    if (op.kind === "tanh") return this.kernels.exports.web_tanh(this.slots[op.of].at, out.count, out.at);
    const from = this.floats(this.slots[op.of]), to = this.floats(out);
    const of = op.kind === "leaky" ? (x) => (x < 0 ? x * op.slope : x) : UNARY[op.kind];
    for (let i = 0; i < to.length; i++) to[i] = of(from[i]);
  }
  clamp(op, out) {
    const from = this.floats(this.slots[op.of]), to = this.floats(out), low = op.low ?? -Infinity, high = op.high ?? Infinity;
    for (let i = 0; i < to.length; i++) to[i] = Math.min(high, Math.max(low, from[i]));
  }
  means(op, out) {
    const from = this.floats(this.slots[op.of]), to = this.floats(out), pixels = from.length / to.length;
    for (let plane = 0; plane < to.length; plane++) {
      let sum = 0;
      for (let i = plane * pixels; i < (plane + 1) * pixels; i++) sum += from[i];
      to[plane] = sum / pixels;
    }
  }
  binary(op, out) {
    const a = this.operand(op.a, op.shape), b = this.operand(op.b, op.shape), of = BINARY[op.kind], to = this.floats(out);
    const sizes = [this.batch, ...op.shape], last = sizes.length - 1, inner = sizes[last];
    const place = sizes.map(() => 0);
    for (let i = 0, p = 0, q = 0; i < to.length; ) {
      for (let k = 0; k < inner; k++) to[i++] = of(a.values[p + k * a.steps[last]], b.values[q + k * b.steps[last]]);
      for (let axis = last - 1; axis >= 0; axis--) {
        p += a.steps[axis], q += b.steps[axis];
        if (++place[axis] < sizes[axis]) break;
        p -= a.steps[axis] * sizes[axis], q -= b.steps[axis] * sizes[axis], place[axis] = 0;
      }
    }
  }
  affine(op, out) {
    const channels = op.shape[1], factors = op.factors.map((one) => (one === null ? null : this.operand(one, this.flat(one))));
    const to = this.floats(out), value = (factor, n, c) => factor.values[n * factor.steps[0] + c * Math.max(...factor.steps.slice(1))];
    for (let n = 0; n < this.batch; n++)
      for (let c = 0; c < channels; c++) {
        let scale = 1, shift = 0;
        for (let i = 0; i < factors.length; i += 2) {
          if (factors[i] !== null) {
            const gain = value(factors[i], n, c);
            scale = Math.fround(scale * gain), shift = Math.fround(shift * gain);
          }
          if (factors[i + 1] !== null) shift = Math.fround(shift + value(factors[i + 1], n, c));
        }
        to[(2 * n) * channels + c] = scale, to[(2 * n + 1) * channels + c] = shift;
      }
  }
  flat(given) {
    return given.slot !== undefined ? this.slots[given.slot].shape : given.shape;
  }
  cat(op, out) {
    const to = this.floats(out), width = product(op.shape);
    for (let n = 0; n < this.batch; n++) {
      let at = n * width;
      for (const slot of op.of) {
        const from = this.slots[slot], count = product(from.shape);
        to.set(this.floats(from).subarray(n * count, (n + 1) * count), at);
        at += count;
      }
    }
  }
  slice(op, out) {
    const from = this.slots[op.of], to = this.floats(out), width = product(op.shape), inner = width / op.shape[0], whole = product(from.shape);
    for (let n = 0; n < this.batch; n++) to.set(this.floats(from).subarray(n * whole + op.start * inner, n * whole + op.start * inner + width), n * width);
  }
  softmax(op, out) {
    const from = this.floats(this.slots[op.of]), to = this.floats(out), width = op.shape[op.shape.length - 1];
    for (let row = 0; row < to.length; row += width) {
      let most = -Infinity, sum = 0;
      for (let i = 0; i < width; i++) most = Math.max(most, from[row + i]);
      for (let i = 0; i < width; i++) sum += to[row + i] = Math.exp(from[row + i] - most);
      for (let i = 0; i < width; i++) to[row + i] /= sum;
    }
  }
  bmm(op, out) {
    const left = this.slots[op.a], right = this.slots[op.b], [rows, columns] = op.shape, inner = left.shape[1];
    const a = this.floats(left), b = this.floats(right), to = this.floats(out), sums = new Float64Array(columns);
    for (let n = 0; n < this.batch; n++)
      for (let y = 0; y < rows; y++) {
        sums.fill(0);
        for (let k = 0; k < inner; k++) {
          const factor = a[(n * rows + y) * inner + k], line = (n * inner + k) * columns;
          for (let x = 0; x < columns; x++) sums[x] += factor * b[line + x];
        }
        to.set(sums, (n * rows + y) * columns);
      }
  }
  transpose(op, out) {
    const from = this.floats(this.slots[op.of]), to = this.floats(out), [rows, columns] = op.shape;
    for (let n = 0; n < this.batch; n++)
      for (let y = 0; y < rows; y++) for (let x = 0; x < columns; x++) to[(n * rows + y) * columns + x] = from[(n * columns + x) * rows + y];
  }
  // Maps [plane][row][column]: calls `each` with the first place of a plane of the source and of the result.
  planes(op, out, each) {
    const source = this.slots[op.of], [, h, w] = source.shape, [, high, wide] = op.shape, from = this.floats(source), to = this.floats(out);
    for (let plane = 0; plane * h * w < from.length; plane++) each(from, plane * h * w, to, plane * high * wide, h, w);
  }
  up2(op, out) {
    this.planes(op, out, (from, p, to, q, h, w) => {
      for (let y = 0; y < 2 * h; y++) for (let x = 0; x < 2 * w; x++) to[q + 2 * w * y + x] = from[p + w * (y >> 1) + (x >> 1)];
    });
  }
  bilinear2(op, out) {
    this.planes(op, out, (from, p, to, q, h, w) => {
      const at = (y, x) => (y < h && x < w ? from[p + w * y + x] : 0);
      for (let y = 0; y < 2 * h; y++)
        for (let x = 0; x < 2 * w; x++) {
          const top = y >> 1, bottom = (y + 1) >> 1, left = x >> 1, right = (x + 1) >> 1;
          to[q + 2 * w * y + x] = (at(top, left) + at(top, right) + at(bottom, left) + at(bottom, right)) / 4;
        }
    });
  }
  maxpool2(op, out) {
    this.planes(op, out, (from, p, to, q, h, w) => {
      for (let y = 0; y < h >> 1; y++)
        for (let x = 0; x < w >> 1; x++) {
          const at = p + 2 * w * y + 2 * x;
          to[q + (w >> 1) * y + x] = Math.max(from[at], from[at + 1], from[at + w], from[at + w + 1]);
        }
    });
  }
}

// ---- latents: the numbers that gancompress draws in Python

// MT19937 (Matsumoto and Nishimura, 1998).
function* twister(seed) {
  const state = new Uint32Array(624);
  state[0] = seed;
  for (let i = 1; i < 624; i++) state[i] = Math.imul(1812433253, state[i - 1] ^ (state[i - 1] >>> 30)) + i;
  for (;;) {
    for (let i = 0; i < 624; i++) {
      const y = (state[i] & 0x80000000) | (state[(i + 1) % 624] & 0x7fffffff);
      state[i] = state[(i + 397) % 624] ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
    }
    for (let i = 0; i < 624; i++) {
      let y = state[i];
      y ^= y >>> 11, y ^= (y << 7) & 0x9d2c5680, y ^= (y << 15) & 0xefc60000;
      yield (y ^ (y >>> 18)) >>> 0;
    }
  }
}

// Standard normal numbers, eight and eight by Box and Muller: the first `wanted` of `total`, which are drawn together.
function normals(seed, total, wanted) {
  const source = twister(seed), draw = () => (source.next().value & 0xffffff) / 0x1000000;
  const rest = total % 16, count = Math.min(total, rest !== 0 && wanted > total - 16 ? total : Math.ceil(wanted / 16) * 16);
  const uniform = new Float64Array(Math.max(count, 16)), out = new Float32Array(uniform.length);
  const turn = (from) => {
    for (let k = 0; k < 8; k++) {
      const radius = Math.sqrt(-2 * Math.log(1 - uniform[from + k])), angle = 2 * Math.PI * uniform[from + 8 + k];
      out[from + k] = radius * Math.cos(angle), out[from + 8 + k] = radius * Math.sin(angle);
    }
  };
  for (let i = 0; i < count; i++) uniform[i] = draw();
  for (let i = 0; i + 16 <= count; i += 16) turn(i);
  if (count === total && rest !== 0) {
    for (let i = total - 16; i < total; i++) uniform[i] = draw();
    turn(total - 16);
  }
  return out.subarray(0, wanted);
}

// Share of a standard normal below x, and its inverse (Acklam's rational approximation, then one step of Newton's).
function share(x) {
  if (Math.abs(x) > 8) return x < 0 ? 0 : 1;
  let term = x, sum = x;
  for (let k = 3; Math.abs(term) > 1e-17 * Math.abs(sum); k += 2) sum += term *= (x * x) / k;
  return 0.5 + (sum * Math.exp((-x * x) / 2)) / Math.sqrt(2 * Math.PI);
}
function quantile(p) {
  const a = [-39.69683028665376, 220.9460984245205, -275.9285104469687, 138.357751867269, -30.66479806614716, 2.506628277459239];
  const b = [-54.47609879822406, 161.5858368580409, -155.6989798598866, 66.80131188771972, -13.28068155288572, 1];
  const c = [-0.007784894002430293, -0.3223964580411365, -2.400758277161838, -2.549732539343734, 4.374664141464968, 2.938163982698783];
  const d = [0.007784695709041462, 0.3224671290700398, 2.445134137142996, 3.754408661907416, 1];
  const at = (list, x) => list.reduce((sum, one) => sum * x + one, 0);
  const low = Math.min(p, 1 - p), tail = low < 0.02425 ? at(c, Math.sqrt(-2 * Math.log(low))) / at(d, Math.sqrt(-2 * Math.log(low))) : 0;
  const x = low >= 0.02425 ? ((p - 0.5) * at(a, (p - 0.5) ** 2)) / at(b, (p - 0.5) ** 2) : p < 0.5 ? tail : -tail;
  return x - ((share(x) - p) * Math.sqrt(2 * Math.PI)) / Math.exp((-x * x) / 2);
}

/** Brings normal numbers between -most and most, where they have the law of normal ones that lie there. */
export function within(latents, most) {
  if (!(most > 0)) throw new GeneratorError(`A threshold is a number above 0, got ${most}.`);
  const low = share(-most);
  return most >= 8 ? latents : latents.map((z) => Math.min(most, Math.max(-most, quantile(low + (1 - 2 * low) * share(z)))));
}

/** The latent at share t of the way from a to b, along the arc between them. */
export function between(a, b, t) {
  let dot = 0, aa = 0, bb = 0;
  for (let i = 0; i < a.length; i++) dot += a[i] * b[i], aa += a[i] * a[i], bb += b[i] * b[i];
  const cosine = Math.max(-1, Math.min(1, dot / Math.sqrt(aa * bb))), angle = Math.acos(cosine), sine = Math.sin(angle);
  const straight = !(sine > 1e-6), first = straight ? 1 - t : Math.sin((1 - t) * angle) / sine, second = straight ? t : Math.sin(t * angle) / sine;
  return Float32Array.from(a, (one, i) => first * one + second * b[i]);
}

/** The shortest sequence of classes that has each as often as `counts` say, evenly spread; see data/classes.py. */
export function classCycle(counts) {
  const divisor = counts.reduce(function gcd(a, b) { return b === 0 ? a : gcd(b, a % b); }, 0) || 1;
  const places = counts.flatMap((count, label) => Array.from({ length: count / divisor }, (_, turn) => [(2 * turn + 1) / (count / divisor), label]));
  return places.sort((a, b) => a[0] - b[0] || 0).map((one) => one[1]);
}

// ---- images

class Images {
  constructor(generator, n, classes) {
    const { size, channels } = generator.header;
    Object.assign(this, { n, width: size, height: size, channels, classes, data: new Uint8ClampedArray(4 * n * size * size), milliseconds: 0 });
  }
  /** One image, for a canvas. */
  at(index) {
    const count = 4 * this.width * this.height;
    return new ImageData(this.data.slice(index * count, (index + 1) * count), this.width, this.height);
  }
  set(first, floats, count) {
    const pixels = this.width * this.height;
    for (let i = 0; i < count; i++)
      for (let p = 0; p < pixels; p++) {
        const to = 4 * ((first + i) * pixels + p);
        for (let c = 0; c < 3; c++) {
          const x = floats[(i * this.channels + (this.channels === 1 ? 0 : c)) * pixels + p];
          this.data[to + c] = Math.fround(Math.fround(Math.fround(x + 1) * 127.5) + 8388608) - 8388608; // ties to even
        }
        this.data[to + 3] = 255;
      }
  }
}

class Generator {
  constructor(kernels, header, tensors, bytes) {
    Object.assign(this, { kernels, header, tensors, bytes, latentDim: header.latent, classes: header.classes });
    this.programs = header.programs.map((entry) => new Program(kernels, entry, tensors));
    this.cycle = null;
    this.drawn = { seed: null };
  }

  /** Latents of images first, first + 1, .. of a seed, one behind the other. */
  latents({ seed = 0, n = 1, first = 0, threshold = Infinity } = {}) {
    if (!Number.isSafeInteger(seed)) throw new GeneratorError(`A seed is a whole number, got ${seed}.`);
    const dim = this.latentDim, out = new Float32Array(n * dim);
    for (let i = first; i < first + n; i++) out.set(this.block(seed, Math.floor(i / BLOCK), (i % BLOCK) + 1, Math.min(BLOCK, first + n - i + (i % BLOCK))).subarray((i % BLOCK) * dim, ((i % BLOCK) + 1) * dim), (i - first) * dim);
    return threshold === Infinity ? out : within(out, threshold);
  }
  block(seed, block, least, wanted) {
    if (this.drawn.seed !== seed || this.drawn.block !== block || this.drawn.rows < least) {
      const parts = [`i${seed}`, "sevaluation", "slatent", `i${block}`].map((text) => {
        const encoded = new TextEncoder().encode(text);
        return [encoded.length, 0, 0, 0, 0, 0, 0, 0, ...encoded];
      });
      const digest = this.kernels.hash(Uint8Array.from(parts.flat()), 8, new TextEncoder().encode("gancompress"));
      const numbers = new DataView(digest.buffer), number = ((numbers.getUint32(0, true) >>> 1) | (numbers.getUint32(4, true) << 31)) >>> 0;
      this.drawn = { seed, block, rows: wanted, values: normals(number, BLOCK * this.latentDim, wanted * this.latentDim) };
    }
    return this.drawn.values;
  }

  /** Images of a seed, or of latents. */
  async generate({ seed = 0, classes = undefined, n = undefined, first = 0, threshold = Infinity, z = undefined } = {}) {
    const listed = Array.isArray(classes) || ArrayBuffer.isView(classes);
    const count = z !== undefined ? z.length / this.latentDim : n ?? (listed ? classes.length : 1);
    if (!Number.isInteger(count) || count < 1) throw new GeneratorError("n is a number of images, at least 1, and latents come whole.");
    const labels = this.labels(classes, count, first);
    const latents = z !== undefined ? Float32Array.from(z) : this.latents({ seed, n: count, first, threshold });
    for (const program of this.programs) for (const some of new Set([Math.min(TOGETHER, count), count % TOGETHER || TOGETHER])) program.ready(some);
    const images = new Images(this, count, labels), began = performance.now();
    for (let at = 0; at < count; at += TOGETHER) {
      const some = Math.min(TOGETHER, count - at);
      this.run(latents.subarray(at * this.latentDim, (at + some) * this.latentDim), labels.slice(at, at + some), (floats) => images.set(at, floats, some));
      if (at + some < count) await new Promise((done) => setTimeout(done)); // the page stays alive
    }
    images.milliseconds = performance.now() - began;
    return images;
  }

  /** Images on the way from one latent to another; `from` and `to` are seeds or latents. */
  async interpolate({ from, to, steps = 8, classes = undefined, threshold = Infinity }) {
    const [a, b] = [from, to].map((end) => (typeof end === "number" ? this.latents({ seed: end, threshold }) : end));
    const z = new Float32Array(steps * this.latentDim);
    for (let i = 0; i < steps; i++) z.set(between(a, b, steps === 1 ? 0 : i / (steps - 1)), i * this.latentDim);
    return this.generate({ z, classes: classes ?? 0 });
  }

  labels(classes, count, first) {
    if (this.classes.length === 0) return [];
    if (classes === undefined) {
      this.cycle ??= classCycle(this.header.counts);
      return Array.from({ length: count }, (_, i) => this.cycle[(first + i) % this.cycle.length]);
    }
    const listed = typeof classes === "number" || typeof classes === "string" ? Array(count).fill(classes) : Array.from(classes);
    if (listed.length !== count) throw new GeneratorError(`${listed.length} classes for ${count} images: list one per image.`);
    return listed.map((one) => {
      const label = typeof one === "string" ? this.classes.indexOf(one) : one;
      if (!Number.isInteger(label) || label < 0 || label >= this.classes.length) throw new GeneratorError(`There is no class ${one}.`);
      return label;
    });
  }

  /** Calls `use` with the numbers that the network gives, which lie in memory only then. */
  run(latents, labels, use) {
    const run = new Run(this, latents.length / this.latentDim, labels);
    try {
      run.slots[0] = run.take([this.latentDim]);
      run.floats(run.slots[0]).set(latents);
      for (const op of this.header.operations) run.do(op);
      use(run.floats(run.slots[this.header.output]));
    } finally {
      run.end();
    }
  }
}

// ---- networks of images or sound: sizes follow what they are given

// What was recorded for the smallest sizes, for ones that are so many steps larger.
function followed(record, steps) {
  if (Array.isArray(record)) return record.map((one) => followed(one, steps));
  if (record === null || typeof record !== "object") return record;
  if (record.by !== undefined) return record.at.map((one, i) => record.by.reduce((sum, by, axis) => sum + by[i] * steps[axis], one));
  return Object.fromEntries(Object.entries(record).map(([key, value]) => [key, followed(value, steps)]));
}

class Network {
  constructor(kernels, header, tensors, bytes) {
    Object.assign(this, { kernels, header, tensors, bytes, name: header.name, takes: header.takes, gives: header.gives, rate: header.rate });
    this.programs = header.programs.map((entry) => new Program(kernels, entry, tensors));
    this.sizes = null;
  }

  /** Inputs that lie in the file, as `run` takes them. */
  get examples() {
    return this.header.examples.map(({ tensor, shape }) => {
      const { values } = this.tensors[tensor], [low, high] = this.header.pixels;
      return { shape, data: this.takes === "image" ? Float32Array.from(values, (x) => ((x + 128) / 255) * (high - low) + low) : values };
    });
  }

  /** The shape that is taken of an input: sizes that may change are cut to multiples of what the network needs. */
  fit(shape) {
    const { axes, shape: own } = this.header;
    if (shape.length !== own.length) throw new GeneratorError(`The network takes ${own.length} axes, and was given ${shape.length}.`);
    const found = [];
    return own.map((size, i) => {
      if (size.axis === undefined) {
        if (shape[i] !== size) throw new GeneratorError(`The network takes ${size} along axis ${i}, and was given ${shape[i]}.`);
        return size;
      }
      const { unit, least } = axes[size.axis], cut = Math.floor(shape[i] / unit) * unit;
      if (cut < unit * least) throw new GeneratorError(`The network takes ${unit * least} or more along axis ${i}, and was given ${shape[i]}.`);
      if ((found[size.axis] ??= cut) !== cut) throw new GeneratorError("The network takes as many rows as columns.");
      return cut;
    });
  }

  /** Makes one output of one input: `data` in the order of `shape`, channels first, as `fit` gives it. */
  async run({ data, shape }) {
    const fitted = this.fit(shape);
    if (fitted.some((size, i) => size !== shape[i]) || data.length !== product(shape)) throw new GeneratorError(`The network takes ${fitted.join(" x ")} numbers of this input.`);
    this.size(fitted);
    for (const program of this.programs) program.ready(1);
    const began = performance.now(), run = new Run(this, 1, []);
    try {
      run.slots[0] = run.take(shape);
      run.floats(run.slots[0]).set(data);
      for (const op of this.operations) run.do(op);
      return { shape: this.shape, data: run.floats(run.slots[this.header.output]).slice(), milliseconds: performance.now() - began };
    } finally {
      run.end();
    }
  }
  size(shape) {
    if (this.sizes === shape.join()) return;
    const { axes, shape: own, programs, operations, gives_shape } = this.header;
    const steps = axes.map(({ unit, least }, axis) => shape[own.findIndex((size) => size.axis === axis)] / unit - least);
    programs.forEach((entry, i) => {
      this.programs[i].drop();
      this.programs[i].entry = { ...entry, single: followed(entry.single, steps) };
    });
    this.operations = followed(operations, steps), this.shape = followed(gives_shape, steps), this.sizes = shape.join();
  }

  /** Numbers of an image as a canvas has it: grey or RGB, cut to what is taken. */
  fromImage({ data, width, height }) {
    const [channels] = this.header.shape, [low, high] = this.header.pixels;
    const [, rows, columns] = this.fit([channels, height, width]), numbers = new Float32Array(channels * rows * columns);
    for (let y = 0; y < rows; y++)
      for (let x = 0; x < columns; x++) {
        const from = 4 * (y * width + x), grey = Math.round((299 * data[from] + 587 * data[from + 1] + 114 * data[from + 2]) / 1000);
        for (let c = 0; c < channels; c++) numbers[(c * rows + y) * columns + x] = ((channels === 1 ? grey : data[from + c]) / 255) * (high - low) + low;
      }
    return { data: numbers, shape: [channels, rows, columns] };
  }

  /** What `run` gave as an image for a canvas: RGBA, width and height. */
  toImage({ data, shape: [channels, height, width] }) {
    const [low, high] = this.header.pixels, pixels = height * width, rgba = new Uint8ClampedArray(4 * pixels).fill(255);
    for (let p = 0; p < pixels; p++) for (let c = 0; c < 3; c++) rgba[4 * p + c] = ((data[(channels === 1 ? 0 : c) * pixels + p] - low) / (high - low)) * 255;
    return { data: rgba, width, height };
  }
}

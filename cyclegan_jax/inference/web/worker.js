// Runs a generator on one picture at a time, away from the page, which so stays responsive.
//
// The arithmetic is that of cyclegan_jax's Translator and pictures: a picture is extended by
// reflection, at the right and the bottom, to sides that the network can halve; the translation is
// cut back.

const RUNTIME = new URL('runtime/', import.meta.url);
const SMALLEST = 16; // pixels of a side: below, instance norm has next to nothing to average over

let runtime; // {ort, backend}
let current; // {file, session}: one at a time, for the memory

self.onmessage = async ({ data: { generator, picture, grey, backend } }) => {
  try {
    const output = await translate(generator, picture, grey, backend);
    self.postMessage({ kind: 'done', backend: runtime.backend, ...output }, [output.data.buffer]);
  } catch (error) {
    // An exception of C++ arrives as a number; most are for lack of memory.
    self.postMessage({ kind: 'error', message: String(error?.message ?? error) });
  }
};

async function translate(generator, picture, grey, backend) {
  try {
    return await run(generator, picture, grey, backend);
  } catch (error) {
    if (runtime?.backend !== 'webgpu') throw error;
    console.warn('WebGPU failed, going on without it:', error);
    runtime = current = undefined;
    return run(generator, picture, grey, 'wasm');
  }
}

async function run(generator, picture, grey, backend) {
  runtime ??= await load(backend);
  await open(generator);
  self.postMessage({ kind: 'running', backend: runtime.backend });
  const start = performance.now();
  const { width, height } = picture;
  const [w, h] = [width, height].map((side) => padded(side, generator.size_multiple));
  const values = toNetwork(picture, w, h, generator.input_channels);
  const image = new runtime.ort.Tensor('float32', values, [1, generator.input_channels, h, w]);
  const { translation } = await current.session.run({ image });
  const data = toPicture(picture, translation, generator, grey);
  translation.dispose();
  return { data, width, height, seconds: (performance.now() - start) / 1000 };
}

async function load(backend) {
  const gpu = backend !== 'wasm' && (await navigator.gpu?.requestAdapter().catch(() => null));
  const [script, name] = gpu
    ? ['ort.webgpu.min.js', 'ort-wasm-simd-threaded.asyncify']
    : ['ort.wasm.min.js', 'ort-wasm-simd-threaded'];
  const ort = await import(new URL(script, RUNTIME).href);
  const url = (ending) => new URL(`${name}.${ending}`, RUNTIME).href;
  ort.env.wasm.wasmPaths = { mjs: url('js'), wasm: url('wasm') };
  // Browsers allow threads only where the host sends the headers COOP and COEP.
  ort.env.wasm.numThreads = self.crossOriginIsolated ? navigator.hardwareConcurrency : 1;
  return { ort, backend: gpu ? 'webgpu' : 'wasm' };
}

async function open({ file, bytes }) {
  if (current?.file === file) return;
  await current?.session.release();
  current = undefined;
  const session = await runtime.ort.InferenceSession.create(await download(file, bytes), {
    executionProviders: [runtime.backend],
    // Arenas grow by doubling, which in 4 GiB is soon too much.
    enableCpuMemArena: false,
    enableMemPattern: false,
  });
  current = { file, session };
}

async function download(file, total) {
  const response = await fetch(new URL(file, import.meta.url));
  if (!response.ok) throw new Error(`${file} cannot be fetched (${response.status})`);
  const content = new Uint8Array(total);
  let loaded = 0;
  for (const reader = response.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) break;
    if (loaded + value.length > total) throw new Error(`${file} is not the one of this page`);
    content.set(value, loaded);
    loaded += value.length;
    self.postMessage({ kind: 'loading', loaded, total });
  }
  if (loaded < total) throw new Error(`${file} is not whole`);
  return content;
}

function padded(side, multiple) {
  return Math.ceil(Math.max(side, SMALLEST) / multiple) * multiple;
}

/** For each of `length` places the one of `side` that it shows, mirrored without repeating ends. */
function reflected(length, side) {
  const period = Math.max(2 * (side - 1), 1);
  return Int32Array.from({ length }, (_, i) => {
    const place = i % period;
    return place < side ? place : period - place;
  });
}

/** RGBA bytes as (channels, h, w) in [-1, 1]. What full transparency hides becomes white. */
function toNetwork({ data, width, height }, w, h, channels) {
  const values = new Float32Array(channels * h * w);
  const [columns, rows] = [reflected(w, width), reflected(h, height)];
  const pixel = new Uint8ClampedArray(4);
  for (let y = 0, to = 0; y < h; y++) {
    for (let x = 0; x < w; x++, to++) {
      const from = 4 * (rows[y] * width + columns[x]);
      for (let c = 0; c < 4; c++) pixel[c] = data[from + c];
      if (pixel[3] === 0 && channels < 4) pixel.fill(255);
      // ITU-R 601 in whole numbers, as Pillow has it.
      if (channels === 1) pixel[0] = (19595 * pixel[0] + 38470 * pixel[1] + 7471 * pixel[2] + 32768) >> 16;
      for (let c = 0; c < channels; c++) values[c * h * w + to] = pixel[c] / 127.5 - 1;
    }
  }
  return values;
}

/** (channels, h, w) in [-1, 1], cut to the picture, as RGBA bytes with the picture's transparency. */
function toPicture({ data, width, height }, translation, generator, grey) {
  const [channels, inputs] = [generator.output_channels, generator.input_channels];
  const [, , h, w] = translation.dims;
  const values = translation.data;
  const pixels = new Uint8ClampedArray(4 * width * height); // rounds, and clamps
  const staysGrey = grey && inputs === 3 && channels === 3;
  for (let y = 0, to = 0; y < height; y++) {
    for (let x = 0; x < width; x++, to += 4) {
      for (let c = 0; c < channels; c++) {
        const value = values[(c * h + y) * w + x];
        if (!Number.isFinite(value)) throw new Error('the model gives values that are not finite');
        pixels[to + c] = (value + 1) * 127.5;
      }
      if (channels === 1) pixels[to + 1] = pixels[to + 2] = pixels[to];
      if (staysGrey) {
        const luma = 0.299 * pixels[to] + 0.587 * pixels[to + 1] + 0.114 * pixels[to + 2];
        for (let c = 0; c < 3; c++) pixels[to + c] = luma;
      }
      if (channels < 4) pixels[to + 3] = inputs < 4 ? data[to + 3] : 255;
    }
  }
  return pixels;
}

// The page: takes a picture, has the worker translate it, shows both, and saves the result.

const $ = (id) => document.getElementById(id);
const GIB = 2 ** 30;

const model = await (await fetch('model.json')).json();
const query = new URLSearchParams(location.search);
const speed = {}; // seconds a pixel, by file and backend: how long the next one will take

let worker;
let original; // the picture that was given: {bitmap, name, grey}
let job = 0; // the number of the latest translation; what an earlier one says is ignored
let ticker;
let stream;

// ---- Choices ------------------------------------------------------------------------------------

document.title = $('title').textContent = model.title;
$('about').textContent = `${model.about} Computed by onnxruntime-web ${model.runtime}.`;
model.generators.forEach((generator, i) => {
  const label = document.createElement('label');
  const input = document.createElement('input');
  Object.assign(input, { type: 'radio', name: 'direction', value: i, checked: i === 0 });
  label.append(input, ` ${generator.source} to ${generator.target}`);
  $('directions').append(label);
});
$('choices').onchange = () => original && translate();
$('choices').onsubmit = (event) => event.preventDefault();
tell('Choose a picture.');

const generator = () => model.generators[new FormData($('choices')).get('direction')];

// ---- Pictures -----------------------------------------------------------------------------------

$('file').onchange = ({ target }) => {
  if (target.files[0]) take(target.files[0], target.files[0].name);
  target.value = ''; // so that the same file can be chosen again
};
// Anywhere on the page: a picture dropped beside the frame would else replace the page.
document.ondragover = (event) => {
  event.preventDefault();
  $('drop').classList.add('over');
};
document.ondragleave = (event) => event.relatedTarget || $('drop').classList.remove('over');
document.ondrop = (event) => {
  event.preventDefault();
  $('drop').classList.remove('over');
  const file = event.dataTransfer.files[0];
  if (file) take(file, file.name);
};

if (navigator.mediaDevices) $('camera').hidden = false; // they need https, or this machine
$('camera').onclick = async () => {
  try {
    const video = { facingMode: 'environment', width: { ideal: 1280 } };
    const opened = await navigator.mediaDevices.getUserMedia({ video });
    closeCamera(); // which may be open already
    stream = opened;
  } catch (error) {
    return fail(`The camera cannot be used: ${error.message}.`);
  }
  $('video').srcObject = stream;
  $('viewfinder').hidden = false;
  $('shoot').focus();
};
$('shoot').onclick = async () => {
  if (!$('video').videoWidth) return; // no picture has come yet
  const canvas = new OffscreenCanvas($('video').videoWidth, $('video').videoHeight);
  canvas.getContext('2d').drawImage($('video'), 0, 0);
  closeCamera();
  await take(await canvas.convertToBlob(), 'camera.png');
};
$('close').onclick = closeCamera;

function closeCamera() {
  stream?.getTracks().forEach((track) => track.stop());
  stream = $('video').srcObject = null;
  $('viewfinder').hidden = true;
  $('camera').focus();
}

async function take(blob, name) {
  stop();
  if (stream) closeCamera();
  tell(`Reading ${name}.`);
  const number = job;
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob); // turned as its EXIF says
  } catch {
    if (number !== job) return; // another has been chosen since
    return fail(`${name} cannot be read as a picture by this browser. Choose a JPEG, PNG or WebP.`);
  }
  const grey = isGrey(new Uint8Array(await blob.slice(0, 65536).arrayBuffer()));
  if (number !== job) return;
  original?.bitmap.close();
  original = { bitmap, name, grey };
  translate();
}

/** Whether a PNG or JPEG has no colours, by its header: then its translation is to have none. */
function isGrey(bytes) {
  if (bytes[0] === 0x89) return bytes[25] === 0 || bytes[25] === 4; // colour type of PNG
  if (bytes[0] !== 0xff || bytes[1] !== 0xd8) return false;
  // Segments of JPEG: a marker, and the length of what follows. Frames are SOF0 to SOF15.
  for (let i = 2; i + 9 < bytes.length; i += 2 + 256 * bytes[i + 2] + bytes[i + 3]) {
    const marker = bytes[i + 1];
    if (marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker)) {
      return bytes[i + 9] === 1; // components
    }
  }
  return false;
}

/** (width, height) to translate at: as chosen, and no larger than the memory allows. */
function chosenSize({ width, height }) {
  const side = Number($('size').value) || Infinity;
  // A page has 4 GiB for the network; a telephone gives less.
  const memory = Math.min(4, (navigator.deviceMemory ?? 8) / 2) * GIB * 0.9;
  const pixels = (memory - 8 * generator().bytes) / generator().bytes_per_pixel;
  const wanted = Math.min(1, side / Math.max(width, height));
  const scale = Math.min(wanted, Math.sqrt(pixels / (width * height)));
  const size = [width, height].map((n) => Math.max(1, Math.floor(n * scale)));
  const tooLarge = scale < wanted
    ? ` A page has memory for ${(pixels / 1e6).toFixed(1)} megapixels with this model.`
    : '';
  return [...size, tooLarge];
}

// ---- Translation --------------------------------------------------------------------------------

function translate() {
  stop();
  const number = ++job;
  const { bitmap, name, grey } = original;
  const [width, height, tooLarge] = chosenSize(bitmap);
  const source = draw($('before'), width, height, (context) => {
    context.imageSmoothingQuality = 'high';
    context.drawImage(bitmap, 0, 0, width, height);
  });
  const picture = source.getImageData(0, 0, width, height);
  const chosen = generator();
  const resized = width < bitmap.width
    ? ` Reduced from ${bitmap.width} × ${bitmap.height} to ${width} × ${height} pixels.${tooLarge}`
    : '';
  $('bar').hidden = $('cancel').hidden = false;
  $('bar').removeAttribute('value');
  tell(`Loading the model.${resized}`);
  worker ??= new Worker('worker.js', { type: 'module' });
  worker.onerror = (event) => number === job && fail(`The worker failed: ${event.message}`);
  worker.onmessage = ({ data }) => {
    if (number !== job) return;
    if (data.kind === 'loading') {
      Object.assign($('bar'), { max: data.total, value: data.loaded });
      const mb = (bytes) => (bytes / 1e6).toFixed(1);
      $('bar').setAttribute('aria-valuetext', `${mb(data.loaded)} of ${mb(data.total)} MB`);
    } else if (data.kind === 'running') {
      const seconds = speed[chosen.file + data.backend] * width * height;
      const about = seconds ? `, about ${Math.max(1, Math.round(seconds))} s` : '';
      tell(`Translating ${width} × ${height} pixels${about}.${resized}`);
      tick(seconds);
    } else if (data.kind === 'done') {
      speed[chosen.file + data.backend] = data.seconds / (width * height);
      show(data, chosen, name, `${resized}`.trim());
    } else {
      const advice = width * height > 2 ** 18 ? ' It may be too large for the memory: choose a smaller size.' : '';
      fail(`${name} could not be translated (${data.message}).${advice}`);
    }
  };
  worker.postMessage({ generator: chosen, picture, grey, backend: query.get('backend') });
}

/** The bar while the network computes, which does not say how far it is: by the time of the last. */
function tick(seconds) {
  $('bar').removeAttribute('value');
  $('bar').removeAttribute('aria-valuetext');
  if (!seconds) return;
  const start = performance.now();
  ticker = setInterval(() => {
    Object.assign($('bar'), { max: 1, value: Math.min(0.98, (performance.now() - start) / 1000 / seconds) });
  }, 100);
}

async function show({ data, width, height, seconds, backend }, { name, source, target }, file, resized) {
  rest();
  draw($('after'), width, height, (context) => context.putImageData(new ImageData(data, width, height), 0, 0));
  const where = { wasm: 'the processor', webgpu: 'the graphics card' }[backend];
  $('compare').classList.toggle('small', width < 256);
  $('result').style.setProperty('--width', `${width}px`);
  $('before').setAttribute('aria-label', `${file}, before`);
  $('after').setAttribute('aria-label', `${file}, translated from ${source} to ${target}`);
  $('caption').textContent = `${file}, ${source} to ${target}, ${width} × ${height} pixels, `
    + `${seconds.toFixed(1)} s on ${where}. ${resized}`;
  const number = job;
  const blob = await new Promise((resolve) => $('after').toBlob(resolve));
  if (number !== job) return;
  URL.revokeObjectURL($('save').href);
  $('save').href = URL.createObjectURL(blob);
  $('save').download = `${file.replace(/\.[^.]*$/, '')}_${name}.png`;
  $('result').hidden = false;
  tell(`Done: ${file}, ${source} to ${target}.`);
}

function draw(canvas, width, height, paint) {
  Object.assign(canvas, { width, height });
  const context = canvas.getContext('2d', { willReadFrequently: true });
  paint(context);
  return context;
}

// ---- What is said -------------------------------------------------------------------------------

function tell(text) {
  $('status').textContent = text;
  $('error').textContent = '';
}

function fail(text) {
  stop();
  $('status').textContent = '';
  $('error').textContent = text;
}

/** Nothing is being computed any more. */
function rest() {
  clearInterval(ticker);
  $('bar').hidden = $('cancel').hidden = true;
}

/** Ends what is being computed, and hides what no longer belongs to the picture. */
function stop() {
  if (!$('bar').hidden) {
    worker?.terminate(); // nothing else stops a network, or gives its memory back
    worker = undefined;
  }
  job++;
  rest();
  $('result').hidden = true;
}

$('cancel').onclick = () => {
  stop();
  tell('Cancelled.');
};

// ---- The slider: with the keyboard, or dragged on the picture itself ------------------------------

const share = (percent) => $('compare').style.setProperty('--share', `${percent}%`);
$('slider').oninput = () => share($('slider').value);
$('compare').onpointermove = $('compare').onpointerdown = (event) => {
  if (event.type === 'pointermove' && !event.buttons) return;
  const { left, width } = $('compare').getBoundingClientRect();
  $('slider').value = (100 * (event.clientX - left)) / width;
  share($('slider').value);
};

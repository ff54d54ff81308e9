// sharp: one thread, no cache; each thumbnail is made from the one before. The argument is where it was installed.
const fs = require("node:fs/promises");
const path = require("node:path");
const readline = require("node:readline");

const sharp = require(path.join(process.argv[2], "node_modules", "sharp"));
const SIZES = [1200, 300, 100];
const QUALITY = 82;

sharp.concurrency(1);
sharp.cache(false);

async function render(source, out) {
  let image = sharp(source).rotate();
  for (const size of SIZES) {
    const { data, info } = await image
      .resize(size, size, { fit: "inside", withoutEnlargement: true })
      .raw()
      .toBuffer({ resolveWithObject: true });
    const raw = { width: info.width, height: info.height, channels: info.channels };
    const file = await sharp(data, { raw }).jpeg({ quality: QUALITY }).toBuffer();
    await fs.writeFile(path.join(out, `${size}x${size}`), file);
    image = sharp(data, { raw });
  }
}

function processorSeconds() {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
}

async function measure({ source, out }) {
  const processor = processorSeconds();
  const began = process.hrtime.bigint();
  try {
    await render(source, out);
  } catch (error) {
    return { error: String(error).slice(0, 200) };
  }
  const seconds = Number(process.hrtime.bigint() - began) / 1e9;
  return { seconds, cpu: processorSeconds() - processor, children_peak: 0 };
}

async function main() {
  const { sharp: own, vips } = sharp.versions;
  console.log(JSON.stringify({ version: `sharp ${own}, libvips ${vips}` }));
  for await (const line of readline.createInterface({ input: process.stdin })) {
    console.log(JSON.stringify(await measure(JSON.parse(line))));
  }
}

main();

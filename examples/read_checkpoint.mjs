// Reads the weights of a checkpoint from a folder of a store, by docs/checkpoints.md alone.
//
//     node examples/read_checkpoint.mjs var/checkpoints/clicks 00000012-19a7f3x4 [KEY ...]
//
// Prints {"name", "rows": {table: count}, "weights": {table: {KEY: [...]}}} of the keys asked for,
// as JSON. Goes back from the checkpoint to the last one that says all there is, and takes what
// each later one says has changed: tombstones first, then rows. Every file is verified.

import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'

const sha256 = (bytes) => createHash('sha256').update(bytes).digest('hex')

/** The manifest of a folder: its body, and the checksum by which children name it. */
function manifest (model, name) {
  const bytes = readFileSync(join(model, name, 'manifest.json'))
  const { format, body } = JSON.parse(bytes)
  if (format !== 1 && format !== 2) throw new Error(`${name}: format ${format}, this reads 1 and 2`)
  return { ...body, sha256: sha256(bytes) }
}

/** The arrays and the text of a safetensors file: 8 bytes of length, a JSON header, the arrays. */
function safetensors (bytes) {
  const size = Number(bytes.readBigUInt64LE(0))
  const header = JSON.parse(bytes.subarray(8, 8 + size))
  const kinds = { U64: BigUint64Array, F32: Float32Array, I16: Int16Array, I8: Int8Array }
  const arrays = {}
  for (const [name, told] of Object.entries(header)) {
    if (name === '__metadata__') continue
    const [first, end] = told.data_offsets.map((at) => 8 + size + at)
    const own = new Uint8Array(bytes.subarray(first, end)) // a copy stands aligned
    arrays[name] = new kinds[told.dtype](own.buffer)
    arrays[name].width = told.shape[1] ?? 1
  }
  return { arrays, text: header.__metadata__ }
}

/** What replicas read of a part: all weights (parent ''), or what has changed upon a parent. */
function serving (model, one, part, parent) {
  const file = (part.serving ?? []).find((f) => f.parent === parent)
  if (!file) return null
  const bytes = readFileSync(join(model, one.name, file.path))
  if (bytes.length !== file.bytes || sha256(bytes) !== file.sha256) {
    throw new Error(`${one.name}/${file.path}: not as the manifest says`)
  }
  return safetensors(bytes)
}

/** The manifests to read, oldest first; the first says all there is. */
function chain (model, name) {
  const found = [manifest(model, name)]
  while (!found[0].parts.every((part) => part.kind === 'full')) {
    const parent = manifest(model, found[0].parent_name)
    if (parent.sha256 !== found[0].parent) throw new Error(`${parent.name}: not the one named`)
    found.unshift(parent)
  }
  return found
}

const [model, name, ...keys] = process.argv.slice(2)
const tables = {} // table -> Map of key and weights
chain(model, name).forEach((one, step) => {
  for (const { name: table } of one.spec.tables) tables[table] ??= new Map()
  for (const part of one.parts) {
    const upon = step > 0 && serving(model, one, part, one.parent)
    if (step > 0 && !upon) throw new Error(`${one.name}: part ${part.shard} is full: begin there`)
    const { arrays } = upon || serving(model, one, part, '')
    for (const [table, rows] of Object.entries(tables)) {
      for (const key of arrays[`table/${table}/tombstones`] ?? []) rows.delete(key)
      const weights = arrays[`table/${table}/weights`]
      const scales = arrays[`table/${table}/scales`] // of rounded weights, one a row
      arrays[`table/${table}/keys`].forEach((key, i) => {
        const row = weights.subarray(i * weights.width, (i + 1) * weights.width)
        rows.set(key, scales ? Float32Array.from(row, (n) => n * scales[i]) : row)
      })
    }
  }
})
const rows = {}
const weights = {}
for (const [table, held] of Object.entries(tables)) {
  rows[table] = held.size
  weights[table] = {}
  for (const key of keys) {
    const found = held.get(BigInt(key))
    weights[table][key] = found ? [...found] : null // null: a key that nobody has learned
  }
}
console.log(JSON.stringify({ name, rows, weights }))

// The run as the page carries it: unpacked into columns, one typed array each.
"use strict"

/** The run: `head` as the file says it, and a table for each of mapped, block, mark, steps, brk, curve. */
const run = {}

/** Return the bytes of base64 text. */
function bytesOf(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text)
  const letters = atob(text), bytes = new Uint8Array(letters.length)
  for (let at = 0; at < letters.length; at++) bytes[at] = letters.charCodeAt(at)
  return bytes
}

/** Fill `run` from the packed text: a JSON head behind its length, then the byte planes of each column. */
async function unpack(text) {
  const stream = new Blob([bytesOf(text)]).stream().pipeThrough(new DecompressionStream("deflate"))
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer())
  const length = new DataView(bytes.buffer).getUint32(0, true)
  run.head = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + length)))
  let place = 4 + length
  for (const [name, count, width, isDifference] of run.head.columns) {
    const [table, column] = name.split(".")
    run[table] ??= {}
    run[table][column] = columnOf(bytes, place, count, width, isDifference)
    place += count * width
  }
  complete()
}

/** Return one column: planes put together, the sign taken from the lowest bit, differences added up. */
function columnOf(bytes, place, count, width, isDifference) {
  const values = new Float64Array(count)
  for (let plane = 0, weight = 1; plane < width; plane++, weight *= 256)
    for (let at = 0, from = place + plane * count; at < count; at++) values[at] += bytes[from + at] * weight
  for (let at = 0, sum = 0; at < count; at++) {
    const half = Math.floor(values[at] / 2)
    const value = values[at] === 2 * half ? half : -half - 1
    values[at] = isDifference ? (sum += value) : value
  }
  return values
}

/** Add the columns that follow from others. */
function complete() {
  const { mapped, block, steps } = run
  mapped.end = mapped.start.map((start, at) => start + mapped.size[at])
  for (let at = 0; at < mapped.born.length; at++) mapped.made[at] = mapped.born[at] - mapped.made[at]
  for (const table of [mapped, block])
    for (let at = 0; at < table.died.length; at++) table.died[at] ||= Infinity
  for (let at = 0; at < steps.clock.length; at++) {
    steps.line[at] += steps.clock[at]
    steps.entry[at] = steps.clock[at] - steps.entry[at]
  }
  run.isWhole = Object.values(run.head.shown).every(([shown, all]) => shown === all)
  completeTimes()
}

/** Give each step its seconds since the first, never falling; without times there are none. */
function completeTimes() {
  const time = run.steps.time
  if (!time || !time.length) return
  run.seconds = new Float64Array(time.length)
  for (let at = 0, latest = time[0]; at < time.length; at++) {
    latest = Math.max(latest, time[at])
    run.seconds[at] = ((latest - time[0]) * run.head.tick) / 1e9
  }
}

/** Return how many values of a rising column are at most `value`, or are less if `isBelow`. */
function countUpTo(column, value, isBelow = false) {
  let low = 0, high = column.length
  while (low < high) {
    const middle = (low + high) >> 1
    if (isBelow ? column[middle] < value : column[middle] <= value) low = middle + 1
    else high = middle
  }
  return low
}

/** Return the place of the last step that had completed at a clock, -1 for none. */
const stepAt = (clock) => countUpTo(run.steps.clock, clock) - 1

/** Return the rows of a table that are of a space. */
function rowsOf(table, space) {
  const rows = new Uint32Array(table.space.length)
  let count = 0
  for (let at = 0; at < rows.length; at++) if (table.space[at] === space) rows[count++] = at
  return rows.subarray(0, count)
}

// --- amounts in words, as the report writes them ---------------------------------------------------------------------

const UNITS = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]

/** Return a number with so many digits behind its point, halves to the even digit. */
function rounded(value, digits) {
  const scale = 10 ** digits, whole = Math.floor(value * scale), rest = value * scale - whole
  return ((rest > 0.5 || (rest === 0.5 && whole % 2 === 1) ? whole + 1 : whole) / scale).toFixed(digits)
}

/** Return bytes with a binary unit: `132 KiB`, `1 byte`. */
function size(count) {
  if (Math.abs(count) < 1024) return count === 1 ? "1 byte" : `${count} bytes`
  const sign = count < 0 ? "-" : ""
  let value = Math.abs(count), unit = 0
  for (; value >= 1023.95 && unit < UNITS.length - 1; unit++) value /= 1024
  return `${sign}${(value < 99.95 ? rounded(value, 1) : rounded(value, 0)).replace(/\.0$/, "")} ${UNITS[unit]}`
}

const grouped = (count) => String(count).replace(/\B(?=(\d{3})+$)/g, ",")
const exact = (count) => (count < 1024 ? size(count) : `${grouped(count)} bytes (${size(count)})`)
const counted = (count, noun) => `${grouped(count)} ${count === 1 ? noun : noun + "s"}`
const bytesIn = (pages) => pages * run.head.unit

/** Return the digits of an address given in pages; above 2^53 bytes a browser's numbers are too coarse. */
function digits(pages) {
  const bytes = pages * run.head.unit
  return bytes <= Number.MAX_SAFE_INTEGER ? bytes.toString(16) : (BigInt(pages) * BigInt(run.head.unit)).toString(16)
}

const address = (pages) => "0x" + digits(pages)

/** Return a span of seconds: `31.8 ms`. */
function duration(seconds) {
  if (seconds < 1e-3) return `${+(seconds * 1e6).toFixed(1)} µs`
  if (seconds < 1) return `${+(seconds * 1e3).toFixed(2)} ms`
  return `${+seconds.toFixed(3)} s`
}

/** Return where a clock stands in the logs: `line 44`, or `line 44 of log.17207`; empty for what was there before. */
function placeOf(clock) {
  if (clock < 1) return ""
  const { steps, head } = run
  if (head.files.length < 2) return `line ${clock}`
  const at = Math.max(0, stepAt(clock))
  if (!steps.clock.length) return ""
  const line = steps.line[at] + (head.merged ? 0 : clock - steps.clock[at])
  return `line ${line} of ${head.files[steps.file[at]]}`
}

/** Return the clock of a line of a file, or of the log where there is one. */
function clockOf(line, file) {
  const { steps, head } = run
  if (head.files.length < 2 || !file) return line
  const number = head.files.indexOf(file)
  for (let at = steps.line.length - 1; at >= 0; at--)
    if (steps.file[at] === number && steps.line[at] <= line) return steps.clock[at]
  return line
}

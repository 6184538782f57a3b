// The curves under the picture, on the same axis of time: step functions drawn by hand.
"use strict"

const MAPPED = "mapped: "
const RATIO = 1e6

/** The charts, from top to bottom; one without any curve in the log is left out. */
const CHARTS = [
  { name: "mapped", title: "mapped, by kind", unit: "bytes", isStack: true },
  { name: "break", title: "brk area", unit: "bytes", lines: ["brk_bytes"] },
  { name: "headroom", title: "headroom of the break (log)", unit: "bytes", isLog: true, lines: ["headroom_bytes"] },
  { name: "malloc", title: "malloc", unit: "bytes",
    lines: ["heap_bytes", "live_bytes", "free_bytes", "unseen_bytes", "pinned_bytes"] },
  { name: "count", title: "mappings", unit: "", lines: ["mapping_count"] },
  { name: "gap", title: "largest gap (log)", unit: "bytes", isLog: true, lines: ["largest_gap_bytes"] },
  { name: "cut up", title: "fragmentation, 0 to 1", unit: "ratio", lines: ["address_fragmentation", "heap_fragmentation"] },
]

const LINES = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00"]
const DARK_LINES = ["#56b4e9", "#e69f00", "#2fd0a0", "#e39cc4", "#ff8a3d"]
const DASHES = [[], [6, 3], [2, 2], [8, 2, 2, 2], [1, 3]]
const NAMES = {
  brk_bytes: "brk area", headroom_bytes: "headroom", heap_bytes: "held", live_bytes: "live", free_bytes: "free",
  unseen_bytes: "unseen", pinned_bytes: "pinned", mapping_count: "mappings", largest_gap_bytes: "largest gap",
  address_fragmentation: "of the address space", heap_fragmentation: "of the heap",
}

/** Return the curves of a space by name, each with its clocks and values. */
function curvesOf(space) {
  const found = new Map()
  let place = 0
  for (const [ofSpace, name, count, isWhole] of run.head.curves) {
    if (ofSpace === space) {
      const clocks = run.curve.clock.subarray(place, place + count)
      let values = run.curve.value.subarray(place, place + count)
      if (name.startsWith(MAPPED)) values = values.map(bytesIn)
      if (name.endsWith("fragmentation")) values = values.map((value) => value / RATIO)
      found.set(name, { name, clocks, values, isWhole })
    }
    place += count
  }
  return found
}

/** Return the charts that a space has something for. */
function chartsOf(space) {
  const curves = curvesOf(space), hasMalloc = run.block.born.length > 0
  return CHARTS.flatMap((chart) => {
    if (chart.isStack) {
      const stack = run.head.classes.flatMap((name, code) => {
        const curve = curves.get(MAPPED + name)
        return curve ? [{ ...curve, code }] : []
      })
      return stack.length ? [{ ...chart, curves: stack }] : []
    }
    const own = chart.lines.flatMap((name) => (curves.has(name) ? [curves.get(name)] : []))
    const isEmpty = own.every((curve) => curve.values.every((value) => !value)) && chart.name !== "break"
    return own.length && !(isEmpty && chart.name !== "cut up") && (chart.name !== "malloc" || hasMalloc) ? [{ ...chart, curves: own }] : []
  })
}

/** Return the value of a curve at a clock, null before its first. */
function valueAt(curve, clock) {
  const at = countUpTo(curve.clocks, clock) - 1
  return at < 0 ? null : curve.values[at]
}

function inWords(value, unit) {
  if (value === null) return "–"
  return unit === "bytes" ? size(value) : unit === "ratio" ? value.toFixed(3) : grouped(value)
}

/** Return the values of a chart at a clock, a line for each curve. */
function chartLines(chart, clock) {
  const lines = chart.curves.map((curve) => `${titleOf(curve)}: ${inWords(valueAt(curve, clock), chart.unit)}`)
  if (!chart.isStack) return lines
  const total = (those) => those.reduce((sum, curve) => sum + (valueAt(curve, clock) ?? 0), 0)
  const touchable = chart.curves.filter((curve) => !isNoAccess(curve))
  return [`mapped: ${size(total(chart.curves))}`, `resident at most: ${size(total(touchable))}`, ...lines]
}

const isNoAccess = (curve) => run.head.classes[curve.code] === "no access"
const titleOf = (curve) => (curve.code === undefined ? NAMES[curve.name] : kindWords(curve.code))
const kindWords = (code) =>
  ({ brk: "brk area", anon: "anonymous", shm: "shared memory", image: "program image", "no access": "no access (cannot be resident)" })[
    run.head.classes[code]] ?? run.head.classes[code]

/** Draw a chart; `xOf` gives the pixel of a clock, `from` and `to` are the clocks at the edges. */
function drawChart(chart, context, width, height, xOf, from, to) {
  const ratio = devicePixelRatio
  context.clearRect(0, 0, width, height)
  context.strokeStyle = theme.grid
  context.lineWidth = ratio
  context.strokeRect(0, 0.5 * ratio, width, height - ratio)
  if (chart.isStack) drawStack(chart, context, width, height, xOf, from, to)
  else drawLines(chart, context, width, height, xOf, from, to)
}

/** Return the rows of a curve in view, the one before them included. */
function rowsInView(curve, from, to) {
  return [Math.max(0, countUpTo(curve.clocks, from) - 1), countUpTo(curve.clocks, to)]
}

function drawLines(chart, context, width, height, xOf, from, to) {
  let top = 0, bottom = Infinity
  chart.hasZero = false
  for (const curve of chart.curves) {
    const [first, end] = rowsInView(curve, from, to)
    for (let at = first; at < end; at++) {
      top = Math.max(top, curve.values[at])
      if (curve.values[at] > 0) bottom = Math.min(bottom, curve.values[at])
      else chart.hasZero = true
    }
  }
  chart.top = chart.unit === "ratio" ? 1 : top || 1
  chart.bottom = !chart.isLog ? 0 : (chart.hasZero ? Math.min(bottom, run.head.unit) : Math.min(bottom, chart.top)) / 2
  const margin = 2 * devicePixelRatio, room = height - 2 * margin
  const share = (value) => (chart.isLog
    ? Math.log(Math.max(value, chart.bottom) / chart.bottom) / Math.log(Math.max(chart.top / chart.bottom, 1.0001))
    : value / chart.top)
  chart.curves.forEach((curve, number) => {
    const at = chart.curves.length === 1 ? 0 : number
    context.strokeStyle = (theme.isDark ? DARK_LINES : LINES)[at]
    context.setLineDash(DASHES[at].map((length) => length * devicePixelRatio))
    context.lineWidth = 1.6 * devicePixelRatio
    context.beginPath()
    const [first, end] = rowsInView(curve, from, to)
    for (let row = first, before = 0; row < end; row++) {
      const x = Math.max(-9, xOf(curve.clocks[row])), y = height - margin - room * share(curve.values[row])
      if (row > first) context.lineTo(x, before)
      else context.moveTo(x, y)
      before = y
      context.lineTo(x, y)
      if (row + 1 === end) context.lineTo(Math.min(xOf(run.head.last + 1), width + 9), y)
    }
    context.stroke()
  })
  context.setLineDash([])
}

/** Draw what is mapped by kind, one upon the other; what nobody may touch is on top. */
function drawStack(chart, context, width, height, xOf, from, to) {
  const moments = momentsOf(chart, from, to)
  const below = new Float64Array(moments.length)
  const layers = chart.curves.map((curve) => {
    const low = below.slice()
    moments.forEach((clock, at) => (below[at] += valueAt(curve, clock) ?? 0))
    return [curve.code, low, below.slice()]
  })
  chart.top = below.reduce((most, value) => Math.max(most, value), 1)
  chart.bottom = 0
  const margin = 2 * devicePixelRatio, scale = (height - 2 * margin) / chart.top
  const y = (value) => height - margin - value * scale
  const xs = moments.map((clock) => Math.min(Math.max(-9, xOf(clock)), width + 9))
  xs.push(Math.min(xOf(run.head.last + 1), width + 9))
  for (const [code, low, high] of layers) {
    context.fillStyle = `rgb(${colourOf(code)})`
    context.beginPath()
    moments.forEach((_, at) => {
      context.lineTo(xs[at], y(high[at]))
      context.lineTo(xs[at + 1], y(high[at]))
    })
    for (let at = moments.length - 1; at >= 0; at--) {
      context.lineTo(xs[at + 1], y(low[at]))
      context.lineTo(xs[at], y(low[at]))
    }
    context.fill()
  }
}

/** Return the clocks in view at which a curve of a chart takes another value. */
function momentsOf(chart, from, to) {
  const clocks = new Set()
  for (const curve of chart.curves) {
    const [first, end] = rowsInView(curve, from, to)
    for (let at = first; at < end; at++) clocks.add(curve.clocks[at])
  }
  return [...clocks].sort((one, other) => one - other)
}

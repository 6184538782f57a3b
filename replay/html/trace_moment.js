// One moment of a run in words: its maps, its steps, and what changed, in the text of `replay maps`, `steps` and `diff`.
"use strict"

const LOOK = { colour: 0, kind: 1, perms: 2, path: 3, origin: 4, owner: 5 }
const WIDTH = 80

const lookOf = (row, part) => run.head.looks[run.mapped.look[row]][LOOK[part]]

/** Return the mappings of a space once a clock's line had been printed, by address, not joined. */
function mappingsAt(space, clock) {
  const { mapped } = run
  const rows = []
  for (let row = 0; row < mapped.born.length && mapped.born[row] <= clock; row++)
    if (mapped.space[row] === space && mapped.died[row] > clock) rows.push(row)
  rows.sort((one, other) => mapped.start[one] - mapped.start[other])
  const heap = heapRange(space, clock, rows)
  return rows.map((row) => {
    const isInHeap = !mapped.offset[row] && mapped.start[row] < heap[1] && mapped.end[row] > heap[0]
    return {
      start: mapped.start[row],
      end: mapped.end[row],
      offset: Math.max(mapped.offset[row] - 1, 0),
      perms: lookOf(row, "perms"),
      path: lookOf(row, "path") || (isInHeap ? "[heap]" : ""),
      kind: lookOf(row, "kind"),
      made: mapped.made[row],
      row,
    }
  })
}

/** Return the pages of `[start_brk, brk)`. */
function heapRange(space, clock, rows) {
  const { mapped, head } = run
  const start = head.spaces[space].start_brk
  let low = start === null ? Infinity : Math.floor(start / head.unit)
  let high = Math.ceil(breakAt(space, stepAt(clock)) / head.unit)
  for (const row of rows)
    if (lookOf(row, "kind") === "brk") {
      low = Math.min(low, mapped.start[row])
      high = Math.max(high, mapped.end[row])
    }
  return low < high ? [low, high] : [0, 0]
}

/** Return the break of a space in bytes as the brk calls up to a place among the steps tell it, 0 for none. */
function breakAt(space, place) {
  const { brk, steps } = run
  for (let at = countUpTo(brk.step, place < 0 ? -1 : steps.step[place]) - 1; at >= 0; at--)
    if (brk.space[at] === space) return brk.at[at]
  return 0
}

/** Return mappings with those joined of which `goesOn` tells that the second goes on with the first. */
function joined(mappings, goesOn) {
  const found = []
  for (const mapping of mappings) {
    const held = found[found.length - 1]
    if (held && held.end === mapping.start && goesOn(held, mapping)) held.end = mapping.end
    else found.push({ ...mapping })
  }
  return found
}

/** Tell whether touching mappings are the same kind of memory, as lines of /proc/PID/maps show it. */
function isSame(low, high) {
  if (low.perms !== high.perms || low.path !== high.path) return false
  const isFile = low.path.startsWith("/") || low.offset || high.offset
  return !isFile || high.offset === low.offset + high.start - low.start
}

/** Return the address space at a clock as `replay maps` prints it. */
function mapsText(space, clock) {
  return joined(mappingsAt(space, clock), isSame)
    .map(({ start, end, perms, offset, path }) => {
      const [low, high] = [start, end].map((pages) => digits(pages).padStart(8, "0"))
      const head = `${low}-${high} ${perms} ${digits(offset).padStart(8, "0")} 00:00 0 `
      return (path ? head.padEnd(73) + path : head.trimEnd()) + "\n"
    })
    .join("")
}

// --- steps -----------------------------------------------------------------------------------------------------------

/** Return, by clock, the first row of a table that died then. */
function firstDead(table, clock) {
  table.byDeath ??= rowsByDeath(table)
  const { rows, died } = table.byDeath
  const at = countUpTo(died, clock, true)
  return died[at] === clock ? rows[at] : -1
}

function rowsByDeath(table) {
  const count = table.died.length, last = run.head.last + 1
  const keys = table.died.map((died, row) => Math.min(died, last) * count + row).sort()
  return { rows: keys.map((key) => key % count), died: keys.map((key) => Math.floor(key / count)) }
}

function firstBorn(table, clock) {
  const at = countUpTo(table.born, clock, true)
  return table.born[at] === clock ? at : -1
}

/** Return what a step did, in the words of `replay steps`: its template with the numbers put in. */
function wordsOf(place) {
  const { steps, mapped, block, head } = run
  run.kept ??= keptBefore()
  const clock = steps.clock[place], entry = steps.entry[place]
  const dead = (table) => (firstDead(table, entry) >= 0 ? firstDead(table, entry) : firstDead(table, clock))
  let next = run.kept[place]
  const numbers = [
    () => "0x" + steps.numbers[next++].toString(16),
    () => address(mapped.start[firstBorn(mapped, clock)]),
    () => address(mapped.end[firstBorn(mapped, clock)]),
    () => address(mapped.start[dead(mapped)]),
    () => address(mapped.end[dead(mapped)]),
    () => "0x" + block.addr[firstBorn(block, clock)].toString(16),
    () => grouped(block.size[firstBorn(block, clock)]),
    () => "0x" + block.addr[dead(block)].toString(16),
    () => grouped(block.size[dead(block)]),
    () => grouped(block.died[dead(block)] - block.born[dead(block)]),
  ]
  // eslint-disable-next-line no-control-regex
  return head.templates[steps.template[place]].replace(/[\x01-\x0a]/g, (slot) => numbers[slot.charCodeAt(0) - 1]())
}

/** Return how many numbers were kept for the steps before each. */
function keptBefore() {
  const slots = run.head.templates.map((text) => text.split("\x01").length - 1)
  const before = new Float64Array(run.steps.template.length + 1)
  for (let at = 0; at < before.length - 1; at++) before[at + 1] = before[at] + slots[run.steps.template[at]]
  return before
}

/** Return the lines of `replay steps --from --to` for the places `[first, last]` among the steps. */
function stepLines(first, last) {
  const { steps } = run
  if (last < first) return []
  const places = Array.from({ length: last - first + 1 }, (_, at) => first + at)
  const widest = (column, least) => Math.max(least, ...places.map((at) => String(column[at]).length))
  run.tellsPids ??= steps.pid.some((pid) => pid > 0)
  const widths = [String(steps.step[last]).length, widest(steps.line, 4), run.tellsPids ? widest(steps.pid, 3) : 0]
  const line = (step, at, pid, what) => {
    const who = run.tellsPids ? pid.padStart(widths[2]) + " " : ""
    return `${step.padStart(Math.max(4, widths[0]))} ${at.padStart(widths[1])} ${who}${what}`
  }
  const told = places.map((at) =>
    line(String(steps.step[at]), String(steps.line[at]), steps.pid[at] > 0 ? String(steps.pid[at]) : "", wordsOf(at)))
  return [line("step", "line", "pid", "what it did"), ...told]
}

// --- what changed ----------------------------------------------------------------------------------------------------

/** Return the mappings of a space, neighbours of one kind joined; the lowest part of each stands for all. */
function piecesAt(space, clock) {
  return joined(mappingsAt(space, clock), (low, high) => low.kind === high.kind && isSame(low, high))
}

/** Return the ranges in which two lists of mappings differ, each as long as it may be. */
function changesOf(before, after) {
  const borders = [...new Set([...before, ...after].flatMap((piece) => [piece.start, piece.end]))].sort((a, b) => a - b)
  const found = []
  let left = 0, right = 0
  for (let at = 0; at + 1 < borders.length; at++) {
    const start = borders[at], end = borders[at + 1]
    while (left < before.length && before[left].end <= start) left++
    while (right < after.length && after[right].end <= start) right++
    const old = before[left]?.start <= start ? before[left] : null
    const now = after[right]?.start <= start ? after[right] : null
    const what = whatChanged(old, now), held = found[found.length - 1]
    if (held && held.end === start && held.what === what && held.old === old && held.now === now) held.end = end
    else found.push({ what, start, end, old, now })
  }
  return found.filter((change) => change.what)
}

function whatChanged(old, now) {
  if (!old || !now) return now ? "new" : old ? "gone" : ""
  const isSameFile = !old.path.startsWith("/") || old.offset - old.start === now.offset - now.start
  return old.perms === now.perms && old.path === now.path && old.kind === now.kind && isSameFile ? "" : "changed"
}

/** Return what changed from one step to another, both as places, as `replay diff` prints it. */
function diffText(first, second, space) {
  const { steps, head } = run
  const earlier = head.spaces[space].born_step <= steps.step[first] ? space : steps.space[first]
  const [before, after] = [momentOf(first, earlier), momentOf(second, space)]
  const changes = changesOf(before.pieces, after.pieces)
  const told = (moment) => `step ${moment.step} (${moment.place})`
  const lines = [`${told(before)} to ${told(after)}`]
  if (earlier !== space) lines.push(`space ${earlier} before, space ${space} after: an execve or a fork lies between`)
  else if (head.spaces.length > 1) lines.push(`space ${space}`)
  lines.push("")
  if (!changes.length) lines.push("no mapping changed")
  const width = Math.max(0, ...changes.map((change) => digits(change.end).length))
  lines.push(...changes.map((change) => changeLine(change, width)), "", ...totals(before, after, changes))
  return lines.join("\n") + "\n"
}

function momentOf(place, space) {
  const { steps } = run
  const pieces = piecesAt(space, steps.clock[place])
  const line = `line ${steps.line[place]}` + (run.head.files.length > 1 ? ` of ${run.head.files[steps.file[place]]}` : "")
  return {
    step: steps.step[place],
    place: line,
    pieces,
    brk: breakAt(space, place),
    mapped: bytesIn(pieces.reduce((sum, piece) => sum + piece.end - piece.start, 0)),
  }
}

const SIGNS = { gone: "-", new: "+", changed: "~" }

function changeLine({ what, start, end, old, now }, width) {
  const piece = now || old
  const perms = old && now && old.perms !== now.perms ? `${old.perms} to ${now.perms}` : piece.perms
  const bytes = size(bytesIn(end - start)).padStart(9)
  const head = `${SIGNS[what]} ${digits(start).padStart(width, "0")}-${digits(end).padStart(width, "0")} ${bytes} ${perms} `
  const tail = what === "new" && placeOf(now.made) ? ` (${placeOf(now.made)})` : ""
  return head + shortened(nameOfChange(old, now), Math.max(WIDTH - head.length - tail.length, 8)) + tail
}

const baseName = (path) => (path.startsWith("/") ? path.replace(/\/+$/, "").split("/").pop() : path)

function nameOfChange(old, now) {
  const [before, after] = [old, now].map((piece) => (piece ? baseName(piece.path) || piece.kind : ""))
  return before && after && before !== after ? `${before} to ${after}` : after || before
}

function totals(before, after, changes) {
  const lines = []
  if (before.brk || after.brk) {
    const [old, now] = [before.brk, after.brk].map((brk) => (brk ? "0x" + brk.toString(16) : "unknown"))
    const moved = after.brk === before.brk ? ": not moved" : `: ${signed(after.brk - before.brk)}`
    lines.push(`break     ${old} to ${now}${before.brk && after.brk ? moved : ""}`)
  }
  lines.push(`mapped    ${size(before.mapped)} to ${size(after.mapped)}: ${signed(after.mapped - before.mapped)}`)
  lines.push(`mappings  ${grouped(before.pieces.length)} to ${grouped(after.pieces.length)}`)
  const parts = Object.keys(SIGNS).flatMap((what) => {
    const mine = changes.filter((change) => change.what === what)
    const bytes = bytesIn(mine.reduce((sum, change) => sum + change.end - change.start, 0))
    return mine.length ? [`${counted(mine.length, "range")} ${what} (${size(bytes)})`] : []
  })
  return [...lines, `changes   ${parts.join(", ") || "none"}`]
}

const signed = (count) => (count ? `${exact(Math.abs(count))} ${count > 0 ? "more" : "less"}` : "no change")

const WIDE = /[\u1100-\u115f\u2e80-\u303e\u3041-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6]|[\u{1f300}-\u{1faff}]/u
const cellsOf = (char) => (WIDE.test(char) ? 2 : /\p{M}/u.test(char) ? 0 : 1)

/** Return a text cut in its middle, if need be, to fit into so many columns. */
function shortened(text, width) {
  const chars = [...text]
  if (chars.reduce((sum, char) => sum + cellsOf(char), 0) <= width) return text
  const tail = fitting(chars.slice().reverse(), Math.floor(((width - 1) * 2) / 3))
  const head = fitting(chars, width - 1 - tail.reduce((sum, char) => sum + cellsOf(char), 0))
  return head.join("") + "…" + tail.reverse().join("")
}

function fitting(chars, width) {
  const taken = []
  for (const char of chars) {
    width -= cellsOf(char)
    if (width < 0) break
    taken.push(char)
  }
  return taken
}

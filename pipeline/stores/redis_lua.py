"""What a RedisLog asks of its server: Lua scripts, each one whole or not at all.

`KEYS` are a run's meta hash and its stream, in one hash slot (those of several runs where
there are no slots). Meta holds `fence`, `until`
(the lease's end, milliseconds of the server's clock), `lines` (how many the run has),
`total` and `freed` (bytes appended, and trimmed), `closed`, and under `e:...` the line of
each event id. An entry of the stream is a chunk; its id is the number of its *last*
line, so the entries from id N+1 on are those with lines after N. `n` is its count of
lines, `b` the `total` before it, `d` its data, `e` its event id.

The flags need Redis 7 or Valkey: `allow-oom` lets trim, which frees memory, and the
leases work on a server that is full; without it a full server refuses a script before it
has done anything (https://redis.io/docs/latest/develop/programmability/eval-intro/).
"""

from __future__ import annotations

from hashlib import sha1
from typing import Final


class Script:
    """A script's text, and the name under which the server keeps it."""

    __slots__ = ("sha", "text")

    def __init__(self, text: str) -> None:
        """Name it as the server does."""
        self.text: Final = text.encode()
        self.sha: Final = sha1(self.text, usedforsecurity=False).hexdigest().encode()


_NOW: Final = """
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local function int(number) return string.format('%.0f', number) end
"""

_FIRST: Final = """
local function value(entry, name)
  for i = 1, #entry[2], 2 do
    if entry[2][i] == name then return entry[2][i + 1] end
  end
  return false
end
local function last(entry) return tonumber(string.match(entry[1], '^%d+')) end
"""

BEGIN: Final = Script(
    "#!lua flags=allow-oom"
    + _NOW
    + _FIRST
    + """
-- ARGV: fence, lease_ms, lines, ttl_ms, channel
local meta = redis.call('HMGET', KEYS[1], 'fence', 'lines', 'closed')
local fence, lines = tonumber(ARGV[1]), tonumber(ARGV[3])
local before = tonumber(meta[1] or 0)
local has = tonumber(meta[2] or 0)
if before > fence then return -1 end
-- A run that had ended is the store's as a whole, which may have let go of it since.
local ended = meta[3] and before < fence and has <= lines
local anew = not meta[1] or ended
if has < lines then
  has, anew = lines, true
elseif before < fence and has > lines then
  -- Entries that the store has not must all be here; else go on from what it has.
  local entry = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 1)[1]
  if not entry or last(entry) - tonumber(value(entry, 'n')) > lines then
    has, anew = lines, true
  end
end
if anew then
  local held = redis.call('HGETALL', KEYS[1])
  for i = 1, #held, 2 do
    local event = string.sub(held[i], 1, 2) == 'e:'
    if event and (ended or tonumber(held[i + 1]) > has) then
      redis.call('HDEL', KEYS[1], held[i])
    end
  end
  redis.call('UNLINK', KEYS[2])
  redis.call('HSET', KEYS[1], 'lines', int(has), 'total', '0', 'freed', '0')
end
redis.call('HSET', KEYS[1], 'fence', ARGV[1], 'until', int(now + tonumber(ARGV[2])))
if before < fence then redis.call('HDEL', KEYS[1], 'closed') end
redis.call('PEXPIRE', KEYS[1], ARGV[4])
redis.call('PEXPIRE', KEYS[2], ARGV[4])
redis.call('PUBLISH', ARGV[5], int(has))
return has
"""
)
"""Returns how many lines the run has, -1 where a higher fence has begun."""

RENEW: Final = Script(
    "#!lua flags=allow-oom"
    + _NOW
    + """
-- ARGV: fence, lease_ms, ttl_ms
local meta = redis.call('HMGET', KEYS[1], 'fence', 'until', 'closed')
if meta[1] ~= ARGV[1] or meta[3] or tonumber(meta[2]) <= now then return 0 end
redis.call('HSET', KEYS[1], 'until', int(now + tonumber(ARGV[2])))
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('PEXPIRE', KEYS[2], ARGV[3])
return 1
"""
)

APPEND: Final = Script(
    "#!lua"
    + _NOW
    + """
-- KEYS: of each run its meta and its log
-- ARGV: 'check' or 'write', max_bytes, then of each run: channel, fence and end of what
-- was acknowledged before, how many chunks, and of each: fence, first, count, event, data
local count_runs, max_bytes = #KEYS / 2, tonumber(ARGV[2])
local runs, answers, at = {}, {}, 3

local function seen(r)
  local key = KEYS[2 * r - 1]
  local meta = redis.call(
    'HMGET', key, 'fence', 'until', 'closed', 'lines', 'total', 'freed'
  )
  local total = tonumber(meta[5] or 0)
  local run = {
    meta = key, log = KEYS[2 * r], channel = ARGV[at], size = 0, writes = {}, known = {},
    ends = tonumber(meta[4] or 0), total = total, held = total - tonumber(meta[6] or 0),
  }
  local live = meta[1] and not meta[3] and tonumber(meta[2]) > now
  if live and ARGV[at + 1] == meta[1] and tonumber(ARGV[at + 2]) > run.ends then
    redis.call('HSET', key, 'until', '0')
    live = false
  end
  local chunks, answer = tonumber(ARGV[at + 3]), {}
  at = at + 4
  for k = 0, chunks - 1 do
    local line, new = 0, 0
    if live and ARGV[at] == meta[1] then
      local first, count = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
      local event = ARGV[at + 3]
      if event ~= '' then
        local there = run.known[event] or redis.call('HGET', key, event)
        if there then
          line = tonumber(there)
        else
          line, new = run.ends + 1, 1
          run.known[event] = line
        end
      elseif first < 1 or count < 1 or first > run.ends + 1
          or (first <= run.ends and first + count - 1 > run.ends) then
        return nil, {-1, k, run.ends}
      else
        line = first
        if first > run.ends then new = 1 end
      end
      if new == 1 then
        run.ends, run.size = run.ends + count, run.size + #ARGV[at + 4]
        run.writes[#run.writes + 1] = {at, run.ends}
      end
    end
    answer[2 * k + 1], answer[2 * k + 2] = line, new
    at = at + 5
  end
  return run, answer
end

local function write(run)
  local left = redis.call('PTTL', run.log)
  for _, one in ipairs(run.writes) do
    local i, id = one[1], int(one[2]) .. '-0'
    local event, data = ARGV[i + 3], ARGV[i + 4]
    local fields = {'n', ARGV[i + 2], 'b', int(run.total), 'd', data}
    if event ~= '' then
      fields[7], fields[8] = 'e', event
      redis.call('HSET', run.meta, event, int(run.known[event]))
    end
    redis.call('XADD', run.log, id, unpack(fields))
    run.total = run.total + #data
  end
  redis.call('HSET', run.meta, 'lines', int(run.ends), 'total', int(run.total))
  if left < 0 then
    left = redis.call('PTTL', run.meta)
    if left > 0 then redis.call('PEXPIRE', run.log, left) end
  end
  redis.call('PUBLISH', run.channel, int(run.ends))
end

for r = 1, count_runs do
  local run, answer = seen(r)
  if not run then
    for k = 1, count_runs do answers[k] = {} end
    answers[r] = answer
    return answers
  end
  runs[r], answers[r] = run, answer
end
if ARGV[1] == 'check' then return answers end
for r, run in ipairs(runs) do
  if #run.writes > 0 then
    if run.held > 0 and run.held + run.size > max_bytes then
      answers[r] = {-2, run.held, run.size}
    else
      write(run)
    end
  end
end
return answers
"""
)
"""Returns of each run two numbers a chunk: its line, 0 where it may not be written; whether
it is new.

Or of one run -1, the index of a chunk that does not fit, the log's end: nothing was
written then, of no run. Or -2, the bytes held, the bytes that there is no room for:
nothing of that run was written. A server that came back with less than it had
acknowledged ends the lease: another line must not get a number that readers have seen.
"""

READ: Final = Script(
    "#!lua flags=no-writes"
    + _FIRST
    + """
-- ARGV: after, limit_bytes
local meta = redis.call('HMGET', KEYS[1], 'lines', 'total', 'freed')
if not meta[1] then return false end
local lines, after, room = tonumber(meta[1]), tonumber(ARGV[1]), tonumber(ARGV[2])
local page = {lines}
if after >= lines then return page end
local mean = (tonumber(meta[2]) - tonumber(meta[3])) / (redis.call('XLEN', KEYS[2]) + 1)
local step = math.max(1, math.min(256, math.floor(room / (mean + 1)) + 1))
local next_line = after + 1
while next_line <= lines do
  local from = string.format('%.0f-0', next_line)
  local entries = redis.call('XRANGE', KEYS[2], from, '+', 'COUNT', step)
  if #entries == 0 then break end
  for _, entry in ipairs(entries) do
    local count, data = tonumber(value(entry, 'n')), value(entry, 'd')
    local first = last(entry) - count + 1
    if first > next_line then
      if #page == 1 then return false end
      return page
    end
    if #page > 1 and #data > room then return page end
    page[#page + 1] = {first, count, data, value(entry, 'e')}
    room, next_line = room - #data, first + count
  end
end
if #page == 1 then return false end
return page
"""
)
"""Returns the number of lines, then chunks; nothing where the lines are not here."""

LOOK: Final = Script(
    """#!lua flags=no-writes
local meta = redis.call('HMGET', KEYS[1], 'lines', 'closed')
if not meta[1] then return false end
return {tonumber(meta[1]), meta[2] and 1 or 0}
"""
)

TRIM: Final = Script(
    "#!lua flags=allow-oom"
    + _FIRST
    + """
-- ARGV: the first line to keep
local total = redis.call('HGET', KEYS[1], 'total')
if not total then return 0 end
local gone = redis.call('XTRIM', KEYS[2], 'MINID', '=', ARGV[1] .. '-0')
if gone > 0 then
  local entry = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 1)[1]
  redis.call('HSET', KEYS[1], 'freed', entry and value(entry, 'b') or total)
end
return gone
"""
)

FINISH: Final = Script(
    """#!lua flags=allow-oom
-- ARGV: fence, linger_ms, channel
if redis.call('HGET', KEYS[1], 'fence') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'closed', '1')
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('PEXPIRE', KEYS[2], ARGV[2])
redis.call('PUBLISH', ARGV[3], 'closed')
return 1
"""
)

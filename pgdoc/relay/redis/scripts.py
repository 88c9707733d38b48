"""The scripts of a log. A script runs whole, between two commands of others.

The hash of the log has the fields `config`, `identity`, `sequence` (of the last entry), `first` (of the oldest one that
was not trimmed), `token` and `part` of the last entry, `writer` (which opened the log last), and `last:<stream>`, the
sequence of the last entry of each stream. The entry with sequence 17 has the id `17-0`, so Redis itself refuses a
second one.
"""

from __future__ import annotations

from typing import Final

__all__ = ["APPEND", "ARGUMENTS", "CREATE", "DELETE", "HEAD", "OLDEST", "REPAIR", "TOKEN", "WRITE"]

_NAMES: Final = """
local function field(index)
  return index == 3 and 'last:all' or 'last:' .. (index - 4)
end
"""

CREATE: Final = b"""
if redis.call('HEXISTS', KEYS[1], 'config') == 1 then return 'found' end
for _, key in ipairs(KEYS) do
  if redis.call('EXISTS', key) == 1 then return key end
end
redis.call('HSET', KEYS[1], 'config', ARGV[1], 'identity', ARGV[2], 'sequence', '0', 'first', '1')
return 'made'
"""
"""Make the log, unless a key of it exists; return `made`, `found`, or the key."""

REPAIR: Final = f"""{_NAMES}
local sequence = tonumber(redis.call('HGET', KEYS[1], 'sequence'))
local after = string.format('%.0f-0', sequence)
local last, count, token, part = sequence, 0, nil, nil
local found = {{}}
for index = 3, #KEYS do
  local answer = redis.call('XREAD', 'COUNT', 1000, 'STREAMS', KEYS[index], after)
  for _, entry in ipairs(answer and answer[1][2] or {{}}) do
    local number, values = tonumber(string.match(entry[1], '^(%d+)-0$')), {{}}
    for k = 1, #entry[2], 2 do values[entry[2][k]] = entry[2][k + 1] end
    if not number or not values.token then return {{'foreign', KEYS[index]}} end
    count = count + 1
    found[index] = string.format('%.0f', number)
    if number > last then last, token, part = number, values.token, values.part or '' end
  end
end
if count ~= last - sequence then return {{'foreign', KEYS[3]}} end
if token then
  redis.call('HSET', KEYS[1], 'sequence', string.format('%.0f', last), 'token', token, 'part', part)
  for index, number in pairs(found) do redis.call('HSET', KEYS[1], field(index), number) end
end
redis.call('HSET', KEYS[1], 'writer', ARGV[1], 'opened_at', redis.call('TIME')[1])
return redis.call('HMGET', KEYS[1], 'identity', 'sequence', 'token', 'part')
""".encode()
"""Take up what a script that failed midway left behind its position, note the writer, and return where the log ends."""

HEAD: Final = 5
"""How many arguments `APPEND` has before its messages: identity, trimming by length and by age, the sequence before
them, and the writer that must have opened the log last, or nothing."""

ARGUMENTS: Final = 7
"""How many it has for each: the index of the stream's key, token, collection, type, body, part, trace context."""

APPEND: Final = f"""{_NAMES}
local log = redis.call('HMGET', KEYS[1], 'identity', 'sequence', 'first', 'writer')
if log[1] ~= ARGV[1] then return {{'gone', 0}} end
if log[2] ~= ARGV[4] then return {{'behind', tonumber(log[2])}} end
if ARGV[5] ~= '' and log[4] ~= ARGV[5] then return {{'former', 0}} end
local sequence, last = tonumber(ARGV[4]), {{}}
for at = {HEAD + 1}, #ARGV, {ARGUMENTS} do
  sequence = sequence + 1
  local index, text = tonumber(ARGV[at]), string.format('%.0f', sequence)
  local key, previous = KEYS[index], last[index] or redis.call('HGET', KEYS[1], field(index)) or '0'
  local part, trace = ARGV[at + 5], ARGV[at + 6]
  if part == '' and trace == '' then
    redis.call('XADD', key, text .. '-0', 'previous', previous, 'token', ARGV[at + 1], 'collection', ARGV[at + 2],
      'type', ARGV[at + 3], 'body', ARGV[at + 4])
  else
    redis.call('XADD', key, text .. '-0', 'previous', previous, 'token', ARGV[at + 1], 'collection', ARGV[at + 2],
      'type', ARGV[at + 3], 'body', ARGV[at + 4], 'part', part, 'traceparent', trace)
  end
  last[index] = text
end
local at = #ARGV - {ARGUMENTS} + 1
redis.call('HSET', KEYS[1], 'sequence', string.format('%.0f', sequence), 'token', ARGV[at + 1], 'part', ARGV[at + 5])
for index, text in pairs(last) do redis.call('HSET', KEYS[1], field(index), text) end

local most, age, first = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(log[3])
local bound = first
if most > 0 and sequence - most - first >= most / 100 then bound = sequence - most + 1 end
if age > 0 then
  local now = tonumber(redis.call('TIME')[1])
  local newest = redis.call('LINDEX', KEYS[2], -1)
  while newest and tonumber(string.match(newest, '^%d+')) > now do
    redis.call('RPOP', KEYS[2])
    newest = redis.call('LINDEX', KEYS[2], -1)
  end
  if not newest or now - tonumber(string.match(newest, '^%d+')) >= age / 100 then
    redis.call('RPUSH', KEYS[2], string.format('%.0f:%.0f', now, sequence))
  end
  while true do
    local oldest = redis.call('LINDEX', KEYS[2], 0)
    if not oldest or tonumber(string.match(oldest, '^%d+')) > now - age then break end
    redis.call('LPOP', KEYS[2])
    bound = math.max(bound, tonumber(string.match(oldest, '%d+$')) + 1)
  end
end
if bound > first then
  for index = 3, #KEYS do redis.call('XTRIM', KEYS[index], 'MINID', string.format('%.0f-0', bound)) end
  redis.call('HSET', KEYS[1], 'first', string.format('%.0f', bound))
end
return {{'ok', sequence}}
""".encode()
"""Append the messages if the log is this one and ends with the sequence; then trim.

Times beyond now are those of a clock that was ahead: they would keep the log from forgetting anything until then.
"""

TOKEN: Final = b"""
for index = 3, #KEYS do
  local found = redis.call('XRANGE', KEYS[index], ARGV[1], ARGV[1])
  if found[1] then
    for at = 1, #found[1][2], 2 do
      if found[1][2][at] == 'token' then return found[1][2][at + 1] end
    end
  end
end
return false
"""
"""Return the token of an entry, without its body."""

OLDEST: Final = b"""
local oldest = false
for index = 3, #KEYS do
  local found = redis.call('XRANGE', KEYS[index], '-', '+', 'COUNT', 1)
  local number = found[1] and tonumber(string.match(found[1][1], '^%d+'))
  if number and (not oldest or number < oldest) then oldest = number end
end
return oldest
"""
"""Return the sequence of the oldest entry, without its body."""

WRITE: Final = b"""
local found = redis.call('HGET', KEYS[1], ARGV[1])
local revision = found and string.match(found, '^([1-9]%d*):') or '0'
if revision ~= ARGV[2] then return 0 end
local made = redis.call('HINCRBY', KEYS[1], ':revision', 1)
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f', made) .. ':' .. ARGV[3])
return made
"""
"""Write a record of this revision. Revisions count all writes, so that one that was made anew has another."""

DELETE: Final = b"""
local found = redis.call('HGET', KEYS[1], ARGV[1])
if not found or (string.match(found, '^([1-9]%d*):') or '0') ~= ARGV[2] then return 0 end
redis.call('HINCRBY', KEYS[1], ':revision', 1)
return redis.call('HDEL', KEYS[1], ARGV[1])
"""
"""Delete a record of this revision; one that somebody else has written has the revision 0."""

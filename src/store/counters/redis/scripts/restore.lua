-- Adds what a node granted while nobody else could know. KEYS: one. ARGV: the node, the number of what it tells of this key (each larger than the one before), how long it
-- lives (ms), then of each window and bucket kind (w, b), unit (seconds), how long ago (slots; microseconds), count (of a bucket: level).
-- What is sent twice is added once.
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local key = KEYS[1]
local LIFE = 253

local function text(value) return string.format('%.0f', value) end

-- Drops what counts no more, by the fields that there are: those who take walk from the oldest slot to the newest, which must not lie far apart.
local function sweep(name, dead)
  local fields = redis.call('HGETALL', key)
  local used, oldest, newest = 0, -1, -1
  for place = 1, #fields, 2 do
    local slot = tonumber(string.match(fields[place], '^' .. name .. ':(%d+)$'))
    if slot then
      if slot <= dead then
        redis.call('HDEL', key, fields[place])
      else
        used = used + tonumber(fields[place + 1])
        oldest = oldest < 0 and slot or math.min(oldest, slot)
        newest = math.max(newest, slot)
      end
    end
  end
  return { used = used, oldest = oldest, newest = newest }
end

local told_by = 'r' .. ARGV[1]
local told = redis.call('HGET', key, told_by)
if tonumber(string.match(told or '0', '^%d+')) >= tonumber(ARGV[2]) then return 0 end
redis.call('HSET', key, told_by, ARGV[2] .. ' ' .. text(now))
if not told then
  -- Each start of a node has a name of its own. What was told a day ago counts no more, and nobody sends it again.
  local fields = redis.call('HGETALL', key)
  for place = 1, #fields, 2 do
    local at = string.sub(fields[place], 1, 1) == 'r' and string.match(fields[place + 1], ' (%d+)$')
    if at and tonumber(at) < now - 90000000000 then redis.call('HDEL', key, fields[place]) end
  end
end
local lives, had = tonumber(ARGV[3]), redis.call('PTTL', key)
local ends = math.max(lives, had)
local windows = {}
for argument = 4, #ARGV, 4 do
  local name, ago, count = ARGV[argument + 1], tonumber(ARGV[argument + 2]), tonumber(ARGV[argument + 3])
  if ARGV[argument] == 'w' then
    local at = math.floor(now / (tonumber(name) * 4000))
    local window = windows[name] or sweep(name, at - LIFE)
    windows[name] = window
    if ago < LIFE then
      local slot = at - ago
      redis.call('HINCRBY', key, name .. ':' .. text(slot), text(count))
      window.used = window.used + count
      window.oldest = window.oldest < 0 and slot or math.min(window.oldest, slot)
      window.newest = math.max(window.newest, slot)
    end
  else
    -- Nothing runs out of the one while the other was poured into: a bit stricter.
    local held = redis.call('HMGET', key, name .. 't', name .. 'l')
    local since = math.max(tonumber(held[1] or '0'), now - ago)
    redis.call('HSET', key, name .. 't', text(since), name .. 'l', text(tonumber(held[2] or '0') + count))
    -- One runs out after the other.
    ends = lives + math.max(had, 0)
  end
end
for name, window in pairs(windows) do
  redis.call('HSET', key, name .. 's', text(window.used), name .. 'o', text(window.oldest), name .. 'n', text(window.newest))
end
if ends > had then redis.call('PEXPIRE', key, text(ends)) end
return 0
